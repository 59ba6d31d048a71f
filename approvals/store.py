"""One way to the store, with a bound on how long it may take and one error for every way it can fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from approvals.errors import StoreUnavailable

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = PoolConnectionProxy[asyncpg.Record]

log = logging.getLogger("pgproxy.approvals")

STORE_TIMEOUT_S = 5.0
"""For a whole call, connection included. A client waits behind it, so it stays below drivers' usual 10 s
and more."""

ACQUIRE_TIMEOUT_S = 3.0
"""To get a connection, and to give one back whose query was given up."""


def migrations() -> Traversable:
    """The numbered SQL files of component `approvals`, for the migration runner."""
    return files("approvals") / "migrations"


@asynccontextmanager
async def store_connection(pool: Pool, timeout_s: float = STORE_TIMEOUT_S) -> AsyncIterator[Connection]:
    """A connection for one call.

    Raises:
        StoreUnavailable: whatever way the store failed. What the call had sent may or may not have been done.
    """
    try:
        async with asyncio.timeout(timeout_s), pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
            yield connection
    except (
        TimeoutError,
        OSError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # asyncpg resetting a connection that was cut in the middle of a reply
    ) as error:
        sqlstate = getattr(error, "sqlstate", None)
        log.warning("store call failed error=%s sqlstate=%s", type(error).__name__, sqlstate)
        raise StoreUnavailable("the approval store did not answer") from error
