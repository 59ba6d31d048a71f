"""TLS towards a real server, by libpq's sslmode, and on both connections at once."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest

from pgproxy.catalog import Catalogs
from pgproxy.certificates import CertificateError, server_context
from pgproxy.dsn import Dsn
from pgproxy.errors import UpstreamUnreachable
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.endpoint import Endpoint
from pgproxy.net.startup import AgentAccount
from pgproxy.net.tls import ServerTls, UpstreamFiles, UpstreamTls
from pgproxy.net.upstream import Upstream
from pgproxy.protocol import backend, startup, tags
from pgproxy.store import open_pool
from tests import debian
from tests.debian import TlsServer
from tests.pgproxy.net.harness import Proxy, proxy
from tests.pki import Authority

IN_TLS = "select ssl, version, cipher from pg_stat_ssl where pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def tls_server() -> Iterator[TlsServer]:
    with debian.running() as server:
        yield server


def upstream(server: TlsServer, sslmode: str, *, host: str = "127.0.0.1", root: Path | None = None) -> Upstream:
    if sslmode == "disable":
        return Upstream(host, server.port)
    return Upstream(host, server.port, UpstreamTls(sslmode, UpstreamFiles(root)))


def packet(user: str) -> bytes:
    """As sessions ask: PostgreSQL 15 answers 3.2 with NegotiateProtocolVersion, even before it refuses."""
    parameters = [(b"user", user.encode()), (b"database", b"postgres")]
    return startup.startup_message(parameters, minor=startup.NEWEST_MINOR)


async def answer(to: Upstream, user: str = "trusted") -> tuple[bool, int, dict[str, str]]:
    """Whether in TLS; the server's first message beside the protocol version, and its error."""
    endpoint, secured = await to.start(packet(user))
    kind = tags.NEGOTIATE_PROTOCOL_VERSION
    while kind == tags.NEGOTIATE_PROTOCOL_VERSION:
        kind, message = await endpoint.read_message()
    endpoint.abort()
    return secured is not None, kind, backend.read_error(message) if kind == tags.ERROR_RESPONSE else {}


# sslmode


async def test_sslmode_against_a_server_with_tls(tls_server: TlsServer, tmp_path: Path) -> None:
    root, foreign = tls_server.authority.path, Authority(tmp_path, "somebody else").path
    for sslmode, in_tls in (("disable", False), ("allow", False), ("prefer", True), ("require", True)):
        assert await answer(upstream(tls_server, sslmode)) == (in_tls, tags.AUTHENTICATION, {}), sslmode
    for sslmode in ("require", "verify-ca", "verify-full"):
        assert (await answer(upstream(tls_server, sslmode, root=root)))[0], sslmode
        with pytest.raises(UpstreamUnreachable) as caught:
            await answer(upstream(tls_server, sslmode, root=foreign))
        assert "certificate verify failed" in str(caught.value.__cause__), sslmode
    assert (await answer(upstream(tls_server, "verify-ca", host="localhost", root=root)))[0]
    with pytest.raises(UpstreamUnreachable) as caught:
        await answer(upstream(tls_server, "verify-full", host="localhost", root=root))
    assert "localhost" in str(caught.value.__cause__)


async def test_the_server_is_asked_again_in_the_other_way(tls_server: TlsServer) -> None:
    """By pg_hba.conf `strict` gets in only with TLS, `plain` only without."""
    for sslmode, user, expected in (
        ("allow", "strict", (True, tags.AUTHENTICATION)),
        ("prefer", "strict", (True, tags.AUTHENTICATION)),
        ("disable", "strict", (False, tags.ERROR_RESPONSE)),
        ("prefer", "plain", (False, tags.AUTHENTICATION)),
        ("allow", "plain", (False, tags.AUTHENTICATION)),
        ("require", "plain", (True, tags.ERROR_RESPONSE)),
    ):
        assert (await answer(upstream(tls_server, sslmode), user))[:2] == expected, (sslmode, user)


Answer = Callable[[bytes], bytes]


@contextlib.asynccontextmanager
async def scripted(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers the first eight bytes of each connection, and what comes behind an `N` once more."""
    seen: list[bytes] = []
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                seen.append(await reader.readexactly(8))
                said = answer(seen[-1])
                writer.write(said)
                if said != b"N":
                    break
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        if serving:
            await asyncio.wait([task for task in serving if task is not None])


def no_tls(otherwise: bytes) -> Answer:
    return lambda packet: b"N" if packet == startup.ssl_request() else otherwise


@pytest.mark.parametrize("sslmode", ["prefer", "require", "verify-ca", "verify-full"])
async def test_a_server_without_tls(sslmode: str, tmp_path: Path) -> None:
    files = UpstreamFiles(Authority(tmp_path).path if sslmode.startswith("verify") else None)
    async with scripted(no_tls(backend.authentication(tags.AUTH_OK))) as (port, seen):
        to = Upstream("127.0.0.1", port, UpstreamTls(sslmode, files))
        if sslmode == "prefer":
            assert await answer(to) == (False, tags.AUTHENTICATION, {})
        else:
            with pytest.raises(UpstreamUnreachable) as caught:
                await answer(to)
            assert "does not support TLS" in str(caught.value.__cause__)
            assert seen == [startup.ssl_request()], "nothing in the clear"


@pytest.mark.parametrize(
    "said",
    [b"S" + backend.authentication(tags.AUTH_OK), b"N" + backend.authentication(tags.AUTH_OK), b"Eerror\0", b"x"],
)
async def test_what_is_no_answer_to_an_ssl_request_is_not_believed(said: bytes) -> None:
    """Among it the bytes that somebody between put behind the answer (CVE-2021-23222, CVE-2024-10977)."""
    async with scripted(lambda _: said) as (port, seen):
        with pytest.raises(UpstreamUnreachable):
            await answer(Upstream("127.0.0.1", port, UpstreamTls("require")))
        assert seen == [startup.ssl_request()]


async def test_allow_tells_the_first_refusal_when_there_is_no_tls() -> None:
    async with scripted(no_tls(backend.error_response("FATAL", "28000", "first"))) as (port, _):
        in_tls, kind, said = await answer(Upstream("127.0.0.1", port, UpstreamTls("allow")))
        assert (in_tls, kind, said["M"]) == (False, tags.ERROR_RESPONSE, "first")


async def test_our_own_certificate_towards_the_server(tls_server: TlsServer) -> None:
    pair = tls_server.authority.issue("cert")
    to = Upstream("127.0.0.1", tls_server.port, UpstreamTls("require", UpstreamFiles(None, pair.cert, pair.key)))
    assert await answer(to, "cert") == (True, tags.AUTHENTICATION, {})
    assert (await answer(upstream(tls_server, "require"), "cert"))[1] == tags.ERROR_RESPONSE


async def test_direct_negotiation_between_two_of_ours(tls_server: TlsServer) -> None:
    """PostgreSQL 15 has none, so a pgproxy plays the server; one that does not name the protocol is refused."""
    pair = tls_server.authority.issue("proxy.test", hosts=["127.0.0.1"])
    direct = UpstreamTls("verify-full", UpstreamFiles(tls_server.authority.path), direct=True)
    async with proxy(upstream(tls_server, "disable"), tls=ServerTls("require", pair.cert, pair.key)) as p:
        assert await answer(Upstream("127.0.0.1", p.port, direct)) == (True, tags.AUTHENTICATION, {})

    context, _ = server_context(pair.cert, pair.key, None)
    context.set_alpn_protocols(["http/1.1"])
    async with scripted(lambda _: b"", context) as (port, seen):
        with pytest.raises(UpstreamUnreachable) as caught:
            await answer(Upstream("127.0.0.1", port, direct))
        assert "ALPN" in str(caught.value.__cause__) and seen == []


async def test_reload_takes_the_new_authorities(tls_server: TlsServer, tmp_path: Path) -> None:
    root = tmp_path / "root.crt"
    root.write_bytes(Authority(tmp_path, "somebody else").path.read_bytes())
    to = upstream(tls_server, "verify-full", root=root)
    assert to.tls is not None
    with pytest.raises(UpstreamUnreachable):
        await answer(to)
    root.write_bytes(tls_server.authority.path.read_bytes())
    to.tls.reload()
    assert (await answer(to))[0]
    root.write_text("broken")
    with pytest.raises(CertificateError):
        to.tls.reload()
    assert (await answer(to))[0], "what was in force stays"


# whole sessions


@contextlib.asynccontextmanager
async def brokered(server: TlsServer, **settings: str) -> AsyncIterator[tuple[Proxy, dict[str, Any]]]:
    """Broker mode, TLS on both connections, verified on both; and how libpq connects to it."""
    pair = server.authority.issue("proxy.test", hosts=["127.0.0.1"])
    async with proxy(
        upstream(server, "verify-full", root=server.authority.path),
        tls=ServerTls("require", pair.cert, pair.key),
        authenticator=AgentAuthenticator({"bot": "pw"}),
        accounts={"bot": AgentAccount("bot", "alice", "app", "secret")},
    ) as p:
        yield (
            p,
            {
                "host": "127.0.0.1",
                "port": p.port,
                "user": "bot",
                "password": "pw",
                "dbname": "postgres",
                "sslmode": "verify-full",
                "sslrootcert": str(server.authority.path),
                "autocommit": True,
            },
        )


async def test_both_connections_in_tls_and_bound(tls_server: TlsServer) -> None:
    async with brokered(tls_server) as (p, libpq):

        def run(**options: Any) -> None:
            with psycopg.connect(**libpq, channel_binding="require", **options) as connection:
                assert connection.pgconn.ssl_in_use
                assert connection.execute(IN_TLS).fetchone()[0] is True  # type: ignore[index]

        await asyncio.to_thread(run)
        await asyncio.to_thread(run, sslnegotiation="direct")

        context = ssl.create_default_context(cafile=str(tls_server.authority.path))
        connection = await asyncpg.connect(f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres", ssl=context)
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
        await connection.close()


async def test_the_server_sees_a_bound_channel(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the binding of another certificate the server refuses pgproxy: so -PLUS was really used, and checked."""
    monkeypatch.setattr("pgproxy.net.tls.end_point_binding", lambda der: b"\0" * 32)
    async with brokered(tls_server) as (_, libpq):

        def run() -> str:
            with pytest.raises(psycopg.OperationalError) as caught, psycopg.connect(**libpq):
                pass
            return str(caught.value)

        assert "SCRAM channel binding check failed" in await asyncio.to_thread(run)


async def test_much_data_through_both_with_flat_memory(tls_server: TlsServer) -> None:
    """100 MB each way of a slow reader's: what waits in this process stays small."""

    async with brokered(tls_server) as (_, libpq):

        def run() -> int:
            received = 0
            with psycopg.connect(**libpq) as connection:
                sql = "select repeat('x', 10000) from generate_series(1, 10000)"
                for row in connection.cursor().stream(sql):
                    received += len(row[0])
            return received

        tracemalloc.start()
        try:
            assert await asyncio.to_thread(run) == 100_000_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 16_000_000, peak


async def test_cancel_goes_encrypted_to_the_server(tls_server: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    connect = Upstream._connect

    async def watched(self: Upstream, encrypted: bool) -> tuple[Endpoint, Any]:
        found = await connect(self, encrypted)
        opened.append(found[1] is not None)
        return found

    monkeypatch.setattr(Upstream, "_connect", watched)
    async with brokered(tls_server) as (p, libpq):
        connection = await asyncio.to_thread(lambda: psycopg.connect(**libpq))
        running = asyncio.ensure_future(asyncio.to_thread(connection.execute, "select pg_sleep(20)"))

        def is_asleep() -> bool:
            with tls_server.admin() as admin:
                found = admin.execute("select count(*) from pg_stat_activity where wait_event = 'PgSleep'").fetchone()
                return found == (1,)

        async with asyncio.timeout(20):
            while not await asyncio.to_thread(is_asleep):
                pass
        await asyncio.to_thread(connection.cancel_safe)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        await asyncio.to_thread(connection.close)
        await p.quiet()
    assert opened == [True, True]


async def test_passthrough_before_a_server_in_tls(tls_server: TlsServer) -> None:
    """The server offers -PLUS to pgproxy; a client without TLS must not see that, or libpq takes it for an attack."""
    async with proxy(upstream(tls_server, "require")) as p:

        def run(password: str) -> bool:
            where = f"host=127.0.0.1 port={p.port} user=app dbname=postgres sslmode=disable"
            with psycopg.connect(where, password=password) as connection:
                found = connection.execute(IN_TLS).fetchone()
            return found is not None and found[0] is True

        assert await asyncio.to_thread(run, "secret")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await asyncio.to_thread(run, "wrong")
        connection = await asyncpg.connect(f"postgresql://app:secret@127.0.0.1:{p.port}/postgres?sslmode=disable")
        assert await connection.fetchval("select 7") == 7
        await connection.close()


async def test_psql_of_the_distribution_through_both(tls_server: TlsServer) -> None:
    async with brokered(tls_server) as (p, _):
        full = f"host=127.0.0.1 port={p.port} user=bot dbname=postgres sslrootcert={tls_server.authority.path}"
        for options, code, text in (
            ("sslmode=verify-full channel_binding=require", 0, "t\n"),
            ("sslmode=verify-ca", 0, "t\n"),
            ("sslmode=require", 0, "t\n"),
            ("sslmode=prefer", 0, "t\n"),
            ("sslmode=allow", 0, "t\n"),
            ("sslmode=disable", 2, "no encryption"),
            ("sslmode=verify-full host=localhost", 2, 'does not match host name "localhost"'),
        ):
            done = await asyncio.to_thread(
                subprocess.run,
                [
                    *(str(debian.PSQL), "-XAt", "-c", "select ssl from pg_stat_ssl where pid = pg_backend_pid()"),
                    f"{full} {options}",
                ],
                capture_output=True,
                text=True,
                check=False,
                env={"PGPASSWORD": "pw"},
            )
            assert done.returncode == code and text in done.stdout + done.stderr, (options, done)


# the other connections


async def test_the_observer_and_the_store_obey_sslmode(tls_server: TlsServer, tmp_path: Path) -> None:
    root, foreign = tls_server.authority.path, Authority(tmp_path, "somebody else").path
    good = tls_server.uri("observer", sslmode="verify-full", sslrootcert=str(root))
    bad = tls_server.uri("observer", sslmode="verify-full", sslrootcert=str(foreign))
    wrong_host = tls_server.uri("observer", host="localhost", sslmode="verify-full", sslrootcert=str(root))
    connection = await Catalogs(Dsn.parse(good), "observer", "secret", lambda *_: None)._connect("postgres")
    assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
    await connection.close()
    pool = await open_pool(Dsn.parse(good).uri())
    assert await pool.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()") is True
    pool.terminate()
    for dsn in (bad, wrong_host):
        with pytest.raises(OSError, match="certificate verify failed"):
            await Catalogs(Dsn.parse(dsn), "observer", "secret", lambda *_: None)._connect("postgres")
        with pytest.raises(OSError, match="certificate verify failed"):
            await open_pool(Dsn.parse(dsn).uri())
