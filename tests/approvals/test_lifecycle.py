"""Expiry without anybody waiting, and what a dead worker leaves."""

from __future__ import annotations

import asyncio

from approvals.decisions import decide
from approvals.gateway import Gateway
from approvals.lifecycle import expire_due, run_expiry
from tests.approvals.conftest import BOB, Store, request, reviewer


async def in_each_live_status(store: Store, gateway: Gateway) -> dict[str, str]:
    """A pending, an approved and an executing request of this worker."""
    ids = {}
    for status in ("pending", "approved", "executing"):
        opened = await gateway.open(request())
        ids[status] = opened.id
        if status != "pending":
            await decide(store.pool, opened.id, reviewer(BOB), "approve")
        if status == "executing":
            assert await gateway.claim(opened.id, "b1")
    return ids


async def test_the_sweep_expires_what_is_due_and_nothing_else(store: Store) -> None:
    ids = await in_each_live_status(store, store.gateway)
    fresh = await store.gateway.open(request())
    for approval_id in ids.values():
        await store.make_due(approval_id)
    assert set(await expire_due(store.pool)) == {ids["pending"], ids["approved"]}
    assert await store.status(ids["executing"]) == "executing"
    assert await store.status(fresh.id) == "pending"
    assert await expire_due(store.pool) == []


async def test_the_sweeper_goes_on_after_the_store_was_away(store: Store) -> None:
    opened = await store.gateway.open(request(timeout_s=0.2))
    sweeping = asyncio.ensure_future(run_expiry(store.pool, 0.05))
    await store.pool.expire_connections()
    async with asyncio.timeout(60):
        while await store.status(opened.id) != "expired":  # noqa: ASYNC110  (it is the sweep that is waited for)
            await asyncio.sleep(0.02)
    sweeping.cancel()


async def test_a_dead_workers_requests_are_withdrawn_or_unknown(store: Store) -> None:
    dead = await in_each_live_status(store, store.gateway)
    neighbour = await in_each_live_status(store, Gateway(store.pool, store.wakeups, "n1", "w2"))
    elsewhere = await in_each_live_status(store, Gateway(store.pool, store.wakeups, "n2", "w1"))
    reaped = await store.gateway.reap("n1", "w1")
    assert set(reaped.withdrawn) == {dead["pending"], dead["approved"]}
    assert reaped.unknown == [dead["executing"]]
    assert await store.statuses(dead["pending"]) == ["pending", "withdrawn"]
    assert await store.statuses(dead["executing"]) == ["pending", "approved", "executing", "unknown"]
    for others in (neighbour, elsewhere):
        for status, approval_id in others.items():
            assert await store.status(approval_id) == status
    assert not await store.gateway.claim(dead["approved"], "b1")
    again = await store.gateway.reap("n1", "w1")
    assert (again.withdrawn, again.unknown) == ([], [])


async def test_at_start_every_instance_of_the_node_that_is_not_alive_is_reaped(store: Store) -> None:
    dead = await in_each_live_status(store, store.gateway)
    alive = await in_each_live_status(store, Gateway(store.pool, store.wakeups, "n1", "w2"))
    elsewhere = await in_each_live_status(store, Gateway(store.pool, store.wakeups, "n2", "w9"))
    reaped = await store.gateway.reap("n1", None, alive={"w2"})
    assert set(reaped.withdrawn) | set(reaped.unknown) == set(dead.values())
    for others in (alive, elsewhere):
        for status, approval_id in others.items():
            assert await store.status(approval_id) == status


async def test_reaping_wakes_and_ends_a_waiter(store: Store) -> None:
    opened = await store.gateway.open(request())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(store.gateway.wait(opened.id))
        await store.gateway.reap("n1", "w1")
        assert (await waiting).status == "withdrawn"


async def test_reaping_and_claiming_race_to_one_outcome(store: Store) -> None:
    for _ in range(20):
        opened = await store.gateway.open(request())
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        claimed, reaped = await asyncio.gather(store.gateway.claim(opened.id, "b1"), store.gateway.reap("n1", "w1"))
        again = await store.gateway.reap("n1", "w1")
        withdrawn = reaped.withdrawn + again.withdrawn
        unknown = reaped.unknown + again.unknown
        assert (withdrawn, unknown) == (([], [opened.id]) if claimed else ([opened.id], []))
