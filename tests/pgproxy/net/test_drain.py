"""Stopping gracefully: who is ended when, what they are told, and what the trail says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.protocol import backend, frontend, startup, tags
from tests.pgproxy.net.harness import Client, Proxy, proxy, trusting, until, until_asleep, values

DROP = frontend.query(b"drop table kept")


class Stop:
    """A drain under way; `hurry` is the second signal."""

    def __init__(self, p: Proxy, limit_s: float) -> None:
        self._hurried = asyncio.Event()
        self.task = asyncio.ensure_future(p.listener.drain(limit_s, self._hurry))

    async def _hurry(self) -> None:
        await self._hurried.wait()

    def hurry(self) -> None:
        self._hurried.set()


@contextlib.asynccontextmanager
async def draining(p: Proxy, limit_s: float = 600.0) -> AsyncIterator[Stop]:
    stop = Stop(p, limit_s)
    await until(lambda: p.listener.is_draining)
    try:
        yield stop
    finally:
        await stop.task


def ends(p: Proxy) -> list[str]:
    return [e["detail"] for e in p.trail.entries if e["kind"] == "session_end"]


async def test_an_idle_session_ends_at_once_and_nobody_listens_any_more(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        idle = await p.start()
        async with draining(p):
            said = await idle.fatal()
            assert (said["C"], said["S"]) == ("57P01", "FATAL")
            with pytest.raises(ConnectionRefusedError):
                await p.connect()
        await idle.close()
        await p.quiet()
        assert ends(p) == ["pgproxy is shutting down"]


async def test_a_running_statement_and_an_open_transaction_are_finished(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        running, inside, batch = [await p.start() for _ in range(3)]
        running.send(frontend.query(b"select pg_sleep(0.3), 7"))
        await inside.query(b"begin")
        batch.send(frontend.parse(b"", b"select 8") + frontend.bind(b"", b"") + frontend.execute(b"") + frontend.FLUSH)
        assert [chr((await batch.message())[0]) for _ in range(4)] == ["1", "2", "D", "C"]
        async with draining(p):
            assert values(await inside.query(b"select 9")) == [b"9"]
            assert [chr(kind) for kind, _ in await running.until_closed()] == ["T", "D", "C", "Z", "E"]
            batch.send(frontend.SYNC)
            assert [chr(kind) for kind, _ in await batch.until_closed()] == ["Z", "E"]
            assert (await inside.query(b"commit"))[-1][1][-1:] == b"I"
            assert (await inside.fatal())["C"] == "57P01"
        await p.quiet()
        assert ends(p) == ["pgproxy is shutting down"] * 3
        for client in (running, inside, batch):
            await client.close()


async def test_whoever_waits_for_a_human_is_told_and_nobody_can_approve_any_more(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        parked = await p.start()
        await parked.query(b"begin")
        parked.send(DROP)
        await p.store.arrived.wait()
        assert (await parked.message())[0] == tags.NOTICE_RESPONSE
        async with draining(p):
            assert (await parked.fatal())["C"] == "57P01"
        await parked.close()
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        assert p.store.reasons["a1"] == "terminating connection because pgproxy is shutting down"
        assert [e["decision"] for e in p.trail.entries if e["kind"] == "statement"][-1] == "withdrawn"


async def test_nobody_is_asked_while_draining(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        inside = await p.start()
        await inside.query(b"begin")
        async with draining(p):
            inside.send(DROP)
            assert (await inside.fatal())["C"] == "57P01"
        assert not p.store.requests
        await inside.close()
        await p.quiet()
        assert [e["decision"] for e in p.trail.entries if e["sql"] == "drop table kept"] == ["withdrawn"]


async def test_an_approved_statement_that_runs_is_finished(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(b"copy (select pg_sleep(3), 7) to stdout"))
        await p.store.decide("a1", "approved")
        await until_asleep(server, client.key[0])
        async with draining(p):
            assert [chr(kind) for kind, _ in await client.until_closed()][-3:] == ["C", "Z", "E"]
        await client.close()
        await p.quiet()
        await until(lambda: p.store.status["a1"] == "executed")


@pytest.mark.parametrize("how", ["limit", "hurry"])
async def test_what_does_not_come_to_rest_is_ended_and_the_server_does_not_go_on(
    server: EmbeddedServer, how: str
) -> None:
    async with proxy(trusting(server)) as p:
        running, inside, other = [await p.start() for _ in range(3)]
        running.send(frontend.query(b"copy (select pg_sleep(600)) to stdout"))
        await p.store.decide("a1", "approved")
        await until_asleep(server, running.key[0])
        await inside.query(b"begin")
        async with draining(p, 600.0 if how == "hurry" else 0.2) as stop:
            assert (await other.fatal())["C"] == "57P01"
            if how == "hurry":
                stop.hurry()
            seen = await running.until_closed()
            assert backend.read_error(seen[-1][1])["C"] == "57P01"
            assert (await inside.fatal())["C"] == "57P01"
        await p.quiet()
        await until(lambda: p.store.status["a1"] == "unknown")
        assert p.store.outcomes["a1"]["sqlstate"] == "57P01"
        assert sorted(set(ends(p))) == [
            "pgproxy is shutting down",
            "pgproxy is shutting down, and limits.drain_timeout_s was over",
        ]
        for client in (running, inside, other):
            await client.close()
        await until_gone(server, running.key[0])


async def until_gone(server: EmbeddedServer, pid: int) -> None:
    """The server has ended this session, long before its statement would have."""
    async with proxy(trusting(server)) as p:
        looking = await p.start()
        there = b"select 1 from pg_stat_activity where pid = %d" % pid
        async with asyncio.timeout(60):
            while values(await looking.query(there)):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.02)
        await looking.close()


async def test_a_connection_in_start_up_is_told_57p03(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        beginning: Client = await p.connect()
        beginning.send(startup.startup_message([(b"user", b"agent")])[:9])
        await until(lambda: len(p.listener._starting) == 1)
        async with draining(p):
            assert (await beginning.fatal())["C"] == "57P03"
        await beginning.close()
        await until(lambda: not p.listener._starting)
