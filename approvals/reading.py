"""Requests as the object of the public contract, one or a page of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals.documents import decode, encode, storable
from approvals.model import OUTCOME_KEYS, RISKS, is_id, rfc3339
from approvals.quorum import Approver, approvals_of
from approvals.requests import requirements_from_json

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection

_SELECT = """
SELECT
    id, status, created_at, expires_at, started_at, finished_at, risk, rule, required_approvals, requirements,
    requester, statement, classification, context, outcome, withdraw_reason, revision, original, modified_by, wait,
    retry_binding, grant_key, grant_id, row_cap, channels, notify, escalations, message, policy_version, budget,
    (SELECT grants.id FROM approvals.grants WHERE grants.approval_id = requests.id) AS made_grant_id,
    (SELECT json_agg(json_build_object('reviewer', reviewer, 'decision', decision, 'comment', comment,
                                       'via', via, 'revision', revision, 'counts', counts, 'grant', terms,
                                       'keys', person_keys, 'groups', groups,
                                       'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                     ORDER BY revision, at, reviewer_key)
     FROM approvals.decisions WHERE approval_id = requests.id) AS decisions,
    (SELECT json_agg(json_build_object('reviewer', reviewer, 'text', text,
                                       'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                     ORDER BY id)
     FROM approvals.comments WHERE approval_id = requests.id) AS comments
FROM approvals.requests
"""


def to_object(row: asyncpg.Record) -> dict[str, Any]:
    """A row of `_SELECT` as the contract's approval object, and what has been added to it since."""
    outcome: dict[str, Any] | None = None
    if row["started_at"] is not None:
        stored = decode(row["outcome"]) or {}
        outcome = {key: stored.get(key) for key in OUTCOME_KEYS}
        outcome["started_at"] = outcome["started_at"] or rfc3339(row["started_at"])
        if row["finished_at"] is not None:
            outcome["finished_at"] = outcome["finished_at"] or rfc3339(row["finished_at"])
    votes = decode(row["decisions"]) or []
    approvers = approvers_of(votes, row["revision"])
    original = decode(row["original"])
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
        "requirements": [
            {
                "rule": each.rule,
                "groups": list(each.groups),
                "count": each.count,
                "approvals": approvals_of(each, approvers),
            }
            for each in requirements_from_json(row["requirements"])
        ],
        "context": decode(row["context"]),
        "decisions": [_vote(vote, row["revision"]) for vote in votes],
        "comments": decode(row["comments"]) or [],
        "outcome": outcome,
        "withdraw_reason": row["withdraw_reason"],
        "revision": row["revision"],
        "original": None if original is None else original["statement"],
        "modified_by": row["modified_by"],
        "wait": row["wait"],
        "channels": row["channels"],
        "notify": row["notify"],
        "escalations": decode(row["escalations"]),
        "message": row["message"],
        "policy_version": row["policy_version"],
        "budget": decode(row["budget"]),
        "row_cap": row["row_cap"],
        "grant_id": row["grant_id"],
        "made_grant_id": row["made_grant_id"],
        "grant_scopes": grant_scopes(decode(row["grant_key"]), row["retry_binding"], is_modified=original is not None),
    }


def grant_scopes(key: dict[str, Any] | None, retry_binding: str, *, is_modified: bool) -> list[str]:
    """The scopes of grants that can be given on a request. On a changed statement none: what the agent sends the next
    time is its own text, which nobody approved."""
    if key is None or is_modified:
        return []
    return [
        *(["exact"] if retry_binding else []),
        "text",
        *(["shape"] if key["shape"] is not None else []),
        *(["transaction"] if key["transaction"] is not None else []),
    ]


def approvers_of(votes: Sequence[dict[str, Any]], revision: int) -> list[Approver]:
    """The votes that count for a revision."""
    return [
        Approver(frozenset(vote["keys"]), frozenset(vote["groups"]))
        for vote in votes
        if vote["revision"] == revision and vote["decision"] != "deny" and vote["counts"]
    ]


def _vote(vote: dict[str, Any], revision: int) -> dict[str, Any]:
    shown = ("reviewer", "decision", "comment", "via", "at", "revision", "counts", "grant")
    return {key: vote[key] for key in shown} | {"voided": vote["revision"] < revision}


async def load(connection: Connection, approval_id: str) -> dict[str, Any] | None:
    found = await load_many(connection, [approval_id])
    return found.get(approval_id)


async def load_many(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    wanted = [approval_id for approval_id in ids if is_id(approval_id)]
    rows = await connection.fetch(f"{_SELECT} WHERE id = ANY ($1::text[])", wanted)
    return {row["id"]: to_object(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list may be narrowed by; all given ones must hold. `q`: text anywhere in the statement, the reason or the
    ticket, whatever the case of ASCII letters. `class_`: of any of its actions. `until` is excluded."""

    status: str | None = None
    agent: str | None = None
    owner: str | None = None
    database: str | None = None
    risk: str | None = None
    class_: str | None = None
    fingerprint: str | None = None
    q: str | None = None
    since: datetime | None = None
    until: datetime | None = None


# The statement is searched in its JSON text: behind `{"sql": "`, up to the key `sha256`, which an unescaped quote
# begins, and in the very spelling (ASCII, escaped) that `documents.encode` gives the words looked for.
_WHERE = """
WHERE ($1::text IS NULL OR status = $1)
  AND ($2::text IS NULL OR agent = $2)
  AND ($3::text IS NULL OR owner = $3)
  AND ($4::text IS NULL OR database = $4)
  AND ($5::text IS NULL OR risk = $5)
  AND ($6::text IS NULL OR $6 = ANY (classes))
  AND ($7::text IS NULL OR fingerprint = $7)
  AND ($8::text IS NULL OR strpos(lower(said), lower($8)) > 0
       OR strpos(lower(substr(split_part(statement::text, ', "sha256": "', 1), 10)), lower($9)) > 0)
  AND ($10::timestamptz IS NULL OR created_at >= $10)
  AND ($11::timestamptz IS NULL OR created_at < $11)
  AND ($12::timestamptz IS NULL OR (created_at, id) < ($12, $13))
ORDER BY created_at DESC, id DESC LIMIT $14
"""


async def search(
    connection: Connection, filters: Filters, *, limit: int = 50, cursor: str | None = None
) -> tuple[list[dict[str, Any]], str | None]:
    """Newest first, and the cursor of the next page. A cursor is a place in the order, not a number of
    rows: pages do not shift when requests arrive.

    Raises:
        ValueError: a cursor that this function did not make, or a risk that there is not.
    """
    if filters.risk is not None and filters.risk not in RISKS:
        raise ValueError(f"risk is one of {', '.join(RISKS)}")
    before, before_id = (None, None) if cursor is None else read_cursor(cursor)
    values = {each.name: getattr(filters, each.name) for each in fields(filters)}
    texts = {key: storable(value) if isinstance(value, str) else value for key, value in values.items()}
    rows = await connection.fetch(
        f"{_SELECT} {_WHERE}",
        *(texts[key] for key in ("status", "agent", "owner", "database", "risk", "class_", "fingerprint", "q")),
        None if filters.q is None else encode(filters.q)[1:-1],
        filters.since,
        filters.until,
        before,
        before_id,
        limit + 1,
    )
    page = rows[:limit]
    following = write_cursor(page[-1]) if len(rows) > limit else None
    return [to_object(row) for row in page], following


_EARLIER = """
WHERE id <> $1
  AND (agent, fingerprint) = (SELECT agent, fingerprint FROM approvals.requests WHERE id = $1)
  AND (created_at, id) < (SELECT created_at, id FROM approvals.requests WHERE id = $1)
ORDER BY created_at DESC, id DESC LIMIT $2
"""


async def history(connection: Connection, approval_id: str, *, limit: int = 20) -> list[dict[str, Any]]:
    """Earlier requests of the same agent with the same fingerprint, newest first: what was decided then. For people to
    read; fingerprints of different statements may be equal, so nothing is decided by it."""
    rows = await connection.fetch(f"{_SELECT} {_EARLIER}", approval_id, limit)
    return [to_object(row) for row in rows]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_cursor(row: asyncpg.Record) -> str:
    microseconds = (row["created_at"] - _EPOCH) // timedelta(microseconds=1)
    return f"{microseconds}-{row['id']}"


def read_cursor(cursor: str, letter: str = "a") -> tuple[datetime, str]:
    digits, _, row_id = cursor.partition("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 17 and is_id(row_id, letter)):
        raise ValueError("not a cursor of this list")
    return _EPOCH + timedelta(microseconds=int(digits)), row_id
