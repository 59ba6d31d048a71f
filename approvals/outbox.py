"""Everything that happened to approvals, in an order that is final once seen: for the audit trail, metrics
and streams.

Events get their insertion id while their transaction runs, so one with a lower id may become visible after
one with a higher id, and a reader that remembers the last id would miss it. Readers therefore follow `seq`,
which is given to committed events only, by one process at a time. Rejected: a lock around every insertion
(a frozen process would stop all approvals) and ordering by transaction id (starts again when the store is
restored into another cluster).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from approvals.documents import decode
from approvals.model import rfc3339
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection, Pool

_NUMBERING_LOCK = 0x6170_7072_6F76_0002

_NUMBER = """
WITH fresh AS (
    SELECT id FROM approvals.events WHERE seq IS NULL ORDER BY id LIMIT 5000
), numbered AS (
    SELECT id, nextval('approvals.events_seq') AS seq FROM fresh
)
UPDATE approvals.events SET seq = numbered.seq FROM numbered WHERE events.id = numbered.id
"""

_AFTER = """
SELECT events.seq, events.approval_id, events.kind, events.status, events.at, events.detail, events.revision,
    requests.node, requests.instance, requests.requester, requests.statement, requests.classification,
    requests.risk, requests.rule, requests.policy_version,
    CASE WHEN events.revision < requests.revision THEN coalesce(
        (SELECT earlier.detail FROM approvals.events AS earlier
         WHERE earlier.approval_id = events.approval_id AND earlier.kind = 'modify'
           AND earlier.revision = events.revision),
        requests.original) END AS earlier,
    (SELECT array_agg(reviewer ORDER BY decisions.at, reviewer_key) FROM approvals.decisions
     WHERE decisions.approval_id = events.approval_id AND decisions.revision = events.revision
       AND decisions.at <= events.at) AS reviewers,
    CASE WHEN events.kind = 'status'
          AND (events.status IN ('approved', 'denied')
               OR events.status IN ('expired', 'withdrawn') AND NOT EXISTS (
                   SELECT FROM approvals.events AS earlier
                   WHERE earlier.approval_id = events.approval_id AND earlier.id < events.id
                     AND earlier.kind = 'status' AND earlier.status = 'approved'))
         THEN extract(epoch FROM requests.resolved_at - requests.created_at)::float8 END AS wait_s
FROM approvals.events JOIN approvals.requests ON requests.id = events.approval_id
WHERE events.seq > $1 ORDER BY events.seq LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event with what an audit entry needs. `kind` is `status` (a transition, the opening included),
    `vote`, `comment`, `modify` (a reviewer changed the statement), `grant` (`detail["event"]`: made, used, revoked) or
    `context` (something was found out about it);
    `status` is the request's at that moment; `reviewers` who had voted by then on this `revision`. Statement,
    classification, risk and rule are of that revision. `wait_s` is set on the event with which the request left
    `pending`."""

    seq: int
    approval_id: str
    kind: str
    status: str
    at: datetime
    detail: dict[str, Any]
    node: str
    instance: str
    requester: dict[str, Any]
    sql: str
    sha256: str
    params: list[dict[str, Any]]
    classification: dict[str, Any]
    risk: str
    rule: str
    reviewers: tuple[str, ...]
    wait_s: float | None
    revision: int = 1
    policy_version: str = ""


async def events_after(pool: Pool, last_seq: int, limit: int = 500) -> list[EventRow]:
    """The next events in order; empty when the reader has caught up.

    Raises:
        StoreUnavailable
    """
    async with store_connection(pool) as connection:
        await _number(connection)
        rows = await connection.fetch(_AFTER, last_seq, limit)
    return [_to_event(row) for row in rows]


async def last_seq(pool: Pool) -> int:
    """Where a reader begins that wants only what happens from now on."""
    async with store_connection(pool) as connection:
        await _number(connection)
        value: int = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM approvals.events")
    return value


async def _number(connection: Connection) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM approvals.events WHERE seq IS NULL)"):
        return
    async with connection.transaction():
        # Its own statement: the next one's snapshot must see what the lock's last holder numbered.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _NUMBERING_LOCK)
        await connection.execute(_NUMBER)


def _to_event(row: asyncpg.Record) -> EventRow:
    then = decode(row["earlier"]) or {
        "statement": decode(row["statement"]),
        "classification": decode(row["classification"]),
        "risk": row["risk"],
        "rule": row["rule"],
        "policy_version": row["policy_version"],
    }
    statement = then["statement"]
    return EventRow(
        seq=row["seq"],
        approval_id=row["approval_id"],
        kind=row["kind"],
        status=row["status"],
        at=row["at"],
        detail=decode(row["detail"]),
        node=row["node"],
        instance=row["instance"],
        requester=decode(row["requester"]),
        sql=statement["sql"],
        sha256=statement["sha256"],
        params=statement["params"],
        classification=then["classification"],
        risk=then["risk"],
        rule=then["rule"],
        revision=row["revision"],
        policy_version=then["policy_version"],
        reviewers=tuple(row["reviewers"] or ()),
        wait_s=row["wait_s"],
    )


async def pending_count(pool: Pool) -> int:
    """For the gauge `pgproxy_approvals_pending`."""
    async with store_connection(pool) as connection:
        value: int = await connection.fetchval("SELECT count(*) FROM approvals.requests WHERE status = 'pending'")
    return value


async def load_position(pool: Pool, reader: str) -> int:
    """How far this reader has got by its own word; 0 before its first."""
    async with store_connection(pool) as connection:
        value: int | None = await connection.fetchval("SELECT seq FROM approvals.readers WHERE name = $1", reader)
    return value or 0


async def save_position(pool: Pool, reader: str, seq: int) -> None:
    """To be called after the events up to `seq` are safe where the reader put them: delivery is at least
    once."""
    async with store_connection(pool) as connection:
        await connection.execute(
            "INSERT INTO approvals.readers (name, seq) VALUES ($1, $2) "
            "ON CONFLICT (name) DO UPDATE SET seq = greatest(readers.seq, excluded.seq)",
            reader,
            seq,
        )


_OUTCOME_FROM = frozenset({"executing", "executed", "failed", "unknown"})


def as_of(approval: dict[str, Any], event: EventRow) -> dict[str, Any]:
    """The approval object as it was at an event, though it may have been read later."""
    at = rfc3339(event.at)
    outcome = approval["outcome"] if event.status in _OUTCOME_FROM else None
    if event.status == "executing" and outcome is not None:
        outcome = dict.fromkeys(outcome) | {"started_at": outcome["started_at"]}
    votes = [vote for vote in approval["decisions"] if vote["at"] <= at and vote["revision"] <= event.revision]
    return approval | {
        "status": event.status,
        "revision": event.revision,
        "statement": {"sql": event.sql, "sha256": event.sha256, "params": event.params},
        "classification": event.classification,
        "risk": event.risk,
        "rule": event.rule,
        "original": approval["original"] if event.revision > 1 else None,
        "modified_by": approval["modified_by"] if event.revision > 1 else None,
        "decisions": [vote | {"voided": vote["revision"] < event.revision} for vote in votes],
        "comments": [comment for comment in approval["comments"] if comment["at"] <= at],
        "outcome": outcome,
        "withdraw_reason": approval["withdraw_reason"] if event.status == "withdrawn" else None,
    }
