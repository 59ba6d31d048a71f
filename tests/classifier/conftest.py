"""A real PostgreSQL for what only a server can say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from pgproxy.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def server_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = EmbeddedServer(
        tmp_path_factory.mktemp("oracle"), password="test", tcp_port=port, settings={"fsync": "off"}
    )
    asyncio.run(server.start())
    try:
        yield server.dsn
    finally:
        asyncio.run(server.stop())
