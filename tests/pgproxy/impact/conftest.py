"""A database to look at, the observer's login, and a probe."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from classifier import Environment, classify
from pgproxy.dsn import Dsn
from pgproxy.impact import Probe

Connection = asyncpg.Connection  # type: ignore[type-arg]

SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, email text, note text);
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE lines (id int, "order" int REFERENCES orders ON DELETE CASCADE);
CREATE TABLE visits (id int, customer int REFERENCES customers ON DELETE SET NULL);
CREATE TABLE invoices (id int, customer int REFERENCES customers);
INSERT INTO customers SELECT g, 'c' || g, repeat('x', 100) FROM generate_series(1, 1000) g;
INSERT INTO orders SELECT g, g FROM generate_series(1, 1000) g;
CREATE VIEW emails AS SELECT email FROM customers;
CREATE VIEW domains AS SELECT split_part(email, '@', 2) FROM emails;
ANALYZE;
"""


def approval(sql: str, database: str, **context: Any) -> dict[str, Any]:
    """An approval object, as far as a probe looks at it."""
    return {
        "id": "a0000000000000000",
        "requester": {"agent": "etl-bot", "db_user": "app", "database": database},
        "statement": {"sql": sql, "sha256": hashlib.sha256(sql.encode()).hexdigest(), "params": []},
        "classification": classify(sql, Environment()).to_dict(),
        "context": {"search_path": ["public"], **context},
    }


@dataclass
class World:
    dsn: Dsn
    admin: Connection
    probe: Probe

    async def impact(self, sql: str, **context: Any) -> dict[str, Any]:
        return await self.probe.probe(approval(sql, self.dsn.database or "", **context))

    async def connect(self) -> Connection:
        return await asyncpg.connect(self.dsn.uri())


@pytest.fixture
async def world(store_dsn: str) -> AsyncIterator[World]:
    """Observer `watcher` may connect and nothing else; the superuser's connection makes what there is to see."""
    admin = await asyncpg.connect(store_dsn)
    await admin.execute("DROP ROLE IF EXISTS watcher; CREATE ROLE watcher LOGIN PASSWORD 'secret'")
    dsn = Dsn.parse(store_dsn)
    probe = Probe(dsn, "watcher", "secret", total_s=20.0)
    await admin.execute(SCHEMA)
    yield World(dsn, admin, probe)
    await probe.close()
    await admin.execute("DROP OWNED BY watcher; DROP ROLE watcher")
    await admin.close()


@pytest.fixture
async def reader(world: World) -> World:
    """The same, with privileges to have every table planned with."""
    await world.admin.execute("GRANT pg_read_all_data, pg_write_all_data TO watcher")
    return world


Look = Callable[..., Awaitable[dict[str, Any]]]
