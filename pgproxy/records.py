"""Builders of audit entries: what happened, as the plain dictionary every reader of the trail gets.

One function a kind, so that an entry can only be made with the facts that belong to it, and every entry has
every field of the public contract (absent facts are null). The principal is written on each entry, also on
outcomes: an auditor's filter must not need a join to know whose it was. The statement's text is not repeated
on its outcomes.

`prev_hash` and `hash` stay null until the chain is built over the entries as they are shipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pgproxy.session.ports import Requester

Entry = dict[str, Any]


class Kind(StrEnum):
    STATEMENT = "statement"
    OUTCOME = "outcome"
    SESSION_START = "session_start"
    SESSION_END = "session_end"
    APPROVAL = "approval"
    CONFIG = "config"


class Decision(StrEnum):
    """What became of a statement. `blocked`: pgproxy could not judge or record it, so it did not run."""

    ALLOWED = "allowed"
    OBSERVED = "observed"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    BLOCKED = "blocked"


class TransactionFate(StrEnum):
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server made of a statement; `sqlstate` is null where it succeeded."""

    command_tag: str | None = None
    rows: int | None = None
    bytes: int | None = None
    duration_ms: float | None = None
    sqlstate: str | None = None
    transaction: TransactionFate | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "command_tag": self.command_tag,
            "rows": self.rows,
            "bytes": self.bytes,
            "duration_ms": self.duration_ms,
            "sqlstate": self.sqlstate,
            "transaction": None if self.transaction is None else str(self.transaction),
        }


# Every field, in the contract's order; entries start as a copy.
_BLANK: Entry = {
    "seq": None,
    "node": None,
    "time": None,
    "kind": None,
    "statement_id": None,
    "session_id": None,
    "agent": None,
    "owner": None,
    "db_user": None,
    "database": None,
    "client_addr": None,
    "application_name": None,
    "reason": None,
    "ticket": None,
    "sql": None,
    "params": None,
    "sha256": None,
    "fingerprint": None,
    "classes": None,
    "risk": None,
    "decision": None,
    "approval_id": None,
    "reviewers": None,
    "rule": None,
    "policy_version": None,
    "outcome": None,
    "prev_hash": None,
    "hash": None,
}

FIELDS: tuple[str, ...] = tuple(_BLANK)


def rfc3339(time: datetime) -> str:
    """UTC with microseconds, `…Z`. Raises ValueError for a time without a zone, which nobody could order."""
    if time.tzinfo is None:
        raise ValueError("an audit time needs a time zone")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def principal(requester: Requester) -> Entry:
    """The fields of an entry that say who."""
    return {
        "session_id": requester.session_id,
        "agent": requester.agent,
        "owner": requester.owner,
        "db_user": requester.db_user,
        "database": requester.database,
        "client_addr": requester.client_addr,
        "application_name": requester.application_name,
        "reason": requester.reason,
        "ticket": requester.ticket,
    }


def _entry(kind: Kind, time: datetime, requester: Requester | None) -> Entry:
    entry = _BLANK.copy()
    entry["kind"] = kind.value
    entry["time"] = rfc3339(time)
    entry["classes"] = []
    entry["reviewers"] = []
    if requester is not None:
        entry.update(principal(requester))
    return entry


def statement_entry(
    *,
    time: datetime,
    requester: Requester,
    statement_id: str,
    sql: str,
    sha256: str,
    params: Sequence[dict[str, Any]] = (),
    fingerprint: str | None,
    classes: Iterable[str],
    risk: str | None,
    decision: Decision,
    rule: str | None,
    policy_version: str | None,
    approval_id: str | None = None,
    reviewers: Iterable[str] = (),
) -> Entry:
    """A decided statement, recorded before its bytes leave. `sha256` is over the client's own bytes (hex)."""
    entry = _entry(Kind.STATEMENT, time, requester)
    entry["statement_id"] = statement_id
    entry["sql"] = sql
    entry["params"] = list(params)
    entry["sha256"] = sha256
    entry["fingerprint"] = fingerprint
    entry["classes"] = list(classes)
    entry["risk"] = risk
    entry["decision"] = decision.value
    entry["approval_id"] = approval_id
    entry["reviewers"] = list(reviewers)
    entry["rule"] = rule
    entry["policy_version"] = policy_version
    return entry


def outcome_entry(statement: Entry, *, time: datetime, outcome: Outcome | None) -> Entry:
    """What became of a recorded statement. `outcome` null says that it will never be known (a lost
    server)."""
    entry = {**_BLANK, **statement}
    entry["seq"] = None
    entry["time"] = rfc3339(time)
    entry["kind"] = Kind.OUTCOME.value
    entry["sql"] = None
    entry["params"] = None
    entry["outcome"] = None if outcome is None else outcome.to_dict()
    return entry


def session_start_entry(*, time: datetime, requester: Requester) -> Entry:
    """An authenticated session, before its first statement."""
    return _entry(Kind.SESSION_START, time, requester)


def session_end_entry(*, time: datetime, requester: Requester, detail: str | None = None) -> Entry:
    """The end of a session; `detail`, only on this kind, says in words how it ended."""
    entry = _entry(Kind.SESSION_END, time, requester)
    entry["detail"] = detail
    return entry


def approval_entry(
    *,
    time: datetime,
    approval_id: str,
    event: str,
    requester: Requester | None = None,
    sha256: str | None = None,
    fingerprint: str | None = None,
    classes: Iterable[str] = (),
    risk: str | None = None,
    decision: Decision | None = None,
    reviewers: Iterable[str] = (),
    rule: str | None = None,
    comment: str | None = None,
    via: str | None = None,
    policy_version: str | None = None,
    sql: str | None = None,
    detail: dict[str, Any] | None = None,
) -> Entry:
    """A change of an approval request. `event` is what changed (its new status, `vote`, `comment`, `modified`, or
    `grant_made`, `grant_used`, `grant_revoked`); `comment` and `via` are the reviewer's, `detail` the grant's or the
    modification's. These four are beside the contract's fields and only on this kind. `sql`: the new text."""
    entry = _entry(Kind.APPROVAL, time, requester)
    entry["approval_id"] = approval_id
    entry["sha256"] = sha256
    entry["fingerprint"] = fingerprint
    entry["classes"] = list(classes)
    entry["risk"] = risk
    entry["decision"] = None if decision is None else decision.value
    entry["reviewers"] = list(reviewers)
    entry["rule"] = rule
    entry["policy_version"] = policy_version
    entry["sql"] = sql
    entry["event"] = event
    entry["comment"] = comment
    entry["via"] = via
    if detail is not None:
        entry["detail"] = detail
    return entry


def config_entry(
    *, time: datetime, event: str, policy_version: str | None = None, detail: dict[str, Any] | None = None
) -> Entry:
    """A start, stop or reload, a change of mode or policy. `detail` holds names and versions, never
    secrets."""
    entry = _entry(Kind.CONFIG, time, None)
    entry["policy_version"] = policy_version
    entry["event"] = event
    entry["detail"] = detail or {}
    return entry
