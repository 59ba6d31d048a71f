"""The planner's estimates, from the observer's own connection: EXPLAIN in a read-only transaction, never ANALYZE."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from pgproxy.dsn import Dsn

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_log = logging.getLogger("pgproxy.app")

LONGEST_S = 1.0  # that a statement waits for it
_STATEMENT_TIMEOUT = "800ms"
_MAX_DATABASES = 16
_NAME = "pgproxy_estimate"
_SETTINGS = {"application_name": "pgproxy estimates", "default_transaction_read_only": "on"}


class Planner:
    """`session.ports.Estimator`: one connection a database, made when first asked."""

    def __init__(self, upstream: Dsn, user: str, password: str | None) -> None:
        self._upstream = upstream
        self._user = user
        self._password = password
        self._connections: dict[str, Connection] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        connections, self._connections = list(self._connections.values()), {}
        for connection in connections:
            connection.terminate()

    async def estimate(self, database: str, text: str, parameters: int, search_path: Sequence[str]) -> float | None:
        """Rows, about; None where it cannot be told in the time there is."""
        if database not in self._locks and len(self._locks) >= _MAX_DATABASES:
            return None
        lock = self._locks.setdefault(database, asyncio.Lock())
        try:
            async with asyncio.timeout(LONGEST_S), lock:
                return await self._ask(database, text, parameters, search_path)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            # The type alone: messages quote the text.
            _log.info("no estimate of the planner's: %s", type(error).__name__)
            if not isinstance(error, asyncpg.PostgresError):
                self._drop(database)
            return None

    def _drop(self, database: str) -> None:
        connection = self._connections.pop(database, None)
        if connection is not None:
            connection.terminate()

    async def _ask(self, database: str, text: str, parameters: int, search_path: Sequence[str]) -> float | None:
        connection = self._connections.get(database)
        if connection is None or connection.is_closed():
            connection = self._connections[database] = await self._connect(database)
        path = ", ".join('"' + schema.replace('"', '""') + '"' for schema in search_path)
        async with connection.transaction(readonly=True):
            await connection.execute(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'")
            await connection.fetchval("SELECT set_config('search_path', $1, true)", path)
            # In the extended protocol: a second statement in the text would be an error.
            if not parameters:
                plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {text}")
            else:
                await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; DEALLOCATE ALL")
                await connection.fetchval(f"PREPARE {_NAME} AS {text}")
                values = ", ".join(["NULL"] * parameters)
                plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {_NAME} ({values})")
        return rows_of(json.loads(plan)[0]["Plan"])

    async def _connect(self, database: str) -> Connection:
        dsn = self._upstream.model_copy(update={"user": self._user, "password": None, "database": database})
        options: dict[str, Any] = {} if self._password is None else {"password": self._password}
        connection: Connection = await asyncpg.connect(
            dsn.uri(), timeout=LONGEST_S, server_settings=_SETTINGS, statement_cache_size=0, **options
        )
        return connection


def rows_of(plan: dict[str, Any]) -> float:
    """Of a change, the rows it reaches: a plan that returns none says 0 of itself."""
    if plan.get("Node Type") == "ModifyTable":
        return sum(float(part["Plan Rows"]) for part in plan.get("Plans", ()))
    return float(plan["Plan Rows"])
