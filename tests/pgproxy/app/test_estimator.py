"""What the planner says of texts, and of what it is not asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from pgproxy.app.estimator import Planner
from pgproxy.dsn import Dsn
from pgproxy.embedded import EmbeddedServer

PATH = ("estimated", "public")


@pytest.fixture
async def planner(embedded_server: EmbeddedServer) -> AsyncIterator[Planner]:
    connection = await asyncpg.connect(embedded_server.dsn)
    await connection.execute(
        "drop schema if exists estimated cascade; create schema estimated; create table estimated.many (a int);"
        "insert into estimated.many select generate_series(1, 5000); analyze estimated.many;"
        "drop role if exists estimating; create role estimating login password 'estimating';"
        "grant usage on schema estimated to estimating; grant select, delete on estimated.many to estimating"
    )
    await connection.close()
    made = Planner(Dsn.parse(embedded_server.dsn), "estimating", "estimating")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("text", "parameters", "expected"),
    [
        ("select * from many", 0, 5000),
        ("select * from many -- and a comment", 0, 5000),
        ("select * from many limit 7;", 0, 7),
        ("select * from many where a = $1", 1, 1),
        ("select * from many where a > $1 or $2 = 1", 2, 1675),  # of a generic plan; NULLs would give none
        ("delete from many", 0, 5000),
    ],
)
async def test_estimates(planner: Planner, text: str, parameters: int, expected: float) -> None:
    assert await planner.estimate("postgres", text, parameters, PATH) == pytest.approx(expected, rel=0.1)


async def test_nothing_runs_and_what_fails_is_not_known(planner: Planner, embedded_server: EmbeddedServer) -> None:
    for text in ("select * from missing", "select 1; delete from many", "delete from many; select 1", "", "vacuum"):
        assert await planner.estimate("postgres", text, 0, PATH) is None
    assert await planner.estimate("no such database", "select 1", 0, PATH) is None
    assert await planner.estimate("postgres", "select * from many", 0, ("public",)) is None, (
        "as the session resolves it"
    )
    assert await planner.estimate("postgres", "delete from many", 0, PATH) == pytest.approx(5000)
    connection = await asyncpg.connect(embedded_server.dsn)
    assert await connection.fetchval("select count(*) from estimated.many") == 5000
    await connection.close()
