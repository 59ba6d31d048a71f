"""A catalog read from a real server in which things have been planted."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from classifier import Classification, Environment, classify, knowledge_of
from classifier.catalog import decode, encode
from classifier.walk import Knowledge
from pgproxy.catalog.reader import build, fetch

_numbers = itertools.count(1)


async def knowledge(dsn: str, planted: str) -> Knowledge:
    """What a database of its own holds after `planted` has run, through bytes as in production."""
    async with database(dsn) as connection:
        await connection.execute(planted)
        await connection.execute("SET search_path = ''")
        rows = await fetch(connection)
    assert rows.is_complete
    snapshot = build(rows)
    copy = decode(encode(snapshot))
    assert copy == snapshot
    return knowledge_of(copy)


@asynccontextmanager
async def database(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to an empty database."""
    name = f"planted_{next(_numbers)}"
    admin = await asyncpg.connect(dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        connection = await asyncpg.connect(dsn, database=name)
        try:
            yield connection
        finally:
            await connection.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


def judge(known: Knowledge, sql: str, path: tuple[str, ...] | None = ("public",), **more: object) -> Classification:
    """A classification by a catalog."""
    return classify(sql, Environment(search_path=path, catalog_version=1, **more), known)  # type: ignore[arg-type]
