"""Requests in the store: insertion, the compare-and-set step, and the object of the public contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals.documents import decode, encode, storable
from approvals.model import OUTCOME_KEYS, REQUESTER_KEYS, NewRequest, Status, is_id, rfc3339, sources

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection

MAX_TIMEOUT_S = 366 * 86_400.0

_INSERT = """
INSERT INTO approvals.requests
    (id, created_at, expires_at, node, instance, agent, binding, risk, rule, required_approvals,
     approver_groups, requester, statement, classification, context)
SELECT $1, clock.t, clock.t + make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
FROM (SELECT clock_timestamp()) AS clock (t)
RETURNING expires_at
"""


async def insert(connection: Connection, approval_id: str, request: NewRequest, node: str, instance: str) -> datetime:
    """Stores a pending request; its expiry is counted on the store's clock from now."""
    requester = {key: request.requester.get(key) for key in REQUESTER_KEYS}
    statement = {"sql": request.sql, "sha256": request.sha256, "params": list(request.params)}
    expires_at: datetime = await connection.fetchval(
        _INSERT,
        approval_id,
        min(request.timeout_s, MAX_TIMEOUT_S),
        node,
        instance,
        storable(str(requester["agent"])),
        request.binding,
        request.risk,
        storable(request.rule),
        request.required_approvals,
        [storable(group) for group in request.approver_groups],
        encode(requester),
        encode(statement),
        encode(request.classification),
        encode(request.context),
    )
    return expires_at


# The step of the status machine. Beyond the status, what makes a step allowed (expiry, binding) is in the
# same WHERE, which PostgreSQL evaluates again after waiting for a competing transaction ("Transaction
# Isolation", Read Committed).
_STEP = """
UPDATE approvals.requests SET
    status = $2,
    resolved_at = CASE WHEN status = 'pending' THEN clock_timestamp() ELSE resolved_at END,
    started_at = CASE WHEN $2 = 'executing' THEN clock_timestamp() ELSE started_at END,
    finished_at = CASE WHEN status = 'executing' THEN clock_timestamp() ELSE finished_at END,
    outcome = coalesce($4::json, outcome),
    withdraw_reason = coalesce($5::text, withdraw_reason)
WHERE id = $1 AND status = ANY ($3::text[])
"""
_GUARDS = {
    Status.APPROVED: "AND expires_at > clock_timestamp()",
    Status.DENIED: "AND expires_at > clock_timestamp()",
    Status.EXECUTING: "AND expires_at > clock_timestamp() AND binding = $6::text",
    Status.EXPIRED: "AND expires_at <= clock_timestamp()",
}


async def step(
    connection: Connection,
    approval_id: str,
    target: Status,
    *,
    outcome: dict[str, Any] | None = None,
    reason: str | None = None,
    binding: str | None = None,
) -> bool:
    """One compare-and-set along `model.TRANSITIONS`; true for the caller whose step it was."""
    arguments: list[object] = [
        approval_id,
        target.value,
        sources(target),
        None if outcome is None else encode(outcome),
        None if reason is None else storable(reason),
    ]
    if target is Status.EXECUTING:
        arguments.append(binding)
    command = await connection.execute(f"{_STEP} {_GUARDS.get(target, '')}", *arguments)
    return command == "UPDATE 1"


_SELECT = """
SELECT
    id, status, created_at, expires_at, started_at, finished_at, risk, rule, required_approvals, requester,
    statement, classification, context, outcome, withdraw_reason,
    (SELECT json_agg(json_build_object('reviewer', reviewer, 'decision', decision, 'comment', comment,
                                       'via', via,
                                       'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                     ORDER BY at, reviewer_key)
     FROM approvals.decisions WHERE approval_id = requests.id) AS decisions,
    (SELECT json_agg(json_build_object('reviewer', reviewer, 'text', text,
                                       'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                     ORDER BY id)
     FROM approvals.comments WHERE approval_id = requests.id) AS comments
FROM approvals.requests
"""


def to_object(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `_SELECT` as the contract's approval object (plus `comments` and `withdraw_reason`)."""
    outcome: dict[str, Any] | None = None
    if row["started_at"] is not None:
        stored = decode(row["outcome"]) or {}
        outcome = {key: stored.get(key) for key in OUTCOME_KEYS}
        outcome["started_at"] = outcome["started_at"] or rfc3339(row["started_at"])
        if row["finished_at"] is not None:
            outcome["finished_at"] = outcome["finished_at"] or rfc3339(row["finished_at"])
    return {
        "id": row["id"],
        "status": row["status"],
        "created_at": rfc3339(row["created_at"]),
        "expires_at": rfc3339(row["expires_at"]),
        "requester": decode(row["requester"]),
        "statement": decode(row["statement"]),
        "classification": decode(row["classification"]),
        "risk": row["risk"],
        "rule": row["rule"],
        "required_approvals": row["required_approvals"],
        "context": decode(row["context"]),
        "decisions": decode(row["decisions"]) or [],
        "comments": decode(row["comments"]) or [],
        "outcome": outcome,
        "withdraw_reason": row["withdraw_reason"],
    }


async def load(connection: Connection, approval_id: str) -> dict[str, Any] | None:
    found = await load_many(connection, [approval_id])
    return found.get(approval_id)


async def load_many(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    wanted = [approval_id for approval_id in ids if is_id(approval_id)]
    rows = await connection.fetch(f"{_SELECT} WHERE id = ANY ($1::text[])", wanted)
    return {row["id"]: to_object(row) for row in rows}


async def search(
    connection: Connection,
    *,
    status: str | None = None,
    agent: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Newest first, and the cursor of the next page. A cursor is a place in the order, not a number of
    rows: pages do not shift when requests arrive.

    Raises:
        ValueError: a cursor that this function did not make.
    """
    before, before_id = (None, None) if cursor is None else _read_cursor(cursor)
    rows = await connection.fetch(
        f"""{_SELECT}
        WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR agent = $2)
          AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
        ORDER BY created_at DESC, id DESC LIMIT $5""",
        status,
        None if agent is None else storable(agent),
        before,
        before_id,
        limit + 1,
    )
    page = rows[:limit]
    following = _write_cursor(page[-1]) if len(rows) > limit else None
    return [to_object(row) for row in page], following


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _write_cursor(row: asyncpg.Record) -> str:
    microseconds = (row["created_at"] - _EPOCH) // timedelta(microseconds=1)
    return f"{microseconds}-{row['id']}"


def _read_cursor(cursor: str) -> tuple[datetime, str]:
    digits, _, approval_id = cursor.partition("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 17 and is_id(approval_id)):
        raise ValueError("not a cursor of this list")
    return _EPOCH + timedelta(microseconds=int(digits)), approval_id
