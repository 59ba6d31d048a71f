"""The outbox: every event once, in one order, whoever commits when."""

from __future__ import annotations

import asyncio

from approvals.decisions import add_comment, decide
from approvals.outbox import events_after, last_seq, load_position, pending_count, save_position
from tests.approvals.conftest import BOB, CAROL, REQUEST, SHA, Store, request, reviewer


async def test_events_hold_what_an_audit_entry_needs(store: Store) -> None:
    opened = await store.gateway.open(request())
    await add_comment(store.pool, opened.id, reviewer(CAROL), "hm")
    await decide(store.pool, opened.id, reviewer(BOB), "approve", "ok")
    await store.gateway.claim(opened.id, "b1", SHA)
    await store.gateway.finish(opened.id, "executed", {"rows": 3})
    events = await events_after(store.pool, 0)
    assert [(event.kind, event.status) for event in events] == [
        ("status", "pending"),
        ("comment", "pending"),
        ("vote", "pending"),
        ("status", "approved"),
        ("status", "executing"),
        ("status", "executed"),
    ]
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert [event.reviewers for event in events] == [(), (), *[(BOB.name,)] * 4]
    assert [event.wait_s is not None for event in events] == [False, False, False, True, False, False]
    opening = events[0]
    assert (opening.sql, opening.sha256, opening.requester) == (REQUEST.sql, REQUEST.sha256, REQUEST.requester)
    assert (opening.node, opening.instance, opening.rule) == ("n1", "w1", "exports")
    assert events[2].detail == {
        "reviewer": BOB.name,
        "decision": "approve",
        "comment": "ok",
        "via": "api",
        "grant": None,
    }
    assert events[5].detail["outcome"]["rows"] == 3
    assert all(event.at.tzinfo is not None for event in events)


async def test_the_wait_is_told_once_however_a_request_ends(store: Store) -> None:
    for end in ("denied", "withdrawn", "expired", "approved then withdrawn"):
        opened = await store.gateway.open(request())
        if end == "denied":
            await decide(store.pool, opened.id, reviewer(BOB), "deny")
        if end.startswith("approved"):
            await decide(store.pool, opened.id, reviewer(BOB), "approve")
        if end == "expired":
            await store.make_due(opened.id)
            await store.gateway.wait(opened.id)
        await store.gateway.withdraw(opened.id, "left")
        events = [event for event in await events_after(store.pool, 0) if event.approval_id == opened.id]
        waits = [event.wait_s for event in events if event.wait_s is not None]
        assert len(waits) == 1, end
        assert waits[0] >= 0


async def test_an_event_committed_late_is_not_missed(store: Store) -> None:
    early, late = await store.gateway.open(request()), await store.gateway.open(request())
    position = await last_seq(store.pool)
    async with store.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(  # gets its id now, and commits below
            "INSERT INTO approvals.comments (approval_id, reviewer, text) VALUES ($1, 'x', 'slow')", early.id
        )
        await add_comment(store.pool, late.id, reviewer(BOB), "quick")
        first = await events_after(store.pool, position)
        await transaction.commit()
    second = await events_after(store.pool, first[-1].seq)
    assert [event.detail["text"] for event in first + second] == ["quick", "slow"]


async def test_readers_at_the_same_time_see_the_same_order(store: Store) -> None:
    async def follow() -> list[tuple[int, str]]:
        seen: list[tuple[int, str]] = []
        while len(seen) < 60:
            events = await events_after(store.pool, seen[-1][0] if seen else 0, limit=7)
            seen += [(event.seq, event.approval_id) for event in events]
            await asyncio.sleep(0)
        return seen

    async def work() -> None:
        for _ in range(20):
            opened = await store.gateway.open(request())
            await store.gateway.withdraw(opened.id, "left")

    async with asyncio.timeout(20):
        one, two, three, *_ = await asyncio.gather(follow(), follow(), follow(), work(), work())
    assert one[:60] == two[:60] == three[:60]
    assert len({seq for seq, _ in one}) == len(one)


async def test_positions_only_move_forward(store: Store) -> None:
    assert await load_position(store.pool, "audit") == 0
    await save_position(store.pool, "audit", 5)
    await save_position(store.pool, "audit", 3)
    assert await load_position(store.pool, "audit") == 5
    assert await load_position(store.pool, "metrics") == 0


async def test_pending_count(store: Store) -> None:
    opened = await store.gateway.open(request())
    await store.gateway.open(request())
    await store.gateway.withdraw(opened.id, "left")
    assert await pending_count(store.pool) == 1
