"""From a client's first byte to the server's first ReadyForQuery ("Start-up", "SSL Session Encryption").

The start-up packet is parsed and a new one, built from what was judged, goes to the server: every setting in it is
put to the classifier as the SET it amounts to, and one that would be privileged as a statement is refused here,
because nobody can be asked before there is a session. `pgproxy.*` settings are what an agent says about itself; they
are taken out and never sent on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from classifier.model import Classification
from pgproxy.errors import FeatureNotSupported, InvalidAuthorization, UpstreamLost
from pgproxy.net import auth
from pgproxy.net.endpoint import Endpoint
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode, is_privileged
from pgproxy.protocol import backend, frontend, startup, tags
from pgproxy.protocol.startup import CancelRequest, GSSENCRequest, SSLRequest, StartupMessage
from pgproxy.protocol.violation import OptionRejected, ProtocolViolation
from pgproxy.session.annotations import read_context
from pgproxy.session.settings import Settings, codec_of

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]*\Z")
_CONTEXT_BYTES = 8192
_NOT_SETTINGS = frozenset({b"user", b"database", b"options", b"replication"})


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


@dataclass(slots=True)
class Greeting:
    """What the client's start-up packet says, judged."""

    user: str
    database: str
    application_name: str
    parameters: list[tuple[bytes, bytes]]
    said: dict[str, str]  # pgproxy.* settings
    negotiate: bytes | None

    @property
    def reason(self) -> str | None:
        return self.said.get("reason")

    @property
    def ticket(self) -> str | None:
        return self.said.get("ticket")

    @property
    def context(self) -> Any:
        return read_context(self.said.get("context"))


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


def read_greeting(message: StartupMessage, mode: Mode, classify: Callable[[str], Classification]) -> Greeting:
    """Judges a StartupMessage. Raises ProxyError or ProtocolViolation."""
    if message.major != 3:
        raise FeatureNotSupported(f"unsupported frontend protocol {message.major}.{message.minor}: server supports 3.0")
    user = _text(message.get(b"user"), "user name")
    if not user:
        raise InvalidAuthorization("no PostgreSQL user name specified in startup packet")
    replication = message.get(b"replication")
    if replication is not None and replication.lower() not in (b"false", b"off", b"no", b"0", b"f", b"n"):
        raise FeatureNotSupported(
            "pgproxy: replication connections are not supported",
            hint="connect to the server itself for replication",
        )
    parameters: list[tuple[bytes, bytes]] = []
    said: dict[str, str] = {}
    unrecognised: list[bytes] = []
    for name, value in message.parameters:
        if name.startswith(b"_pq_."):
            unrecognised.append(name)
        elif name not in _NOT_SETTINGS and not _take_own(_text(name, "setting"), value, said):
            _judge(_text(name, "setting"), _text(value, "setting's value"), mode, classify)
            parameters.append((name, value))
    options = _judge_options(message.get(b"options"), said, mode, classify)
    if options:
        parameters.append((b"options", options))
    database = _text(message.get(b"database") or message.get(b"user"), "database name")
    negotiate = None
    if message.minor > 0 or unrecognised:
        negotiate = backend.negotiate_protocol_version(0, unrecognised)
    application = _text(message.get(b"application_name") or b"", "application_name", "replace")
    return Greeting(user, database, application, parameters, said, negotiate)


def _text(value: bytes | None, what: str, errors: str = "strict") -> str:
    try:
        return (value or b"").decode("utf-8", errors)
    except UnicodeDecodeError:
        raise ProtocolViolation(f"{what} in startup packet is not valid UTF-8", "22021") from None


def _take_own(name: str, value: bytes, said: dict[str, str]) -> bool:
    """`pgproxy.reason` and its like; whether it was one of them."""
    prefix, _, key = name.lower().partition(".")
    if prefix != "pgproxy" or not key:
        return False
    text = value.decode("utf-8", "replace")
    if len(value) > _CONTEXT_BYTES:
        raise ProtocolViolation(f'setting "{name.lower()}" is larger than {_CONTEXT_BYTES} bytes', "54000")
    if key == "wait" and text != "park":
        raise FeatureNotSupported(
            "pgproxy: pgproxy.wait is not supported in this version",
            hint="leave it out: privileged statements wait for their approval",
        )
    said[key] = text
    return True


def _judge_options(
    options: bytes | None, said: dict[str, str], mode: Mode, classify: Callable[[str], Classification]
) -> bytes:
    """The settings of `options`, judged, without our own, written anew. What is no setting is refused."""
    if not options:
        return b""
    kept: list[tuple[str, str]] = []
    try:
        settings = startup.parse_options(startup.split_options(_text(options, "options")))
    except OptionRejected as rejected:
        raise FeatureNotSupported(
            f"pgproxy: option {rejected.switch} is not allowed in a connection string",
            hint="only settings can be given there: -c name=value",
        ) from None
    for name, value in settings:
        if not _take_own(name, value.encode(), said):
            _judge(name, value, mode, classify)
            kept.append((name, value))
    return startup.join_options(kept) if kept else b""


def _judge(name: str, value: str, mode: Mode, classify: Callable[[str], Classification]) -> None:
    if not _SETTING_NAME.match(name):
        raise FeatureNotSupported("pgproxy: invalid name of a setting in the startup packet")
    if mode is Mode.OBSERVE:
        return
    if name.lower() == "client_encoding":
        if codec_of(value) is None:
            raise FeatureNotSupported(
                f'pgproxy: client_encoding "{value}" is not supported',
                detail="in this encoding a character can hide a quote",
                hint="use UTF8",
            )
        return
    quoted = value.replace("'", "''")
    text = f"SET {name} TO '{quoted}'"
    if "\\" in value or is_privileged(classify(text)):
        raise InvalidAuthorization(
            f'pgproxy: setting "{name.lower()}" is not allowed in a connection string',
            detail="it would need an approval as a statement, and there is no session yet that could wait for one",
            hint=f"connect without it and use SET {name.lower()}",
        )


async def authenticate_and_connect(
    client: Endpoint,
    greeting: Greeting,
    access: Access,
    upstream: Upstream,
    catalog: Callable[[str], tuple[int, bool]] = lambda _: (0, False),
) -> Started:
    """Both authentications and the server's greeting. Raises ProxyError, or auth.UpstreamRefused with the server's
    own words; the server's connection is closed then."""
    if greeting.negotiate is not None:
        client.write(greeting.negotiate)
    if access.authenticator is not None:
        started = await _broker(client, greeting, access, access.authenticator, upstream)
    else:
        started = await _passthrough(client, greeting, access, upstream)
    started.settings.follow(started.db_user, lambda: catalog(greeting.database))
    return started


async def _broker(
    client: Endpoint, greeting: Greeting, access: Access, authenticator: auth.AgentAuthenticator, upstream: Upstream
) -> Started:
    await authenticator.authenticate(client, greeting.user)
    account = access.accounts[greeting.user]
    if account.databases and greeting.database not in account.databases:
        raise InvalidAuthorization(f'pgproxy: agent "{account.name}" may not connect to database "{greeting.database}"')
    server = await upstream.connect()
    try:
        server.write(_packet(account.upstream_user, greeting))
        await auth.login(server, account.upstream_user, account.upstream_password)
        return await _greet(client, server, greeting, account.name, account.owner, account.upstream_user)
    except BaseException:
        server.abort()
        raise


async def _passthrough(client: Endpoint, greeting: Greeting, access: Access, upstream: Upstream) -> Started:
    server = await upstream.connect()
    try:
        server.write(_packet(greeting.user, greeting))
        if not await auth.relay_authentication(client, server):
            raise Refused
        # The server cuts names at 63 bytes, so a longer one must not stand for somebody else here.
        user = frontend.truncate_name(greeting.user.encode()).decode("utf-8", "replace")
        owner = access.owners.get(user, access.default_owner)
        return await _greet(client, server, greeting, user, owner, user)
    except BaseException:
        server.abort()
        raise


class Refused(Exception):
    """The server refused, and the client already has its words."""


def _packet(user: str, greeting: Greeting) -> bytes:
    fixed = [(b"user", user.encode()), (b"database", greeting.database.encode())]
    return startup.startup_message(fixed + greeting.parameters)


async def _greet(
    client: Endpoint, server: Endpoint, greeting: Greeting, agent: str, owner: str | None, db_user: str
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
                client_key = (key[0], secrets.token_bytes(len(key[1])))
                message = backend.backend_key_data(*client_key)
            case tags.ERROR_RESPONSE:
                raise auth.UpstreamRefused(message)
            case tags.NOTICE_RESPONSE | tags.READY_FOR_QUERY:
                pass
            case _:
                raise ProtocolViolation(f"the server sent an unexpected message {chr(kind)!r} during start-up")
        client.write(message)
        if kind == tags.READY_FOR_QUERY:
            return Started(greeting, agent, owner, db_user, server, settings, key, client_key)
