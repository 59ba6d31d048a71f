"""Connections to the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from pgproxy.errors import UpstreamUnreachable
from pgproxy.net.endpoint import Endpoint
from pgproxy.protocol import startup

_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the server is: a host name or address, or (absolute path) the directory of its Unix socket."""

    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    async def connect(self) -> Endpoint:
        """A new connection, nothing sent yet. Raises UpstreamUnreachable."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if self.is_unix:
                    path = Path(self.host) / f".s.PGSQL.{self.port}"
                    _, endpoint = await loop.create_unix_connection(Endpoint, str(path))
                else:
                    _, endpoint = await loop.create_connection(Endpoint, self.host, self.port)
        except (OSError, TimeoutError) as error:
            raise UpstreamUnreachable(
                "pgproxy: could not connect to the server", hint="the operator finds the reason in pgproxy's log"
            ) from error
        return endpoint

    async def cancel(self, pid: int, secret: bytes) -> None:
        """Send a CancelRequest and wait until the server has taken it ("Canceling Requests in Progress")."""
        endpoint = await self.connect()
        try:
            endpoint.write(startup.cancel_request(pid, secret))
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await endpoint.until_end()
        finally:
            endpoint.close()
