"""One statement on its way through the server: what was decided about it and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from classifier.model import Classification, Environment
from pgproxy.session.large import ValueDigest

if TYPE_CHECKING:
    from pgproxy.session.budget import Allowance
    from pgproxy.session.units import Unit

_MAX_TAGS = 16  # a string of a million statements must not fill the trail with command tags


@dataclass(eq=False, slots=True)
class StatementRun:
    """A statement that was sent (or refused). Times are seconds since the epoch, as the shell gives them."""

    statement_id: str
    classification: Classification
    started_at: float
    approval_id: str | None = None
    decision: str = "allowed"
    reviewers: tuple[str, ...] = ()
    rows: int | None = None
    data_bytes: int = 0
    tags: list[str] = field(default_factory=list)
    more_tags: int = 0
    sqlstate: str | None = None
    skipped: bool = False
    refused: bool = False  # a substitute went in its place
    covered: bool = False  # by its connection's approval, which does not end with it
    portal_open: bool = False
    executed: bool = False  # the server was told to run it, which a Bind alone does not
    completed: bool = False  # and said that it has, to the Execute sent last
    finished_at: float | None = None
    reported: bool = False
    # of a statement that makes names, kept for whoever is asked about one of them later, or that executes some
    sql: bytes = b""
    conforming: bool = True  # standard_conforming_strings when it was read
    # What the names that its SQL EXECUTEs were when it was judged. The server looks them up when the portal runs.
    stood_for: dict[bytes, tuple[object, ...]] = field(default_factory=dict)
    environment: Environment | None = None  # in which those were judged
    digest: ValueDigest | None = None  # of a Bind that passed without being kept
    allowance: Allowance | None = None  # of its rows; while it may send more
    cursors: Unit | None = None  # of a DECLARE or CLOSE: what names them
    claimed: list[str] = field(default_factory=list)  # approvals it has spent, which are to be told how it ended
    stopped_rows: int | None = None  # that had passed when it was refused the rest
    unrecorded_sql: bytes | None = None  # a Parse, which enters the trail only if it fails

    def add_tag(self, tag: str) -> None:
        """One CommandComplete; its last word, where it is a number, counts rows."""
        if len(self.tags) < _MAX_TAGS:
            self.tags.append(tag)
        else:
            self.more_tags += 1
        last = tag.rpartition(" ")[2]
        if last.isdigit():
            self.rows = (self.rows or 0) + int(last)

    @property
    def command_tag(self) -> str | None:
        if not self.tags:
            return None
        joined = "; ".join(self.tags)
        return f"{joined}; and {self.more_tags} more" if self.more_tags else joined
