"""TLS towards clients, by real clients and by raw sockets; the server's side of it is in tests/integration."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import socket
import ssl
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import uvloop
from cryptography.hazmat.primitives import hashes

from pgproxy.certificates import ALPN, CertificateError, CertificateName
from pgproxy.embedded import EmbeddedServer
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.startup import AgentAccount
from pgproxy.net.tls import ServerTls
from pgproxy.protocol import backend, frontend, startup, tags
from tests.pgproxy.net.harness import Client, Proxy, errors, proxy, trusting, values
from tests.pki import Authority, Pair

HELLO = startup.startup_message([(b"user", b"agent"), (b"database", b"postgres")])
BROKER = {"bot": AgentAccount("bot", "alice", "agent", None)}


def both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test runs on asyncio's loop, and on the one workers have."""

    @functools.wraps(test)
    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    signature = inspect.signature(test)
    first = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = signature.replace(parameters=[first, *signature.parameters.values()])  # type: ignore[attr-defined]
    del run.__wrapped__  # type: ignore[attr-defined]
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    decorated: Callable[..., None] = pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)
    return decorated


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("proxy.test", hosts=["127.0.0.1"])


def libpq(p: Proxy, *, user: str = "agent", **options: Any) -> psycopg.Connection[Any]:
    """Blocking; call it in a thread."""
    where = {"host": "127.0.0.1", "port": p.port, "user": user, "dbname": "postgres", "connect_timeout": 20}
    return psycopg.connect(**{**where, **options})


async def facts(p: Proxy, **options: Any) -> tuple[bool, dict[str, Any] | None]:
    """Of a session of libpq's: whether it is in TLS, and what pgproxy says of it."""

    def run() -> bool:
        with libpq(p, **options) as connection:
            assert connection.execute("select 7").fetchone() == (7,)
            seen.extend(p.sessions())
            return bool(connection.pgconn.ssl_in_use)

    seen: list[dict[str, Any]] = []
    in_use = await asyncio.to_thread(run)
    return in_use, seen[0]["tls"]


async def error(p: Proxy, **options: Any) -> str:
    def run() -> str:
        with pytest.raises(psycopg.OperationalError) as caught, libpq(p, **options):
            pass
        return str(caught.value)

    return await asyncio.to_thread(run)


def trusting_context(authority: Authority, *, alpn: bool = True, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if alpn:
        context.set_alpn_protocols([ALPN])
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


async def upgraded(p: Proxy, context: ssl.SSLContext) -> Client:
    """A raw client behind an SSLRequest."""
    client = await p.connect()
    client.send(startup.ssl_request())
    assert await client.reader.readexactly(1) == b"S"
    await client.writer.start_tls(context, server_hostname="127.0.0.1")
    return client


async def busy(p: Proxy) -> None:
    """Until the one session has a statement under way."""
    async with asyncio.timeout(20):
        while all(live.relay.is_idle for live in p.listener.directory.live()):  # noqa: ASYNC110 - a test's patience
            await asyncio.sleep(0.01)


# negotiation


@both_loops
async def test_every_sslmode_of_libpq(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    root = str(authority.path)
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key)) as p:
        assert await facts(p, sslmode="disable") == (False, None)
        assert (await facts(p, sslmode="allow"))[0] is False
        for mode in ("prefer", "require", "verify-ca", "verify-full"):
            in_use, said = await facts(p, sslmode=mode, sslrootcert=root)
            assert in_use and said is not None and said["version"] == "TLSv1.3", mode
            assert said["cipher"].startswith("TLS_") and said["client_certificate"] is None
        assert (await facts(p, sslmode="require", sslnegotiation="direct"))[0]
        assert "localhost" in await error(p, host="localhost", sslmode="verify-full", sslrootcert=root)
        await p.quiet()
        started = [entry for entry in p.trail.entries if entry["kind"] == "session_start"]
        assert started[0]["tls"] is None and started[-1]["tls"]["version"] == "TLSv1.3"


@both_loops
async def test_required_tls_refuses_plaintext_as_hostssl_does(server: EmbeddedServer, pair: Pair) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        refused = await p.refused()
        assert refused["C"] == "28000" and refused["S"] == "FATAL"
        assert refused["M"].endswith('for host "127.0.0.1", user "agent", database "postgres", no encryption')
        assert "sslmode=require" in refused["H"] and "tls.mode" in refused["H"]
        assert not p.trail.entries
        assert (await facts(p, sslmode="allow"))[0], "libpq tries again with TLS"
        assert (await facts(p, sslmode="prefer"))[0]


@both_loops
async def test_tls_1_1_is_refused(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key)) as p:
        assert (await facts(p, sslmode="require", ssl_max_protocol_version="TLSv1.2"))[1]["version"] == "TLSv1.2"  # type: ignore[index]
        context = trusting_context(authority)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await upgraded(p, context)


@both_loops
async def test_gss_encryption_is_answered_n_and_tls_may_follow(
    server: EmbeddedServer, authority: Authority, pair: Pair
) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await p.connect()
        client.send(startup.gssenc_request())
        assert await client.reader.readexactly(1) == b"N"
        client.send(startup.ssl_request())
        assert await client.reader.readexactly(1) == b"S"
        await client.writer.start_tls(trusting_context(authority), server_hostname="127.0.0.1")
        client.send(HELLO)
        await client.until_ready()
        assert values(await client.query(b"select 7")) == [b"7"]
        await client.close()


@pytest.mark.parametrize("again", [startup.ssl_request(), startup.gssenc_request()], ids=["ssl", "gss"])
@both_loops
async def test_a_request_for_encryption_inside_tls_is_no_protocol_version(
    server: EmbeddedServer, authority: Authority, pair: Pair, again: bytes
) -> None:
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key)) as p:
        client = await upgraded(p, trusting_context(authority))
        client.send(again)
        refused = await client.fatal()
        assert refused["C"] == "0A000" and refused["M"].startswith("unsupported frontend protocol 1234.56")
        await client.close()


@both_loops
async def test_a_second_ssl_request_is_no_protocol_version(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.connect()
        client.send(startup.ssl_request())
        assert await client.reader.readexactly(1) == b"N"
        client.send(startup.ssl_request())
        assert (await client.fatal())["M"].startswith("unsupported frontend protocol 1234.5679")
        await client.close()


# what an attacker puts in front of TLS


@pytest.mark.parametrize("behind", [HELLO, b"\x16", b"x"])
@both_loops
async def test_plaintext_behind_an_ssl_request_is_refused(server: EmbeddedServer, pair: Pair, behind: bytes) -> None:
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key)) as p:
        client = await p.connect()
        client.send(startup.ssl_request() + behind)
        refused = await client.fatal()
        assert refused["C"] == "08P01" and "unencrypted data" in refused["M"]
        await client.close()
        assert not p.sessions() and not p.trail.entries


@both_loops
async def test_plaintext_behind_the_answer_is_no_tls(server: EmbeddedServer, pair: Pair) -> None:
    """In a segment of its own: it goes to TLS, which cannot make sense of it."""
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key)) as p:
        client = await p.connect()
        client.send(startup.ssl_request())
        assert await client.reader.readexactly(1) == b"S"
        client.send(HELLO)
        assert all(kind != tags.AUTHENTICATION for kind, _ in await client.until_closed())
        await client.close()
        assert not p.sessions() and not p.trail.entries


# direct negotiation


async def direct(p: Proxy, context: ssl.SSLContext) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", p.port, ssl=context))


@both_loops
async def test_direct_tls_needs_the_protocols_name(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await direct(p, trusting_context(authority))
        client.send(HELLO)
        await client.until_ready()
        assert values(await client.query(b"select 7")) == [b"7"]
        await client.close()
        await p.quiet()
        for alpn in (None, "http/1.1"):
            context = trusting_context(authority, alpn=False)
            if alpn:
                context.set_alpn_protocols([alpn])
            with contextlib.suppress(ConnectionError):
                client = await direct(p, context)
                client.send(HELLO)
                assert await client.until_closed() == []
                await client.close()
        assert len([e for e in p.trail.entries if e["kind"] == "session_start"]) == 1


@both_loops
async def test_a_hello_in_pieces(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    """What was read before TLS stood is not lost, however it was cut."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting_context(authority).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await p.connect()
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        for piece in (hello[:1], hello[1:2], hello[2:100], hello[100:]):
            client.send(piece)
            await asyncio.sleep(0.02)  # so that they arrive apart; together they would do as well

        async def step(call: Callable[[], Any]) -> Any:
            while True:
                try:
                    done = call()
                except ssl.SSLWantReadError:
                    client.send(outgoing.read())
                    incoming.write(await asyncio.wait_for(client.reader.read(65536), 20))
                else:
                    client.send(outgoing.read())
                    return done

        await step(tls.do_handshake)
        tls.write(HELLO)
        seen = b""
        while b"Z\x00\x00\x00\x05I" not in seen:
            seen += await step(lambda: tls.read(65536))
        await client.close()
        await p.quiet()


@both_loops
async def test_without_tls_a_hello_is_no_packet(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.connect()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert (await client.fatal())["C"] == "08P01"
        await client.close()


@both_loops
async def test_a_handshake_that_does_not_go_on_is_ended(server: EmbeddedServer, pair: Pair) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key), startup_timeout_s=0.3) as p:
        for first in (b"\x16", startup.ssl_request()):
            client = await p.connect()
            client.send(first)
            assert await asyncio.wait_for(client.reader.read(), 10) in (b"", b"S")
            await client.close()


@both_loops
async def test_a_client_that_leaves_in_the_handshake(server: EmbeddedServer, pair: Pair) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        for first in (b"\x16", b"\x16\x03\x01\x02\x00", startup.ssl_request()):
            for reset in (False, True):
                client = await p.connect()
                client.send(first)
                if first == startup.ssl_request():
                    assert await client.reader.readexactly(1) == b"S"
                sock = client.writer.get_extra_info("socket")
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                await client.close()
        assert (await facts(p, sslmode="require"))[0], "and others are served"


# the end


@both_loops
async def test_a_client_that_leaves_without_a_goodbye(
    server: EmbeddedServer, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        for _ in range(3):
            client = await upgraded(p, trusting_context(authority))
            client.send(HELLO)
            await client.until_ready()
            client.writer.transport.abort()
            await p.quiet()
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@both_loops
async def test_what_comes_before_the_goodbye_is_heard(
    server: EmbeddedServer, authority: Authority, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await upgraded(p, trusting_context(authority))
        client.send(HELLO)
        await client.until_ready()
        client.send(b"X\x00\x00\x00\x04")
        await client.close()
        await p.quiet()
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


@both_loops
async def test_a_client_that_leaves_while_parked_withdraws(
    server: EmbeddedServer, authority: Authority, pair: Pair
) -> None:
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await upgraded(p, trusting_context(authority))
        client.send(HELLO)
        await client.until_ready()
        client.send(frontend.query(b"drop table x"))
        await p.store.arrived.wait()
        with contextlib.suppress(ssl.SSLError):  # the notice that it waits comes behind the goodbye
            await client.close()
        await p.quiet()
        assert p.store.status["a1"] == "withdrawn"


# much data, and a peer that does not take it


@both_loops
async def test_a_client_that_does_not_read_holds_the_server_back(
    server: EmbeddedServer, authority: Authority, pair: Pair
) -> None:
    """Back-pressure over TLS: what waits for this client is bounded, and all of it arrives in the end."""
    rows, width = 3000, 10_000
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await upgraded(p, trusting_context(authority))
        client.send(HELLO)
        await client.until_ready()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(frontend.query(b"select repeat('x', %d) from generate_series(1, %d)" % (width, rows)))
        (live,) = p.listener.directory.live()
        async with asyncio.timeout(20):
            while not live.relay._server_paused:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0.01)
        assert live.relay._client.transport.get_write_buffer_size() < 2_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        seen = await client.until_ready()
        assert sum(len(data) for kind, data in seen if kind == tags.DATA_ROW) == rows * (width + 11)
        await client.close()


@both_loops
async def test_cancel_over_tls(server: EmbeddedServer, pair: Pair) -> None:
    """libpq's new cancel encrypts its request as its session is."""
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        connection = await asyncio.to_thread(libpq, p, sslmode="require", autocommit=True)
        running = asyncio.ensure_future(asyncio.to_thread(connection.execute, "select pg_sleep(20)"))
        await busy(p)
        await asyncio.to_thread(connection.cancel_safe)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        await asyncio.to_thread(connection.close)


@both_loops
async def test_a_cancel_request_needs_no_tls(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    """libpq's old PQcancel has none, and the server asks for none either."""
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        client = await upgraded(p, trusting_context(authority))
        client.send(HELLO)
        (key,) = [data for kind, data in await client.until_ready() if kind == tags.BACKEND_KEY_DATA]
        client.send(frontend.query(b"select pg_sleep(20)"))
        await busy(p)
        other = await p.connect()
        other.send(startup.cancel_request(*backend.read_backend_key_data(key)))
        assert await other.reader.read() == b""
        await other.close()
        assert errors(await client.until_ready())[0]["C"] == "57014"
        await client.close()


# channel binding


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384()], ids=["sha256", "sha384"])
@both_loops
async def test_scram_is_bound_to_the_channel(
    server: EmbeddedServer, authority: Authority, digest: hashes.HashAlgorithm
) -> None:
    pair = authority.issue("proxy.test", hosts=["127.0.0.1"], digest=digest)
    bot = {"user": "bot", "password": "pw", "sslmode": "require"}
    async with proxy(
        trusting(server),
        tls=ServerTls("prefer", pair.cert, pair.key),
        authenticator=AgentAuthenticator({"bot": "pw"}),
        accounts=BROKER,
    ) as p:
        for binding in ("require", "prefer", "disable"):
            assert (await facts(p, **bot, channel_binding=binding))[0], binding
            assert (await facts(p, **bot, channel_binding=binding, sslnegotiation="direct"))[0], binding
        assert (await facts(p, **(bot | {"sslmode": "disable"}), channel_binding="prefer"))[0] is False
        assert "password authentication failed" in await error(p, **(bot | {"password": "wrong"}))
        assert "password authentication failed" in await error(p, **(bot | {"user": "nobody"}))
        connection = await asyncpg.connect(
            f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres", ssl=trusting_context(authority, alpn=False)
        )
        assert await connection.fetchval("select 7") == 7
        await connection.close()


@both_loops
async def test_a_certificate_without_a_binding_gets_no_offer(server: EmbeddedServer, tmp_path: Path) -> None:
    pair = Authority(tmp_path, kind="ed25519").issue("proxy.test")
    bot = {"user": "bot", "password": "pw", "sslmode": "require"}
    async with proxy(
        trusting(server),
        tls=ServerTls("prefer", pair.cert, pair.key),
        authenticator=AgentAuthenticator({"bot": "pw"}),
        accounts=BROKER,
    ) as p:
        assert (await facts(p, **bot, channel_binding="prefer"))[0]
        assert "channel binding" in await error(p, **bot, channel_binding="require")


# client certificates


@both_loops
async def test_client_certificates_are_optional_verified_and_shown(
    server: EmbeddedServer, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    good = authority.issue("etl-bot", organisation="Example")
    bad = Authority(tmp_path, "another authority").issue("etl-bot")
    async with proxy(trusting(server), tls=ServerTls("prefer", pair.cert, pair.key, authority.path)) as p:
        assert (await facts(p, sslmode="require"))[1]["client_certificate"] is None  # type: ignore[index]
        _, said = await facts(p, sslmode="require", sslcert=str(good.cert), sslkey=str(good.key))
        assert said is not None and said["client_certificate"] == "CN=etl-bot,O=Example"
        await error(p, sslmode="require", sslcert=str(bad.cert), sslkey=str(bad.key))
        await p.quiet()
        assert len([e for e in p.trail.entries if e["kind"] == "session_start"]) == 2


@pytest.mark.parametrize("mode", ["prefer", "require"])
@both_loops
async def test_a_demanded_certificate(server: EmbeddedServer, authority: Authority, pair: Pair, mode: Any) -> None:
    good = authority.issue("anybody")
    tls = ServerTls(mode, pair.cert, pair.key, authority.path, demand_client_cert=True)
    async with proxy(trusting(server), tls=tls) as p:
        assert "connection requires a valid client certificate" in await error(p, sslmode="require")
        assert (await p.refused())["C"] == "28000", "and plaintext is no way around it"
        assert (await facts(p, sslmode="require", sslcert=str(good.cert), sslkey=str(good.key)))[0]


@both_loops
async def test_agents_known_by_their_certificates(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    """`cert` alone lets in by certificate, as pg_hba.conf's method; `both` needs it beside the password, as
    clientcert=verify-full; one agent's certificate is no other's."""
    accounts = {
        "cert": AgentAccount("cert", "alice", "agent", None, by_password=False),
        "both": AgentAccount("both", "alice", "agent", None),
        "bot": AgentAccount("bot", "alice", "agent", None),
    }
    certificates = {"cert": CertificateName("cn", "cert"), "both": CertificateName("dn", "CN=both,O=Example")}
    cert, both = authority.issue("cert"), authority.issue("both", organisation="Example")

    def shown(one: Pair) -> dict[str, str]:
        return {"sslmode": "require", "sslcert": str(one.cert), "sslkey": str(one.key)}

    async with proxy(
        trusting(server),
        tls=ServerTls("prefer", pair.cert, pair.key, authority.path),
        authenticator=AgentAuthenticator({"both": "pw", "bot": "pw"}),
        accounts=accounts,
        certificates=certificates,
    ) as p:
        assert (await facts(p, user="cert", **shown(cert)))[0]
        assert (await facts(p, user="both", password="pw", **shown(both)))[0]
        assert (await facts(p, user="bot", password="pw", **shown(both)))[0]
        failed = 'certificate authentication failed for user "{}"'
        assert failed.format("cert") in await error(p, user="cert", **shown(both))
        assert failed.format("both") in await error(p, user="both", password="pw", **shown(cert))
        assert "password authentication failed" in await error(p, user="both", password="no", **shown(both))
        for user in ("cert", "both"):
            for mode in ("require", "disable"):
                said = await error(p, user=user, password="pw", sslmode=mode)
                assert "connection requires a valid client certificate" in said, (user, mode)


# reload


@both_loops
async def test_new_connections_get_the_new_certificate(
    server: EmbeddedServer, authority: Authority, pair: Pair
) -> None:
    def shown(sock: Client) -> bytes:
        found: bytes = sock.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found

    tls = ServerTls("require", pair.cert, pair.key)
    async with proxy(trusting(server), tls=tls, authenticator=AgentAuthenticator({"bot": "pw"}), accounts=BROKER) as p:
        old = await upgraded(p, trusting_context(authority))
        assert shown(old) == pair.der
        newer = authority.issue("proxy.test", hosts=["127.0.0.1"], to=pair)
        access = replace(p.terms.access, tls=ServerTls("require", pair.cert, pair.key))
        p.listener.reconfigure(replace(p.terms, access=access))
        new = await upgraded(p, trusting_context(authority))
        assert shown(new) == newer.der
        assert (await facts(p, user="bot", password="pw", sslmode="require", channel_binding="require"))[0]
        pair.key.write_text("broken")
        with pytest.raises(CertificateError, match="no usable key"):
            ServerTls("require", pair.cert, pair.key)  # as a reload does, before it changes anything
        for client in (old, new):
            await client.close()


@both_loops
async def test_psql_of_the_distribution(server: EmbeddedServer, authority: Authority, pair: Pair) -> None:
    """Another libpq than psycopg's, and one that sends its SSLRequest first."""
    async with proxy(trusting(server), tls=ServerTls("require", pair.cert, pair.key)) as p:
        where = f"host=127.0.0.1 port={p.port} user=agent dbname=postgres"
        command = ["/usr/bin/psql", "-XAt", "-c", "\\conninfo", "-c", "select 7"]
        full = f"{where} sslmode=verify-full sslrootcert={authority.path}"
        done = await asyncio.to_thread(subprocess.run, [*command, full], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "protocol: TLSv1.3" in done.stdout and done.stdout.endswith("7\n"), done
        plain = f"{where} sslmode=disable"
        done = await asyncio.to_thread(subprocess.run, [*command, plain], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "no encryption" in done.stderr and "HINT" in done.stderr
