"""The extended protocol, through the drivers people use."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import psycopg
import pytest

from tests.integration.system import System


async def test_asyncpg_parameters_are_shown_and_bound(system: System) -> None:
    connection = await asyncpg.connect(system.dsn)
    try:
        assert await connection.fetchval("select $1::int + 1", 41) == 42
        statement = "select lo_from_bytea($1::oid, $2::bytea)"
        waiting = asyncio.create_task(connection.fetchval(statement, 424242, b"abc"))  # noqa: TID251 (awaited below)
        request = await asyncio.to_thread(system.reviewer.pending, "lo_from_bytea")
        assert [p["value"] for p in request["statement"]["params"]] == ["424242", "\\x616263"]
        assert [p["type"] for p in request["statement"]["params"]] == ["oid", "bytea"]
        await asyncio.to_thread(system.reviewer.decide, request["id"], "approve", "ok")
        assert await waiting == 424242
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


async def test_asyncpg_denied_then_goes_on(system: System) -> None:
    connection = await asyncpg.connect(system.dsn)
    try:
        waiting = asyncio.create_task(connection.execute("drop table payments"))  # noqa: TID251 (awaited below)
        await asyncio.to_thread(system.reviewer.deny, "drop table payments", "keep the money")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="denied by") as caught:
            await waiting
        assert "keep the money" in (caught.value.detail or "")
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


def test_psycopg_parameters_are_shown(system: System) -> None:
    with psycopg.connect(system.dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        run = pool.submit(connection.execute, "select lo_from_bytea(%s::oid, %s)", (424243, b"xyz"))
        request = system.reviewer.pending("lo_from_bytea")
        shown = [p["value"] for p in request["statement"]["params"]]
        assert shown[0] == "424243"
        assert shown[1].endswith("78797a")
        system.reviewer.decide(request["id"], "approve", "ok")
        assert run.result(30).fetchall() == [(424243,)]


def test_a_pipeline_whose_third_of_five_is_privileged(system: System) -> None:
    with psycopg.connect(system.dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:

        def batch(table: str) -> list[list[tuple[object, ...]]]:
            with connection.pipeline():
                cursors = [
                    connection.execute("select 1"),
                    connection.execute("select %s::int", (2,)),
                    connection.execute(f"create table {table} (a int)"),
                    connection.execute(f"insert into {table} values (%s) returning a", (4,)),
                    connection.execute("select 5"),
                ]
            return [c.fetchall() if c.description else [] for c in cursors]

        run = pool.submit(batch, "piped")
        system.reviewer.approve("create table piped")
        assert run.result(30) == [[(1,)], [(2,)], [], [(4,)], [(5,)]]

        refused = pool.submit(batch, "piped_not")
        system.reviewer.deny("create table piped_not", "no")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            refused.result(30)
        assert connection.execute("select to_regclass('piped_not')").fetchone() == (None,)
        assert system.direct("select to_regclass('piped_not') is null") == "t"


def test_copy_in_is_ordinary_and_copy_out_is_asked_for(system: System) -> None:
    with psycopg.connect(system.dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        before = connection.execute("select count(*) from products").fetchone()
        with connection.cursor().copy("copy products (sku, name, category, price, stock) from stdin") as copy:
            copy.write_row(("TEA-0001", "tea strainer", "tea", 7, 3))
        assert before is not None
        assert connection.execute("select count(*) from products").fetchone() == (before[0] + 1,)

        def export() -> bytes:
            with connection.cursor().copy("copy products (name) to stdout") as copy:
                return b"".join(bytes(part) for part in copy)

        run = pool.submit(export)
        system.reviewer.approve("copy products")
        assert b"tea strainer\n" in run.result(30)


def test_row_limited_portals_and_server_side_cursors(system: System) -> None:
    with psycopg.connect(system.dsn) as connection:
        with connection.cursor(name="many") as cursor:
            cursor.itersize = 7
            cursor.execute("select generate_series(1, 50)")
            assert [row[0] for row in cursor] == list(range(1, 51))
        connection.commit()


async def test_asyncpg_cursor_and_listen(system: System) -> None:
    connection = await asyncpg.connect(system.dsn)
    try:
        async with connection.transaction():
            rows = [r[0] async for r in connection.cursor("select generate_series(1, 20)", prefetch=3)]
        assert rows == list(range(1, 21))
        heard: asyncio.Queue[str] = asyncio.Queue()
        await connection.add_listener("news", lambda *message: heard.put_nowait(message[3]))
        await asyncio.to_thread(system.direct, "select pg_notify('news', 'hello')")
        assert await asyncio.wait_for(heard.get(), 30) == "hello"
    finally:
        await connection.close()
