"""Fixtures for every test: a real PostgreSQL, without which the run fails rather than skips."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import asyncpg
import pytest

from pgproxy.dsn import Dsn
from pgproxy.embedded import EmbeddedServer

# Nothing here has to outlive the run.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}
_numbers = itertools.count(1)
_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash[_failed] = True
    return report


def free_port() -> int:
    """A TCP port of the loopback nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory with a short name (Unix sockets) that a server's system user can reach.

    Not pytest's: every new run of pytest closes /tmp/pytest-of-USER again, also under a run that goes on.
    """
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """One server for the run, over TCP, its superuser's DSN in `dsn`. Its log is printed when a test has failed."""
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-"))
    server = EmbeddedServer(directory, password="superuser's / p@ssword", tcp_port=free_port(), settings=FAST)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    if request.session.stash.get(_failed, False):
        print(f"\n--- the server's log ({os.fspath(server.log_path)})\n{server.log_path.read_text()[-20_000:]}")
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def store_dsn(embedded_server: EmbeddedServer) -> AsyncIterator[str]:
    """The DSN of an empty database of this test's own."""
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(embedded_server.dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield Dsn.parse(embedded_server.dsn).model_copy(update={"database": name}).uri()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
