"""Replication connections before a real walsender, physical and logical."""

from __future__ import annotations

import asyncio

import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.net.auth import AgentAuthenticator, login
from pgproxy.net.startup import AgentAccount
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode, Replication
from pgproxy.protocol import backend, frontend, startup, tags
from tests.pgproxy.net.harness import Client, Proxy, errors, proxy, trusting, values

COPY_DONE = b"c\x00\x00\x00\x04"


def status_update(position: int) -> bytes:
    """Standby status update: written, flushed, applied; no time, no reply wanted ("Streaming Replication")."""
    body = b"r" + 3 * position.to_bytes(8, "big") + bytes(9)
    return b"d" + (len(body) + 4).to_bytes(4, "big") + body


async def begin(p: Proxy, value: bytes, *behind: bytes) -> Client:
    """The start-up packet alone, with what a hurried client sends behind it."""
    client = await p.connect()
    fixed = [(b"user", b"agent"), (b"database", b"postgres"), (b"replication", value)]
    client.send(startup.startup_message(fixed), *behind)
    return client


async def stream(client: Client, make: Client) -> None:
    """A change made elsewhere arrives as CopyData; the stream ends when the client says so."""
    seen = await client.query(b"CREATE_REPLICATION_SLOT streamed TEMPORARY LOGICAL test_decoding (SNAPSHOT 'nothing')")
    assert not errors(seen)
    await make.query(b"create table if not exists changed (a int)")
    await make.query(b"insert into changed values (4711)")
    client.send(frontend.query(b"START_REPLICATION SLOT streamed LOGICAL 0/0"))
    assert (await client.message())[0] == tags.COPY_BOTH_RESPONSE
    while True:
        kind, data = await asyncio.wait_for(client.message(), 20)
        assert kind == tags.COPY_DATA
        if b"4711" in data:
            break
    client.send(status_update(int.from_bytes(data[6:14], "big")), COPY_DONE)
    seen = await client.until_ready()
    assert [chr(kind) for kind, _ in seen if kind != tags.COPY_DATA] == ["c", "C", "C", "Z"]


async def test_observe_streams_logical_changes_and_records_each_command(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), mode=Mode.OBSERVE) as p:
        client, make = await begin(p, b"database"), await p.start()
        await client.until_ready()
        await stream(client, make)
        assert values(await client.query(b"select 7")) == [b"7"]
        assert values(await client.query(b"SHOW wal_level")) == [b"logical"]
        await client.close()
        await make.close()
        await p.quiet()
        entries = [e for e in p.trail.entries if e["kind"] == "statement"]
        replication = [e["sql"].split()[0] for e in entries if e["classes"] == ["replication"]]
        assert replication == ["START-UP", "CREATE_REPLICATION_SLOT", "START_REPLICATION", "SHOW"]
        assert {e["decision"] for e in entries if e["classes"] == ["replication"]} == {"observed"}


@pytest.mark.parametrize("spelling", [b"true", b"T", b"on", b"yes", b"y", b"1", b"TrU"])
async def test_observe_physical(server: EmbeddedServer, spelling: bytes) -> None:
    async with proxy(trusting(server), mode=Mode.OBSERVE) as p:
        client = await begin(p, spelling)
        await client.until_ready()
        seen = await client.query(b"IDENTIFY_SYSTEM")
        assert [chr(kind) for kind, _ in seen] == ["T", "D", "C", "Z"]
        assert errors(await client.query(b"select 1"))[0]["C"] == "0A000"  # a physical one has no SQL
        await client.close()


@pytest.mark.parametrize("value", [b"false", b"off", b"of", b"no", b"n", b"0", b"F"])
async def test_what_the_server_reads_as_no_is_an_ordinary_session(server: EmbeddedServer, value: bytes) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start((b"replication", value))
        assert values(await client.query(b"select 7")) == [b"7"]
        await client.close()


@pytest.mark.parametrize("value", [b"", b"o", b"2", b"DATABASE", b"data", b"databases", b"truely", b" true", b"\xff"])
async def test_what_the_server_cannot_read_is_refused_as_it_does(server: EmbeddedServer, value: bytes) -> None:
    async with proxy(trusting(server)) as p:
        said = await p.refused((b"replication", value))
        assert said["C"] == "22023" and 'invalid value for parameter "replication"' in said["M"]
        assert not p.trail.entries


@pytest.mark.parametrize("value", [b"database", b"true", b"yes", b"tr", b"on", b"1"])
async def test_enforce_refuses_by_default_and_says_so_in_the_trail(server: EmbeddedServer, value: bytes) -> None:
    async with proxy(trusting(server)) as p:
        said = await p.refused((b"replication", value))
        assert said["C"] == "0A000" and said["S"] == "FATAL" and "replication: approve" in said["H"]
        await p.quiet()
        assert p.trail.kinds() == ["session_start", "statement", "outcome", "session_end"]
        assert p.trail.entries[1]["decision"] == "denied"


async def test_the_last_of_two_counts(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        assert (await p.refused((b"replication", b"off"), (b"replication", b"on")))["C"] == "0A000"
        client = await p.start((b"replication", b"database"), (b"replication", b"off"))
        assert errors(await client.query(b"IDENTIFY_SYSTEM"))
        await client.close()


async def test_an_approved_connection_streams(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), replication=Replication.APPROVE) as p:
        client = await begin(p, b"database")
        await p.store.decide("a1", "approved")
        seen = await client.until_ready()
        kinds = [kind for kind, _ in seen]
        assert kinds.index(tags.NOTICE_RESPONSE) > kinds.index(tags.BACKEND_KEY_DATA)
        assert p.store.requests["a1"].sql == "START-UP WITH replication=database"
        async with proxy(trusting(server), mode=Mode.OBSERVE) as other:
            make = await other.start()
            await stream(client, make)
            await make.close()
        p.store.arrived.clear()
        client.send(frontend.query(b"create table unasked (a int)"))  # its SQL is judged as everywhere
        await p.store.decide("a2", "denied")
        assert errors(await client.until_ready())[0]["C"] == "42501"
        client.send(frontend.query(b"COPY (SELECT 1) TO STDOUT"))
        p.store.arrived.clear()
        await p.store.decide("a3", "approved")
        assert tags.COPY_OUT_RESPONSE in [kind for kind, _ in await client.until_ready()]
        assert p.store.status == {"a1": "executing", "a2": "denied", "a3": "executed"}
        await client.close()
        await p.quiet()
        assert p.store.status["a1"] == "executed"


@pytest.mark.parametrize(("status", "sqlstate"), [("denied", "42501"), ("expired", "57014")])
async def test_a_refused_connection_ends_and_nothing_sent_ahead_ran(
    server: EmbeddedServer, status: str, sqlstate: str
) -> None:
    """All in one segment with the start-up packet: what follows may not slip in before the judgement."""
    async with proxy(trusting(server), replication=Replication.APPROVE) as p:
        slot = b"ahead_" + status.encode()
        client = await begin(p, b"database", frontend.query(b"CREATE_REPLICATION_SLOT " + slot + b" PHYSICAL"))
        await p.store.decide("a1", status)
        assert (await client.fatal())["C"] == sqlstate
        await client.close()
        await p.quiet()
        watch = await p.start()
        found = await watch.query(b"select count(*) from pg_replication_slots where slot_name = '" + slot + b"'")
        assert values(found) == [b"0"]
        await watch.close()


async def test_a_client_that_leaves_withdraws_and_a_cancel_ends_it(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), replication=Replication.APPROVE, parked=1) as p:
        client = await begin(p, b"true", frontend.TERMINATE)
        await client.until_closed()
        await client.close()
        await p.quiet()
        assert p.store.status == {"a1": "withdrawn"}
        p.store.arrived.clear()
        client = await begin(p, b"true")
        key = b""
        while True:
            kind, data = await client.message()
            if kind == tags.BACKEND_KEY_DATA:
                key = data[5:]
            elif kind == tags.NOTICE_RESPONSE:
                break
        other = await p.connect()
        other.send(startup.cancel_request(int.from_bytes(key[:4], "big"), key[4:]))
        await other.reader.read()
        await other.close()
        assert (await client.fatal())["C"] == "57014"
        await client.close()
        await p.quiet()
        assert p.store.status["a2"] == "withdrawn" and p.services.parking.occupied == 0


async def test_an_agent_of_certain_databases_has_no_replication(server: EmbeddedServer) -> None:
    accounts = {"bot": AgentAccount("bot", "alice", "agent", None, ("postgres",))}
    authenticator = AgentAuthenticator({"bot": "pw"})
    async with proxy(trusting(server), mode=Mode.OBSERVE, authenticator=authenticator, accounts=accounts) as p:
        fixed = [(b"user", b"bot"), (b"database", b"postgres"), (b"replication", b"database")]
        client, _ = await Upstream("127.0.0.1", p.port).start(startup.startup_message(fixed))
        await login(client, "bot", "pw")
        kind, said = await client.read_message()
        assert kind == tags.ERROR_RESPONSE and backend.read_error(said)["C"] == "28000"
        client.close()
        assert not p.trail.entries
