"""Connections to the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from pgproxy.errors import UpstreamUnreachable
from pgproxy.net.endpoint import Endpoint, HandshakeFailed
from pgproxy.net.tls import Secured, UpstreamTls
from pgproxy.protocol import startup, tags

_log = logging.getLogger("pgproxy.net")
_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the server is: a host name or address, or (absolute path) the directory of its Unix socket, on which
    nothing is encrypted. `tls` None: sslmode `disable`."""

    host: str
    port: int
    tls: UpstreamTls | None = None

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def _attempts(self) -> tuple[bool, ...]:
        return (False,) if self.tls is None or self.is_unix else self.tls.attempts

    async def start(self, packet: bytes) -> tuple[Endpoint, Secured | None]:
        """A new connection that was sent this StartupMessage; its answer is still to be read. With sslmode `allow` and
        `prefer` a server that refuses at once (a `hostssl` or `hostnossl` rule) is asked again in the other way.
        Raises UpstreamUnreachable."""
        refused: tuple[Endpoint, Secured | None] | None = None
        attempts = self._attempts
        try:
            for number, encrypted in enumerate(attempts):
                try:
                    server, secured = await self._connect(encrypted)
                except HandshakeFailed as error:
                    if number + 1 < len(attempts):
                        _log.info("upstream: %s; trying without TLS, as sslmode=prefer allows", error)
                        continue
                    if refused is not None:
                        break
                    raise _unreachable() from error
                if refused is not None:
                    refused[0].abort()
                    refused = None
                server.write(packet)
                is_last = number + 1 == len(attempts) or (encrypted and secured is None)
                if is_last or not await _is_refused(server):
                    return server, secured
                refused = server, secured
        except BaseException:
            if refused is not None:
                refused[0].abort()
            raise
        assert refused is not None, "the last attempt returns or raises"
        return refused

    async def _connect(self, encrypted: bool) -> tuple[Endpoint, Secured | None]:
        """Raises UpstreamUnreachable, HandshakeFailed."""
        loop = asyncio.get_running_loop()
        endpoint: Endpoint | None = None
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if self.is_unix:
                    path = Path(self.host) / f".s.PGSQL.{self.port}"
                    _, endpoint = await loop.create_unix_connection(Endpoint, str(path))
                else:
                    _, endpoint = await loop.create_connection(Endpoint, self.host, self.port)
                if not encrypted or self.tls is None:
                    return endpoint, None
                return endpoint, await self.tls.connect(endpoint, self.host)
        except BaseException as error:
            if endpoint is not None:
                endpoint.abort()
            if isinstance(error, HandshakeFailed):
                raise
            if isinstance(error, OSError | TimeoutError):
                raise _unreachable() from error
            raise

    async def cancel(self, pid: int, secret: bytes) -> None:
        """Send a CancelRequest, encrypted as a session's connection would be, and wait until the server has taken it
        ("Canceling Requests in Progress")."""
        endpoint = await self._connect_for_cancel()
        try:
            endpoint.write(startup.cancel_request(pid, secret))
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await endpoint.until_end()
        finally:
            endpoint.close()

    async def _connect_for_cancel(self) -> Endpoint:
        cause: HandshakeFailed | None = None
        for encrypted in self._attempts:
            try:
                return (await self._connect(encrypted))[0]
            except HandshakeFailed as error:
                cause = error
        raise _unreachable() from cause


async def _is_refused(server: Endpoint) -> bool:
    """Whether the server's first answer is an ErrorResponse; an older one says first which protocol it speaks. One that
    leaves without an answer has not refused: the caller meets its absence when it reads."""
    with contextlib.suppress(ConnectionResetError):
        return await server.peek_type(besides=tags.NEGOTIATE_PROTOCOL_VERSION) == tags.ERROR_RESPONSE
    return False


def _unreachable() -> UpstreamUnreachable:
    return UpstreamUnreachable(
        "pgproxy: could not connect to the server", hint="the operator finds the reason in pgproxy's log"
    )
