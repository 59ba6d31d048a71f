"""One database's snapshot, kept fresh over one connection of the observer's.

A snapshot has a version. `invalidate` gives out the next one at once, before anything has been read, so that every
answer given from now on waits for what is then read (`wait`); nothing is answered by a catalog older than the change
that was announced. If what is read turns out to be what was known, the old version and with it all that is cached
under it stay. Changes made around the proxy are noticed by a watermark asked for every `poll_s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

import asyncpg

from classifier.catalog import encode
from pgproxy.catalog import queries, reader

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_log = logging.getLogger("pgproxy.catalog")

RETRY_S: Final = 2.0
MAX_SHARE: Final = 0.05  # of the time that asking for the watermark may take
_FAILURES: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError)


class Watch:
    """`connect` opens a connection to this database; `publish` gets each new snapshot with its version."""

    def __init__(
        self,
        database: str,
        connect: Callable[[str], Awaitable[Connection]],
        publish: Callable[[str, int, bytes], None],
        poll_s: float,
    ) -> None:
        self.database = database
        self.payload: bytes | None = None
        self.version = 1  # given out; what `payload` is, once `is_reading` is false
        self.is_failing = False
        self.reads = 0
        self._connect = connect
        self._publish = publish
        self._poll_s = poll_s
        self._known = 0  # the version `payload` is
        self._announced = 1
        self._wanted = asyncio.Event()
        self._settled = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"catalog-{database}")

    @property
    def is_reading(self) -> bool:
        """Whether the version given out has not been read yet."""
        return self.version != self._known

    def invalidate(self) -> None:
        """The catalog has changed, or may have."""
        self._announced += 1
        self.version = self._announced
        self._settled.clear()
        self._wanted.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether the version given out is there, at last; false when it could not be read in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.is_reading and not self.is_failing:
                    await self._settled.wait()
        except TimeoutError:
            return False
        return not self.is_reading

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._serve()
            except _FAILURES as error:
                if not self.is_failing:
                    _log.warning("catalog: database cannot be read (%s)", type(error).__name__)
                self.is_failing = True
                self._settled.set()
                await asyncio.sleep(RETRY_S)

    async def _serve(self) -> None:
        """Reads, polls and reads again, until something fails."""
        connection = await self._connect(self.database)
        try:
            mark: str | None = None
            complete = False
            while True:
                announced = self._announced
                self._wanted.clear()
                # the mark first: what changes while reading is noticed by the next one
                asked = monotonic()
                seen: str = await connection.fetchval(queries.WATERMARK)
                pause_s = max(self._poll_s, (monotonic() - asked) / MAX_SHARE)
                if seen != mark or not complete or self.is_reading:
                    rows = await reader.fetch(connection)
                    payload = await asyncio.to_thread(_payload, rows)
                    mark, complete = seen, rows.is_complete
                    self.reads += 1
                    self._took(payload, announced)
                self.is_failing = False
                if self.is_reading:
                    self._settled.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wanted.wait(), pause_s)
        finally:
            connection.terminate()

    def _took(self, payload: bytes, announced: int) -> None:
        """Notes what was read; it answers for all that was announced before the reading began."""
        if payload != self.payload:
            if self._known and announced == self._announced and not self.is_reading:
                self._announced = announced = announced + 1  # changed around the proxy
            self.payload = payload
            self._known = announced
            self._publish(self.database, announced, payload)
        if announced == self._announced:
            self.version = self._known
            self._settled.set()


def _payload(rows: reader.Rows) -> bytes:
    return encode(reader.build(rows))
