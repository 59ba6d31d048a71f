"""The writer's connection to the store: opened when needed, inserts a batch in one round trip.

One `INSERT … SELECT FROM unnest` and not COPY: it is one round trip instead of two, and it can skip ids that
exist, which makes retrying safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from pgproxy.audit.encoding import Row

_INSERT = """
INSERT INTO audit.entries (entry_id, node, time, kind, statement_id, session_id, agent, decision, classes,
                           sql, size_bytes, body)
SELECT entry_id, node, time, kind, statement_id, session_id, agent, decision,
       coalesce(string_to_array(nullif(classes, ''), ','), '{}'), sql, size_bytes, body
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[], $11::bigint[], $12::jsonb[])
     WITH ORDINALITY AS batch (entry_id, node, time, kind, statement_id, session_id, agent, decision, classes,
                               sql, size_bytes, body, place)
ORDER BY place
ON CONFLICT (entry_id) DO NOTHING
"""
_STANDING = "SELECT entry_id FROM audit.entries WHERE entry_id = ANY ($1) AND decision IS DISTINCT FROM 'blocked'"
# A store that acknowledges commits before they are on disk would make `append` lie; stricter settings are
# left alone.
_SESSION = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
_KEEPALIVE = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}


class StoreConnection:
    """Not for concurrent use. After any failure call `disconnect`; the next call connects anew."""

    def __init__(self, dsn: str, *, application_name: str, timeout_s: float) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._timeout_s = timeout_s
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def insert(self, rows: Sequence[Row]) -> None:
        """Committed on return. A row whose id the table has is skipped."""
        connection = await self._connected()
        columns = list(zip(*rows, strict=True))
        await connection.execute(_INSERT, *columns, timeout=self._timeout_s)

    async def find_standing(self, entry_ids: Sequence[UUID]) -> list[UUID]:
        """Those of them that the table has with another decision than `blocked`."""
        connection = await self._connected()
        records = await connection.fetch(_STANDING, entry_ids, timeout=self._timeout_s)
        return [record["entry_id"] for record in records]

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                self._dsn,
                timeout=self._timeout_s,
                server_settings={
                    "application_name": self._application_name,
                    "statement_timeout": str(round(self._timeout_s * 1000)),  # given up here: ended there
                    **_KEEPALIVE,
                },
            )
            self._connection = connection
            await connection.execute(_SESSION, timeout=self._timeout_s)
        return self._connection

    def disconnect(self) -> None:
        """At once: a connection that failed is not asked to say good-bye."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def is_about_the_entries(error: BaseException) -> bool:
    """Whether retrying cannot help: bad data, a broken constraint, a program limit ("PostgreSQL Error
    Codes")."""
    sqlstate = getattr(error, "sqlstate", None) or ""
    return sqlstate[:2] in ("22", "23", "54")


def name_of(error: BaseException) -> str:
    """What a log line may hold: never the server's text, which quotes the row."""
    return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".strip()
