"""One LISTEN connection a process, and everybody in it who waits for a change of an approval.

A notification only ever says "look again": it may come late, twice or never ("NOTIFY" is not kept for a
listener that is away), so waiters read the store themselves, also after every reconnect and every couple of
seconds. Payloads are ids.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

log = logging.getLogger("pgproxy.approvals")

CHANNEL = "approvals"
KEEPALIVE_S = 5.0
CONNECT_TIMEOUT_S = 5.0
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
_jitter = random.SystemRandom()


class Subscription:
    """A waiter's view: changed ids since it last looked, coalesced."""

    __slots__ = ("_changed", "_event", "_missed")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._changed: set[str] = set()
        self._missed = False

    def _notify(self, approval_id: str) -> None:
        self._changed.add(approval_id)
        self._event.set()

    def _resync(self) -> None:
        self._missed = True
        self._event.set()

    async def wait(self, timeout_s: float) -> tuple[frozenset[str], bool]:
        """Returns when something changed or the time is up: the changed ids, and whether notifications may
        have been missed in between, so that everything of interest must be read again."""
        if not self._event.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
            except TimeoutError:
                return frozenset(), False
        changed, missed = frozenset(self._changed), self._missed
        self._event.clear()
        self._changed = set()
        self._missed = False
        return changed, missed


class Wakeups:
    """Owns the LISTEN connection. `run` is to be kept running by one task of the process; subscribing works
    before it has started and while it is disconnected."""

    def __init__(self, dsn: str, *, keepalive_s: float = KEEPALIVE_S) -> None:
        self._dsn = dsn
        self._keepalive_s = keepalive_s
        self._by_id: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._everything: set[Subscription] = set()
        self._connected = asyncio.Event()
        self.backend_pid: int | None = None
        """Process id of the LISTEN connection's server process, while connected."""

    @contextmanager
    def subscribe(self, approval_id: str | None = None) -> Iterator[Subscription]:
        """Changes of one approval, or of all, while the block lasts. Subscribe first and read the store
        then, or a change in between is seen only by the next periodic look."""
        subscription = Subscription()
        place = self._everything if approval_id is None else self._by_id[approval_id]
        place.add(subscription)
        try:
            yield subscription
        finally:
            place.discard(subscription)
            if approval_id is not None and not place:
                self._by_id.pop(approval_id, None)

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    async def connected(self) -> None:
        """Returns once the LISTEN connection is up."""
        await self._connected.wait()

    async def run(self) -> None:
        """Listens until cancelled, reconnecting with growing pauses, whatever happens to the store."""
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                connection: Connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=self._keepalive_s,
                    server_settings={"application_name": "pgproxy wakeups"},
                )
            except (
                TimeoutError,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                log.warning("store wake-ups cannot connect error=%s", type(error).__name__)
                await asyncio.sleep(pause_s * _jitter.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, BACKOFF_MAX_S)
                continue
            pause_s = BACKOFF_MIN_S
            try:
                await self._listen(connection)
            except (
                TimeoutError,
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                log.warning("store wake-ups lost their connection error=%s", type(error).__name__)
            finally:
                self._connected.clear()
                self.backend_pid = None
                connection.terminate()
            await asyncio.sleep(pause_s * _jitter.uniform(0.5, 1.0))

    async def _listen(self, connection: Connection) -> None:
        """Returns or raises when the connection is no longer good."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, self._on_notification)
        self.backend_pid = connection.get_server_pid()
        self._connected.set()
        log.info("store wake-ups connected")
        self._resync()
        while not lost.is_set():
            try:
                async with asyncio.timeout(self._keepalive_s):
                    await lost.wait()
            except TimeoutError:
                # A connection whose other end is gone without a word looks like a quiet one until it is used.
                await connection.execute("SELECT 1")

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        approval_id = str(payload)
        for subscription in self._by_id.get(approval_id, ()):
            subscription._notify(approval_id)
        for subscription in self._everything:
            subscription._notify(approval_id)

    def _resync(self) -> None:
        for subscriptions in self._by_id.values():
            for subscription in subscriptions:
                subscription._resync()
        for subscription in self._everything:
            subscription._resync()
