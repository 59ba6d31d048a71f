"""Server-sent events: one reader of the outbox a process, any number of clients.

Each event is read and rendered once and handed to every client's bounded queue. A client too slow to keep
up is disconnected rather than waited for; it comes back with `Last-Event-ID` and misses nothing
("Server-sent events", WHATWG HTML).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from approvals import requests
from approvals.documents import encode_bytes
from approvals.errors import StoreUnavailable
from approvals.outbox import EventRow, as_of, events_after, last_seq
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Pool
    from approvals.wakeups import Wakeups

log = logging.getLogger("pgproxy.approvals")

KEEPALIVE_S = 15.0
REREAD_S = 2.0
QUEUE_LENGTH = 1000
_BATCH = 200

_Frame = tuple[int, bytes]
StillAllowed = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    return True


class EventStream:
    """`run` is to be kept running by one task; `frames` serves one client; `close` ends them all.

    A client whose token is no longer good is disconnected: at once where somebody calls `recheck`, as a reload does,
    and in any case within a keep-alive.
    """

    def __init__(self, pool: Pool, wakeups: Wakeups, *, keepalive_s: float = KEEPALIVE_S) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._keepalive_s = keepalive_s
        self._clients: dict[asyncio.Queue[_Frame | None], StillAllowed] = {}
        self._closed = False

    @property
    def client_count(self) -> int:
        return len(self._clients)

    def close(self) -> None:
        """Ends every client's stream now, and every later one at once."""
        self._closed = True
        for queue in self._clients:
            _end(queue)

    async def recheck(self) -> None:
        """Disconnects the clients that would not be let in any more. While the store does not answer nobody can be
        asked, and nothing be told either."""
        for queue, allowed in list(self._clients.items()):
            try:
                if not await allowed() and self._clients.pop(queue, None) is not None:
                    log.info("event stream client disconnected: its token is no longer good")
                    _end(queue)
            except StoreUnavailable:
                return

    async def run(self) -> None:
        """Follows the outbox until cancelled."""
        seq: int | None = None
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        with self._wakeups.subscribe() as changes:
            while True:
                if loop.time() - checked_at >= self._keepalive_s:
                    await self.recheck()
                    checked_at = loop.time()
                try:
                    if seq is None:
                        seq = await last_seq(self._pool)
                    events = await events_after(self._pool, seq, _BATCH)
                    if events:
                        self._publish(await self._render(events))
                        seq = events[-1].seq
                        continue
                except StoreUnavailable:
                    pass  # what happens meanwhile is read afterwards: nothing is skipped
                await changes.wait(REREAD_S)

    def _publish(self, frames: Sequence[_Frame]) -> None:
        for queue in list(self._clients):
            for frame in frames:
                try:
                    queue.put_nowait(frame)
                except asyncio.QueueFull:
                    log.warning("event stream client too slow, disconnected")
                    self._clients.pop(queue, None)
                    _end(queue)
                    break

    async def _render(self, events: Sequence[EventRow]) -> list[_Frame]:
        async with store_connection(self._pool) as connection:
            approvals = await requests.load_many(connection, [event.approval_id for event in events])
        return [
            (event.seq, _frame(event.seq, encode_bytes(as_of(approvals[event.approval_id], event))))
            for event in events
            if event.approval_id in approvals
        ]

    async def frames(self, after: int | None = None, allowed: StillAllowed = _always) -> AsyncIterator[bytes]:
        """One client's stream, for as long as it is `allowed`; with `after`, first what happened since that event."""
        queue: asyncio.Queue[_Frame | None] = asyncio.Queue(QUEUE_LENGTH)
        self._clients[queue] = allowed
        if self._closed:
            _end(queue)
        try:
            yield b"retry: 2000\n: connected\n\n"
            seen = -1
            if after is not None:
                # Attached first, so that nothing falls between the replay and the queue; what is in both is
                # sent once.
                seen = after
                while replay := await events_after(self._pool, seen, _BATCH):
                    for _, frame in await self._render(replay):
                        yield frame
                    seen = replay[-1].seq
            while True:
                try:
                    async with asyncio.timeout(self._keepalive_s):
                        item = await queue.get()
                except TimeoutError:
                    yield b": keepalive\n\n"
                    continue
                if item is None:
                    return
                if item[0] > seen:
                    yield item[1]
        except StoreUnavailable:
            return  # the client reconnects with its last id
        finally:
            self._clients.pop(queue, None)


def _end(queue: asyncio.Queue[_Frame | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


def _frame(seq: int, document: bytes) -> bytes:
    """ASCII JSON has no line ends, so the document is one data line."""
    return b"id: %d\nevent: approval\ndata: %s\n\n" % (seq, document)
