"""Who may decide what: one transaction a decision, under the request's row lock, so exactly one outcome
wins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from approvals import requests
from approvals.documents import decode, storable
from approvals.errors import ApprovalError, Conflict, Forbidden, NotFound, Unsupported
from approvals.model import Reviewer, Status, is_id, person_key
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection, Pool

log = logging.getLogger("pgproxy.approvals")

Decision = Literal["approve", "deny", "modify"]

_LOCK = """
SELECT status, expires_at <= clock_timestamp() AS is_due, requester, approver_groups, required_approvals
FROM approvals.requests WHERE id = $1 FOR UPDATE
"""

_VOTE = """
INSERT INTO approvals.decisions (approval_id, reviewer_key, reviewer, decision, comment, via)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""


async def decide(
    pool: Pool,
    approval_id: str,
    reviewer: Reviewer,
    decision: Decision,
    comment: str | None = None,
    via: str = "api",
    *,
    grant_seconds: float | None = None,
) -> dict[str, Any]:
    """One person's vote; returns the approval object after it.

    A denial decides at once; an approval when it is the last of `required_approvals` distinct ones.

    Raises:
        NotFound, Forbidden, Conflict, Unsupported, StoreUnavailable: nothing was voted (after
            StoreUnavailable: look).
    """
    if decision == "modify":
        raise Unsupported("this version cannot modify a statement: deny it and say what to send instead")
    if grant_seconds is not None:
        raise Unsupported("this version has no grants: an approval covers one execution")
    if not is_id(approval_id):
        raise NotFound("no such approval")
    refusal: ApprovalError | None = None
    result: dict[str, Any] | None = None
    async with store_connection(pool) as connection:
        async with connection.transaction():
            row = await connection.fetchrow(_LOCK, approval_id)
            if row is None:
                raise NotFound("no such approval")
            check_may_decide(reviewer, decode(row["requester"]), row["approver_groups"])
            if row["status"] == Status.PENDING and row["is_due"]:
                # Committed although the vote is refused: whoever finds a request overdue expires it.
                await requests.step(connection, approval_id, Status.EXPIRED)
                refusal = Conflict("the approval has expired")
            elif row["status"] != Status.PENDING:
                refusal = Conflict(f"the approval is {row['status']}, no longer pending")
            else:
                refusal = await _vote(connection, approval_id, row, reviewer, decision, comment, via)
        if refusal is None:
            result = await requests.load(connection, approval_id)
    if refusal is not None:
        raise refusal
    assert result is not None
    log.info("approval vote approval=%s decision=%s via=%s status=%s", approval_id, decision, via, result["status"])
    return result


async def _vote(
    connection: Connection,
    approval_id: str,
    row: asyncpg.Record,
    reviewer: Reviewer,
    decision: str,
    comment: str | None,
    via: str,
) -> ApprovalError | None:
    inserted = await connection.execute(
        _VOTE,
        approval_id,
        person_key(reviewer.name),
        reviewer.name,
        decision,
        None if comment is None else storable(comment),
        via,
    )
    if inserted != "INSERT 0 1":
        return Conflict("you have already voted on this approval")
    if decision == "deny":
        target = Status.DENIED
    else:
        approvals = await connection.fetchval(
            "SELECT count(*) FROM approvals.decisions WHERE approval_id = $1 AND decision = 'approve'",
            approval_id,
        )
        if approvals < row["required_approvals"]:
            return None
        target = Status.APPROVED
    if not await requests.step(connection, approval_id, target):
        # The row is locked and was pending: only its expiry can have passed in between. The late vote stays
        # on record.
        await requests.step(connection, approval_id, Status.EXPIRED)
        return Conflict("the approval has expired")
    return None


def check_may_decide(reviewer: Reviewer, requester: dict[str, Any], approver_groups: list[str]) -> None:
    """The rules that no role overrides.

    Raises:
        Forbidden
    """
    if reviewer.machine:
        raise Forbidden("a machine identity cannot decide")
    if "reviewer" not in reviewer.roles:
        raise Forbidden("deciding needs the role reviewer")
    owner = requester.get("owner")
    if not owner:
        raise Forbidden("the agent has no owner, so nobody can be told apart from the requester")
    person = {person_key(name) for name in (reviewer.name, *reviewer.aliases)}
    for key, who in (("owner", "you own this agent"), ("agent", "this is you"), ("db_user", "this is you")):
        if person_key(str(requester.get(key) or "")) in person:
            raise Forbidden(f"nobody decides their own request: {who}")
    if approver_groups and not reviewer.groups.intersection(approver_groups):
        raise Forbidden("the rule asks for approvers of a group you are not in")


async def add_comment(pool: Pool, approval_id: str, reviewer: Reviewer, text: str) -> dict[str, Any]:
    """A comment, without deciding; at any time, also after the decision. Returns the approval object.

    Raises:
        NotFound, StoreUnavailable
    """
    if not is_id(approval_id):
        raise NotFound("no such approval")
    async with store_connection(pool) as connection:
        inserted = await connection.execute(
            "INSERT INTO approvals.comments (approval_id, reviewer, text) "
            "SELECT id, $2, $3 FROM approvals.requests WHERE id = $1",
            approval_id,
            reviewer.name,
            storable(text),
        )
        result = await requests.load(connection, approval_id)
    if inserted != "INSERT 0 1" or result is None:
        raise NotFound("no such approval")
    return result
