"""Who may decide what: one transaction a decision, under the request's row lock, so exactly one outcome
wins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from approvals import grants, modifications, quorum, requests
from approvals.documents import decode, storable
from approvals.errors import ApprovalError, Conflict, Forbidden, NotFound, Unsupported
from approvals.grants import Terms
from approvals.model import Requirement, Reviewer, Status, is_id, person_key
from approvals.people import closure, keys_of, links
from approvals.quorum import Approver
from approvals.reading import grant_scopes, load
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.modifications import Modification
    from approvals.ports import PolicyJudge
    from approvals.store import Connection, Pool

log = logging.getLogger("pgproxy.approvals")

Decision = Literal["approve", "deny", "modify"]

_LOOK = """
SELECT status, expires_at <= clock_timestamp() AS is_due, requester, requirements, channels, revision, sha256,
    classification, grant_key, retry_binding, original, budget IS NOT NULL AS is_running
FROM approvals.requests WHERE id = $1
"""
_LOCK = f"{_LOOK} FOR UPDATE"

_VOTES = """
SELECT reviewer, reviewer_key, decision, revision, person_keys AS keys, groups, counts, terms
FROM approvals.decisions WHERE approval_id = $1 AND revision = $2 ORDER BY at, reviewer_key
"""

_VOTE = """
INSERT INTO approvals.decisions
    (approval_id, revision, reviewer_key, reviewer, decision, comment, via, person_keys, groups, counts, terms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


@dataclass(frozen=True, slots=True)
class _Ballot:
    """One person's vote on one request, before it is cast."""

    approval_id: str
    reviewer: Reviewer
    decision: Decision
    comment: str | None
    via: str
    terms: Terms | None
    modification: Modification | None
    sha256: str | None


async def decide(
    pool: Pool,
    approval_id: str,
    reviewer: Reviewer,
    decision: Decision,
    comment: str | None = None,
    via: str = "api",
    *,
    terms: Terms | None = None,
    sql: str | None = None,
    judge: PolicyJudge | None = None,
    sha256: str | None = None,
) -> dict[str, Any]:
    """One person's vote; returns the approval object after it.

    A denial decides at once; an approval when every requirement is met by distinct people, and with it the grant that
    all of them agreed to. A modification (`sql`, judged by `judge`) makes a new revision, for which earlier votes are
    void. `sha256`, of the statement that the person has read, keeps a vote from counting for another text that has
    come there meanwhile. `via` is the channel it comes by: `api`, `console`, `terminal`, `slack`, …; only from where a
    request's channels allow.

    Raises:
        NotFound, Forbidden, Conflict, Unsupported, StoreUnavailable: nothing was voted (after
            StoreUnavailable: look).
    """
    if not is_id(approval_id):
        raise NotFound("no such approval")
    modification = None
    if decision == "modify":
        if sql is None or judge is None:
            raise Unsupported("a modification needs a statement, and somebody to judge it")
        if terms is not None:
            raise Unsupported("a modified statement is approved for one execution: no grant is given with it")
        modification = await _prepare(pool, approval_id, reviewer, via, sql, judge)
    ballot = _Ballot(approval_id, reviewer, decision, comment, via, terms, modification, sha256)
    refusal: ApprovalError | None = None
    result: dict[str, Any] | None = None
    async with store_connection(pool) as connection:
        async with connection.transaction():
            row = await connection.fetchrow(_LOCK, approval_id)
            if row is None:
                raise NotFound("no such approval")
            keys = await _check(connection, row, reviewer, via)
            refusal = await _closed(connection, approval_id, row)
            if refusal is None:
                refusal = await _vote(connection, row, ballot, keys)
        if refusal is None:
            result = await load(connection, approval_id)
    if refusal is not None:
        raise refusal
    assert result is not None
    log.info("approval vote approval=%s decision=%s via=%s status=%s", approval_id, decision, via, result["status"])
    return result


async def obstacles(
    pool: Pool, approval_id: str, reviewer: Reviewer, via: str, *, can_judge: bool = True
) -> dict[Decision, str | None]:
    """For each decision why this person cannot take it now, in a sentence; None where they can. For showing what there
    is to choose: `decide` asks all of it again.

    Raises:
        NotFound, StoreUnavailable
    """
    if not is_id(approval_id):
        raise NotFound("no such approval")
    async with store_connection(pool) as connection:
        row = await connection.fetchrow(_LOOK, approval_id)
        if row is None:
            raise NotFound("no such approval")
        try:
            keys = await _check(connection, row, reviewer, via)
            if row["status"] != Status.PENDING:
                raise Conflict(f"the approval is {row['status']}, no longer pending")
            if row["is_due"]:
                raise Conflict("the approval has expired")
        except ApprovalError as error:
            return dict.fromkeys(("approve", "deny", "modify"), str(error))
        votes = await connection.fetch(_VOTES, approval_id, row["revision"])
    found: dict[Decision, str | None] = {"approve": None, "deny": None, "modify": None}
    if any(keys.intersection(vote["keys"]) for vote in votes):
        found["approve"] = found["deny"] = "you have already voted on this approval"
    else:
        try:
            requirements = requests.requirements_from_json(row["requirements"])
            _check_is_needed(requirements, _approvers(votes), reviewer)
        except Forbidden as error:
            found["approve"] = str(error)
    if row["is_running"]:
        found["modify"] = "the statement is already running: its result can be approved or denied, not modified"
    elif not can_judge:
        found["modify"] = "nobody is there to judge another statement"
    return found


async def _prepare(
    pool: Pool, approval_id: str, reviewer: Reviewer, via: str, sql: str, judge: PolicyJudge
) -> Modification:
    """Judges a reviewer's statement, without a lock: analysis takes its time. Who may not decide, or comes too late, is
    told so before."""
    async with store_connection(pool) as connection:
        async with connection.transaction():
            row = await connection.fetchrow(_LOCK, approval_id)
            if row is None:
                raise NotFound("no such approval")
            await _check(connection, row, reviewer, via)
            refusal = await _closed(connection, approval_id, row)
        approval = await load(connection, approval_id)
    if refusal is not None:
        raise refusal
    assert approval is not None
    if row["is_running"]:
        raise Unsupported("the statement is already running: its result can be approved or denied, not modified")
    return await modifications.judged(sql, approval, decode(row["original"]), via, judge)


async def _check(connection: Connection, row: asyncpg.Record, reviewer: Reviewer, via: str) -> frozenset[str]:
    linked = await links(connection)
    groups = [requirement.groups for requirement in requests.requirements_from_json(row["requirements"])]
    check_may_decide(reviewer, decode(row["requester"]), groups, row["channels"], via, linked)
    return keys_of(reviewer, linked)


async def _closed(connection: Connection, approval_id: str, row: asyncpg.Record) -> ApprovalError | None:
    """Why a request can no longer be decided. One found overdue expires, and that is committed although the vote is
    refused."""
    if row["status"] != Status.PENDING:
        return Conflict(f"the approval is {row['status']}, no longer pending")
    if row["is_due"]:
        await requests.step(connection, approval_id, Status.EXPIRED)
        return Conflict("the approval has expired")
    return None


async def _vote(
    connection: Connection, row: asyncpg.Record, ballot: _Ballot, keys: frozenset[str]
) -> ApprovalError | None:
    """Nothing has been written when this answers with a refusal, but an expiry."""
    revision, requirements = row["revision"], requests.requirements_from_json(row["requirements"])
    if ballot.sha256 is not None and ballot.sha256 != row["sha256"]:
        return Conflict("this is another statement than the one you have read: read it again")
    votes = await connection.fetch(_VOTES, ballot.approval_id, revision)
    counts = True
    if ballot.modification is not None:
        if ballot.modification.revision != revision:
            return Conflict("the statement has been modified meanwhile: read it again")
        revision, requirements, votes = revision + 1, list(ballot.modification.requirements), []
        counts = not ballot.modification.asks_for_more
    elif any(keys.intersection(vote["keys"]) for vote in votes):
        return Conflict("you have already voted on this approval")
    approvers = _approvers(votes)
    if ballot.decision == "approve":
        _check_is_needed(requirements, approvers, ballot.reviewer)
        _check_terms(row, ballot.terms)
    if ballot.modification is not None and not await modifications.apply(
        connection, ballot.approval_id, ballot.modification, ballot.reviewer.name
    ):
        await requests.step(connection, ballot.approval_id, Status.EXPIRED)
        return Conflict("the approval has expired")
    await connection.execute(
        _VOTE,
        ballot.approval_id,
        revision,
        person_key(ballot.reviewer.name),
        ballot.reviewer.name,
        ballot.decision,
        None if ballot.comment is None else storable(ballot.comment),
        ballot.via,
        sorted(keys),
        sorted(ballot.reviewer.groups),
        counts,
        grants.terms_to_json(ballot.terms),
    )
    if ballot.decision == "deny":
        target = Status.DENIED
    else:
        if counts:
            approvers.append(Approver(keys, ballot.reviewer.groups))
        if quorum.unmet(requirements, approvers):
            return None
        target = Status.APPROVED
    if not await requests.step(connection, ballot.approval_id, target):
        # The row is locked and was pending: only its expiry can have passed in between. The late vote stays
        # on record.
        await requests.step(connection, ballot.approval_id, Status.EXPIRED)
        return Conflict("the approval has expired")
    if target is Status.APPROVED:
        await _grant(connection, row, ballot, keys, votes)
    return None


async def _grant(
    connection: Connection,
    row: asyncpg.Record,
    ballot: _Ballot,
    keys: frozenset[str],
    votes: Sequence[asyncpg.Record],
) -> None:
    """What the votes agreed to beyond this execution: a cap on its rows, a grant."""
    counted = [vote for vote in votes if vote["counts"] and vote["decision"] != "deny"]
    terms = grants.agreed([*(grants.terms_from(decode(vote["terms"])) for vote in counted), ballot.terms])
    if terms.row_cap is not None:
        await connection.execute(
            "UPDATE approvals.requests SET row_cap = $2 WHERE id = $1", ballot.approval_id, terms.row_cap
        )
    if terms.scope == "once":
        return
    names = [*(vote["reviewer"] for vote in counted), ballot.reviewer.name]
    everybody = keys.union(*(vote["keys"] for vote in counted))
    comment = None if ballot.comment is None else storable(ballot.comment)
    await grants.make(connection, ballot.approval_id, row, terms, names, sorted(everybody), comment)


def _approvers(votes: Sequence[asyncpg.Record]) -> list[Approver]:
    return [
        Approver(frozenset(vote["keys"]), frozenset(vote["groups"]))
        for vote in votes
        if vote["counts"] and vote["decision"] != "deny"
    ]


def _check_is_needed(requirements: Sequence[Requirement], approvers: Sequence[Approver], reviewer: Reviewer) -> None:
    missing = quorum.unmet(requirements, approvers)
    if not any(quorum.concerns(requirement, reviewer.groups) for requirement in missing):
        wanted = sorted({group for requirement in missing for group in requirement.groups})
        raise Forbidden(
            f"the approvals still missing are those of {', '.join(wanted)}; you are in none of these groups"
        )


def _check_terms(row: asyncpg.Record, terms: Terms | None) -> None:
    if terms is None or terms.scope == "once":
        return
    possible = grant_scopes(decode(row["grant_key"]), row["retry_binding"], is_modified=row["original"] is not None)
    if terms.scope in possible:
        return
    reason = {
        "shape": "what this statement does depends on its constants, so its shape stands for nothing",
        "transaction": "this statement is not inside a transaction",
    }.get(terms.scope, "this request cannot be repeated by a grant")
    if row["original"] is not None:
        reason = "the statement was modified, and what the agent sends is its own text"
    raise Unsupported(f"no grant of scope {terms.scope}: {reason}")


def check_may_decide(
    reviewer: Reviewer,
    requester: dict[str, Any],
    groups: Sequence[Sequence[str]],
    channels: Sequence[str] = (),
    via: str = "api",
    linked: Sequence[frozenset[str]] = (),
) -> None:
    """The rules that no role overrides. `groups`: of each requirement; `linked`: names that are one person's.

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
    person = keys_of(reviewer, linked)
    for key, who in (("owner", "you own this agent"), ("agent", "this is you"), ("db_user", "this is you")):
        name = person_key(str(requester.get(key) or ""))
        if name and person & closure(frozenset({name}), linked):
            raise Forbidden(f"nobody decides their own request: {who}")
    if groups and all(each and reviewer.groups.isdisjoint(each) for each in groups):
        raise Forbidden("the rule asks for approvers of a group you are not in")
    if channels and via not in channels:
        raise Forbidden(f"this request is decided by {' or '.join(channels)} only, not by {via}")


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
        result = await load(connection, approval_id)
    if inserted != "INSERT 0 1" or result is None:
        raise NotFound("no such approval")
    return result
