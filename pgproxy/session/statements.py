"""The name spaces of a session: prepared statements and portals, as the server keeps them.

Protocol-level Parse and SQL PREPARE share one name space; names are cut at 63 bytes by the server, and statements
survive ROLLBACK ("PREPARE", "Extended Query"). What is not known for certain is kept as several candidates, and all
of them count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from classifier.model import Classification
from pgproxy.protocol.frontend import NAME_BYTES
from pgproxy.session.runs import StatementRun


def sql_name(name: str) -> bytes:
    """The key of a name that stood in SQL."""
    return name.encode("utf-8", "replace")[:NAME_BYTES]


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """A named text. `classification` is set for SQL PREPARE alone, whose inner statement has no text of its own;
    `parameter_types` are the OIDs the client gave (0 or missing: the server infers them). `conforming`: with
    standard_conforming_strings on, for the server reads a text once, when it comes, and keeps the tree."""

    sql: bytes
    parameter_types: tuple[int, ...] = ()
    classification: Classification | None = None
    conforming: bool = True


@dataclass(eq=False, slots=True)
class PendingParse:
    """A Parse on its way: it holds once ParseComplete says so. `segment` counts the Syncs before it: within one
    segment a failure skips everything behind, so the newest Parse of a name is certain there and nowhere else."""

    name: bytes
    statement: PreparedStatement
    segment: int


@dataclass(eq=False, slots=True)
class PendingBind:
    """A Bind on its way. Until BindComplete the portal's name means what it meant before: a Bind can fail because
    the portal exists, and that portal may outlive the failure behind a savepoint."""

    portal: bytes
    run: StatementRun
    segment: int


@dataclass(slots=True)
class Statements:
    """Prepared statements and portals of one session."""

    _known: dict[bytes, tuple[PreparedStatement, ...]] = field(default_factory=dict)
    _pending: list[PendingParse] = field(default_factory=list)
    _described: dict[bytes, tuple[int, ...]] = field(default_factory=dict)
    portals: dict[bytes, StatementRun] = field(default_factory=dict)
    _pending_binds: list[PendingBind] = field(default_factory=list)

    def parse_sent(self, name: bytes, statement: PreparedStatement, segment: int) -> PendingParse:
        pending = PendingParse(name, statement, segment)
        self._pending.append(pending)
        return pending

    def parse_completed(self, pending: PendingParse) -> None:
        self._pending.remove(pending)
        self._known[pending.name] = (pending.statement,)
        self._described.pop(pending.name, None)

    def parse_failed(self, pending: PendingParse) -> None:
        """Failed or skipped: the name means what it meant before (an unnamed statement may be gone: keeping its
        verdict is the safe side)."""
        self._pending.remove(pending)

    def is_settled(self, name: bytes, segment: int) -> bool:
        """Whether `candidates` is certain now, without awaiting replies."""
        return not any(p.name == name and p.segment != segment for p in self._pending)

    def candidates(self, name: bytes) -> tuple[PreparedStatement, ...]:
        """What the name may stand for: empty when this session never made it."""
        for pending in reversed(self._pending):
            if pending.name == name:
                return (pending.statement,)
        return self._known.get(name, ())

    def bind_sent(self, portal: bytes, run: StatementRun, segment: int) -> PendingBind:
        pending = PendingBind(portal, run, segment)
        self._pending_binds.append(pending)
        return pending

    def bind_completed(self, pending: PendingBind) -> StatementRun | None:
        """Gives the run whose portal was replaced (the unnamed one), if it was still open."""
        self._pending_binds.remove(pending)
        before = self.portals.get(pending.portal)
        pending.run.portal_open = True
        self.portals[pending.portal] = pending.run
        if before is None or not before.portal_open:
            return None
        before.portal_open = False
        return before

    def bind_failed(self, pending: PendingBind) -> None:
        self._pending_binds.remove(pending)

    def portal_is_settled(self, name: bytes, segment: int) -> bool:
        """Whether `portal` is certain now, without awaiting replies."""
        return not any(p.portal == name and p.segment != segment for p in self._pending_binds)

    def portal(self, name: bytes) -> StatementRun | None:
        """What an Execute of this name runs; None when this session did not bind it."""
        for pending in reversed(self._pending_binds):
            if pending.portal == name:
                return pending.run
        return self.portals.get(name)

    def prepared(self, name: bytes, statement: PreparedStatement, *, certain: bool) -> None:
        """SQL PREPARE ran, or (not certain) may have run in a string of statements that failed."""
        before = () if certain else self._known.get(name, ())
        self._known[name] = (*before, statement)

    def described(self, name: bytes, parameter_types: tuple[int, ...]) -> None:
        """ParameterDescription: what the server took the parameters for. Shown to reviewers, never decided by."""
        self._described[name] = parameter_types

    def parameter_types(self, name: bytes, statement: PreparedStatement) -> tuple[int, ...]:
        """The best knowledge of the parameters' types."""
        given = statement.parameter_types
        inferred = self._described.get(name, ())
        if len(inferred) < len(given) or any(p.name == name for p in self._pending):
            return given
        return inferred

    def forget(self, name: bytes) -> None:
        """CloseComplete or DEALLOCATE."""
        self._known.pop(name, None)
        self._described.pop(name, None)

    def forget_all(self) -> None:
        """DEALLOCATE ALL, DISCARD ALL."""
        self._known.clear()
        self._described.clear()
