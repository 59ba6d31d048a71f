"""Authentication against real peers: libpq (psycopg, psql) and asyncpg before us, PostgreSQL behind us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import asyncpg
import psycopg
import pytest

from pgproxy.embedded import EmbeddedServer, psql_path
from pgproxy.net import scram
from pgproxy.net.auth import (
    AgentAuthenticator,
    AuthenticationFailed,
    ServerBinding,
    UpstreamAuthUnsupported,
    UpstreamNotTrusted,
    UpstreamRefused,
    login,
    relay_authentication,
)
from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.framing import BACKEND_TYPES, FRONTEND_TYPES, Framer
from pgproxy.protocol.startup import StartupMessage, read_startup, startup_message
from pgproxy.protocol.violation import ProtocolViolation

HBA = """
local all by_trust trust
local all by_password password
local all by_md5 md5
local all by_scram,odd,prepared,forbidden,cheap scram-sha-256
local all refused reject
local all postgres trust
host all by_trust 127.0.0.1/32 trust
"""
PASSWORDS = {
    "by_password": "in the clear",
    "by_md5": "fünf",
    "by_scram": "pencil",
    "odd": "päß, =word'\"",
    "prepared": "I\u00adX",
    "forbidden": "a\u0007é",
    "cheap": "one iteration",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("auth"), password="unused", settings={"fsync": "off"})
    asyncio.run(server.start())
    (server.data_dir / "pg_hba.conf").write_text(HBA)
    asyncio.run(server.stop())
    asyncio.run(server.start())
    dsn = f"host={server.socket_dir} port={server.port} user=postgres dbname=postgres"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("create role by_trust login")
        admin.execute("create role refused login")
        for role, password in PASSWORDS.items():
            encryption = "md5" if role == "by_md5" else "scram-sha-256"
            admin.execute(f"set password_encryption = '{encryption}'")
            admin.execute(f"set scram_iterations = {1 if role == 'cheap' else 4096}")
            literal = psycopg.sql.Literal(password)
            admin.execute(
                psycopg.sql.SQL("create role {} login password {}").format(psycopg.sql.Identifier(role), literal)
            )
    yield server
    asyncio.run(server.stop())


class Stream:
    """A MessageStream over asyncio's own streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, types: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = Framer(b"", 1 << 20, types)
        self._ready: list[tuple[int, bytes]] = []

    async def read_message(self) -> tuple[int, bytes]:
        while not self._ready:
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError("closed")
            self._ready += [(tag, message) for tag, message, _ in self._framer.feed(data)]
        return self._ready.pop(0)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class Scripted:
    """A MessageStream whose peer says what it is told to, and whose answers are kept."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.written: list[bytes] = []
        self.awaited = asyncio.Event()

    async def read_message(self) -> tuple[int, bytes]:
        self.awaited.set()
        if not self._messages:
            await asyncio.Event().wait()
        message = self._messages.pop(0)
        return message[0], message

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    @property
    def unread(self) -> int:
        return len(self._messages)


Handler = Callable[[Stream, StartupMessage], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    """A port behind which `handle` gets each client after its StartupMessage."""
    failures: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = await reader.readexactly(4)
                packet = read_startup(length + await reader.readexactly(int.from_bytes(length, "big") - 4))
                if isinstance(packet, StartupMessage):
                    break
                writer.write(b"N")
            await handle(Stream(reader, writer, FRONTEND_TYPES), packet)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await listener.wait_closed()
    if failures:
        raise failures[0]


async def dial(server: EmbeddedServer, user: str) -> Stream:
    """A connection to the real server, its StartupMessage sent."""
    reader, writer = await asyncio.open_unix_connection(f"{server.socket_dir}/.s.PGSQL.{server.port}")
    writer.write(startup_message([(b"user", user.encode()), (b"database", b"postgres")]))
    return Stream(reader, writer, BACKEND_TYPES)


# Broker mode, the agent's side


def as_a_server(authenticator: AgentAuthenticator) -> Handler:
    async def handle(client: Stream, startup: StartupMessage) -> None:
        user = (startup.get(b"user") or b"").decode()
        try:
            await authenticator.authenticate(client, user)
        except AuthenticationFailed as error:
            client.write(backend.error_response(error.severity, error.sqlstate, error.message))
            await client.drain()
            return
        for name, value in ((b"server_version", b"18.0"), (b"client_encoding", b"UTF8")):
            client.write(backend.parameter_status(name, value))
        client.write(backend.backend_key_data(1, b"abcd") + backend.ready_for_query(tags.IDLE))
        while (await client.read_message())[0] != tags.TERMINATE:
            client.write(b"I\0\0\0\4" + backend.ready_for_query(tags.IDLE))

    return handle


AGENTS = {
    "bot": "pencil",
    "böt": "päß",
    "kept": scram.format_verifier(scram.derive("from a verifier", b"0123456789abcdef", 4096)),
}


@pytest.mark.parametrize(("user", "password"), [("bot", "pencil"), ("böt", "päß"), ("kept", "from a verifier")])
async def test_libpq_is_let_in(user: str, password: str) -> None:
    async with listening(as_a_server(AgentAuthenticator(AGENTS))) as port:
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=port, user=user, password=password, require_auth="scram-sha-256"
        )
        await connection.close()


async def test_asyncpg_is_let_in() -> None:
    async with listening(as_a_server(AgentAuthenticator(AGENTS))) as port:
        connection = await asyncpg.connect(host="127.0.0.1", port=port, user="bot", password="pencil", database="shop")
        connection.terminate()


async def test_psql_is_let_in() -> None:
    async with listening(as_a_server(AgentAuthenticator(AGENTS))) as port:
        url = f"postgresql://bot:pencil@127.0.0.1:{port}/shop"
        psql = await asyncio.create_subprocess_exec(psql_path(), url, "-Xc", "", stderr=asyncio.subprocess.PIPE)
        _, stderr = await psql.communicate()
        assert (psql.returncode, stderr) == (0, b"")


@pytest.mark.parametrize(
    ("user", "password"),
    [("bot", "pencils"), ("bot", AGENTS["kept"]), ("nobody", "pencil"), ("kept", AGENTS["kept"])],
)
async def test_others_are_refused_in_the_servers_words(user: str, password: str) -> None:
    async with listening(as_a_server(AgentAuthenticator(AGENTS))) as port:
        with pytest.raises(psycopg.OperationalError) as caught:
            await psycopg.AsyncConnection.connect(host="127.0.0.1", port=port, user=user, password=password)
        assert f'FATAL:  password authentication failed for user "{user}"' in str(caught.value)


async def test_the_words_are_the_servers(server: EmbeddedServer) -> None:
    upstream = await dial(server, "by_scram")
    with pytest.raises(UpstreamRefused) as caught:
        await login(upstream, "by_scram", "wrong")
    fields = backend.read_error(caught.value.response)
    ours = AuthenticationFailed("by_scram")
    assert (fields["S"], fields["C"], fields["M"]) == (ours.severity, ours.sqlstate, ours.message)
    upstream.close()


CLIENT_FIRST = b"n,,n=,r=abcdef"


def proof_for(server_first: bytes) -> bytes:
    nonce = server_first.split(b",")[0]
    return frontend.sasl_response(b"c=biws," + nonce + b",p=" + b"A" * 43 + b"=")


async def probe(authenticator: AgentAuthenticator, user: str) -> tuple[bytes, list[int]]:
    """What somebody without the password sees: salt and cost, and the types of all answers."""

    class Prober(Scripted):
        def write(self, data: bytes) -> None:
            super().write(data)
            code, payload = backend.read_authentication(data)
            if code == tags.AUTH_SASL_CONTINUE:
                self._messages.append(proof_for(payload))

    prober = Prober(frontend.sasl_initial_response(b"SCRAM-SHA-256", CLIENT_FIRST))
    with pytest.raises(AuthenticationFailed):
        await authenticator.authenticate(prober, user)
    requests = [backend.read_authentication(message) for message in prober.written]
    return requests[1][1].partition(b",")[2], [code for code, _ in requests]


async def test_names_cannot_be_probed() -> None:
    authenticator = AgentAuthenticator(AGENTS)
    seen = {user: await probe(authenticator, user) for user in ("bot", "kept", "nobody", "no\u00f6ne")}
    assert {tuple(codes) for _, codes in seen.values()} == {(tags.AUTH_SASL, tags.AUTH_SASL_CONTINUE)}
    assert len({len(salt) for salt, _ in seen.values()}) == 1
    assert len({salt for salt, _ in seen.values()}) == len(seen), "a salt of its own for each"
    for user, before in seen.items():
        assert await probe(authenticator, user) == before, "and the same one at each try"


async def test_workers_with_one_key_give_the_same_salts() -> None:
    one, other = (AgentAuthenticator(AGENTS, mock_key=b"k" * 32) for _ in range(2))
    for user in ("bot", "kept", "nobody"):
        assert await probe(one, user) == await probe(other, user)
    apart = AgentAuthenticator(AGENTS)
    assert await probe(one, "nobody") != await probe(apart, "nobody")


async def test_unknown_names_cost_what_agents_cost() -> None:
    verifier = scram.format_verifier(scram.derive("x", b"0123456789abcdef", 10_000))
    authenticator = AgentAuthenticator({"a": verifier, "b": verifier, "c": "plain"})
    salt, _ = await probe(authenticator, "nobody")
    assert salt.endswith(b",i=10000")


async def test_an_unknown_name_is_refused_even_with_a_proof_that_fits() -> None:
    class Guessed(AgentAuthenticator):
        def _mock_verifier(self, user: str) -> scram.Verifier:
            return scram.derive("pencil", self._salt(user))

    async with listening(as_a_server(Guessed(AGENTS))) as port:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(host="127.0.0.1", port=port, user="nobody", password="pencil")


async def test_a_client_that_leaves_half_way_does_not_lock_the_others_out() -> None:
    authenticator = AgentAuthenticator(AGENTS)
    first = asyncio.ensure_future(authenticator.prepare())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with listening(as_a_server(authenticator)) as port:
        connection = await psycopg.AsyncConnection.connect(host="127.0.0.1", port=port, user="bot", password="pencil")
        await connection.close()


async def test_an_initial_response_may_come_later() -> None:
    """RFC 4422: only the mechanism's name first, then an empty challenge."""
    body = b"SCRAM-SHA-256\0\xff\xff\xff\xff"
    late = b"p" + (len(body) + 4).to_bytes(4, "big") + body
    client = Scripted(late, frontend.sasl_response(CLIENT_FIRST), frontend.SYNC)
    with pytest.raises(ProtocolViolation):
        await AgentAuthenticator(AGENTS).authenticate(client, "bot")
    assert client.written[1] == backend.authentication(tags.AUTH_SASL_CONTINUE)
    assert client.written[2].startswith(backend.authentication(tags.AUTH_SASL_CONTINUE)[:1])
    assert b"r=abcdef" in client.written[2]


@pytest.mark.parametrize(
    "messages",
    [
        [frontend.query(b"select 1")],
        [frontend.TERMINATE],
        [frontend.password(b"pencil")],
        [frontend.sasl_initial_response(b"SCRAM-SHA-256-PLUS", CLIENT_FIRST)],
        [frontend.sasl_initial_response(b"OAUTHBEARER", CLIENT_FIRST)],
        [frontend.sasl_initial_response(b"SCRAM-SHA-256", b"p=tls-server-end-point,,n=,r=abc")],
        [frontend.sasl_initial_response(b"SCRAM-SHA-256", CLIENT_FIRST), frontend.query(b"select 1")],
        [frontend.sasl_initial_response(b"SCRAM-SHA-256", CLIENT_FIRST), frontend.sasl_response(b"")],
    ],
)
@pytest.mark.parametrize("user", ["bot", "nobody"])
async def test_malformed_or_wrong_messages_are_violations(messages: list[bytes], user: str) -> None:
    client = Scripted(*messages)
    with pytest.raises(ProtocolViolation) as caught:
        await AgentAuthenticator(AGENTS).authenticate(client, user)
    assert caught.value.sqlstate == "08P01"
    assert not any(backend.read_authentication(m)[0] == tags.AUTH_OK for m in client.written)


def test_a_malformed_verifier_is_named_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^agent 'bot': malformed SCRAM-SHA-256 verifier$"):
        AgentAuthenticator({"bot": "SCRAM-SHA-256$4096:c2FsdA==$secret"})


# Broker mode, the server's side


@pytest.mark.parametrize("role", ["by_trust", *PASSWORDS])
async def test_login_at_the_server(server: EmbeddedServer, role: str) -> None:
    upstream = await dial(server, role)
    await login(upstream, role, PASSWORDS.get(role))
    tag, _ = await upstream.read_message()
    assert tag == tags.PARAMETER_STATUS, "nothing behind AuthenticationOk was read"
    upstream.close()


async def test_a_prepared_password_is_the_same_password(server: EmbeddedServer) -> None:
    """SASLprep: U+00AD is mapped to nothing."""
    upstream = await dial(server, "prepared")
    await login(upstream, "prepared", "IX")
    upstream.close()


@pytest.mark.parametrize("role", ["by_password", "by_md5", "by_scram", "cheap"])
async def test_login_with_a_wrong_password_gives_the_servers_error(server: EmbeddedServer, role: str) -> None:
    upstream = await dial(server, role)
    with pytest.raises(UpstreamRefused) as caught:
        await login(upstream, role, "wrong")
    assert backend.read_error(caught.value.response)["C"] == "28P01"
    upstream.close()


async def test_login_where_the_server_rejects_gives_its_error(server: EmbeddedServer) -> None:
    upstream = await dial(server, "refused")
    with pytest.raises(UpstreamRefused) as caught:
        await login(upstream, "refused", "x")
    assert backend.read_error(caught.value.response)["C"] == "28000"
    upstream.close()


@pytest.mark.parametrize("role", ["by_password", "by_md5", "by_scram"])
async def test_login_without_a_password_says_so(server: EmbeddedServer, role: str) -> None:
    upstream = await dial(server, role)
    with pytest.raises(UpstreamAuthUnsupported, match="none is configured"):
        await login(upstream, role, None)
    upstream.close()


@pytest.mark.parametrize(
    "request_",
    [
        backend.authentication(tags.AUTH_KERBEROS_V5),
        backend.authentication(tags.AUTH_GSS),
        backend.authentication(tags.AUTH_SSPI),
        backend.authentication(99),
        backend.authentication(tags.AUTH_MD5_PASSWORD, b"sal"),
        backend.authentication(tags.AUTH_SASL_CONTINUE, b"r="),
        backend.authentication(tags.AUTH_SASL, b"OAUTHBEARER\0\0"),
        backend.authentication(tags.AUTH_SASL, b"\0"),
    ],
)
async def test_login_cannot_do_every_method(request_: bytes) -> None:
    upstream = Scripted(request_)
    with pytest.raises(UpstreamAuthUnsupported):
        await login(upstream, "app", "secret")
    assert upstream.written == [], "no password for a method we don't know"


async def test_login_takes_an_offer_of_channel_binding_in_the_clear_for_an_attack() -> None:
    upstream = Scripted(backend.authentication(tags.AUTH_SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
    with pytest.raises(UpstreamNotTrusted, match="without TLS"):
        await login(upstream, "app", "secret")
    assert upstream.written == []


@pytest.mark.parametrize(
    ("offer", "binding", "chosen"),
    [
        (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256", ServerBinding(True, b"hash"), b"SCRAM-SHA-256-PLUS\0p=tls-server"),
        (b"SCRAM-SHA-256", ServerBinding(True, b"hash"), b"SCRAM-SHA-256\0y,,"),
        (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256", ServerBinding(True, None), b"SCRAM-SHA-256\0n,,"),
        (b"SCRAM-SHA-256", ServerBinding(True, None), b"SCRAM-SHA-256\0n,,"),
        (b"SCRAM-SHA-256", ServerBinding(), b"SCRAM-SHA-256\0n,,"),
    ],
)
async def test_login_binds_the_channel_wherever_both_sides_can(
    offer: bytes, binding: ServerBinding, chosen: bytes
) -> None:
    upstream = Scripted(
        backend.authentication(tags.AUTH_SASL, offer + b"\0\0"), backend.error_response("FATAL", "28P01", "no")
    )
    with pytest.raises(UpstreamRefused):
        await login(upstream, "app", "secret", binding)
    mechanism, flag = chosen.split(b"\0")
    assert upstream.written[0][5:].startswith(mechanism + b"\0")
    assert upstream.written[0][5 + len(mechanism) + 1 + 4 :].startswith(flag)


class LyingServer(Scripted):
    """Speaks SCRAM up to the client's proof, then says `ending`: it does not know the password."""

    def __init__(self, *ending: bytes) -> None:
        super().__init__(backend.authentication(tags.AUTH_SASL, b"SCRAM-SHA-256\0\0"))
        self._ending = ending

    def write(self, data: bytes) -> None:
        super().write(data)
        if len(self.written) == 1:
            nonce = data.rpartition(b"r=")[2]
            challenge = b"r=" + nonce + b"more,s=c2FsdA==,i=1"
            self._messages.append(backend.authentication(tags.AUTH_SASL_CONTINUE, challenge))
        else:
            self._messages += self._ending


OK = backend.authentication(tags.AUTH_OK)


@pytest.mark.parametrize(
    "ending",
    [
        (OK,),
        (backend.authentication(tags.AUTH_SASL_FINAL, b"v=" + b"A" * 43 + b"="), OK),
        (backend.authentication(tags.AUTH_SASL_FINAL, b"e=other-error"), OK),
        (backend.authentication(tags.AUTH_CLEARTEXT_PASSWORD), OK),
        (backend.authentication(tags.AUTH_SASL_CONTINUE, b"r=x,s=c2FsdA==,i=1"), OK),
        (backend.authentication(tags.AUTH_SASL, b"SCRAM-SHA-256\0\0"), OK),
    ],
)
async def test_a_server_that_does_not_prove_itself_is_not_trusted(ending: tuple[bytes, ...]) -> None:
    upstream = LyingServer(*ending)
    with pytest.raises(UpstreamNotTrusted):
        await login(upstream, "app", "secret")
    assert len(upstream.written) == 2, "and gets no password on top"


@pytest.mark.parametrize(
    "message", [backend.ready_for_query(tags.IDLE), backend.parameter_status(b"a", b"b"), b"R\0\0\0\4"]
)
async def test_login_accepts_nothing_of_another_phase(message: bytes) -> None:
    with pytest.raises(UpstreamNotTrusted):
        await login(Scripted(message), "app", "secret")


async def test_login_passes_over_notices() -> None:
    upstream = Scripted(backend.notice_response("00000", "hello"), OK, backend.parameter_status(b"a", b"b"))
    await login(upstream, "app", None)
    assert upstream.unread == 1


async def test_a_real_server_is_not_trusted_with_a_tampered_signature(server: EmbeddedServer) -> None:
    class Tampering(Stream):
        async def read_message(self) -> tuple[int, bytes]:
            tag, message = await super().read_message()
            if message[5:9] == tags.AUTH_SASL_FINAL.to_bytes(4, "big"):
                message = message[:11] + bytes([message[11] ^ 1]) + message[12:]
            return tag, message

    plain = await dial(server, "by_scram")
    tampering = Tampering(plain._reader, plain._writer, BACKEND_TYPES)
    with pytest.raises(UpstreamNotTrusted, match="signature"):
        await login(tampering, "by_scram", "pencil")
    plain.close()


# Passthrough


def as_a_relay(server: EmbeddedServer, results: list[bool]) -> Handler:
    async def pump(source: Stream, target: Stream) -> None:
        while True:
            target.write((await source.read_message())[1])
            await target.drain()

    async def handle(client: Stream, startup: StartupMessage) -> None:
        upstream = await dial(server, (startup.get(b"user") or b"").decode())
        try:
            results.append(await relay_authentication(client, upstream))
            if results[-1]:
                pumps = [asyncio.ensure_future(pump(client, upstream)), asyncio.ensure_future(pump(upstream, client))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for task in pumps:
                    task.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            upstream.close()

    return handle


@pytest.mark.parametrize("role", ["by_trust", *PASSWORDS])
async def test_libpq_authenticates_at_the_server(server: EmbeddedServer, role: str) -> None:
    results: list[bool] = []
    async with listening(as_a_relay(server, results)) as port:
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1", port=port, user=role, password=PASSWORDS.get(role, ""), dbname="postgres"
        )
        row = await (await connection.execute("select current_user")).fetchone()
        await connection.close()
    assert row == (role,)
    assert results == [True]


@pytest.mark.parametrize("role", ["by_password", "by_md5", "by_scram", "refused", "nobody"])
async def test_the_servers_refusal_is_relayed(server: EmbeddedServer, role: str) -> None:
    results: list[bool] = []
    async with listening(as_a_relay(server, results)) as port:
        with pytest.raises(psycopg.OperationalError) as caught:
            await psycopg.AsyncConnection.connect(host="127.0.0.1", port=port, user=role, password="wrong")
    assert re.search("password authentication failed|rejects connection|no pg_hba.conf", str(caught.value))
    assert results == [False]


SERVER_GREETS = [
    backend.notice_response("00000", "hello"),
    backend.authentication(tags.AUTH_SASL, b"SCRAM-SHA-256\0\0"),
    backend.authentication(tags.AUTH_SASL_CONTINUE, b"r=x"),
    backend.authentication(tags.AUTH_SASL_FINAL, b"v=x"),
    OK,
]


async def test_everything_is_relayed_byte_for_byte_and_nothing_behind_it_read() -> None:
    answers = [frontend.sasl_initial_response(b"any", b"thing"), frontend.sasl_response(b"at all")]
    client = Scripted(*answers, frontend.query(b"select 1"))
    upstream = Scripted(*SERVER_GREETS, backend.parameter_status(b"a", b"b"))
    assert await relay_authentication(client, upstream)
    assert client.written == SERVER_GREETS
    assert upstream.written == answers
    assert (client.unread, upstream.unread) == (1, 1)


async def test_what_the_server_negotiates_with_pgproxy_is_not_the_clients() -> None:
    client = Scripted()
    assert await relay_authentication(client, Scripted(backend.negotiate_protocol_version(0, []), OK))
    assert client.written == [OK]


@pytest.mark.parametrize(
    "message", [backend.negotiate_protocol_version(3, []), backend.negotiate_protocol_version(0, [b"_pq_.x"])]
)
async def test_a_server_may_only_answer_what_was_asked(message: bytes) -> None:
    client = Scripted()
    with pytest.raises(UpstreamNotTrusted):
        await relay_authentication(client, Scripted(message, OK))
    assert client.written == []
    with pytest.raises(UpstreamNotTrusted):
        await login(Scripted(message, OK), "app", None)


async def test_an_error_response_ends_it() -> None:
    error = backend.error_response("FATAL", "28P01", "no")
    client, upstream = Scripted(), Scripted(error)
    assert not await relay_authentication(client, upstream)
    assert client.written == [error]


@pytest.mark.parametrize("message", [frontend.query(b"drop table t"), frontend.SYNC, frontend.TERMINATE])
async def test_only_a_password_may_come_from_the_client(message: bytes) -> None:
    upstream = Scripted(backend.authentication(tags.AUTH_CLEARTEXT_PASSWORD))
    with pytest.raises(ProtocolViolation):
        await relay_authentication(Scripted(message), upstream)
    assert upstream.written == []


@pytest.mark.parametrize("message", [backend.ready_for_query(tags.IDLE), backend.backend_key_data(1, b"abcd")])
async def test_only_authentication_may_come_from_the_server(message: bytes) -> None:
    client = Scripted()
    with pytest.raises(UpstreamNotTrusted):
        await relay_authentication(client, Scripted(message))
    assert client.written == []


CONTINUE = backend.authentication(tags.AUTH_GSS_CONTINUE, b"token")


async def test_gss_tokens_go_back_and_forth_until_the_server_is_content() -> None:
    """After a token it may be either end's turn: the client's next token or the server's Ok."""

    class Gss(Scripted):
        def write(self, data: bytes) -> None:
            super().write(data)
            self._messages.append(CONTINUE)
            if len(self.written) == 2:
                self._messages.append(OK)
            self.awaited.set()

        async def read_message(self) -> tuple[int, bytes]:
            while not self._messages:
                self.awaited.clear()
                await self.awaited.wait()
            return await super().read_message()

    tokens = [frontend.sasl_response(b"one"), frontend.sasl_response(b"two")]
    client, upstream = Scripted(*tokens), Gss(backend.authentication(tags.AUTH_GSS))
    assert await asyncio.wait_for(relay_authentication(client, upstream), 5)
    assert client.written == [backend.authentication(tags.AUTH_GSS), CONTINUE, CONTINUE, OK]
    assert upstream.written == tokens
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_gss_client_may_not_send_anything_else() -> None:
    upstream = Scripted(backend.authentication(tags.AUTH_GSS), CONTINUE)
    client = Scripted(frontend.sasl_response(b"one"), frontend.query(b"select 1"))
    with pytest.raises(ProtocolViolation):
        await relay_authentication(client, upstream)
    await asyncio.sleep(0)
    assert len(upstream.written) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}, "no read goes on behind our back"
