"""A server of these tests' own: `agent` needs no password over the Unix socket, `app` needs one."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgproxy.embedded import EmbeddedServer
from tests.conftest import FAST

HBA = """\
local all barred reject
local all agent trust
local replication agent trust
local all postgres trust
local all all scram-sha-256
"""


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-"))
    server = EmbeddedServer(directory, password="unused", settings={**FAST, "wal_level": "logical"})
    asyncio.run(server.start())
    (server.data_dir / "pg_hba.conf").write_text(HBA)
    asyncio.run(server.stop())
    asyncio.run(server.start())
    with psycopg.connect(f"host={server.socket_dir} port={server.port} user=postgres", autocommit=True) as admin:
        admin.execute("create role agent login superuser")
        admin.execute("create role app login password 'app secret'")
        admin.execute("create table kept (a int primary key deferrable initially deferred)")
    yield server
    asyncio.run(server.stop())
    shutil.rmtree(directory, ignore_errors=True)
