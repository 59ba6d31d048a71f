"""Budgets in mid-stream before a real server, with the clients people use."""

from __future__ import annotations

import asyncio
import resource
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
import pytest

from pgproxy.embedded import EmbeddedServer, psql_path
from pgproxy.policy import Budget, Forward, Per
from pgproxy.protocol import frontend, tags
from tests.pgproxy.net.harness import Proxy, errors, proxy, trusting, values
from tests.pgproxy.session.rules import PARK, Ruled, limited, ruled

LIMIT = 10_000
LARGE = 1_000_000


@pytest.fixture(autouse=True, scope="module")
def rules() -> Iterator[None]:
    with ruled():
        yield


@pytest.fixture(scope="module")
def large(server: EmbeddedServer) -> str:
    """A table of a million rows."""
    with psycopg.connect(f"host={server.socket_dir} port={server.port} user=postgres", autocommit=True) as admin:
        admin.execute("drop table if exists large")
        admin.execute(f"create table large as select i, 'row ' || i as t from generate_series(1, {LARGE}) i")
    return "large"


@pytest.fixture
def small(server: EmbeddedServer) -> str:
    with psycopg.connect(f"host={server.socket_dir} port={server.port} user=postgres", autocommit=True) as admin:
        admin.execute("drop table if exists small")
        admin.execute("create table small as select i, 'row ' || i as t from generate_series(1, 100) i")
    return "small"


@asynccontextmanager
async def limiting(server: EmbeddedServer, rules: Ruled | None = None) -> AsyncIterator[Proxy]:
    async with proxy(trusting(server), rules=rules or limited(LIMIT)) as p:
        yield p


def outcome(p: Proxy) -> dict[str, Any]:
    """The last word on a result that was stopped."""
    return [e for e in p.trail.entries if e["kind"] == "outcome" and e["approval_id"]][-1]


@asynccontextmanager
async def connected(p: Proxy, **options: Any) -> AsyncIterator[psycopg.AsyncConnection[tuple[Any, ...]]]:
    connection = await psycopg.AsyncConnection.connect(
        f"host=127.0.0.1 port={p.port} user=agent dbname=postgres", autocommit=True, **options
    )
    async with connection:
        yield connection


async def test_a_million_rows_approved_are_the_servers_own_and_memory_stays_flat(
    server: EmbeddedServer, large: str
) -> None:
    direct = await _psql_rows(server.port, str(server.socket_dir))
    async with limiting(server) as p:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reading = asyncio.ensure_future(_psql_rows(p.port, "127.0.0.1"))
        await p.store.decided("a1", "approved")
        assert await reading == direct
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        await p.quiet()
        assert p.store.status == {"a1": "executed"}
        assert outcome(p)["outcome"]["rows"] == LARGE and outcome(p)["decision"] == "approved"
        budget = p.store.requests["a1"].budget
        assert budget is not None and budget["passed_rows"] == LIMIT
        assert grown < 20_000, f"{grown} KB for a result of {len(direct)} characters"


async def _psql_rows(port: int, host: str) -> int:
    """A digest of what psql prints; it is read and not kept."""
    psql = await asyncio.create_subprocess_exec(
        str(psql_path()), "-XAtq", "-h", host, "-p", str(port), "-U", "agent", "-d", "postgres",
        "-v", "FETCH_COUNT=0", "-c", "select * from large order by i",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert psql.stdout is not None
    digest = 0
    while chunk := await psql.stdout.read(1 << 16):
        digest = zlib.crc32(chunk, digest)
    assert await psql.wait() == 0
    return digest


async def test_denied_the_connection_goes_on(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p, connected(p) as connection:
        reading = asyncio.ensure_future(connection.execute("select * from large"))
        await p.store.decided("a1", "denied")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="denied by bob"):
            await reading
        told = outcome(p)
        assert (told["decision"], told["outcome"]["rows"], told["reviewers"]) == ("denied", LIMIT, ["bob"])
        assert await (await connection.execute("select 42")).fetchone() == (42,)


async def test_denied_in_a_transaction_the_transaction_fails(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p, connected(p) as connection:
        await connection.execute("begin")
        reading = asyncio.ensure_future(connection.execute("select * from large"))
        await p.store.decided("a1", "denied")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reading
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await connection.execute("select 1")
        await connection.execute("rollback")
        assert await (await connection.execute("select 42")).fetchone() == (42,)


@pytest.mark.parametrize("block", [False, True])
async def test_denied_when_the_server_was_already_done(server: EmbeddedServer, large: str, block: bool) -> None:
    """A result that fits into what is on its way: CommandComplete is here before anybody decides."""
    async with limiting(server, limited(2)) as p:
        client = await p.start()
        if block:
            await client.query(b"begin")
        client.send(frontend.query(b"select i from generate_series(1, 4) i"))
        await p.store.decided("a1", "denied")
        seen = await client.until_ready()
        assert values(seen) == [b"1", b"2"]
        assert [e["M"] for e in errors(seen)] == ["pgproxy: denied by bob"]
        assert seen[-1][1][-1:] == (b"E" if block else b"I")
        assert values(await client.query(b"rollback; select 42")) == [b"42"]
        await client.close()


async def test_a_client_that_cancels(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p, connected(p) as connection:
        reading = asyncio.ensure_future(connection.execute("select * from large"))
        await p.store.arrived.wait()
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await reading
        assert p.store.status == {"a1": "withdrawn"}
        assert await (await connection.execute("select 42")).fetchone() == (42,)


async def test_a_client_that_leaves(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p:
        client = await p.start()
        client.send(frontend.query(b"select * from large"))
        await p.store.arrived.wait()
        await client.close()
        await p.quiet()
        assert p.store.status == {"a1": "withdrawn"} and outcome(p)["decision"] == "withdrawn"


async def test_a_server_side_cursor_is_counted_over_its_fetches(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p, connected(p) as connection:
        async with connection.transaction(), connection.cursor("named") as cursor:
            cursor.itersize = 4_000
            await cursor.execute("select i from large order by i")
            first = [row[0] for row in await cursor.fetchmany(8_000)]
            assert not p.store.requests
            more = asyncio.ensure_future(cursor.fetchmany(4_000))
            await p.store.decided("a1", "approved")
            rest = [row[0] for row in await more]
            assert first + rest == list(range(1, 12_001))
            assert p.store.requests["a1"].context["cursors"] == [
                'DECLARE "named" CURSOR FOR select i from large order by i'
            ]
            assert len(await cursor.fetchmany(5_000)) == 5_000  # the rest of the cursor was approved
        assert list(p.store.status.values()) == ["executed"]


async def test_asyncpgs_cursor_is_counted_over_its_executes(server: EmbeddedServer, large: str) -> None:
    async with limiting(server) as p:
        connection = await asyncpg.connect(host="127.0.0.1", port=p.port, user="agent", database="postgres")
        async with connection.transaction():
            seen = 0
            deciding = asyncio.ensure_future(p.store.decided("a1", "approved"))
            async for _ in connection.cursor("select i from large", prefetch=3_000):
                seen += 1
                if seen == 25_000:
                    break
            await deciding
        assert len(p.store.requests) == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            deciding = asyncio.ensure_future(p.store.decided("a2", "denied"))
            await connection.fetch("select * from large where i > $1", 5)
        await deciding
        assert await connection.fetchval("select 42") == 42
        await connection.close()


async def test_copy_out_that_a_policy_allows(server: EmbeddedServer, large: str) -> None:
    forward = Forward("limited", budgets=(Budget("limited", Per.STATEMENT, PARK, bytes=50_000),))
    async with limiting(server, Ruled(always=lambda _c, _i, _f: forward)) as p, connected(p) as connection:

        async def copied() -> int:
            size = 0
            async with connection.cursor() as cursor, cursor.copy("copy large to stdout") as copy:
                async for block in copy:
                    size += len(bytes(block))
            return size

        reading = asyncio.ensure_future(copied())
        await p.store.decided("a1", "denied")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reading
        assert outcome(p)["outcome"]["bytes"] <= 50_000
        reading = asyncio.ensure_future(copied())
        await p.store.decided("a2", "approved")
        assert await reading == sum(len(f"{i}\trow {i}\n") for i in range(1, LARGE + 1))


async def test_pipelined_statements_behind_a_refused_result_do_not_run(server: EmbeddedServer, large: str) -> None:
    async with limiting(server, limited(2)) as p:
        client = await p.start()
        one = (
            frontend.parse(b"", b"select i from generate_series(1, 5) i")
            + frontend.bind(b"", b"")
            + frontend.execute(b"")
        )
        two = frontend.parse(b"", b"insert into kept values (77)") + frontend.bind(b"", b"") + frontend.execute(b"")
        client.send(one + two + frontend.SYNC)
        await p.store.decided("a1", "denied")
        seen = await client.until_ready()
        assert [kind for kind, _ in seen].count(tags.COMMAND_COMPLETE) == 0 and len(errors(seen)) == 1
        assert values(await client.query(b"select count(*) from kept where a = 77")) == [b"0"]
        await client.close()


async def test_a_modified_statement_with_asyncpg(server: EmbeddedServer, small: str) -> None:
    async with proxy(trusting(server)) as p:
        connection = await asyncpg.connect(host="127.0.0.1", port=p.port, user="agent", database="postgres")
        said: list[str] = []
        connection.add_log_listener(lambda _c, message: said.append(message.message))
        running = asyncio.ensure_future(connection.execute("delete from small"))
        await p.store.decided("a1", "approved", sql="delete from small where i > 90", modified_by="carol")
        assert await running == "DELETE 10"
        running = asyncio.ensure_future(connection.fetch("update small set t = $1 returning i", "x"))
        changed = "update small set t = $1 where i = 5 returning i"
        await p.store.decided("a2", "approved", sql=changed, modified_by="carol")
        assert [row["i"] for row in await running] == [5]
        running = asyncio.ensure_future(connection.fetch("update small set t = $1 returning i", "x"))
        await p.store.decided("a3", "approved", sql="update small set t = $1 where i = 5 returning t", modified_by="c")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="other columns"):
            await running
        assert await connection.fetchval("select count(*) from small where t = 'x'") == 1
        assert "pgproxy: modified by carol" in said
        await connection.close()
        assert p.store.status == {"a1": "executed", "a2": "executed", "a3": "withdrawn"}
