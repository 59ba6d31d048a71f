"""Who may connect: the authentication phase on both connections (manual: "Start-up", "SASL Authentication").

Broker mode: `AgentAuthenticator` plays the server for the agent, `login` the client for the server.
Passthrough: `relay_authentication` lets the two talk to each other. Each begins right after the
StartupMessage and ends with AuthenticationOk, before ParameterStatus and BackendKeyData.

No limit in time is kept here; the caller has one for the whole start-up. Nothing here logs, and no error's
text holds a secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from pgproxy.errors import InvalidPassword, ProxyError, UpstreamUnreachable
from pgproxy.net import scram
from pgproxy.protocol import tags
from pgproxy.protocol.backend import authentication, read_authentication, read_negotiate_protocol_version
from pgproxy.protocol.body import Body
from pgproxy.protocol.frontend import password as password_message
from pgproxy.protocol.frontend import read_password, sasl_initial_response, sasl_response
from pgproxy.protocol.startup import NEWEST_MINOR
from pgproxy.protocol.violation import ProtocolViolation

# The server asks the client for something and waits for its 'p' message.
_AWAITS_RESPONSE: Final = frozenset(
    {
        tags.AUTH_CLEARTEXT_PASSWORD,
        tags.AUTH_MD5_PASSWORD,
        tags.AUTH_SASL,
        tags.AUTH_SASL_CONTINUE,
        tags.AUTH_GSS,
        tags.AUTH_SSPI,
    }
)
_ALSO_FROM_SERVER: Final = frozenset({tags.ERROR_RESPONSE, tags.NOTICE_RESPONSE, tags.NEGOTIATE_PROTOCOL_VERSION})


class MessageStream(Protocol):
    """One connection, a message at a time. `read_message` gives type byte and whole message, raises when the
    peer is gone, and loses nothing when cancelled."""

    async def read_message(self) -> tuple[int, bytes]: ...
    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...


class AuthenticationFailed(InvalidPassword):
    """Wrong password or unknown agent, in the server's words; which of the two is not told."""

    def __init__(self, user: str) -> None:
        super().__init__(f'password authentication failed for user "{user}"')


class UpstreamAuthUnsupported(UpstreamUnreachable):
    """The server wants an authentication that pgproxy cannot do, or for which it was given no password."""


class UpstreamNotTrusted(UpstreamUnreachable):
    """The server did not prove that it knows the password, or broke the protocol while authenticating."""


class UpstreamRefused(ProxyError, sqlstate="08001", severity="FATAL"):
    """The server said no. `response` is its own ErrorResponse, whole, to be relayed as it is."""

    def __init__(self, response: bytes) -> None:
        super().__init__("the server refused the connection")
        self.response = response


class AgentAuthenticator:
    """Authenticates agents with SCRAM-SHA-256, as the server would.

    A secret is a password or a verifier as pg_authid shows it. An unknown name goes through the same exchange
    with a salt of its own that stays the same from try to try, so that nobody learns which names exist. Salts
    of passwords and of unknown names come from `mock_key`: hand the same one to every worker and keep it over
    restarts, or a name is given away by a salt that does not change with the others.
    """

    def __init__(self, agents: Mapping[str, str], mock_key: bytes | None = None) -> None:
        self._mock_key = mock_key if mock_key is not None else secrets.token_bytes(32)
        self._verifiers: dict[str, scram.Verifier] = {}
        self._passwords: dict[str, str] = {}
        for name, secret in agents.items():
            if scram.is_verifier(secret):
                try:
                    self._verifiers[name] = scram.parse_verifier(secret)
                except ValueError as error:
                    raise ValueError(f"agent {name!r}: {error}") from None
            else:
                self._passwords[name] = secret
        # Unknown names cost what most agents cost.
        costs = Counter(verifier.iterations for verifier in self._verifiers.values())
        costs[scram.ITERATIONS] += len(self._passwords)
        self._mock_iterations = costs.most_common(1)[0][0]
        self._preparing = asyncio.Lock()

    async def prepare(self) -> None:
        """Derives the passwords' verifiers, once, in a thread: 1 ms each. The first `authenticate` does it
        too."""
        async with self._preparing:
            if self._passwords:
                # Forgotten only once they are derived: the client that began this may leave half-way.
                self._verifiers.update(await asyncio.to_thread(self._derive_all, self._passwords))
                self._passwords = {}

    async def authenticate(self, client: MessageStream, user: str, binding: bytes | None = None) -> None:
        """Returns after AuthenticationOk was written; the caller has only to go on with ParameterStatus. With the
        `binding` of a connection in TLS, SCRAM-SHA-256-PLUS is offered first.

        Raises:
            AuthenticationFailed: 28P01; the caller tells the client and closes.
            ProtocolViolation: the client's messages are not what this phase allows.
        """
        await self.prepare()
        known = self._verifiers.get(user)
        exchange = scram.ServerExchange(known if known is not None else self._mock_verifier(user), binding=binding)
        offered = (scram.MECHANISM,) if binding is None else (scram.MECHANISM_PLUS, scram.MECHANISM)
        client.write(authentication(tags.AUTH_SASL, b"\x00".join(offered) + b"\x00\x00"))
        await client.drain()
        mechanism, client_first = _read_initial_response(await _read_response(client), offered)
        if client_first is None:
            # No initial response in the first message: ask for it with an empty challenge (RFC 4422, 5).
            client.write(authentication(tags.AUTH_SASL_CONTINUE))
            await client.drain()
            client_first = await _read_response(client)
        client.write(authentication(tags.AUTH_SASL_CONTINUE, exchange.first(client_first, mechanism)))
        await client.drain()
        server_final = exchange.final(await _read_response(client))
        if server_final is None or known is None:
            raise AuthenticationFailed(user)
        client.write(authentication(tags.AUTH_SASL_FINAL, server_final) + authentication(tags.AUTH_OK))
        await client.drain()

    def _derive_all(self, passwords: dict[str, str]) -> dict[str, scram.Verifier]:
        return {name: scram.derive(password, self._salt(name)) for name, password in passwords.items()}

    def _salt(self, user: str) -> bytes:
        return self._keyed(b"salt", user)[: scram.SALT_BYTES]

    def _mock_verifier(self, user: str) -> scram.Verifier:
        """A verifier no password has: `authenticate` would refuse a proof that fits by chance as well."""
        return scram.Verifier(
            self._mock_iterations,
            self._salt(user),
            self._keyed(b"stored", user),
            self._keyed(b"server", user),
        )

    def _keyed(self, purpose: bytes, user: str) -> bytes:
        name = user.encode("utf-8", "surrogateescape")
        return hmac.digest(self._mock_key, purpose + b"\x00" + name, "sha256")


async def _read_response(client: MessageStream) -> bytes:
    """The body of the client's next message, which must be a 'p'."""
    tag, message = await client.read_message()
    if tag != tags.PASSWORD:
        raise ProtocolViolation(f"expected SASL response, got message type {tag}")
    return read_password(message)


def _read_initial_response(body: bytes, offered: tuple[bytes, ...]) -> tuple[bytes, bytes | None]:
    """Mechanism and client-first-message out of a SASLInitialResponse; None for the latter when the client sent the
    mechanism's name only."""
    fields = Body(body, 0)
    mechanism = fields.string()
    if mechanism not in offered:
        raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
    data = fields.value()
    fields.finish()
    return mechanism, data


@dataclass(frozen=True, slots=True)
class ServerBinding:
    """Whether the connection to the server is in TLS, and the binding of its certificate where one is defined."""

    is_secured: bool = False
    value: bytes | None = None


async def login(
    server: MessageStream, user: str, password: str | None, binding: ServerBinding = ServerBinding()
) -> None:
    """Authenticates pgproxy at the server, after its StartupMessage; returns at AuthenticationOk, nothing
    behind it read. In TLS the SCRAM exchange is bound to it wherever both sides can.

    Raises:
        UpstreamRefused: the server sent an ErrorResponse.
        UpstreamAuthUnsupported: it asks for a method other than SCRAM-SHA-256, md5, password and trust, or
        for a
            password that was not configured.
        UpstreamNotTrusted: its SCRAM signature is wrong or missing, or its messages are.
    """
    exchange: scram.ClientExchange | None = None
    proven = False
    while True:
        code, payload = await _read_request(server)
        if code == tags.AUTH_OK:
            if exchange is not None and not proven:
                raise UpstreamNotTrusted("server did not complete SCRAM authentication")
            return
        if code == tags.AUTH_SASL and exchange is None:
            mechanism, exchange = _choose_mechanism(payload.split(b"\x00"), _required(password), binding)
            server.write(sasl_initial_response(mechanism, exchange.first()))
        elif exchange is not None:
            proven = await _continue_scram(server, exchange, code, payload, proven)
        elif code == tags.AUTH_CLEARTEXT_PASSWORD:
            server.write(password_message(_required(password).encode()))
        elif code == tags.AUTH_MD5_PASSWORD and len(payload) == 4:
            server.write(password_message(_md5_answer(user, _required(password), payload)))
        else:
            raise UpstreamAuthUnsupported(f"server asks for unsupported authentication method {code}")
        await server.drain()


def _choose_mechanism(
    offered: list[bytes], password: str, binding: ServerBinding
) -> tuple[bytes, scram.ClientExchange]:
    if scram.MECHANISM_PLUS in offered and not binding.is_secured:
        # No server says so in the clear: somebody between has taken TLS away.
        raise UpstreamNotTrusted("server offered SCRAM-SHA-256-PLUS authentication over a connection without TLS")
    if scram.MECHANISM_PLUS in offered and binding.value is not None:
        return scram.MECHANISM_PLUS, scram.ClientExchange(password, binding=binding.value)
    if scram.MECHANISM not in offered:
        raise UpstreamAuthUnsupported("server offers no SASL mechanism that pgproxy supports")
    return scram.MECHANISM, scram.ClientExchange(password, could_bind=binding.value is not None)


async def _read_request(server: MessageStream) -> tuple[int, bytes]:
    """The server's next Authentication… message, notices and version negotiation skipped."""
    while True:
        tag, message = await server.read_message()
        if tag == tags.ERROR_RESPONSE:
            raise UpstreamRefused(message)
        request = _read_authentication(tag, message)
        if request is not None:
            return request


def _read_authentication(tag: int, message: bytes) -> tuple[int, bytes] | None:
    """Code and payload; None for the other messages a server may send in this phase.

    A NegotiateProtocolVersion takes the minor version that was asked for down, and names no option, for none was
    sent: anything else is not an answer to what pgproxy said."""
    try:
        if tag == tags.NEGOTIATE_PROTOCOL_VERSION:
            newest, unrecognized = read_negotiate_protocol_version(message)
            if newest > NEWEST_MINOR or unrecognized:
                raise UpstreamNotTrusted("the server negotiates a protocol that pgproxy did not ask for")
        if tag in _ALSO_FROM_SERVER:
            return None
        return read_authentication(message)
    except ProtocolViolation:
        raise UpstreamNotTrusted(f"unexpected message type {tag} from the server during authentication") from None


async def _continue_scram(
    server: MessageStream, exchange: scram.ClientExchange, code: int, payload: bytes, proven: bool
) -> bool:
    """One step after the first; whether the server has now proven itself."""
    try:
        if code == tags.AUTH_SASL_CONTINUE and not exchange.is_answered:
            await asyncio.to_thread(exchange.salt_password, payload)
            server.write(sasl_response(exchange.final()))
            return False
        if code == tags.AUTH_SASL_FINAL and exchange.is_answered and not proven:
            exchange.verify(payload)
            return True
    except scram.ServerNotTrusted as error:
        raise UpstreamNotTrusted(str(error)) from None
    raise UpstreamNotTrusted(f"unexpected authentication request {code} from the server")


def _required(password: str | None) -> str:
    if password is None:
        raise UpstreamAuthUnsupported(
            "server asks for a password and none is configured",
            hint="Set the upstream password of this agent.",
        )
    return password


def _md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """AuthenticationMD5Password's answer: md5(md5(password ‖ user) ‖ salt), the server's choice and not
    ours."""
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


async def relay_authentication(client: MessageStream, server: MessageStream) -> bool:
    """Passthrough: the server authenticates the client, byte for byte. Only its NegotiateProtocolVersion stays here,
    for it answers what pgproxy asked; the client has had pgproxy's own. And an offer of SCRAM-SHA-256-PLUS, which is
    about the TLS between pgproxy and the server: the client has none (the configuration sees to that), and libpq
    takes such an offer for an attack.

    True when AuthenticationOk was forwarded, with nothing behind it read from either side; False when the
    server's ErrorResponse was forwarded, after which it closes.

    Raises:
        ProtocolViolation: the client sent something other than a 'p'.
        UpstreamNotTrusted: the server sent something that doesn't belong to this phase.
    """
    arriving: asyncio.Task[tuple[int, bytes]] | None = None
    while True:
        tag, message = await (server.read_message() if arriving is None else arriving)
        arriving = None
        request = _read_authentication(tag, message)
        if tag == tags.NEGOTIATE_PROTOCOL_VERSION:
            continue
        client.write(message if request is None else _without_plus(message, *request))
        await client.drain()
        if tag == tags.ERROR_RESPONSE:
            return False
        if request is None:
            continue
        code = request[0]
        if code == tags.AUTH_OK:
            return True
        if code in _AWAITS_RESPONSE:
            await _relay_response(server, *await client.read_message())
        elif code == tags.AUTH_GSS_CONTINUE:
            arriving = await _relay_token_if_any(client, server)


def _without_plus(message: bytes, code: int, payload: bytes) -> bytes:
    if code != tags.AUTH_SASL:
        return message
    kept = [name for name in payload.split(b"\x00") if name and name != scram.MECHANISM_PLUS]
    return authentication(tags.AUTH_SASL, b"\x00".join([*kept, b"", b""]))


async def _relay_response(server: MessageStream, tag: int, message: bytes) -> None:
    if tag != tags.PASSWORD:
        raise ProtocolViolation(f"expected password response, got message type {tag}")
    server.write(message)
    await server.drain()


async def _relay_token_if_any(client: MessageStream, server: MessageStream) -> asyncio.Task[tuple[int, bytes]]:
    """After a GSSAPI token only the two ends know whose turn it is: relay the client's next one, unless the
    server speaks first. Gives the read of the server's next message, which goes on."""
    loop = asyncio.get_running_loop()
    from_server = loop.create_task(server.read_message())
    from_client = loop.create_task(client.read_message())
    try:
        await asyncio.wait({from_server, from_client}, return_when=asyncio.FIRST_COMPLETED)
        if from_client.done():
            await _relay_response(server, *from_client.result())
    except BaseException:
        from_server.cancel()
        raise
    finally:
        from_client.cancel()
    return from_server
