"""From a client's first byte to the server's first ReadyForQuery ("Start-up", "SSL Session Encryption").

Each of the two connections speaks its own minor version of the protocol: pgproxy itself answers what the client asks
for, and follows what the server answers to 3.2; the versions differ in the length of cancel keys only ("Protocol
Versions").
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from pgproxy.certificates import CertificateName
from pgproxy.errors import FeatureNotSupported, InvalidAuthorization, UpstreamLost
from pgproxy.net import auth
from pgproxy.net.endpoint import Endpoint
from pgproxy.net.greeting import Greeting, check_encoding
from pgproxy.net.tls import TLS_HANDSHAKE, Secured, ServerTls, certificate_missing
from pgproxy.net.token import TokenAuthenticator
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode
from pgproxy.protocol import backend, startup, tags
from pgproxy.protocol.startup import CancelRequest, GSSENCRequest, SSLRequest, StartupMessage
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session.settings import Settings


@dataclass(frozen=True, slots=True)
class AgentAccount:
    """One agent of broker mode: who owns it, and as whom pgproxy logs in for it. `databases` empty: any. Without
    `by_password` its certificate alone lets it in."""

    name: str
    owner: str
    upstream_user: str
    upstream_password: str | None
    databases: tuple[str, ...] = ()
    by_password: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """How clients get in. Broker mode has an `authenticator`; in passthrough mode it is None and the agent is the
    database user, whose owner is looked up in `owners`. An agent in `certificates` must show one of that name; agents
    in `tokens` log in with one instead of a password."""

    mode: Mode
    authenticator: auth.AgentAuthenticator | None
    accounts: dict[str, AgentAccount] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    databases: dict[str, tuple[str, ...]] = field(default_factory=dict)  # passthrough: what an agent may connect to
    default_owner: str | None = None
    tls: ServerTls | None = None
    certificates: dict[str, CertificateName] = field(default_factory=dict)
    tokens: TokenAuthenticator | None = None

    def objection(self, started: Started) -> str | None:
        """Why a session that has begun could not begin any more as it did; None when it could. (A changed password is
        none, as for the server.) Its owner counts: whoever owns the agent now must not decide its requests."""
        greeting = started.greeting
        if self.authenticator is None:
            owner = self.owners.get(started.agent, self.default_owner)
            if started.owner is not None and owner != started.owner:
                return "the agent's owner has changed"
            databases = self.databases.get(started.agent, ())
            if databases and (greeting.database not in databases or greeting.replication is not None):
                return "the agent may no longer connect to this database"
            return None
        account = self.accounts.get(started.agent)
        if account is None:
            return "the agent is no longer configured"
        if account.owner != started.owner:
            return "the agent's owner has changed"
        if account.upstream_user != started.db_user:
            return "the agent's login at the server has changed"
        if account.databases and (greeting.database not in account.databases or greeting.replication is not None):
            return "the agent may no longer connect to this database"
        return None


@dataclass(slots=True)
class Started:
    """A session that may begin: both sides authenticated, the server ready for a query."""

    greeting: Greeting
    agent: str
    owner: str | None
    db_user: str
    server: Endpoint
    settings: Settings
    key: tuple[int, bytes]  # the server's own cancel key
    client_key: tuple[int, bytes]  # the one the client was given
    # Of a replication connection, which the session has to admit first: the ReadyForQuery the client has not got.
    withheld: bytes | None = None
    secured: Secured | None = None  # the client's TLS


@dataclass(frozen=True, slots=True)
class Opened:
    """A client's packet that counts, and the TLS it came in."""

    packet: StartupMessage | CancelRequest
    secured: Secured | None


async def read_first_packet(client: Endpoint, tls: ServerTls | None) -> Opened:
    """Answers SSLRequest and GSSENCRequest, and begins TLS (also unasked, "SSL Session Encryption"), until the packet
    that counts comes.

    Raises ProtocolViolation, also when bytes were sent behind an SSLRequest before its answer: whoever sent them
    believed them encrypted (CVE-2021-23222). Raises HandshakeFailed, and FeatureNotSupported for a request that was
    answered before, which the server takes for a protocol version.
    """
    secured: Secured | None = None
    if tls is not None and await client.peek() == TLS_HANDSHAKE:
        secured = await tls.accept(client, direct=True)
    asked: set[type] = set()
    while True:
        packet = startup.read_startup(await client.read_startup_packet())
        if not isinstance(packet, SSLRequest | GSSENCRequest):
            return Opened(packet, secured)
        if secured is not None or type(packet) in asked:
            minor = (tags.SSL_REQUEST if isinstance(packet, SSLRequest) else tags.GSSENC_REQUEST) & 0xFFFF
            raise FeatureNotSupported(
                f"unsupported frontend protocol 1234.{minor}: server supports 3.0 to 3.{startup.NEWEST_MINOR}"
            )
        if client.has_buffered:
            raise ProtocolViolation("received unencrypted data after an encryption request")
        asked.add(type(packet))
        if tls is not None and isinstance(packet, SSLRequest):
            client.write(b"S")
            secured = await tls.accept(client)
        else:
            client.write(b"N")
            await client.drain()


async def authenticate_and_connect(
    client: Endpoint,
    secured: Secured | None,
    greeting: Greeting,
    access: Access,
    upstream: Upstream,
    catalog: Callable[[str], tuple[int, bool]] = lambda _: (0, False),
    identified: Callable[[str], None] = lambda _: None,
) -> Started:
    """Both authentications and the server's greeting. Raises ProxyError, or auth.UpstreamRefused with the server's
    own words; the server's connection is closed then. `identified` is told the agent once it has proved to be that,
    and may raise."""
    if greeting.negotiate is not None:
        client.write(greeting.negotiate)
    _check_certificate(secured, greeting.user, access)
    if access.authenticator is not None:
        started = await _broker(client, secured, greeting, access, access.authenticator, upstream, identified)
    else:
        started = await _passthrough(client, greeting, access, upstream, identified)
    started.secured = secured
    started.settings.follow(started.db_user, lambda: catalog(greeting.database))
    return started


def _check_certificate(secured: Secured | None, user: str, access: Access) -> None:
    """Before any password, as the server does. Raises InvalidAuthorization."""
    wanted = access.certificates.get(user)
    if wanted is None:
        return
    if secured is None or secured.peer is None:
        raise certificate_missing("this agent is known by its certificate")
    if not wanted.is_of(secured.peer):
        raise InvalidAuthorization(f'certificate authentication failed for user "{user}"')


async def _broker(
    client: Endpoint,
    secured: Secured | None,
    greeting: Greeting,
    access: Access,
    authenticator: auth.AgentAuthenticator,
    upstream: Upstream,
    identified: Callable[[str], None],
) -> Started:
    account = access.accounts.get(greeting.user)
    if access.tokens is not None and greeting.user in access.tokens:
        await access.tokens.authenticate(client, greeting.user, encrypted=secured is not None)
        account = access.accounts[greeting.user]
    elif account is None or account.by_password:
        await authenticator.authenticate(client, greeting.user, secured.binding if secured is not None else None)
        account = access.accounts[greeting.user]
    else:
        assert account.name in access.certificates, "an agent without a password is known by its certificate"
        client.write(backend.authentication(tags.AUTH_OK))
    _check_database(account.name, account.databases, greeting)
    identified(account.name)
    server, server_secured = await upstream.start(_packet(account.upstream_user.encode(), greeting))
    try:
        binding = auth.ServerBinding(server_secured is not None, server_secured.binding if server_secured else None)
        await auth.login(server, account.upstream_user, account.upstream_password, binding)
        return await _greet(client, server, greeting, account.name, account.owner, account.upstream_user, access.mode)
    except BaseException:
        server.abort()
        raise


async def _passthrough(
    client: Endpoint, greeting: Greeting, access: Access, upstream: Upstream, identified: Callable[[str], None]
) -> Started:
    # Before the server is asked anything: whoever says they are this agent gets no further than the agent would.
    _check_database(greeting.user, access.databases.get(greeting.user, ()), greeting)
    server, _ = await upstream.start(_packet(greeting.raw_user, greeting))
    try:
        sqlstate = await auth.relay_authentication(client, server)
        if sqlstate is not None:
            raise Refused(sqlstate)
        identified(greeting.user)
        owner = access.owners.get(greeting.user, access.default_owner)
        return await _greet(client, server, greeting, greeting.user, owner, greeting.user, access.mode)
    except BaseException:
        server.abort()
        raise


def _check_database(agent: str, databases: tuple[str, ...], greeting: Greeting) -> None:
    """`databases` are those it may name; none: any. Raises InvalidAuthorization."""
    if databases and greeting.database not in databases:
        raise InvalidAuthorization(f'pgproxy: agent "{agent}" may not connect to database "{greeting.database}"')
    if databases and greeting.replication is not None:
        raise InvalidAuthorization(
            f'pgproxy: agent "{agent}" may not open a replication connection',
            detail="replication reads every database, and the agent may connect to certain ones only",
        )


class Refused(Exception):
    """The server refused, and the client already has its words."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__()
        self.sqlstate = sqlstate


def _packet(user: bytes, greeting: Greeting) -> bytes:
    fixed = [(b"user", user), (b"database", greeting.raw_database)]
    return startup.startup_message(fixed + greeting.parameters, minor=startup.NEWEST_MINOR)


async def _greet(
    client: Endpoint, server: Endpoint, greeting: Greeting, agent: str, owner: str | None, db_user: str, mode: Mode
) -> Started:
    """ParameterStatus, BackendKeyData and the first ReadyForQuery, with the cancel key's secret replaced."""
    settings = Settings(greeting.database)
    key = client_key = (0, b"")
    while True:
        try:
            kind, message = await server.read_message()
        except ConnectionResetError:
            raise UpstreamLost("pgproxy: the server closed the connection during start-up") from None
        match kind:
            case tags.PARAMETER_STATUS:
                name, value = backend.read_parameter_status(message)
                settings.reported(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
            case tags.BACKEND_KEY_DATA:
                key = backend.read_backend_key_data(message)
                # Clients compare the process id with pg_backend_pid(): it stays the server's.
                client_key = (key[0], secrets.token_bytes(greeting.secret_bytes))
                message = backend.backend_key_data(*client_key)
            case tags.ERROR_RESPONSE:
                raise auth.UpstreamRefused(message)
            case tags.READY_FOR_QUERY:
                check_encoding(settings, mode)
            case tags.NOTICE_RESPONSE:
                pass
            case _:
                raise ProtocolViolation(f"the server sent an unexpected message {chr(kind)!r} during start-up")
        if kind == tags.READY_FOR_QUERY and greeting.replication is not None:
            return Started(greeting, agent, owner, db_user, server, settings, key, client_key, message)
        client.write(message)
        if kind == tags.READY_FOR_QUERY:
            return Started(greeting, agent, owner, db_user, server, settings, key, client_key)
