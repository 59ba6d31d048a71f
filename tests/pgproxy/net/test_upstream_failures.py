"""The server fails, refuses or ends a session, at every moment: its own words reach the client where there are any,
ours where not; a request that waits is withdrawn; the trail and the counters say so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.startup import AgentAccount
from pgproxy.protocol import backend, frontend, tags
from tests.conftest import FAST
from tests.pgproxy.net.conftest import HBA
from tests.pgproxy.net.harness import Client, Proxy, errors, proxy, trusting, until, until_asleep, values

DROP = frontend.query(b"drop table if exists never")
EXPORT = frontend.query(b"copy (select pg_sleep(600)) to stdout")


async def admin(server: EmbeddedServer) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(host=str(server.socket_dir), port=server.port, user="postgres", database="postgres")


async def parked(p: Proxy, *before: bytes) -> Client:
    client = await p.start()
    for sql in before:
        await client.query(sql)
    client.send(DROP)
    await p.store.arrived.wait()
    assert (await client.message())[0] == tags.NOTICE_RESPONSE
    return client


def ends(p: Proxy) -> list[str]:
    return [e["detail"] for e in p.trail.entries if e["kind"] == "session_end"]


def outcomes(p: Proxy) -> list[Any]:
    return [e["outcome"] for e in p.trail.entries if e["kind"] == "outcome"]


@contextlib.asynccontextmanager
async def own_server(**settings: str) -> AsyncIterator[EmbeddedServer]:
    """One that a test may kill."""
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-"))
    server = EmbeddedServer(directory, password="unused", settings={**FAST, **settings})
    await server.start()
    try:
        (server.data_dir / "pg_hba.conf").write_text(HBA)
        await server.stop()
        await server.start()
        connection = await admin(server)
        await connection.execute("create role agent login superuser")
        await connection.close()
        yield server
    finally:
        await server.stop()
        shutil.rmtree(directory, ignore_errors=True)


# while parked


@pytest.mark.parametrize(
    ("before", "sqlstate", "why"),
    [
        ((b"set idle_session_timeout = '200ms'",), "57P05", "idle_session_timeout"),
        ((b"set idle_in_transaction_session_timeout = '200ms'", b"begin"), "25P03", "idle_in_transaction"),
        ((b"set transaction_timeout = '300ms'", b"begin"), "25P04", "transaction_timeout"),
    ],
)  # fmt: skip
async def test_a_timeout_of_the_server_while_parked_is_relayed_and_voids_the_request(
    server: EmbeddedServer, before: tuple[bytes, ...], sqlstate: str, why: str
) -> None:
    async with proxy(trusting(server)) as p:
        client = await parked(p, *before)
        seen = await client.until_closed()
        assert [chr(kind) for kind, _ in seen] == ["E"], why
        assert (errors(seen)[0]["C"], errors(seen)[0]["S"]) == (sqlstate, "FATAL")
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        assert p.store.reasons["a1"] == f"the server ended the connection ({sqlstate})"
        assert ends(p) == [f"the server ended the connection ({sqlstate})"]
        assert [e["decision"] for e in p.trail.entries if e["kind"] == "statement"][-1] == "withdrawn"
        assert p.counted == ["timeout"]
        await client.close()


async def test_a_termination_while_parked_is_relayed_and_voids_the_request(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await parked(p)
        connection = await admin(server)
        await connection.execute("select pg_terminate_backend($1)", client.key[0])
        await connection.close()
        assert (await client.fatal())["C"] == "57P01"
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        assert p.counted == ["lost"]
        await client.close()


# while it runs


async def test_a_termination_of_an_approved_statement_is_its_outcome(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(EXPORT)
        await p.store.decide("a1", "approved")
        await until_asleep(server, client.key[0])
        connection = await admin(server)
        await connection.execute("select pg_terminate_backend($1)", client.key[0])
        await connection.close()
        assert (await client.fatal())["C"] == "57P01"
        await p.quiet()
        await until(lambda: p.store.status["a1"] == "failed")  # in the server's own words
        assert p.store.outcomes["a1"]["sqlstate"] == outcomes(p)[-1]["sqlstate"] == "57P01"
        await client.close()


async def test_a_backend_that_is_killed_leaves_unknown_and_ends_everybody() -> None:
    async with own_server() as server, proxy(trusting(server)) as p:
        client, idle = await p.start(), await p.start()
        client.send(EXPORT)
        await p.store.decide("a1", "approved")
        await until_asleep(server, client.key[0])
        os.kill(client.key[0], signal.SIGKILL)
        assert (await client.fatal())["C"] == "08006"  # it had no words
        seen = await idle.until_closed()
        notices = [backend.read_error(data) for kind, data in seen if kind == tags.NOTICE_RESPONSE]
        assert [notice["C"] for notice in notices] == ["57P02"]  # the server's warning, and then
        assert errors(seen)[-1]["C"] == "08006"
        await p.quiet()
        await until(lambda: p.store.status["a1"] == "unknown")
        assert p.store.outcomes["a1"]["sqlstate"] == outcomes(p)[-1]["sqlstate"] == "08006"
        assert ends(p) == ["the server closed the connection"] * 2
        assert p.counted == ["lost", "lost"]
        for one in (client, idle):
            await one.close()


async def test_a_server_that_stops_and_comes_back() -> None:
    async with own_server() as server, proxy(trusting(server)) as p:
        waiting = await parked(p)
        running, inside = await p.start(), await p.start()
        running.send(frontend.query(b"select pg_sleep(600)"))
        await until_asleep(server, running.key[0])
        await inside.query(b"begin")
        await server.stop()  # "fast"
        for client in (waiting, running, inside):
            assert (await client.fatal())["C"] == "57P01"
            await client.close()
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        refused = await p.refused()
        assert (refused["C"], refused["S"]) == ("08001", "FATAL")
        await server.start()
        client = await p.start()
        assert values(await client.query(b"select 7")) == [b"7"]
        await client.close()


async def test_a_postmaster_that_is_killed() -> None:
    async with own_server() as server, proxy(trusting(server)) as p:
        waiting, running = await parked(p), await p.start()
        running.send(EXPORT)
        await until(lambda: "a2" in p.store.requests)
        p.store.arrived.set()
        await p.store.decide("a2", "approved")
        await until_asleep(server, running.key[0])
        postmaster = int((server.data_dir / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        assert (await waiting.fatal())["C"] in ("57P01", "08006")  # an idle backend may or may not say so
        os.kill(running.key[0], signal.SIGKILL)  # one that sleeps in a function notices much later
        assert (await running.fatal())["C"] == "08006"
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        await until(lambda: p.store.status["a2"] == "unknown")
        for client in (waiting, running):
            await client.close()


# in start-up


@pytest.mark.parametrize("broker", [False, True])
async def test_a_server_without_a_free_connection_says_so_itself(broker: bool) -> None:
    limits = {"max_connections": "5", "superuser_reserved_connections": "0", "reserved_connections": "0"}
    accounts = {"bot": AgentAccount("bot", "alice", "agent", None)}
    options: dict[str, Any] = (
        {"authenticator": AgentAuthenticator({"bot": "pw"}), "accounts": accounts} if broker else {}
    )
    async with own_server(**limits) as server, proxy(trusting(server), **options) as p:
        taken = [await admin(server) for _ in range(5)]
        if broker:
            with pytest.raises(asyncpg.TooManyConnectionsError, match="too many clients already"):
                await asyncpg.connect(f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres?sslmode=disable")
        else:
            refused = await p.refused()
            assert (refused["C"], refused["M"]) == ("53300", "sorry, too many clients already")
        assert p.counted == ["refused"]
        for connection in taken:
            await connection.close()


async def test_a_server_whose_rules_refuse_the_login_says_so_itself(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        refused = await p.refused(user=b"barred")
        assert refused["C"] == "28000" and "pg_hba.conf rejects connection" in refused["M"]
        assert p.counted == ["auth"]
    accounts = {"bot": AgentAccount("bot", "alice", "app", "wrong")}
    async with proxy(trusting(server), authenticator=AgentAuthenticator({"bot": "pw"}), accounts=accounts) as p:
        with pytest.raises(asyncpg.InvalidPasswordError, match='failed for user "app"'):
            await asyncpg.connect(f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres?sslmode=disable")
        assert p.counted == ["auth"]


# what arrives of itself


async def test_what_the_server_says_of_itself_arrives_while_idle_and_while_parked(server: EmbeddedServer) -> None:
    """What the server sends without being asked waits for nobody's approval."""
    async with proxy(trusting(server)) as p:
        client = await p.start()
        await client.query(b"listen news")
        connection = await admin(server)
        await connection.execute("notify news, 'while idle'")
        kind, data = await asyncio.wait_for(client.message(), 60)
        assert kind == tags.NOTIFICATION_RESPONSE and b"while idle" in data
        client.send(DROP)
        await p.store.arrived.wait()
        assert (await client.message())[0] == tags.NOTICE_RESPONSE
        await connection.execute("notify news, 'while parked'")
        kind, data = await asyncio.wait_for(client.message(), 60)
        assert kind == tags.NOTIFICATION_RESPONSE and b"while parked" in data
        assert p.store.status["a1"] == "pending"
        await connection.close()
        await p.store.decide("a1", "approved")
        assert not errors(await client.until_ready())
        await client.close()
