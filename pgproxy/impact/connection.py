"""The observer's own connections for looking around: few, read-only, and given up quickly.

One small pool a database, the least recently used ended when there are too many; idle connections go after half a
minute, for they would keep the database from being dropped. A database that did not answer is not asked again for a
moment, so that a down server does not make every request wait for its time-out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from pgproxy.dsn import Dsn

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

CONNECT_TIMEOUT_S: Final = 2.0
PAUSE_S: Final = 5.0
MAX_DATABASES: Final = 8
MAX_CONNECTIONS: Final = 2  # a database
IDLE_S: Final = 30.0
LOCK_TIMEOUT: Final = "250ms"
STATEMENT_TIMEOUT: Final = "1500ms"
STARTUP_SETTINGS: Final = {
    "application_name": "pgproxy impact",
    "default_transaction_read_only": "on",
    # Should this process freeze, its locks are given up by the server.
    "idle_in_transaction_session_timeout": "10s",
}
# Local to each transaction, and not given at start-up: there they would hide the server's own in pg_settings.
_LOCAL: Final = f"""
SELECT set_config('search_path', '', true), set_config('statement_timeout', '{STATEMENT_TIMEOUT}', true),
       set_config('lock_timeout', '{LOCK_TIMEOUT}', true), set_config('jit', 'off', true),
       set_config('row_security', 'off', true), set_config('standard_conforming_strings', 'on', true)
"""
FAILURES: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Unreachable(Exception):
    """The observer has no connection; the message says why."""


class Observer:
    """Gives out transactions. `close` ends all connections."""

    def __init__(self, upstream: Dsn, user: str, password: str | None) -> None:
        self._upstream = upstream
        self._user = user
        self._password = password
        self._pools: dict[str, Pool] = {}
        self._down: dict[str, tuple[float, str]] = {}

    async def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.terminate()

    @asynccontextmanager
    async def transaction(self, database: str) -> AsyncIterator[Connection]:
        """A read-only transaction that is always rolled back, under an empty search_path.

        Raises:
            Unreachable: no connection could be made.
        """
        until, reason = self._down.get(database, (0.0, ""))
        if monotonic() < until:
            raise Unreachable(reason)
        pool = await self._pool(database)
        try:
            connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        except FAILURES as error:
            # "too many clients" and the like name the server's state; the type says whether it answered at all.
            reason = f"the observer cannot connect: {type(error).__name__}{_message(error)}"
            self._down[database] = (monotonic() + PAUSE_S, reason)
            while len(self._down) > MAX_DATABASES:
                self._down.pop(next(iter(self._down)))
            raise Unreachable(reason) from None
        self._down.pop(database, None)
        try:
            transaction = connection.transaction(readonly=True)
            await transaction.start()
            await connection.execute(_LOCAL)
            yield connection
            await transaction.rollback()
        except BaseException:
            # Whatever is still under way there is not waited for.
            connection.terminate()
            raise
        finally:
            await pool.release(connection, timeout=CONNECT_TIMEOUT_S)

    async def _pool(self, database: str) -> Pool:
        pool = self._pools.pop(database, None)
        if pool is None:
            dsn = self._upstream.model_copy(update={"user": self._user, "password": None, "database": database})
            options: dict[str, Any] = {} if self._password is None else {"password": self._password}
            pool = asyncpg.create_pool(
                dsn.uri(),
                min_size=0,
                max_size=MAX_CONNECTIONS,
                max_inactive_connection_lifetime=IDLE_S,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=3.0,
                statement_cache_size=0,
                server_settings=STARTUP_SETTINGS,
                **options,
            )
            await pool  # with no connection yet
        self._pools[database] = pool  # the most recent is the last
        while len(self._pools) > MAX_DATABASES:
            self._pools.pop(next(iter(self._pools))).terminate()
        return pool


def _message(error: BaseException) -> str:
    return f": {str(error)[:200]}" if isinstance(error, asyncpg.PostgresError) else ""


def explain_failure(error: BaseException) -> str:
    """Why a section could not be gathered, for a reviewer."""
    match error:
        case asyncpg.LockNotAvailableError():
            return f"somebody holds a lock on it: given up after {LOCK_TIMEOUT}"
        case asyncpg.QueryCanceledError():
            return f"it took longer than {STATEMENT_TIMEOUT}"
        case asyncpg.InsufficientPrivilegeError():
            return f"the observer has no permission: {str(error)[:200]}"
        case asyncpg.PostgresError():
            return f"{error.sqlstate}: {str(error)[:300]}"
    return f"the server did not answer ({type(error).__name__})"
