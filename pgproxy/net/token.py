"""Agents that log in with a signed token as their password ("Password Authentication", cleartext).

Whoever sees such a token may use it until it expires, so it is asked for over TLS alone. The name of an agent
that has one is told apart from unknown names by the method asked for; PostgreSQL's own pg_hba.conf does the same.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final, Protocol

from pgproxy.errors import InvalidAuthorization
from pgproxy.net.auth import AuthenticationFailed, MessageStream
from pgproxy.protocol import tags
from pgproxy.protocol.backend import authentication
from pgproxy.protocol.frontend import read_password
from pgproxy.protocol.violation import ProtocolViolation

_MAX_TOKEN_BYTES: Final = 16_384


class TokensUnverifiable(InvalidAuthorization):
    """The issuer's keys cannot be had, so nobody can say whether a token is genuine."""


class TokenVerifier(Protocol):
    """Filled by `pgproxy.app`."""

    async def subject(self, token: str) -> str | None:
        """Whose token this is; None when it is not a good one.

        Raises:
            TokensUnverifiable
        """
        ...


class TokenAuthenticator:
    """`subjects`: what a token must say for each agent."""

    def __init__(self, subjects: Mapping[str, str], verifier: TokenVerifier) -> None:
        self._subjects = dict(subjects)
        self._verifier = verifier

    def __contains__(self, user: str) -> bool:
        return user in self._subjects

    async def authenticate(self, client: MessageStream, user: str, *, encrypted: bool) -> None:
        """Returns after AuthenticationOk was written, as `AgentAuthenticator.authenticate` does.

        Raises:
            InvalidAuthorization: 28000, without TLS; nothing was asked for.
            AuthenticationFailed: 28P01; why is not told.
            TokensUnverifiable, ProtocolViolation
        """
        if not encrypted:
            raise InvalidAuthorization(
                f'pgproxy: agent "{user}" logs in with a token, which needs TLS',
                hint="Connect with sslmode=verify-full.",
            )
        client.write(authentication(tags.AUTH_CLEARTEXT_PASSWORD))
        await client.drain()
        tag, message = await client.read_message()
        if tag != tags.PASSWORD:
            raise ProtocolViolation(f"expected password response, got message type {tag}")
        body = read_password(message)
        if not body.endswith(b"\x00") or b"\x00" in body[:-1]:
            raise ProtocolViolation("invalid password packet size")
        token = body[:-1]
        if not 0 < len(token) <= _MAX_TOKEN_BYTES or not token.isascii():
            raise AuthenticationFailed(user)
        subject = await self._verifier.subject(token.decode("ascii"))
        expected = self._subjects[user]
        if subject is None or not hmac.compare_digest(subject.encode(), expected.encode()):
            raise AuthenticationFailed(user)
        client.write(authentication(tags.AUTH_OK))
        await client.drain()
