"""What is found out about a request after it was made, so that making it, and the notice of it, wait for nothing.

Follows the outbox on its own: whatever is slow or fails here is nobody else's matter. Each request is looked at once
when it opens and again when a reviewer changes its statement; after a restart those still pending that have not been.
Every process looks after the requests of its own node.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from approvals import history
from approvals.errors import NotFound, StoreUnavailable
from approvals.model import is_id
from approvals.outbox import EventRow, events_after, last_seq
from approvals.reading import load
from approvals.requests import add_context
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.ports import AuditReader, ImpactProbe
    from approvals.store import Pool
    from approvals.wakeups import Wakeups

log = logging.getLogger("pgproxy.approvals")

AT_ONCE = 4
LOOK_S = 2.0
PAUSE_S = 1.0
PROBE_S = 10.0  # a probe keeps to less by itself
NO_PROBE = {"unavailable": "upstream.observer is not set"}

_PENDING = (
    "SELECT id, context::text AS context FROM approvals.requests WHERE node = $1 AND status = 'pending' ORDER BY id"
)


class Gatherer:
    """`run` is to be kept running by one task."""

    def __init__(self, pool: Pool, audit: AuditReader, probe: ImpactProbe | None, *, node: str) -> None:
        self._pool = pool
        self._audit = audit
        self._probe = probe
        self._node = node
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self, wakeups: Wakeups) -> None:
        """Until cancelled."""
        seq: int | None = None
        async with asyncio.TaskGroup() as tasks:
            with wakeups.subscribe() as changed:
                while True:
                    try:
                        if seq is None:
                            # The place first: what opens in between is then in both, and done twice rather than never.
                            seq = await last_seq(self._pool)
                            wanted, is_all = await self._left_over(), True
                        else:
                            events = await events_after(self._pool, seq)
                            wanted, is_all = [each.approval_id for each in events if self._asks(each)], not events
                            seq = events[-1].seq if events else seq
                    except StoreUnavailable:
                        await asyncio.sleep(PAUSE_S)
                        continue
                    for approval_id in dict.fromkeys(wanted):
                        await self._room.acquire()
                        tasks.create_task(self._in_background(approval_id))
                    if is_all:
                        await changed.wait(LOOK_S)

    async def refresh(self, approval_id: str) -> dict[str, Any]:
        """Looks again, whatever the request's status; the approval object with what was found.

        Raises:
            NotFound, StoreUnavailable
        """
        async with self._room:
            await self._gather(approval_id, even_decided=True)
        async with store_connection(self._pool) as connection:
            approval = await load(connection, approval_id)
        if approval is None:
            raise NotFound("no such approval")
        return approval

    def _asks(self, event: EventRow) -> bool:
        opened = event.kind == "status" and event.status == "pending"
        return event.node == self._node and (opened or event.kind == "modify")

    async def _left_over(self) -> list[str]:
        async with store_connection(self._pool) as connection:
            rows = await connection.fetch(_PENDING, self._node)
        return [row["id"] for row in rows if '"history": {' not in row["context"]]

    async def _in_background(self, approval_id: str) -> None:
        try:
            await self._gather(approval_id)
        except StoreUnavailable:
            log.warning("context not gathered: the store did not answer approval=%s", approval_id)
        except Exception as error:
            # It must end neither the process nor the looking at others; the type alone, for messages quote texts.
            log.error("context not gathered: approval=%s error=%s", approval_id, type(error).__name__)
        finally:
            self._room.release()

    async def _gather(self, approval_id: str, *, even_decided: bool = False) -> None:
        """Impact first, and kept at once; then history, which names relations as the impact resolved them."""
        if not is_id(approval_id):
            return
        async with store_connection(self._pool) as connection:
            approval = await load(connection, approval_id)
        if approval is None or (approval["status"] != "pending" and not even_decided):
            return
        sha256 = approval["statement"]["sha256"]
        impact = await self._impact(approval)
        await add_context(self._pool, approval_id, "impact", impact, sha256=sha256)
        found = await history.gather(self._pool, approval, self._audit, impact)
        await add_context(self._pool, approval_id, "history", found, sha256=sha256)

    async def _impact(self, approval: dict[str, Any]) -> dict[str, Any]:
        if self._probe is None:
            return dict(NO_PROBE)
        try:
            async with asyncio.timeout(PROBE_S):
                return await self._probe.probe(approval)
        except Exception as error:
            log.warning("no impact: approval=%s error=%s", approval["id"], type(error).__name__)
            return {"error": f"it could not be gathered ({type(error).__name__})"}
