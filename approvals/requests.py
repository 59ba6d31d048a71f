"""Requests in the store: insertion, and the compare-and-set steps. Reading them is `approvals.reading`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from approvals.documents import decode, encode, storable
from approvals.model import REQUESTER_KEYS, NewRequest, Requirement, Status, is_id, least_people, sources
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Connection, Pool

MAX_TIMEOUT_S = 366 * 86_400.0

_INSERT = """
INSERT INTO approvals.requests
    (id, created_at, expires_at, node, instance, agent, binding, risk, rule, required_approvals, requirements,
     asked, requester, statement, sha256, classification, context, policy_version, wait, retry_binding, grant_key,
     channels, notify, escalations, message, budget, owner, database, fingerprint, classes, said,
     status, resolved_at, grant_id, row_cap)
SELECT $1, clock.t, clock.t + make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
       $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30,
       CASE WHEN $31::text IS NULL THEN 'pending' ELSE 'approved' END,
       CASE WHEN $31::text IS NULL THEN NULL ELSE clock.t END, $31, $32
FROM (SELECT clock_timestamp()) AS clock (t)
RETURNING created_at, expires_at
"""


def asked(request: NewRequest) -> str:
    """What consent the policy asked for, in one canonical text. An earlier decision may stand in for a new one only
    where nothing of this has changed."""
    required = sorted((each.rule, sorted(each.groups), each.count) for each in request.requirements)
    return encode([required, sorted(request.channels)])


def classes_of(classification: Mapping[str, Any]) -> list[str]:
    """Each class of a classification object once."""
    return _each(
        action.get("class") for statement in classification.get("statements", []) for action in statement["actions"]
    )


def relations_of(classification: Mapping[str, Any]) -> list[str]:
    """Each relation once."""
    return _each(
        relation for statement in classification.get("statements", []) for relation in statement.get("relations", [])
    )


def _each(values: Iterable[Any]) -> list[str]:
    return sorted({storable(str(value)) for value in values})


def requirements_to_json(requirements: Sequence[Requirement]) -> str:
    return encode([{"rule": r.rule, "groups": list(r.groups), "count": r.count} for r in requirements])


def requirements_from_json(text: str) -> list[Requirement]:
    return [Requirement(str(r["rule"]), tuple(r["groups"]), int(r["count"])) for r in decode(text)]


async def insert(
    connection: Connection,
    approval_id: str,
    request: NewRequest,
    node: str,
    instance: str,
    *,
    grant_id: str | None = None,
    row_cap: int | None = None,
) -> tuple[datetime, datetime]:
    """Stores a request: pending, or at once approved by a grant. When it was made and when it expires, on the store's
    clock."""
    requester = {key: request.requester.get(key) for key in REQUESTER_KEYS}
    statement = {"sql": request.sql, "sha256": request.sha256, "params": list(request.params)}
    said = [str(requester[key]) for key in ("reason", "ticket") if requester[key] is not None]
    row = await connection.fetchrow(
        _INSERT,
        approval_id,
        min(request.timeout_s, MAX_TIMEOUT_S),
        node,
        instance,
        storable(str(requester["agent"])),
        request.binding,
        request.risk,
        storable(request.rule),
        least_people(request.requirements),
        requirements_to_json(request.requirements),
        asked(request),
        encode(requester),
        encode(statement),
        request.sha256,
        encode(request.classification),
        encode(request.context),
        storable(request.policy_version),
        request.wait,
        request.retry_binding,
        None if request.grant_key is None else encode(asdict(request.grant_key)),
        [storable(channel) for channel in request.channels],
        [storable(channel) for channel in request.notify],
        encode(list(request.escalations)),
        None if request.message is None else storable(request.message),
        None if request.budget is None else encode(request.budget),
        _or_none(requester["owner"]),
        _or_none(requester["database"]),
        _or_none(request.classification.get("fingerprint") or None),
        classes_of(request.classification),
        storable("\n".join(said)),
        grant_id,
        row_cap,
    )
    assert row is not None
    return row["created_at"], row["expires_at"]


def _or_none(value: Any) -> str | None:
    return None if value is None else storable(str(value))


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
    Status.EXPIRED: "AND expires_at <= clock_timestamp()",
}

# A claim compares what it is for, too. Whoever claims a request that outlived its session answers for it from now on:
# the supervisor must find it when that worker dies. A grant that was revoked lets nothing start any more; revoking also
# withdraws what it has let through, under the row lock that decides between the two.
_CLAIM = """
UPDATE approvals.requests SET
    status = 'executing',
    started_at = clock_timestamp(),
    node = $3,
    instance = $4
WHERE id = $1 AND status = ANY ($2::text[]) AND expires_at > clock_timestamp()
  AND CASE WHEN wait THEN binding ELSE retry_binding END = $5 AND sha256 = $6
  AND (grant_id IS NULL OR EXISTS (
      SELECT FROM approvals.grants
      WHERE grants.id = requests.grant_id AND revoked_at IS NULL AND grants.expires_at > clock_timestamp()))
"""


async def step(
    connection: Connection,
    approval_id: str,
    target: Status,
    *,
    outcome: dict[str, Any] | None = None,
    reason: str | None = None,
) -> bool:
    """One compare-and-set along `model.TRANSITIONS`, of any but the claim; true for the caller whose step it was."""
    if target is Status.EXECUTING:
        raise ValueError("an approval is claimed")
    command = await connection.execute(
        f"{_STEP} {_GUARDS.get(target, '')}",
        approval_id,
        target.value,
        sources(target),
        None if outcome is None else encode(outcome),
        None if reason is None else storable(reason),
    )
    return command == "UPDATE 1"


async def claim(
    connection: Connection, approval_id: str, binding: str, sha256: str, *, node: str, instance: str
) -> bool:
    """approved → executing, for what was voted on and nothing else; true for one caller, once. `sha256` is that of the
    text about to be sent."""
    command = await connection.execute(_CLAIM, approval_id, sources(Status.EXECUTING), node, instance, binding, sha256)
    return command == "UPDATE 1"


_CONTEXT = "SELECT context::text AS context FROM approvals.requests WHERE id = $1 AND ($2::text IS NULL OR sha256 = $2)"
# One statement, and no row lock across a round trip: whoever freezes here must not keep a claim from its row.
_SET_CONTEXT = """
UPDATE approvals.requests SET context = $3::json
WHERE id = $1 AND context::text = $2 AND ($4::text IS NULL OR sha256 = $4)
"""
_ATTEMPTS = 20


async def add_context(pool: Pool, approval_id: str, key: str, value: Any, *, sha256: str | None = None) -> bool:
    """Puts `value` under `key` of a request's context, whatever its status, which stays as it is; leaves an event.
    False when there is no such request or, with `sha256`, when its statement is another by now.

    Raises:
        StoreUnavailable
    """
    if not is_id(approval_id):
        return False
    async with store_connection(pool) as connection:
        for _ in range(_ATTEMPTS):
            before = await connection.fetchval(_CONTEXT, approval_id, sha256)
            if before is None:
                return False
            after = encode(decode(before) | {key: value})
            if after == before:
                return True
            if await connection.execute(_SET_CONTEXT, approval_id, before, after, sha256) == "UPDATE 1":
                return True
    return False
