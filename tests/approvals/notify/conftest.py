"""Linked people, running services, a running dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from approvals.api import Services, create_app
from approvals.notify.dispatcher import Dispatcher, Pace
from approvals.notify.ports import Channel
from approvals.reviewers import sync_reviewers
from tests.approvals.conftest import ADMIN, ALICE, BOB, CAROL, EVERYBODY, ROBOT, Store
from tests.approvals.fakes import FakeServices
from tests.approvals.notify.services import FakeSlack, FakeTeams, Recording, Workflow

LINKED = [
    *(spec for spec in EVERYBODY if spec not in (ALICE, BOB, CAROL, ROBOT)),
    replace(ALICE, identities={"slack": "UALICE", "teams": "aad-alice"}),
    replace(BOB, identities={"slack": "UBOB", "teams": "aad-bob"}),
    replace(CAROL, identities={"slack": "UCAROL", "teams": "aad-carol"}),
    replace(ROBOT, identities={"slack": "UROBOT", "teams": "aad-robot"}),
]
QUICK = Pace(first_retry_s=0.01, longest_retry_s=0.05, look_s=0.05, timeout_s=5.0)


def link(approval_id: str) -> str:
    return f"https://pgproxy.example/approvals/{approval_id}"


@dataclass
class CountingMetrics:
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)

    def notification(self, channel_kind: str, result: str) -> None:
        self.counts[channel_kind, result] = self.counts.get((channel_kind, result), 0) + 1

    def notification_backlog(self, channel_kind: str, n: int) -> None:
        self.waiting[channel_kind] = n


@pytest.fixture
async def linked(store: Store) -> Store:
    await sync_reviewers(store.pool, LINKED)
    return store


@asynccontextmanager
async def dispatching(
    store: Store,
    channels: Sequence[Channel],
    defaults: Sequence[str] | None = None,
    *,
    metrics: CountingMetrics | None = None,
    pace: Pace = QUICK,
) -> AsyncIterator[CountingMetrics]:
    """A dispatcher that is past the beginning of every target while the block lasts."""
    metrics = metrics or CountingMetrics()
    chosen = [channel.target for channel in channels] if defaults is None else defaults
    dispatcher = Dispatcher(store.pool, store.wakeups, channels, chosen, metrics=metrics, pace=pace)
    running = asyncio.get_running_loop().create_task(dispatcher.run())
    try:
        await eventually(lambda: _have_begun(store, channels))
        yield metrics
    finally:
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.result()


async def _have_begun(store: Store, channels: Sequence[Channel]) -> bool:
    names = [f"notify:{channel.target}" for channel in channels]
    found = await store.pool.fetchval("SELECT count(*) FROM approvals.readers WHERE name = ANY ($1::text[])", names)
    return bool(found == len(names))


async def eventually(check: Callable[[], Awaitable[Any]]) -> Any:
    """Waits for what no event tells of."""
    async with asyncio.timeout(15):
        while not (found := await check()):  # noqa: ASYNC110 (the store tells nobody of deliveries)
            await asyncio.sleep(0.01)
    return found


async def rows(store: Store, target: str) -> list[Any]:
    return list(await store.pool.fetch("SELECT * FROM approvals.deliveries WHERE target = $1 ORDER BY id", target))


async def all_done(store: Store, target: str, n: int) -> list[Any]:
    """The rows of a target, once there are `n` and each is delivered or dead."""

    async def check() -> list[Any] | None:
        found = await rows(store, target)
        done = [row for row in found if row["delivered_at"] or row["dead_at"]]
        return found if len(found) == len(done) == n else None

    found: list[Any] = await eventually(check)
    return found


@asynccontextmanager
async def api(store: Store, **services: Any) -> AsyncIterator[httpx.AsyncClient]:
    fake = FakeServices()
    app = create_app(
        Services(store.pool, store.wakeups, fake, fake, fake.sessions, fake, fake.readiness, fake.reloader, **services)
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        yield client


ADMIN_TOKEN = {"Authorization": f"Bearer {ADMIN.token}"}


@pytest.fixture
async def slack_service() -> AsyncIterator[FakeSlack]:
    async with FakeSlack().running() as running:
        yield running


@pytest.fixture
async def teams_service() -> AsyncIterator[FakeTeams]:
    async with FakeTeams().running() as running:
        yield running


@pytest.fixture
async def workflow() -> AsyncIterator[Workflow]:
    async with Workflow().running() as running:
        yield running


@pytest.fixture
async def receiver() -> AsyncIterator[Recording]:
    async with Recording().running() as running:
        yield running
