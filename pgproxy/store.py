"""The store's connection pool and migration runner; `approvals/` and `audit/` each bring their numbered
files.

There is one store implementation, PostgreSQL, embedded or not: a second one (SQLite for small set-ups, say)
would have to prove the same compare-and-set and notification semantics again.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    Pool = asyncpg.Pool[asyncpg.Record]

log = logging.getLogger("pgproxy.store")

MIGRATION_LOCK = 0x7067_7072_6F78_7901
"""Advisory lock key, `pgproxy` in ASCII and 1 ("Explicit Locking", advisory locks): one migration run at a
time."""

MIGRATION_TIMEOUT_S = 300.0
COMMAND_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_MIGRATIONS_TABLE = """
CREATE TABLE IF NOT EXISTS public.pgproxy_migrations (
    component   text        NOT NULL,
    number      integer     NOT NULL,
    name        text        NOT NULL,
    sha256      text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, number)
)
"""


class MigrationError(Exception):
    """The store's schema and this program's migrations do not fit together; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.number:04d}_{self.name}"


async def open_pool(dsn: str, *, min_size: int = 1, max_size: int = 10) -> Pool:
    """Connects to the store. The caller closes the pool.

    A transaction left idle (a frozen process) is ended by the store after 15 s, so that no row lock on an
    approval outlives the process that took it.
    """
    pool: Pool = await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
        server_settings={
            "application_name": "pgproxy",
            "idle_in_transaction_session_timeout": "15s",
            "jit": "off",
            "timezone": "UTC",
        },
    )
    return pool


def read_migrations(directory: Traversable | Path) -> list[Migration]:
    """The `NNNN_name.sql` files of a directory in order.

    Raises:
        MigrationError: a name that does not fit, or numbers that are not 1, 2, 3, …
    """
    migrations: list[Migration] = []
    for entry in sorted(directory.iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(".sql"):
            continue
        match = _FILE_NAME.fullmatch(entry.name)
        if match is None:
            raise MigrationError(f"migration {entry.name!r} is not named NNNN_name.sql")
        content = entry.read_bytes()
        migrations.append(
            Migration(int(match[1]), match[2], content.decode("utf-8"), hashlib.sha256(content).hexdigest())
        )
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(f"migration {migration} found where number {expected:04d} was expected")
    return migrations


async def migrate(pool: Pool, component: str, directory: Traversable | Path) -> list[str]:
    """Brings a component's tables up to date and returns what it applied, in order.

    All in one transaction under an advisory lock: of several processes that start together one does the
    work, the others wait and find it done; a failing file leaves the store as it was.

    Raises:
        MigrationError: the store holds a migration this program does not know (it was upgraded by a newer
            one), or a file was changed after it had been applied.
    """
    migrations = read_migrations(directory)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK, timeout=MIGRATION_TIMEOUT_S)
        await connection.execute(_MIGRATIONS_TABLE)
        applied = await connection.fetch(
            "SELECT number, name, sha256 FROM public.pgproxy_migrations WHERE component = $1 ORDER BY number",
            component,
        )
        pending = _pending(component, migrations, applied)
        for migration in pending:
            try:
                await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT_S)
            except asyncpg.PostgresError as error:
                raise MigrationError(f"{component} migration {migration} failed: {error}") from error
            await connection.execute(
                "INSERT INTO public.pgproxy_migrations (component, number, name, sha256) VALUES ($1, $2, $3, $4)",
                component,
                migration.number,
                migration.name,
                migration.sha256,
            )
    for migration in pending:
        log.info("store migrated component=%s migration=%s", component, migration)
    return [str(migration) for migration in pending]


def _pending(component: str, migrations: list[Migration], applied: list[Any]) -> list[Migration]:
    known = {migration.number: migration for migration in migrations}
    for row in applied:
        migration = known.get(row["number"])
        label = f"{row['number']:04d}_{row['name']}"
        if migration is None:
            raise MigrationError(
                f"the store has {component} migration {label}, which this program does not know: "
                "it was migrated by a newer pgproxy; run that version or newer"
            )
        if migration.sha256 != row["sha256"]:
            raise MigrationError(
                f"{component} migration {migration} differs from the one applied to the store ({label}): "
                "an applied migration must never be edited; add a new one"
            )
    done = {row["number"] for row in applied}
    return [migration for migration in migrations if migration.number not in done]
