"""A real store: one embedded server a run, one database a test (the table is insert-only)."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

import pgproxy.audit
from pgproxy import store
from pgproxy.embedded import EmbeddedServer

MIGRATIONS = Path(pgproxy.audit.__file__).parent / "migrations"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = EmbeddedServer(tmp_path_factory.mktemp("store"), password="test", tcp_port=port, settings={"fsync": "off"})
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
async def dsn(server: EmbeddedServer) -> str:
    """A new database with the audit schema."""
    name = f"audit_{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    dsn = urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))
    pool = await store.open_pool(dsn)
    await store.migrate(pool, "audit", MIGRATIONS)
    await pool.close()
    return dsn


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[store.Pool]:
    pool = await store.open_pool(dsn)
    yield pool
    await pool.close()


class Wire:
    """A TCP forwarder before the store that can cut or refuse connections, or swallow what is said."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.swallow_replies = False
        self.swallow_requests = False
        self.bytes_swallowed = asyncio.Event()

    async def up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """As a stopped server: established connections end, new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        while self._writers:  # noqa: ASYNC110 (a few turns of the loop)
            await asyncio.sleep(0.001)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def dsn(self, dsn: str) -> str:
        parts = urlsplit(dsn)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, server_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, server_writer, "swallow_requests"))
                tasks.create_task(self._pump(server_reader, writer, "swallow_replies"))
        finally:
            self._writers -= {writer, server_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, switch: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if getattr(self, switch):
                    self.bytes_swallowed.set()
                    continue
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@pytest.fixture
async def wire(server: EmbeddedServer) -> AsyncIterator[Wire]:
    wire = Wire("127.0.0.1", server.port)
    await wire.up()
    yield wire
    await wire.down()
