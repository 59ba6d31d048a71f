"""Scoped grants: consent given once for what the same agent will send again.

Against approval fatigue, and bounded on every side: by agent, owner, database, database user, role and search_path; by
scope; by time, uses and rows. A grant is given by the people whose approvals complete a request, all of them, and holds
what they saw: it helps no statement whose class, relations or risk go beyond that (a function may have been replaced
since), and none for which policy now asks for something else. Using one is a compare-and-set like every other step.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from approvals import requests
from approvals.documents import decode, encode, storable
from approvals.errors import Forbidden, NotFound
from approvals.model import RISKS, NewRequest, Reviewer, is_id, new_id, rfc3339
from approvals.people import keys_of, links
from approvals.reading import read_cursor, write_cursor
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Connection, Pool

log = logging.getLogger("pgproxy.approvals")

Scope = Literal["once", "exact", "text", "shape", "transaction"]

MAX_GRANT_S = 24 * 3600.0
DEFAULT_GRANT_S = 15 * 60.0
MAX_USES = 10_000


@dataclass(frozen=True, slots=True)
class Terms:
    """What a vote agrees to beyond the one execution. `once`: nothing, only `row_cap` counts. `uses` are further ones,
    None any number; `row_cap`, for each of them and for the execution that is approved with it, None no cap."""

    scope: Scope = "once"
    seconds: float = DEFAULT_GRANT_S
    uses: int | None = None
    row_cap: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def agreed(terms: Sequence[Terms | None]) -> Terms:
    """What all voters of a request have agreed to: the narrowest. Where they differ in scope, the one execution they
    all approved; a row cap of any of them stands."""
    known = [each or Terms() for each in terms]
    scopes = {each.scope for each in known}
    caps = [each.row_cap for each in known if each.row_cap is not None]
    uses = [each.uses for each in known if each.uses is not None]
    return Terms(
        known[0].scope if len(scopes) == 1 else "once",
        min(each.seconds for each in known),
        min(uses, default=None),
        min(caps, default=None),
    )


_MAKE = """
INSERT INTO approvals.grants
    (id, created_at, expires_at, agent, owner, database, db_user, environment, scope, text_sha256, shape, transaction,
     retry_binding, uses, uses_left, row_cap, asked, classes, relations, risk, requirements, rule, approval_id,
     reviewers, reviewer_keys, comment)
SELECT $1, clock.t, clock.t + $2::interval, agent, $3, $4, $5, $6, $7, $8, $9, $10,
       retry_binding, $11, $11, $12, asked, classes, $13, risk, requirements, rule, id, $14, $15, $16
FROM approvals.requests, (SELECT clock_timestamp()) AS clock (t) WHERE requests.id = $17
"""


async def make(
    connection: Connection,
    approval_id: str,
    row: asyncpg.Record,
    terms: Terms,
    reviewers: Sequence[str],
    reviewer_keys: Sequence[str],
    comment: str | None,
) -> str:
    """The grant of a request that has just been approved; `row` is the locked request. Its scope is one of
    `reading.grant_scopes`."""
    grant_id = new_id("g")
    key, requester = decode(row["grant_key"]), decode(row["requester"])
    await connection.execute(
        _MAKE,
        grant_id,
        timedelta(seconds=min(terms.seconds, MAX_GRANT_S)),
        *(storable(str(requester[name])) for name in ("owner", "database", "db_user")),
        key["environment"],
        terms.scope,
        key["text_sha256"],
        key["shape"],
        key["transaction"],
        terms.uses,
        terms.row_cap,
        requests.relations_of(decode(row["classification"])),
        list(reviewers),
        sorted(set(reviewer_keys)),
        comment,
        approval_id,
    )
    log.info("grant made grant=%s approval=%s scope=%s", grant_id, approval_id, terms.scope)
    return grant_id


# The row lock is the step: of the processes that would spend the last use, those that come later look at the row again
# and find none left. A result that ran into a budget is helped only by a cap it has not reached yet.
_USE = """
UPDATE approvals.grants SET uses_left = uses_left - 1 WHERE id = (
    SELECT id FROM approvals.grants
    WHERE agent = $1 AND owner = $2 AND database = $3 AND db_user = $4 AND environment = $5
      AND revoked_at IS NULL AND expires_at > clock_timestamp() AND (uses_left IS NULL OR uses_left > 0)
      AND CASE scope
          WHEN 'exact' THEN retry_binding = $6
          WHEN 'text' THEN text_sha256 = $7
          WHEN 'shape' THEN shape = $8
          WHEN 'transaction' THEN transaction = $9
      END
      AND asked = $10 AND classes @> $11::text[] AND (scope = 'transaction' OR relations @> $12::text[])
      AND array_position($13::text[], risk) >= array_position($13::text[], $14)
      AND ($15::bigint IS NULL OR row_cap > $15)
    ORDER BY expires_at, id LIMIT 1 FOR UPDATE)
RETURNING id, row_cap, reviewers, reviewer_keys, comment
"""


async def use(connection: Connection, request: NewRequest) -> asyncpg.Record | None:
    """Spends one use of a grant that fits the request; to be followed by its insertion in the same transaction."""
    key, who = request.grant_key, request.requester
    if key is None or not who.get("owner"):
        return None
    passed = None if request.budget is None else int(request.budget.get("passed_rows") or 0)
    return await connection.fetchrow(
        _USE,
        *(storable(str(who.get(name))) for name in ("agent", "owner", "database", "db_user")),
        key.environment,
        request.retry_binding,
        key.text_sha256,
        key.shape,
        key.transaction,
        requests.asked(request),
        requests.classes_of(request.classification),
        requests.relations_of(request.classification),
        list(RISKS),
        request.risk,
        passed,
    )


_COPY_VOTES = """
INSERT INTO approvals.decisions
    (approval_id, revision, reviewer_key, reviewer, decision, comment, via, at, person_keys, groups, terms)
SELECT $1, 1, votes.reviewer_key, votes.reviewer, 'approve', votes.comment, 'grant', $2, votes.person_keys,
       votes.groups, json_build_object('grant_id', grants.id)
FROM approvals.grants JOIN approvals.decisions AS votes USING (approval_id)
WHERE grants.id = $3 AND votes.decision = 'approve' AND votes.counts AND votes.reviewer = ANY (grants.reviewers)
"""


async def vote_by_grant(connection: Connection, approval_id: str, grant_id: str, at: datetime) -> None:
    """Whose consent it was stands on the request that used it."""
    await connection.execute(_COPY_VOTES, approval_id, at, grant_id)


_LIST = """
SELECT id, created_at, expires_at, agent, owner, database, db_user, environment, scope, text_sha256, shape, uses,
       uses_left, row_cap, classes, relations, risk, requirements, rule, approval_id, reviewers, comment, revoked_at,
       revoked_by,
       revoked_at IS NULL AND expires_at > clock_timestamp() AND (uses_left IS NULL OR uses_left > 0) AS in_force
FROM approvals.grants
WHERE ($1 OR revoked_at IS NULL AND expires_at > clock_timestamp() AND (uses_left IS NULL OR uses_left > 0))
  AND ($2::text IS NULL OR agent = $2)
  AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
ORDER BY created_at DESC, id DESC LIMIT $5
"""


async def search(
    connection: Connection,
    *,
    every: bool = False,
    agent: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[dict[str, Any]], str | None]:
    """Those in force, or `every` one there has been; newest first, and the next page's cursor.

    Raises:
        ValueError: a cursor that this function did not make.
    """
    before, before_id = (None, None) if cursor is None else read_cursor(cursor, "g")
    wanted = None if agent is None else storable(agent)
    rows = await connection.fetch(_LIST, every, wanted, before, before_id, limit + 1)
    page = rows[:limit]
    return [_to_object(row) for row in page], write_cursor(page[-1]) if len(rows) > limit else None


def _to_object(row: asyncpg.Record) -> dict[str, Any]:
    found = dict(row)
    for moment in ("created_at", "expires_at", "revoked_at"):
        found[moment] = None if row[moment] is None else rfc3339(row[moment])
    return found | {"requirements": decode(row["requirements"])}


_REVOKE = """
UPDATE approvals.grants SET revoked_at = clock_timestamp(), revoked_by = $2
WHERE id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()
"""

_WITHDRAW = """
UPDATE approvals.requests SET status = 'withdrawn', withdraw_reason = 'the grant was revoked'
WHERE grant_id = $1 AND status = 'approved'
"""


async def revoke(pool: Pool, grant_id: str, reviewer: Reviewer) -> None:
    """Ends a grant, and what it has let through and has not been claimed yet. For administrators and who gave it.

    Raises:
        NotFound: there is none, or it is no longer in force.
        Forbidden, StoreUnavailable
    """
    if not is_id(grant_id, "g"):
        raise NotFound("no such grant")
    async with store_connection(pool) as connection, connection.transaction():
        row = await connection.fetchrow("SELECT reviewer_keys FROM approvals.grants WHERE id = $1", grant_id)
        if row is None:
            raise NotFound("no such grant")
        if "admin" not in reviewer.roles:
            keys = keys_of(reviewer, await links(connection))
            if reviewer.machine or not keys.intersection(row["reviewer_keys"]):
                raise Forbidden("a grant is revoked by an administrator or by who gave it")
        if await connection.execute(_REVOKE, grant_id, storable(reviewer.name)) != "UPDATE 1":
            raise NotFound("the grant is no longer in force")
        await connection.execute(_WITHDRAW, grant_id)
    log.info("grant revoked grant=%s", grant_id)


def terms_from(stored: dict[str, Any] | None) -> Terms | None:
    """What a vote's `terms` say."""
    return None if stored is None or "scope" not in stored else Terms(**stored)


def terms_to_json(terms: Terms | None) -> str | None:
    return None if terms is None else encode(terms.to_dict())
