"""Runs an application under uvicorn, inside the caller's own task and without touching the process's
signals."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

SHUTDOWN_TIMEOUT_S = 5
_BACKLOG = 1024


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the program; its supervisor decides what to stop and in which order."""
        yield


@dataclass(frozen=True, slots=True)
class RunningServer:
    host: str
    port: int
    config: uvicorn.Config

    def reload_certificate(self) -> None:
        """New connections get certificate and key as the files are now: the caller has checked that they can be used,
        for a pair that cannot would take the old one away."""
        if isinstance(self.config.ssl, ssl.SSLContext):
            assert self.config.ssl_certfile is not None
            self.config.ssl.load_cert_chain(self.config.ssl_certfile, self.config.ssl_keyfile)


async def listening_socket(host: str, port: int) -> socket.socket:
    """Bound here rather than by uvicorn, which would end the process when the address is taken.

    Raises:
        OSError
    """
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def serve(
    app: FastAPI,
    host: str,
    port: int,
    sock: socket.socket | None = None,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> AsyncIterator[RunningServer]:
    """Serves while the block lasts: `async with serve(app, host, port) as server:` has the port open inside.

    Leaving the block ends event streams, lets running requests finish (for 5 s) and closes the port. A
    given socket is taken over, listening or only bound.

    Raises:
        OSError: the address cannot be had.
    """
    sock = sock or await listening_socket(host, port)
    address = sock.getsockname()
    config = uvicorn.Config(
        app,
        lifespan="off",  # entered below: uvicorn would end the process when it fails
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        http="h11",
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = _Server(config)
    # No TaskGroup: it would wrap what the block raises in a group, and abort requests that are running.
    loop = asyncio.get_running_loop()
    with closing(sock):
        async with app.router.lifespan_context(app):
            serving = loop.create_task(server.serve(sockets=[sock]))
            listening = loop.create_task(server.listening.wait())
            try:
                await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
                yield RunningServer(address[0], address[1], config)
            finally:
                listening.cancel()
                app.state.stream.close()
                server.should_exit = True
                await serving
