"""What the shell itself can get wrong: tasks, places, a bug in the session."""

from __future__ import annotations

import asyncio

import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.protocol import frontend
from pgproxy.session.machine import Session
from tests.pgproxy.net.harness import proxy, trusting, values

DROP = frontend.query(b"drop table kept")


async def test_a_place_is_given_back_when_the_client_left_before_the_store_answered(server: EmbeddedServer) -> None:
    """The task that waits for the human is cancelled before its first step, and must not keep its place."""
    async with proxy(trusting(server), parked=1) as p:
        p.store.slow = asyncio.Event()
        client = await p.start()
        client.send(DROP)
        await p.store.arrived.wait()
        await client.close()
        await asyncio.sleep(0.05)
        p.store.slow.set()
        await p.quiet()
        assert p.store.status == {"a1": "withdrawn"}
        assert p.services.parking.occupied == 0


async def test_an_approval_that_comes_while_the_session_ends_runs_nothing(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(DROP)
        await p.store.arrived.wait()
        await client.message()  # the notice
        client.writer.close()
        await p.store.decide("a1", "approved")
        await p.quiet()
        assert p.store.status["a1"] in ("withdrawn", "failed")
        client = await p.start()
        assert values(await client.query(b"select to_regclass('kept') is null")) == [b"f"]
        await client.close()


async def test_a_bug_in_the_session_ends_it_alone(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy(trusting(server)) as p:
        other, client = await p.start(), await p.start()
        client.send(DROP)
        await p.store.arrived.wait()
        await client.message()
        handle = Session.handle

        def broken(self: Session, event: object, now: float) -> object:
            if self._.requester.session_id == p.store.requests["a1"].requester.session_id:
                raise ZeroDivisionError
            return handle(self, event, now)  # type: ignore[arg-type]

        monkeypatch.setattr(Session, "handle", broken)
        client.send(frontend.query(b"select 1"))
        said = await client.fatal()
        assert (said["C"], said["S"]) == ("XX000", "FATAL") and "Zero" not in str(said)
        await client.close()
        assert values(await other.query(b"select 7")) == [b"7"]
        await other.close()
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"


async def test_shutting_down_tells_everyone(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        idle, parked = await p.start(), await p.start()
        parked.send(DROP)
        await p.store.arrived.wait()
        await parked.message()
        p.listener.stop()
        assert (await idle.fatal())["C"] == (await parked.fatal())["C"] == "57P01"
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"
        await idle.close()
        await parked.close()
