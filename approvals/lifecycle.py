"""What happens to requests without anybody asking: they expire, and a dead worker's are cleared away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from approvals.documents import storable
from approvals.errors import StoreUnavailable
from approvals.model import Status, sources
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Connection, Pool

log = logging.getLogger("pgproxy.approvals")

SWEEP_INTERVAL_S = 1.0
_BATCH = 500

# SKIP LOCKED: a row that another process is deciding right now is that process's; the next sweep sees it
# again. It also keeps two sweepers from waiting for each other in a circle.
_EXPIRE = """
UPDATE approvals.requests SET
    status = 'expired',
    resolved_at = coalesce(resolved_at, clock_timestamp())
WHERE id IN (
    SELECT id FROM approvals.requests
    WHERE status = ANY ($1::text[]) AND status IN ('pending', 'approved') AND expires_at <= clock_timestamp()
    ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id
"""


async def expire_due(pool: Pool) -> list[str]:
    """Expires up to one batch of requests whose time has come; their ids."""
    async with store_connection(pool) as connection:
        rows = await connection.fetch(_EXPIRE, sources(Status.EXPIRED), _BATCH)
    return [row["id"] for row in rows]


async def run_expiry(pool: Pool, interval_s: float = SWEEP_INTERVAL_S) -> None:
    """The sweeper of the control process; runs until cancelled.

    Only tidiness depends on it: a claim compares the expiry itself, and a waiter expires its own request.
    """
    while True:
        try:
            expired = await expire_due(pool)
        except StoreUnavailable:
            expired = []
        for approval_id in expired:
            log.info("approval expired approval=%s", approval_id)
        if len(expired) < _BATCH:
            await asyncio.sleep(interval_s)


@dataclass(frozen=True, slots=True)
class Reaped:
    withdrawn: list[str]
    unknown: list[str]


async def reap(pool: Pool, node: str, instance: str | None = None, *, alive: Collection[str] = ()) -> Reaped:
    """Clears away what a dead worker left: pending and approved requests are withdrawn, for nobody will run
    them (but those that do not wait: any session of the agent may); an executing one becomes `unknown`, for nobody saw
    its end.

    With an instance, that worker's; without, those of every instance of the node that is not in `alive`.
    """
    reason = "the worker that held the session ended"
    withdrawn: list[str] = []
    unknown: list[str] = []
    for target, found in ((Status.WITHDRAWN, withdrawn), (Status.UNKNOWN, unknown)):
        while True:
            async with store_connection(pool) as connection:
                batch = await _reap_batch(connection, target, node, instance, alive, reason)
            found += batch
            if len(batch) < _BATCH:
                break
    for approval_id in withdrawn:
        log.info("approval withdrawn approval=%s reason=%s", approval_id, reason)
    for approval_id in unknown:
        log.warning("approval outcome unknown approval=%s reason=%s", approval_id, reason)
    return Reaped(withdrawn, unknown)


# In id order and waiting for locks, unlike the sweep: the dead worker's claim may still be committing in
# the store, and whichever status it leaves must be seen. Executing is looked for last, so that such a claim
# cannot slip between.
_REAP = """
UPDATE approvals.requests SET
    status = $1,
    resolved_at = coalesce(resolved_at, clock_timestamp()),
    finished_at = CASE WHEN status = 'executing' THEN clock_timestamp() ELSE finished_at END,
    withdraw_reason = CASE WHEN $1 = 'withdrawn' THEN $6 ELSE withdraw_reason END
WHERE id IN (
    SELECT id FROM approvals.requests
    WHERE status = ANY ($2::text[]) AND status IN ('pending', 'approved', 'executing')
      AND (wait OR status = 'executing')
      AND node = $3 AND ($4::text IS NULL OR instance = $4) AND instance <> ALL ($5::text[])
    ORDER BY id LIMIT $7 FOR UPDATE)
RETURNING id
"""


async def _reap_batch(
    connection: Connection,
    target: Status,
    node: str,
    instance: str | None,
    alive: Collection[str],
    reason: str,
) -> list[str]:
    spared = [name for name in alive if name != instance]
    rows = await connection.fetch(
        _REAP, target.value, sources(target), node, instance, spared, storable(reason), _BATCH
    )
    return [row["id"] for row in rows]
