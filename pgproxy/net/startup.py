"""From a client's first byte to the server's first ReadyForQuery ("Start-up", "SSL Session Encryption").

Each of the two connections speaks its own minor version of the protocol: pgproxy itself answers what the client asks
for, and follows what the server answers to 3.2; the versions differ in the length of cancel keys only ("Protocol
Versions").
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from pgproxy.errors import InvalidAuthorization, UpstreamLost
from pgproxy.net import auth
from pgproxy.net.endpoint import Endpoint
from pgproxy.net.greeting import Greeting, check_encoding
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode
from pgproxy.protocol import backend, startup, tags
from pgproxy.protocol.startup import CancelRequest, GSSENCRequest, SSLRequest, StartupMessage
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session.settings import Settings


@dataclass(frozen=True, slots=True)
class AgentAccount:
    """One agent of broker mode: who owns it, and as whom pgproxy logs in for it. `databases` empty: any."""

    name: str
    owner: str
    upstream_user: str
    upstream_password: str | None
    databases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """How clients get in. Broker mode has an `authenticator`; in passthrough mode it is None and the agent is the
    database user, whose owner is looked up in `owners`."""

    mode: Mode
    authenticator: auth.AgentAuthenticator | None
    accounts: dict[str, AgentAccount] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    default_owner: str | None = None

    def objection(self, started: Started) -> str | None:
        """Why a session that has begun could not begin any more as it did; None when it could. (A changed password is
        none, as for the server.) Its owner counts: whoever owns the agent now must not decide its requests."""
        if self.authenticator is None:
            owner = self.owners.get(started.agent, self.default_owner)
            if started.owner is not None and owner != started.owner:
                return "the agent's owner has changed"
            return None
        account = self.accounts.get(started.agent)
        greeting = started.greeting
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


async def read_first_packet(client: Endpoint) -> StartupMessage | CancelRequest:
    """Answers SSLRequest and GSSENCRequest (neither is offered yet) until the packet that counts comes.

    Raises ProtocolViolation, also when bytes were sent behind an SSLRequest before its answer: whoever sent them
    believed them encrypted (CVE-2021-23222).
    """
    asked: set[type] = set()
    while True:
        packet = startup.read_startup(await client.read_startup_packet())
        if not isinstance(packet, SSLRequest | GSSENCRequest):
            return packet
        if type(packet) in asked or client.has_buffered:
            raise ProtocolViolation("received unencrypted data after an encryption request")
        asked.add(type(packet))
        client.write(b"N")
        await client.drain()


async def authenticate_and_connect(
    client: Endpoint,
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
    if access.authenticator is not None:
        started = await _broker(client, greeting, access, access.authenticator, upstream, identified)
    else:
        started = await _passthrough(client, greeting, access, upstream, identified)
    started.settings.follow(started.db_user, lambda: catalog(greeting.database))
    return started


async def _broker(
    client: Endpoint,
    greeting: Greeting,
    access: Access,
    authenticator: auth.AgentAuthenticator,
    upstream: Upstream,
    identified: Callable[[str], None],
) -> Started:
    await authenticator.authenticate(client, greeting.user)
    account = access.accounts[greeting.user]
    if account.databases and greeting.database not in account.databases:
        raise InvalidAuthorization(f'pgproxy: agent "{account.name}" may not connect to database "{greeting.database}"')
    if account.databases and greeting.replication is not None:
        raise InvalidAuthorization(
            f'pgproxy: agent "{account.name}" may not open a replication connection',
            detail="replication reads every database, and the agent may connect to certain ones only",
        )
    identified(account.name)
    server = await upstream.connect()
    try:
        server.write(_packet(account.upstream_user.encode(), greeting))
        await auth.login(server, account.upstream_user, account.upstream_password)
        return await _greet(client, server, greeting, account.name, account.owner, account.upstream_user, access.mode)
    except BaseException:
        server.abort()
        raise


async def _passthrough(
    client: Endpoint, greeting: Greeting, access: Access, upstream: Upstream, identified: Callable[[str], None]
) -> Started:
    server = await upstream.connect()
    try:
        server.write(_packet(greeting.raw_user, greeting))
        sqlstate = await auth.relay_authentication(client, server)
        if sqlstate is not None:
            raise Refused(sqlstate)
        identified(greeting.user)
        owner = access.owners.get(greeting.user, access.default_owner)
        return await _greet(client, server, greeting, greeting.user, owner, greeting.user, access.mode)
    except BaseException:
        server.abort()
        raise


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
