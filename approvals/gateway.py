"""The approvals as one worker sees them: open a request, wait, claim it, tell how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from approvals import grants, lifecycle, requests
from approvals.documents import decode, storable
from approvals.errors import LimitReached, StoreUnavailable
from approvals.model import NewRequest, Opened, Resolved, Status, new_id
from approvals.store import STORE_TIMEOUT_S, store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.lifecycle import Reaped
    from approvals.store import Connection, Pool
    from approvals.wakeups import Wakeups

log = logging.getLogger("pgproxy.approvals")

REREAD_S = 2.0
"""How often a waiter looks by itself; heals lost notifications and half-open connections."""

PATIENCE_S = 30.0
"""How long `wait` bears a store that does not answer, once the request should have expired or if its expiry
is unknown."""

_READ = """
SELECT status, extract(epoch FROM expires_at - clock_timestamp())::float8 AS remaining_s, revision, modified_by,
    row_cap, CASE WHEN revision > 1 THEN statement END AS statement
FROM approvals.requests WHERE id = $1
"""

_VOTES = """
SELECT reviewer, decision, comment FROM approvals.decisions
WHERE approval_id = $1 AND revision = $2 ORDER BY at, reviewer_key
"""

_EARLIER = """
SELECT id, status, expires_at, asked = $3 AND owner IS NOT DISTINCT FROM $4 AS is_same FROM approvals.requests
WHERE agent = $1 AND retry_binding = $2 AND NOT wait AND status IN ('pending', 'approved', 'denied')
  AND expires_at > clock_timestamp()
ORDER BY created_at DESC, id DESC LIMIT 1 FOR UPDATE
"""

_OPEN = """
SELECT count(*) FROM approvals.requests
WHERE agent = $1 AND status IN ('pending', 'approved') AND expires_at > clock_timestamp()
"""

_AGENT_LOCK = 0x6170_7003
"""With a hash of the agent's name: the requests of one agent are opened one after the other."""


MAX_OPEN_PER_AGENT = 100
"""Requests of one agent in the whole store that are neither decided nor used; 0: no limit."""


class Gateway:
    """Requests of one worker, which is `instance` of `node`; the supervisor reaps by these names.

    A call that raises `StoreUnavailable` may have reached the store all the same. What it may have left (a
    request nobody waits for, a claim nobody uses, an outcome not told) is remembered and put right by
    `settle`, which `run` calls; until then such an approval is dead here: a claim that was in doubt is
    never tried again.
    """

    def __init__(
        self,
        pool: Pool,
        wakeups: Wakeups,
        node: str,
        instance: str,
        *,
        timeout_s: float = STORE_TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        max_open_per_agent: int = MAX_OPEN_PER_AGENT,
    ) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self.node = node
        self.instance = instance
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self.max_open_per_agent = max_open_per_agent
        self._abandoned: dict[str, bool] = {}  # id → whether it may be executing, by a claim in doubt
        self._unfinished: dict[str, tuple[Status, dict[str, Any]]] = {}

    async def open(self, request: NewRequest) -> Opened:
        """Stores a request; or finds what stands in for it: a grant, which approves it at once, or an earlier request
        of the same agent for the same that does not wait.

        Raises:
            LimitReached: the agent has too many open requests.
            StoreUnavailable
        """
        if not request.wait and not request.retry_binding:
            raise ValueError("a request that does not wait is found again by its retry_binding")
        approval_id = new_id()
        try:
            async with store_connection(self._pool, self._timeout_s) as connection, connection.transaction():
                opened = await self._open(connection, approval_id, request)
        except (StoreUnavailable, asyncio.CancelledError):
            self._abandoned[approval_id] = False
            raise
        log.info("approval opened approval=%s status=%s", opened.id, opened.status)
        return opened

    async def _open(self, connection: Connection, approval_id: str, request: NewRequest) -> Opened:
        agent = storable(str(request.requester.get("agent")))
        await connection.execute("SELECT pg_advisory_xact_lock($1::integer, hashtext($2))", _AGENT_LOCK, agent)
        if not request.wait and (earlier := await self._earlier(connection, agent, request)) is not None:
            return earlier
        # What does not wait belongs to no worker until one claims it.
        instance = self.instance if request.wait else ""
        grant = await grants.use(connection, request)
        if grant is not None:
            created_at, expires_at = await requests.insert(
                connection,
                approval_id,
                request,
                self.node,
                instance,
                grant_id=grant["id"],
                row_cap=grant["row_cap"],
            )
            await grants.vote_by_grant(connection, approval_id, grant["id"], created_at)
            return Opened(approval_id, expires_at, Status.APPROVED.value)
        limit = self.max_open_per_agent
        if limit and await connection.fetchval(_OPEN, agent) >= limit:
            raise LimitReached("the agent has too many open requests")
        _, expires_at = await requests.insert(connection, approval_id, request, self.node, instance)
        return Opened(approval_id, expires_at)

    async def _earlier(self, connection: Connection, agent: str, request: NewRequest) -> Opened | None:
        """The live request that this one repeats. One for which policy asked for something else, or whose agent had
        another owner, stands for nothing any more."""
        owner = request.requester.get("owner")
        row = await connection.fetchrow(
            _EARLIER,
            agent,
            request.retry_binding,
            requests.asked(request),
            None if owner is None else storable(str(owner)),
        )
        if row is None:
            return None
        if row["is_same"]:
            return Opened(row["id"], row["expires_at"], row["status"])
        await requests.step(connection, row["id"], Status.WITHDRAWN, reason="the policy has changed")
        return None

    async def wait(self, approval_id: str) -> Resolved:
        """Returns when the request is no longer pending.

        Wakes by notification and looks every 2 s besides; expires the request itself when its time has
        come. A request that is not there counts as withdrawn: nobody can approve it.

        Raises:
            StoreUnavailable: the store has not answered for `patience_s`, and the request can only have
                expired.
        """
        expiry: float | None = None  # on this process's monotonic clock, and only to decide how long to bear silence
        silent_since: float | None = None
        with self._wakeups.subscribe(approval_id) as subscription:
            while True:
                pause_s = REREAD_S
                try:
                    async with store_connection(self._pool, self._timeout_s) as connection:
                        row = await connection.fetchrow(_READ, approval_id)
                        if row is None:
                            return Resolved(approval_id, Status.WITHDRAWN.value)
                        status, remaining_s = Status(row["status"]), float(row["remaining_s"])
                        if status in (Status.PENDING, Status.APPROVED) and remaining_s <= 0:
                            if await requests.step(connection, approval_id, Status.EXPIRED):
                                log.info("approval expired approval=%s", approval_id)
                            continue
                        if status is not Status.PENDING:
                            votes = await connection.fetch(_VOTES, approval_id, row["revision"])
                            return _resolved(approval_id, status, row, votes)
                    silent_since = None
                    expiry = time.monotonic() + remaining_s
                    pause_s = min(REREAD_S, remaining_s + 0.01)
                except StoreUnavailable:
                    now = time.monotonic()
                    silent_since = silent_since or now
                    if now - max(silent_since, expiry or 0.0) > self._patience_s:
                        raise
                    pause_s = 0.2
                await subscription.wait(pause_s)

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        """approved → executing, if it has not expired, the binding is the same (of a request that does not wait, the
        retry_binding) and what is about to be sent is what was voted on: `sha256` of its raw bytes, of a modified
        statement's in UTF-8. True for exactly one caller, once.

        False means the statement must not run. After `StoreUnavailable` or a cancellation as well, and
        asking again is answered false.
        """
        if approval_id in self._abandoned:
            return False
        try:
            async with store_connection(self._pool, self._timeout_s) as connection:
                claimed = await requests.claim(
                    connection, approval_id, binding, sha256, node=self.node, instance=self.instance
                )
        except (StoreUnavailable, asyncio.CancelledError):
            self._abandoned[approval_id] = True
            raise
        log.info("approval claimed approval=%s claimed=%s", approval_id, claimed)
        return claimed

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        """pending|approved → withdrawn; false when it was too late. When the store does not answer, it is
        done later."""
        try:
            async with store_connection(self._pool, self._timeout_s) as connection:
                withdrawn = await requests.step(connection, approval_id, Status.WITHDRAWN, reason=reason)
        except (StoreUnavailable, asyncio.CancelledError):
            self._abandoned.setdefault(approval_id, False)
            raise
        log.info("approval withdrawn approval=%s withdrawn=%s", approval_id, withdrawn)
        return withdrawn

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        """executing → executed|failed|unknown, with the contract's `outcome` object. When the store does
        not answer it is kept and told later; the caller need not repeat it.

        Raises:
            ValueError: not a status that an execution can end with.
        """
        target = Status(status)
        if target not in (Status.EXECUTED, Status.FAILED, Status.UNKNOWN):
            raise ValueError(f"an execution cannot end {status}")
        self._unfinished[approval_id] = (target, outcome)
        await self._finish(approval_id)

    async def _finish(self, approval_id: str) -> None:
        target, outcome = self._unfinished[approval_id]
        async with store_connection(self._pool, self._timeout_s) as connection:
            finished = await requests.step(connection, approval_id, target, outcome=outcome)
        self._unfinished.pop(approval_id, None)
        if finished:
            log.info("approval finished approval=%s status=%s", approval_id, target.value)
        else:
            log.warning("approval was not executing when it finished approval=%s", approval_id)

    async def reap(self, node: str, instance: str | None, *, alive: Collection[str] = ()) -> Reaped:
        """See `lifecycle.reap`."""
        return await lifecycle.reap(self._pool, node, instance, alive=alive)

    async def settle(self) -> None:
        """Puts right what calls in doubt may have left.

        Raises:
            StoreUnavailable: not now; nothing is forgotten.
        """
        for approval_id in list(self._abandoned):
            await self._abandon(approval_id)
        for approval_id in list(self._unfinished):
            await self._finish(approval_id)

    async def _abandon(self, approval_id: str) -> None:
        reason = "the store did not confirm in time, so the statement was not run"
        async with store_connection(self._pool, self._timeout_s) as connection:
            withdrawn = await requests.step(connection, approval_id, Status.WITHDRAWN, reason=reason)
            if not withdrawn and self._abandoned[approval_id]:
                # The claim in doubt did happen; its bytes were never sent.
                await requests.step(connection, approval_id, Status.FAILED, outcome={"sqlstate": "58000"})
        self._abandoned.pop(approval_id, None)

    async def run(self, interval_s: float = REREAD_S) -> None:
        """Settles until cancelled; one task of the process keeps it running."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.settle()
            except StoreUnavailable:
                continue


def _resolved(approval_id: str, status: Status, row: asyncpg.Record, votes: list[Any]) -> Resolved:
    denied = status is Status.DENIED
    deciding = [vote for vote in votes if (vote["decision"] == "deny") == denied]
    statement = decode(row["statement"])
    last = deciding[-1] if deciding else None
    return Resolved(
        approval_id,
        status.value,
        reviewer=last["reviewer"] if last else None,
        comment=last["comment"] if last else None,
        reviewers=tuple(vote["reviewer"] for vote in votes),
        sql=None if statement is None else statement["sql"],
        modified_by=row["modified_by"],
        row_cap=row["row_cap"],
    )
