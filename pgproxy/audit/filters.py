"""What a search of the trail may ask for: values checked, cursors read and made, conditions with parameters.

Values come from people through HTTP. Each is refused with a sentence that names the filter; nothing is ever
made part of the query's text.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from classifier.model import ActionClass
from pgproxy.records import Decision, Kind

LIMIT_MOST = 1000
TEXT_MOST = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BIGINT_MOST = 2**63 - 1
# The `+` of an offset that was not percent-encoded in a query string.
_LOST_PLUS = re.compile(r"(T[0-9:.]+) (\d\d:?\d\d)$")
_LIKE_SPECIAL = re.compile(r"[\\%_]")

# Kept equal to the predicate of the index entries_classes, which the planner compares as text ("Partial
# Indexes").
_COMMON_CLASSES = frozenset({"read", "write", "transaction"})
_IN_CLASSES_INDEX = "NOT e.classes <@ ARRAY['read', 'write', 'transaction']"

# A statement is also blocked when one of its outcomes says so (pgproxy.audit.writer).
_TAKEN_BACK = """EXISTS (SELECT FROM audit.entries m WHERE m.kind = 'outcome' AND m.decision = 'blocked'
                         AND m.statement_id = e.statement_id)"""
_ALL_TAKEN_BACK = """ARRAY(SELECT m.statement_id FROM audit.entries m
                           WHERE m.kind = 'outcome' AND m.decision = 'blocked')"""


@dataclass(slots=True)
class Conditions:
    """SQL conditions over `audit.entries e`, and their parameters."""

    terms: list[str] = field(default_factory=list)
    parameters: list[Any] = field(default_factory=list)

    def add(self, term: str, *values: Any) -> None:
        """`term` has a `{}` for the place of each value."""
        places = []
        for value in values:
            self.parameters.append(value)
            places.append(f"${len(self.parameters)}")
        self.terms.append(term.format(*places))


def conditions(
    *,
    since: datetime | str | None,
    until: datetime | str | None,
    agent: str | None,
    class_: str | None,
    decision: str | None,
    q: str | None,
    cursor: str | None,
    kind: str | None,
    session_id: str | None,
    statement_id: str | None,
) -> Conditions:
    """Raises ValueError for a value that cannot be meant."""
    found = Conditions()
    if since is not None:
        found.add("e.time >= {}", _time("since", since))
    if until is not None:
        found.add("e.time < {}", _time("until", until))
    for name, value in (("agent", agent), ("session_id", session_id), ("statement_id", statement_id)):
        if value is not None:
            found.add(f"e.{name} = {{}}", _text(name, value))
    if kind is not None:
        found.add("e.kind = {}", _one_of("kind", kind, [each.value for each in Kind]))
    if class_ is not None:
        _one_of("class", class_, [each.value for each in ActionClass])
        found.add("e.classes @> ARRAY[{}::text]", class_)
        if class_ not in _COMMON_CLASSES:
            found.add(_IN_CLASSES_INDEX)
    if decision is not None:
        _one_of("decision", decision, [each.value for each in Decision])
        if decision == Decision.BLOCKED:
            found.add(f"(e.decision = {{}} OR e.statement_id = ANY ({_ALL_TAKEN_BACK}))", decision)
        else:
            found.add(f"e.decision = {{}} AND NOT {_TAKEN_BACK}", decision)
    if q is not None and q != "":
        pattern = "%" + _LIKE_SPECIAL.sub(r"\\\g<0>", _text("q", q)) + "%"
        columns = ("sql", "body->>'reason'", "body->>'ticket'", "body->>'approval_id'")
        found.add("(" + " OR ".join(f"e.{column} ILIKE {{0}}" for column in columns) + ")", pattern)
    if cursor is not None:
        found.add("(e.time, e.seq) < ({}, {})", *read_cursor(cursor))
    return found


def checked_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_MOST:
        raise ValueError(f"limit: from 1 to {LIMIT_MOST}, not {limit}")
    return limit


def make_cursor(time: datetime, seq: int) -> str:
    """Names the entry after which the next page begins; opaque to those who pass it on."""
    place = f"{(time - _EPOCH) // timedelta(microseconds=1)}.{seq}"
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, int]:
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        microseconds, seq = (int(part) for part in decoded.decode("ascii").split("."))
        if not 0 <= seq <= _BIGINT_MOST:
            raise ValueError
        return _EPOCH + timedelta(microseconds=microseconds), seq
    except (ValueError, binascii.Error, OverflowError):
        raise ValueError("cursor: not one that an earlier answer gave as `next`") from None


def _time(name: str, value: datetime | str) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", value))
        except ValueError:
            raise ValueError(f"{name}: not an RFC 3339 time such as 2026-03-01T12:00:00Z") from None
    if value.tzinfo is None:
        raise ValueError(f"{name}: needs a time zone, as in 2026-03-01T12:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name}: out of range") from None


def _text(name: str, value: str) -> str:
    if len(value) > TEXT_MOST:
        raise ValueError(f"{name}: longer than {TEXT_MOST} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: not valid Unicode") from None
    if "\x00" in value:
        raise ValueError(f"{name}: must not hold a NUL")
    return value


def _one_of(name: str, value: str, allowed: list[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: one of {', '.join(allowed)}")
    return value
