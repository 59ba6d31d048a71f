"""What each database of the upstream holds, kept fresh for the classifier.

One watch (`watch.py`) a database in use: one connection of the observer's, a role that may connect and nothing
else, for PostgreSQL's own catalogs are readable by everybody. `queries.py` are the only statements it runs.

How fresh: a change made through pgproxy is announced (`invalidate`) when it completes, and whatever is judged
afterwards waits for what is then read; a change made around it is noticed at the next poll, `poll_s` (half a second)
and the reading later. Between the two a replaced function is judged by its old body: "never stale" cannot hold for
changes nobody announces. A function made meanwhile is not in the snapshot, and so unknown.

What a session's own open transaction has changed no other connection can see: `Environment.catalog_changed` says
so, and makes every function that is not PostgreSQL's own unknown (`State.is_stale` is to be or-ed with it).

When the observer cannot read, the last snapshot stays in force marked stale, to the same effect; before there was
any, the version is 0, no catalog. `problems` tells readiness.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import asyncpg

from pgproxy.catalog.watch import Watch
from pgproxy.dsn import Dsn

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

__all__ = ["Catalogs", "State", "Watch"]

POLL_S: Final = 0.5
WAIT_S: Final = 5.0  # for a reading, before a statement is answered `unknown`
CONNECT_TIMEOUT_S: Final = 5.0
MAX_DATABASES: Final = 100
# The observer may do nothing but read, and waits for nobody.
_SETTINGS: Final = {
    "application_name": "pgproxy catalog",
    "search_path": "",
    "default_transaction_read_only": "on",
    "statement_timeout": "10s",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "15s",
    "jit": "off",
    "row_security": "off",
}


class State(NamedTuple):
    """What a session's `Environment` takes from here. `is_stale`: the snapshot may be older than it should."""

    version: int
    is_stale: bool


class Catalogs:
    """The snapshots of a worker. `publish` gets each new one: `(database, version, bytes)`."""

    def __init__(
        self,
        upstream: Dsn,
        user: str,
        password: str | None,
        publish: Callable[[str, int, bytes], None],
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._upstream = upstream
        self._user = user
        self._password = password
        self._publish = publish
        self._poll_s = poll_s
        self._watches: dict[str, Watch] = {}
        self._open = False

    async def start(self) -> None:
        """From now on databases are read as they come into use."""
        self._open = True

    async def close(self) -> None:
        """Ends every watch."""
        self._open = False
        watches, self._watches = list(self._watches.values()), {}
        await asyncio.gather(*(watch.close() for watch in watches))

    def state(self, database: str) -> State:
        """The version to judge by now; the first question about a database starts its watch."""
        watch = self._watches.get(database)
        if watch is None:
            if not self._open or len(self._watches) >= MAX_DATABASES:
                return State(0, False)
            watch = self._watches[database] = Watch(database, self._connect, self._publish, self._poll_s)
        if watch.is_failing:
            return State(watch.version if watch.payload is not None else 0, True)
        return State(watch.version, False)

    def version(self, database: str) -> int:
        """The version alone."""
        return self.state(database).version

    def snapshot(self, database: str) -> bytes | None:
        """The newest there is."""
        watch = self._watches.get(database)
        return None if watch is None else watch.payload

    def invalidate(self, database: str) -> None:
        """Something that may have changed the database's catalog has completed."""
        watch = self._watches.get(database)
        if watch is not None:
            watch.invalidate()

    async def wait(self, database: str) -> bool:
        """Whether the newest version has been read; waits for it a while. A stale one counts as there."""
        watch = self._watches.get(database)
        if watch is None:
            return False
        return await watch.wait(WAIT_S) or (watch.is_failing and watch.payload is not None)

    async def forget(self, database: str) -> None:
        """Ends the watch of a database that is of no use; the next question about it starts another."""
        watch = self._watches.pop(database, None)
        if watch is not None:
            await watch.close()

    def problems(self) -> list[str]:
        """For readiness; one line a database that cannot be read."""
        return [f"no catalog of database {name}" for name, watch in sorted(self._watches.items()) if watch.is_failing]

    async def _connect(self, database: str) -> Connection:
        dsn = self._upstream.model_copy(update={"user": self._user, "password": None, "database": database})
        options: dict[str, Any] = {} if self._password is None else {"password": self._password}
        connection: Connection = await asyncpg.connect(
            dsn.uri(), timeout=CONNECT_TIMEOUT_S, command_timeout=30, server_settings=_SETTINGS, **options
        )
        return connection
