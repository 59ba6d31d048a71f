"""How many connections a worker takes, how many statements it parks, and how long it keeps the idle."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.errors import TooManySessions
from pgproxy.net.admission import Admission, Places
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.ports import Parking
from pgproxy.net.startup import AgentAccount
from pgproxy.protocol import frontend, startup, tags
from tests.pgproxy.net.harness import PATIENCE_S, Client, Proxy, errors, proxy, trusting, values


async def test_too_many_sessions(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), places=Places(sessions=1)) as p:
        client = await p.start()
        refused = await p.refused()
        assert (refused["S"], refused["C"]) == ("FATAL", "53300") and "limits.sessions" in refused["H"]
        await client.close()
        await p.quiet()
        await (await p.start()).close()  # its place is free again


async def test_an_agents_sessions_do_not_take_all_places(server: EmbeddedServer) -> None:
    accounts = {name: AgentAccount(name, "alice", "agent", None, ("postgres",)) for name in ("bot", "other")}
    authenticator = AgentAuthenticator({"bot": "pw", "other": "pw"})
    async with proxy(
        trusting(server), authenticator=authenticator, accounts=accounts, places=Places(sessions_per_agent=1)
    ) as p:

        async def connect(user: str) -> asyncpg.Connection:
            return await asyncpg.connect(f"postgresql://{user}:pw@127.0.0.1:{p.port}/postgres?sslmode=disable")

        first = await connect("bot")
        with pytest.raises(asyncpg.TooManyConnectionsError, match='agent "bot"') as caught:
            await connect("bot")
        assert "limits.sessions_per_agent" in str(caught.value.hint)
        other = await connect("other")
        await first.close()
        await other.close()


async def test_in_passthrough_the_agent_is_the_user(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), places=Places(sessions_per_agent=1)) as p:
        client = await p.start()
        assert "limits.sessions_per_agent" in (await p.refused())["H"]
        postgres = await p.start(user=b"postgres")
        await postgres.close()
        await client.close()


async def test_startups_that_never_end_leave_sessions_alone(server: EmbeddedServer) -> None:
    """A session place is taken by who asks for one; connections that say nothing have places of their own."""
    async with proxy(trusting(server), places=Places(startups=2, sessions=2)) as p:
        client = await p.start()
        silent = [await p.connect() for _ in range(2)]
        silent[1].send(startup.startup_message([(b"user", b"agent")])[:9])
        refused = await p.refused()
        assert refused["C"] == "53300" and "limits.startups" in refused["H"]
        assert values(await client.query(b"select 7")) == [b"7"]
        await silent[0].close()
        await asyncio.wait_for(_welcome_again(p), PATIENCE_S)
        await silent[1].close()
        await client.close()


async def _welcome_again(p: Proxy) -> None:
    """The listener notices in its own time that a connection is gone."""
    while True:
        client = await p.connect()
        client.send(startup.startup_message([(b"user", b"agent"), (b"database", b"postgres")]))
        kind, _ = await client.message()
        await client.close()
        if kind == tags.AUTHENTICATION:
            return


def test_every_place_is_given_back() -> None:
    admission = Admission(Places(startups=1, sessions=1, sessions_per_agent=1))
    for _ in range(3):
        visit = admission.arrive()
        with pytest.raises(TooManySessions):
            admission.arrive()
        visit.begin()
        visit.identified("bot")
        visit.started()
        second = admission.arrive()
        with pytest.raises(TooManySessions):
            second.begin()
        second.leave()
        visit.leave()
        visit.leave()


async def test_one_byte_at_a_time_is_no_way_around_the_timeout(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), startup_timeout_s=0.5) as p:
        client = await p.connect()

        async def trickle() -> None:
            for byte in startup.startup_message([(b"user", b"agent"), (b"options", b"x" * 1000)]):
                client.send(bytes((byte,)))
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())  # noqa: TID251 - ends below
        assert await asyncio.wait_for(client.reader.read(), PATIENCE_S) == b""
        trickling.cancel()
        await client.close()


# parked


def test_parking_counts_each_agent_and_all() -> None:
    parking = Parking(3, per_agent=2)
    assert parking.enter("a") is None and parking.enter("a") is None
    assert parking.enter("a") == "limits.parked_per_agent"
    assert parking.enter("b") is None
    assert parking.enter("c") == "limits.parked"
    parking.leave("a")
    assert parking.enter("a") is None
    for agent in "aab":
        parking.leave(agent)
    assert not parking.occupied and not parking.by_agent


@pytest.mark.parametrize(
    ("options", "key"), [({"parked": 1}, "limits.parked"), ({"parked_per_agent": 1}, "limits.parked_per_agent")]
)
async def test_too_many_parked_is_an_error_of_the_statement(
    server: EmbeddedServer, options: dict[str, int], key: str
) -> None:
    async with proxy(trusting(server), **options) as p:
        first, second = await p.start(), await p.start()
        first.send(frontend.query(b"create table never (a int)"))
        assert (await first.message())[0] == tags.NOTICE_RESPONSE
        (error,) = errors(await second.query(b"create table never (a int)"))
        assert (error["S"], error["C"]) == ("ERROR", "53400") and error["H"].endswith(f"raise {key}")
        assert values(await second.query(b"select 7")) == [b"7"]
        await first.close()
        await second.close()
        await p.quiet()


# idle


async def _idle(client: Client, message: bytes, code: str) -> None:
    said = await asyncio.wait_for(client.fatal(), PATIENCE_S)
    assert (said["C"], said["M"]) == (code, message.decode())
    await client.close()


async def test_an_idle_session_is_ended_and_one_that_works_is_not(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), idle_timeout_s=0.3) as p:
        in_transaction = await p.start()
        await in_transaction.query(b"begin")
        parked = await p.start()
        parked.send(frontend.query(b"create table never (a int)"))
        running = await p.start()
        running.send(frontend.query(b"select pg_sleep(1.5)"))
        idle = await p.start()
        await _idle(idle, b"terminating connection due to idle-session timeout", "57P05")
        assert not errors(await running.until_ready())
        assert {s["state"] for s in p.sessions()} >= {"parked"}
        assert values(await in_transaction.query(b"select 7")) == [b"7"]
        for client in (running, parked, in_transaction):
            await client.close()
        ends = [e["detail"] for e in p.trail.entries if e["kind"] == "session_end"]
        assert "idle too long" in ends


async def test_idle_in_a_transaction_has_a_limit_of_its_own(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), idle_in_transaction_timeout_s=0.3) as p:
        outside, inside = await p.start(), await p.start()
        await inside.query(b"begin")
        await _idle(inside, b"terminating connection due to idle-in-transaction timeout", "25P03")
        assert values(await outside.query(b"select 7")) == [b"7"]
        await outside.close()
