"""From the first byte to the end of a session, over real sockets, before a real server."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import asyncpg
import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.startup import AgentAccount
from pgproxy.net.token import TokenAuthenticator
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode
from pgproxy.protocol import backend, frontend, startup, tags
from pgproxy.protocol.body import message
from tests.pgproxy.net.harness import PATIENCE_S, Client, errors, proxy, trusting, until, until_asleep, values

SYNC = frontend.SYNC


# start-up


@pytest.mark.parametrize(
    "asked",
    [
        [(b"database", b"template1")],
        [],  # the user's name
        [(b"database", b"postgres"), (b"replication", b"database")],
    ],
)
async def test_an_agent_gets_into_its_own_databases_alone(
    server: EmbeddedServer, asked: list[tuple[bytes, bytes]]
) -> None:
    """In passthrough too, and before the server hears of it."""
    async with proxy(trusting(server), mode=Mode.OBSERVE, databases={"agent": ("postgres",)}) as p:
        admitted = await p.connect()
        admitted.send(startup.startup_message([(b"user", b"agent"), (b"database", b"postgres")]))
        await admitted.until_ready()
        client = await p.connect()
        client.send(startup.startup_message([(b"user", b"agent"), *asked]))
        error = await client.fatal()
        assert error["C"] == "28000" and 'agent "agent" may not' in error["M"]
        fewer = replace(p.terms.access, databases={"agent": ("other",)})
        p.listener.reconfigure(replace(p.terms, access=fewer))
        assert "may no longer connect to this database" in (await admitted.fatal())["M"]
        for each in (admitted, client):
            await each.close()


@pytest.mark.parametrize("request_", [startup.ssl_request(), startup.gssenc_request()])
async def test_encryption_is_answered_n_and_the_session_goes_on(server: EmbeddedServer, request_: bytes) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.connect()
        client.send(request_)
        assert await client.reader.readexactly(1) == b"N"
        client.send(startup.startup_message([(b"user", b"agent"), (b"database", b"postgres")]))
        await client.until_ready()
        assert values(await client.query(b"select 7")) == [b"7"]
        await client.close()


async def test_bytes_behind_an_ssl_request_are_refused(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.connect()
        client.send(startup.ssl_request() + startup.startup_message([(b"user", b"agent")]))
        assert (await client.fatal())["C"] == "08P01"
        await client.close()


@pytest.mark.parametrize(
    ("parameters", "sqlstate"),
    [
        ([(b"options", b"-c role=postgres")], "28000"),
        ([(b"options", b"-crole=postgres")], "28000"),
        ([(b"options", b"--RoLe=postgres")], "28000"),
        ([(b"options", b"-c session_authorization=postgres")], "28000"),
        ([(b"RoLe", b"postgres")], "28000"),
        ([(b"session_replication_role", b"replica")], "28000"),
        ([(b"options", b"-c application_name=a -c ro\\le=postgres")], "28000"),
        ([(b"options", b"-F")], "0A000"),
        ([(b"client_encoding", b"SJIS")], "0A000"),
        ([(b"options", b"-c client_encoding=SJIS")], "0A000"),
        ([(b"standard_conforming_strings", b"off")], "28000"),
        ([(b"a b", b"c")], "0A000"),
    ],
)
async def test_settings_that_would_need_an_approval_are_refused(
    server: EmbeddedServer, parameters: list[tuple[bytes, bytes]], sqlstate: str
) -> None:
    async with proxy(trusting(server)) as p:
        assert (await p.refused(*parameters))["C"] == sqlstate
        assert not p.trail.entries


async def test_what_the_agent_says_is_taken_out_and_kept(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start(
            (b"options", b"-c pgproxy.reason=the\\ monthly\\ one -c pgproxy.ticket=OPS-12 -c work_mem=8MB"),
            (b"pgproxy.context", b'{"run": 1}'),
            (b"application_name", b"test"),
        )
        assert values(await client.query(b"show work_mem")) == [b"8MB"]
        assert errors(await client.query(b"show pgproxy.reason"))[0]["C"] == "42704"
        (session,) = p.sessions()
        assert (session["reason"], session["ticket"], session["owner"]) == ("the monthly one", "OPS-12", "alice")
        await client.close()


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 9999])
@pytest.mark.parametrize("option", [[], [(b"_pq_.shiny", b"1"), (b"_pq_.b", b"")]])
async def test_versions_are_negotiated_as_the_server_does(
    server: EmbeddedServer, minor: int, option: list[tuple[bytes, bytes]]
) -> None:
    """Up to the ReadyForQuery, the same messages of the same length; only the keys differ."""
    packet = startup.startup_message([(b"user", b"agent"), (b"database", b"postgres"), *option], minor=minor)
    async with proxy(trusting(server)) as p:
        said = []
        for client in (await p.connect(), await direct(server)):
            client.send(packet)
            seen = await client.until_ready()
            said.append([(kind, len(data) if kind == tags.BACKEND_KEY_DATA else data) for kind, data in seen])
            await client.close()
        assert sorted(said[0]) == sorted(said[1])
        assert said[0][0] == said[1][0]  # the negotiation comes before authentication


@pytest.mark.parametrize("major", [1, 2, 4])
async def test_other_protocols_are_refused_as_the_server_does(server: EmbeddedServer, major: int) -> None:
    packet = startup.startup_message([(b"user", b"agent")], major=major)
    async with proxy(trusting(server)) as p:
        said = []
        for client in (await p.connect(), await direct(server)):
            client.send(packet)
            said.append(await client.reader.read())
            await client.close()
        text = f"unsupported frontend protocol {major}.0: server supports 3.0 to 3.2".encode()
        assert all(text in words for words in said)
        if major < 3:
            assert said[0] == said[1] == b"EFATAL:  " + text + b"\n\0"


async def direct(server: EmbeddedServer) -> Client:
    return Client(*await asyncio.open_unix_connection(f"{server.socket_dir}/.s.PGSQL.{server.port}"))


async def test_an_encoding_from_alter_role_is_refused(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        admin = await direct(server)
        admin.send(startup.startup_message([(b"user", b"postgres"), (b"database", b"postgres")]))
        await admin.until_ready()
        await admin.query(b"create role shifty superuser login")
        await admin.query(b"alter role shifty set client_encoding = 'SJIS'")
        await admin.query(b"alter role agent set search_path = 'nowhere'")
        try:
            hba = server.data_dir / "pg_hba.conf"
            before = hba.read_text()
            hba.write_text("local all shifty trust\n" + before)
            await admin.query(b"select pg_reload_conf()")
            said = await p.refused(user=b"shifty")
            assert (said["C"], said["H"]) == ("0A000", "use UTF8")
            client = await p.start((b"client_encoding", b"UTF8"), user=b"shifty")
            await client.close()
            client = await p.start()
            assert client.parameters[b"search_path"] == b"nowhere"
            (live,) = [v for v in p.listener.directory.live() if v.started.agent == "agent"]
            assert live.started.settings.environment.search_path == ("nowhere",)
            await client.close()
        finally:
            await admin.query(b"alter role agent reset search_path")
            await admin.query(b"drop role shifty")
            hba.write_text(before)
            await admin.query(b"select pg_reload_conf()")
            await admin.close()


async def test_passthrough_relays_the_servers_refusal(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        said = await p.refused((b"database", b"none"))
        assert said["C"] == "3D000"


async def test_broker_logs_in_upstream_with_its_own_account(server: EmbeddedServer) -> None:
    accounts = {"bot": AgentAccount("bot", "alice", "app", "app secret", ("postgres",))}
    async with proxy(trusting(server), authenticator=AgentAuthenticator({"bot": "pw"}), accounts=accounts) as p:
        connection = await asyncpg.connect(f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres?sslmode=disable")
        assert await connection.fetchval("select current_user") == "app"
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://bot:wrong@127.0.0.1:{p.port}/postgres?sslmode=disable")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(f"postgresql://bot:pw@127.0.0.1:{p.port}/template1?sslmode=disable")


async def test_an_agent_with_a_token_is_refused_in_plaintext(server: EmbeddedServer) -> None:
    class Anything:
        async def subject(self, token: str) -> str | None:
            raise AssertionError("a token crossed the network in the clear")

    accounts = {"bot": AgentAccount("bot", "alice", "app", "app secret")}
    tokens = TokenAuthenticator({"bot": "svc"}, Anything())
    async with proxy(trusting(server), authenticator=AgentAuthenticator({}), accounts=accounts, tokens=tokens) as p:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="needs TLS"):
            await asyncpg.connect(f"postgresql://bot:token@127.0.0.1:{p.port}/postgres?sslmode=disable")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://nobody:token@127.0.0.1:{p.port}/postgres?sslmode=disable")


async def test_a_slow_client_is_dropped(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), startup_timeout_s=0.2) as p:
        client = await p.connect()
        client.send(startup.startup_message([(b"user", b"agent")])[:7])
        assert await asyncio.wait_for(client.reader.read(), PATIENCE_S) == b""
        await client.close()


async def test_an_unreachable_server_is_08001(server: EmbeddedServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        async with proxy(Upstream("127.0.0.1", taken.getsockname()[1])) as p:
            assert (await p.refused())["C"] == "08001"


async def test_a_server_of_3_0_behind_a_client_of_3_2() -> None:
    """Each connection has its own version: the server's own answer stays with pgproxy, and so does its short key."""
    packets: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets.append(await reader.read(1000))
        writer.write(
            backend.negotiate_protocol_version(0, [])
            + backend.authentication(tags.AUTH_OK)
            + backend.backend_key_data(77, b"abcd")
            + backend.ready_for_query(tags.IDLE)
        )
        await reader.read(1000)
        writer.close()

    old = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with old, proxy(Upstream("127.0.0.1", old.sockets[0].getsockname()[1])) as p:
        client = await p.connect()
        client.send(startup.startup_message([(b"user", b"agent")], minor=2))
        seen = await client.until_ready()
        assert [chr(kind) for kind, _ in seen] == ["R", "K", "Z"]
        pid, secret = backend.read_backend_key_data(seen[1][1])
        assert (pid, len(secret)) == (77, 32)
        other = await p.connect()
        other.send(startup.cancel_request(pid, secret))
        assert await other.reader.read() == b""
        await other.close()
        await client.close()
        await p.quiet()
    asked = startup.read_startup(packets[0])
    assert isinstance(asked, startup.StartupMessage) and (asked.major, asked.minor) == (3, 2)
    assert startup.cancel_request(77, b"abcd") in packets


# cancel


@pytest.mark.parametrize("minor", [0, 2])
async def test_cancel_needs_the_key(server: EmbeddedServer, minor: int) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start(minor=minor)
        pid, secret = client.key
        assert len(secret) == (32 if minor == 2 else 4)
        assert values(await client.query(b"select pg_backend_pid()")) == [str(pid).encode()]
        client.send(frontend.query(b"select pg_sleep(0.5)"))
        forged = [b"\x00" * 4, bytes(b ^ 1 for b in secret), secret + b"\x00", secret[:-1] + b"\x00" * 4, b"x" * 256]
        packets = [startup.cancel_request(pid, guess) for guess in forged]
        packets += [startup.cancel_request(pid ^ 1, secret), startup.cancel_request(pid, secret[:3])]
        packets += [startup.cancel_request(pid, secret + b"x" * 257)]
        for packet in packets:
            other = await p.connect()
            other.send(packet)
            said = await other.reader.read()
            assert said == b"" or b"C08P01" in said
            await other.close()
        assert not errors(await client.until_ready())
        client.send(frontend.query(b"select pg_sleep(600)"))
        await until_asleep(server, pid)
        other = await p.connect()
        other.send(startup.cancel_request(pid, secret))
        await other.reader.read()
        await other.close()
        assert errors(await client.until_ready())[0]["C"] == "57014"
        await client.close()


async def test_cancel_and_departure_while_parked(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), parked=1) as p:
        for number in (1, 2, 3):  # the one place is free again each time
            client = await p.start()
            client.send(frontend.query(b"create table never (a int)"))
            await p.store.arrived.wait()
            p.store.arrived.clear()
            assert (await client.message())[0] == tags.NOTICE_RESPONSE
            if number == 1:
                other = await p.connect()
                other.send(startup.cancel_request(*client.key))
                await other.close()
                assert errors(await client.until_ready())[0]["C"] == "57014"
            await client.close()
            await p.quiet()
            assert p.store.status[f"a{number}"] == "withdrawn"
        assert p.services.parking.occupied == 0
        client = await p.start()
        assert values(await client.query(b"select to_regclass('never') is null")) == [b"t"]
        await client.close()


# sessions


async def test_parked_approved_runs_and_denied_does_not(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(b"create temp table made (a int)"))
        await p.store.decide("a1", "approved")
        seen = await client.until_ready()
        assert [chr(kind) for kind, _ in seen] == ["N", "C", "Z"]
        client.send(frontend.query(b"drop table made"))
        p.store.arrived.clear()
        await p.store.decide("a2", "denied")
        assert errors(await client.until_ready())[0]["M"] == "pgproxy: denied by bob"
        assert values(await client.query(b"select count(*) from made")) == [b"0"]
        assert p.store.status == {"a1": "executed", "a2": "denied"}
        await client.close()


async def test_a_client_that_does_not_read_costs_no_memory(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(b"select repeat('x', 10000) from generate_series(1, 50000)"))  # 500 MB
        (live,) = p.listener.directory.live()
        await until(lambda: live.relay._server_paused)
        assert live.relay._client.transport.get_write_buffer_size() < 4 << 20
        await client.close()
        await p.quiet()


async def test_a_client_that_only_sends_is_held_back(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(b"select pg_sleep(600)"))
        await until_asleep(server, client.key[0])
        client.send(frontend.query(b"drop table none") + frontend.query(b"select 1") * 400_000)
        (live,) = p.listener.directory.live()
        await until(lambda: live.relay._client_paused)
        assert live.relay._session._gate.inbox_bytes < 60 << 20
        client.writer.transport.abort()


async def test_a_server_killed_in_mid_statement(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        victim, killer = await p.start(), await p.start()
        victim.send(frontend.query(b"select pg_sleep(600)"))
        await until_asleep(server, victim.key[0])
        killer.send(frontend.query(b"select pg_terminate_backend(%d)" % victim.key[0]))
        await p.store.decide("a1", "approved")
        await killer.until_ready()
        assert (await victim.fatal())["C"] == "57P01"  # the server's own words
        await victim.close()
        await killer.close()


async def test_a_server_that_vanishes_is_08006() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        ready = message(tags.AUTHENTICATION, b"\x00" * 4) + message(tags.READY_FOR_QUERY, b"I")
        writer.write(ready)
        await reader.read(1000)
        writer.close()

    vanishing = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with vanishing, proxy(Upstream("127.0.0.1", vanishing.sockets[0].getsockname()[1])) as p:
        client = await p.start()
        client.send(frontend.query(b"select 1"))
        assert (await client.fatal())["C"] == "08006"
        await client.close()


async def test_half_closed_and_hurried_clients_lose_nothing(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(b"select pg_sleep(0.2), 7"))
        client.writer.write_eof()
        seen = await client.until_closed()
        assert [chr(kind) for kind, _ in seen] == ["T", "D", "C", "Z"]
        await client.close()
        await p.quiet()
        client = await p.start()
        client.send(frontend.query(b"insert into kept values (99)") + frontend.TERMINATE)
        await client.close()
        await p.quiet()
        outcome = [e for e in p.trail.entries if e["kind"] == "outcome"][-1]["outcome"]
        assert outcome["command_tag"] == "INSERT 0 1" and outcome["transaction"] == "committed"
        assert p.trail.kinds().count("session_end") == 2


async def test_a_violation_ends_both_sides(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(b"?\x00\x00\x00\x04")
        assert (await client.fatal())["C"] == "08P01"
        await client.close()
        await p.quiet()


async def test_an_administrator_ends_a_session(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        directory = p.listener.directory
        assert directory.end(p.sessions()[0]["id"]) and not directory.end("none")
        assert (await client.fatal())["C"] == "57P01"
        await client.close()


# what the session believes of a server, asked of the real one


async def exchange(client: Client, *data: bytes) -> list[str]:
    client.send(*data)
    return [chr(kind) for kind, _ in await client.until_ready()]


async def test_copy_as_libpq_does_it(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), mode=Mode.OBSERVE) as p:
        client = await p.start()
        await client.query(b"create temp table t (a int)")
        batch = frontend.parse(b"", b"copy t from stdin") + frontend.bind(b"", b"") + frontend.execute(b"")
        data = b"d\x00\x00\x00\x061\n"
        client.send(batch + SYNC)
        assert [chr((await client.message())[0]) for _ in range(3)] == ["1", "2", "G"]
        assert await exchange(client, data, b"c\x00\x00\x00\x04", SYNC) == ["C", "Z"]
        # All at once, then failing at once, then failing in the middle.
        assert await exchange(client, batch, data, b"c\x00\x00\x00\x04", SYNC) == ["1", "2", "G", "C", "Z"]
        missing = frontend.parse(b"", b"copy none from stdin") + frontend.bind(b"", b"") + frontend.execute(b"")
        assert await exchange(client, missing, SYNC) == ["1", "2", "E", "Z"]
        assert await exchange(client, batch, b"d\x00\x00\x00\x06x\n", b"c\x00\x00\x00\x04", SYNC) == [
            *("1", "2", "G", "E", "Z")
        ]
        two = frontend.query(b"copy t from stdin; copy t from stdin; select 5")
        assert await exchange(client, two, data, b"c\x00\x00\x00\x04", data, b"c\x00\x00\x00\x04") == [
            *("G", "C", "G", "C", "T", "D", "C", "Z")
        ]
        assert values(await client.query(b"select count(*) from t")) == [b"4"]
        await client.close()


async def test_execute_of_an_execute_is_parked(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        named = frontend.parse(b"y", b"copy kept to stdout") + frontend.parse(b"x", b"execute y")
        assert await exchange(client, named, SYNC) == ["1", "1", "Z"]
        client.send(frontend.query(b"execute x"))
        await p.store.decide("a1", "denied")
        assert errors(await client.until_ready())[0]["C"] == "42501"
        assert p.store.requests["a1"].context["executes"] == {"x": ["execute y"], "y": ["copy kept to stdout"]}
        await client.close()


async def test_names_that_the_server_converts(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start((b"client_encoding", b"LATIN1"))
        client.send(frontend.parse(b"\xe9" * 40, b"select 1") + SYNC)
        assert (await client.fatal())["C"] == "0A000"
        await client.close()
        client = await p.start((b"client_encoding", b"UTF8"))
        name = "é".encode()
        assert await exchange(client, frontend.parse(name, b"select 1"), frontend.bind(b"", name), SYNC) == [
            *("1", "2", "Z")
        ]
        await client.close()


async def test_an_error_at_the_sync_of_a_batch(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        insert = frontend.parse(b"", b"insert into kept values (1), (1)") + frontend.bind(b"", b"")
        assert await exchange(client, insert, frontend.execute(b""), SYNC) == ["1", "2", "C", "E", "Z"]
        outcome = [e for e in p.trail.entries if e["kind"] == "outcome"][-1]["outcome"]
        assert outcome["transaction"] == "rolled_back"
        await client.close()


async def test_a_denial_leaves_a_failed_transaction(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        await client.query(b"begin")
        client.send(frontend.parse(b"", b"drop table kept") + frontend.bind(b"", b"") + SYNC)
        await p.store.decide("a1", "denied")
        seen = await client.until_ready()
        assert errors(seen)[0]["C"] == "42501" and seen[-1][1][-1:] == b"E"
        assert errors(await client.query(b"drop table kept"))[0]["C"] == "25P02"
        assert (await client.query(b"rollback"))[-1][1][-1:] == b"I"
        assert len(p.store.requests) == 1
        await client.close()
