"""The gateway on a real PostgreSQL: one winner a step, whatever races it or happens to the store."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from approvals.decisions import decide
from approvals.errors import Conflict, StoreUnavailable
from approvals.gateway import Gateway
from approvals.model import Status
from approvals.wakeups import Wakeups
from pgproxy.store import open_pool
from tests.approvals.conftest import BOB, CAROL, Store, request, reviewer


async def approved(store: Store, **changes: object) -> str:
    opened = await store.gateway.open(request(**changes))
    await decide(store.pool, opened.id, reviewer(BOB), "approve")
    return opened.id


async def test_a_request_goes_from_open_to_executed(store: Store) -> None:
    opened = await store.gateway.open(request())
    waiting = asyncio.ensure_future(store.gateway.wait(opened.id))
    await decide(store.pool, opened.id, reviewer(BOB), "approve", "fine")
    resolved = await waiting
    assert (resolved.status, resolved.reviewer, resolved.comment) == ("approved", BOB.name, "fine")
    assert await store.gateway.claim(opened.id, "b1")
    await store.gateway.finish(opened.id, "executed", {"command_tag": "COPY 3", "rows": 3, "bytes": 90})
    assert await store.statuses(opened.id) == ["pending", "approved", "executing", "executed"]


async def test_a_denial_tells_who_and_why(store: Store) -> None:
    opened = await store.gateway.open(request())
    await decide(store.pool, opened.id, reviewer(BOB), "deny", "not before the audit")
    resolved = await store.gateway.wait(opened.id)
    assert resolved.status == "denied"
    assert (resolved.reviewer, resolved.comment) == (BOB.name, "not before the audit")
    assert resolved.reviewers == (BOB.name,)
    assert not await store.gateway.claim(opened.id, "b1")


async def test_wait_wakes_well_before_its_own_next_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approvals.gateway.REREAD_S", 3600.0)
    opened = await store.gateway.open(request())
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(store.gateway.wait(opened.id))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        await waiting


async def test_wait_survives_the_loss_of_the_listen_connection(store: Store) -> None:
    opened = await store.gateway.open(request())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(store.gateway.wait(opened.id))
        await asyncio.sleep(0.1)
        pid = store.wakeups.backend_pid
        assert await store.pool.fetchval("SELECT pg_terminate_backend($1)", pid)
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        async with asyncio.timeout(60):
            assert (await waiting).status == "approved"
    await store.wakeups.connected()
    assert store.wakeups.backend_pid != pid


async def test_wait_works_without_any_notification(store: Store) -> None:
    deaf = Gateway(store.pool, Wakeups(store.dsn), "n1", "w1")
    opened = await deaf.open(request())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(deaf.wait(opened.id))
        await asyncio.sleep(0.1)
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        async with asyncio.timeout(60):
            assert (await waiting).status == "approved"


async def test_wait_survives_every_connection_of_the_process_being_cut(store: Store) -> None:
    opened = await store.gateway.open(request())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(store.gateway.wait(opened.id))
        await asyncio.sleep(0.1)
        admin = await asyncpg.connect(store.dsn)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await admin.close()
        other = await open_pool(store.dsn)
        await decide(other, opened.id, reviewer(BOB), "approve")
        await other.close()
        async with asyncio.timeout(60):
            assert (await waiting).status == "approved"


async def test_wait_expires_the_request_itself(store: Store) -> None:
    opened = await store.gateway.open(request(timeout_s=0.3))
    async with asyncio.timeout(60):
        assert (await store.gateway.wait(opened.id)).status == "expired"
    assert await store.statuses(opened.id) == ["pending", "expired"]


async def test_wait_of_an_approval_that_came_too_late_to_use_is_expired(store: Store) -> None:
    approval_id = await approved(store)
    await store.make_due(approval_id)
    assert (await store.gateway.wait(approval_id)).status == "expired"
    assert await store.statuses(approval_id) == ["pending", "approved", "expired"]


async def test_wait_for_a_request_that_is_not_there_counts_as_withdrawn(store: Store) -> None:
    assert (await store.gateway.wait("a00000000000000a")).status == "withdrawn"


async def test_fifty_claims_have_one_winner(store: Store) -> None:
    approval_id = await approved(store)
    rivals = [Gateway(store.pool, store.wakeups, "n1", f"w{number}") for number in range(50)]
    won = await asyncio.gather(*(rival.claim(approval_id, "b1") for rival in rivals))
    assert won.count(True) == 1
    assert (await store.statuses(approval_id)).count("executing") == 1


async def test_a_claim_needs_the_binding_that_was_approved(store: Store) -> None:
    approval_id = await approved(store)
    assert not await store.gateway.claim(approval_id, "another")
    assert await store.gateway.claim(approval_id, "b1")


async def test_an_expired_approval_cannot_be_claimed(store: Store) -> None:
    approval_id = await approved(store)
    await store.make_due(approval_id)
    assert not await store.gateway.claim(approval_id, "b1")
    assert await store.status(approval_id) == "approved"  # the claim refused by time alone, before any sweep


async def test_claim_expiry_and_withdrawal_race_to_one_winner(store: Store) -> None:
    from approvals.lifecycle import expire_due

    for _ in range(20):
        approval_id = await approved(store, timeout_s=0.05)
        claimed, withdrawn, _ = await asyncio.gather(
            store.gateway.claim(approval_id, "b1"),
            store.gateway.withdraw(approval_id, "the client left"),
            expire_due(store.pool),
        )
        history = await store.statuses(approval_id)
        assert history[:2] == ["pending", "approved"]
        assert len(history) <= 3
        assert claimed == ("executing" in history)
        assert withdrawn == ("withdrawn" in history)


async def test_withdrawn_requests_cannot_be_decided(store: Store) -> None:
    opened = await store.gateway.open(request())
    assert await store.gateway.withdraw(opened.id, "the client left")
    with pytest.raises(Conflict):
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
    assert not await store.gateway.withdraw(opened.id, "again")


async def test_finish_takes_only_ends_and_only_once(store: Store) -> None:
    approval_id = await approved(store)
    assert await store.gateway.claim(approval_id, "b1")
    with pytest.raises(ValueError, match="cannot end approved"):
        await store.gateway.finish(approval_id, "approved", {})
    await store.gateway.finish(approval_id, "failed", {"sqlstate": "23505"})
    await store.gateway.finish(approval_id, "executed", {})
    assert await store.status(approval_id) == Status.FAILED


async def test_every_call_fails_in_bounded_time_when_the_store_is_gone(store: Store) -> None:
    approval_id = await approved(store)
    gateway = Gateway(store.pool, store.wakeups, "n1", "w1", timeout_s=0.3, patience_s=0.5)
    await store.pool.close()
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailable):
            await gateway.open(request())
        with pytest.raises(StoreUnavailable):
            await gateway.claim(approval_id, "b1")
        with pytest.raises(StoreUnavailable):
            await gateway.withdraw(approval_id, "left")
        with pytest.raises(StoreUnavailable):
            await gateway.finish(approval_id, "executed", {})
        with pytest.raises(StoreUnavailable):
            await gateway.wait(approval_id)


async def test_a_claim_in_doubt_is_never_repeated_and_put_right_later(store: Store) -> None:
    approval_id = await approved(store)
    impatient = Gateway(store.pool, store.wakeups, "n1", "w1", timeout_s=0.3)
    async with store.pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("SELECT 1 FROM approvals.requests WHERE id = $1 FOR UPDATE", approval_id)
        with pytest.raises(StoreUnavailable):
            await impatient.claim(approval_id, "b1")
    assert not await impatient.claim(approval_id, "b1")
    await impatient.settle()
    assert await store.status(approval_id) in ("withdrawn", "failed")


async def test_a_cancelled_claim_that_was_made_ends_failed(store: Store) -> None:
    approval_id = await approved(store)
    assert await store.gateway.claim(approval_id, "b1")
    store.gateway._abandoned[approval_id] = True  # as if the answer had been lost
    await store.gateway.settle()
    assert await store.statuses(approval_id) == ["pending", "approved", "executing", "failed"]


async def test_an_opening_in_doubt_is_withdrawn_later(store: Store) -> None:
    impatient = Gateway(store.pool, store.wakeups, "n1", "w1", timeout_s=0.3)
    async with store.pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE approvals.requests")
        with pytest.raises(StoreUnavailable):
            await impatient.open(request())
    await impatient.settle()
    assert await store.pool.fetchval("SELECT count(*) FROM approvals.requests WHERE status = 'pending'") == 0


async def test_an_outcome_that_could_not_be_told_is_told_later(store: Store) -> None:
    approval_id = await approved(store)
    impatient = Gateway(store.pool, store.wakeups, "n1", "w1", timeout_s=0.3)
    assert await impatient.claim(approval_id, "b1")
    async with store.pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE approvals.requests")
        with pytest.raises(StoreUnavailable):
            await impatient.finish(approval_id, "executed", {"rows": 3})
    await impatient.settle()
    assert await store.status(approval_id) == "executed"


async def test_hostile_text_is_kept_exactly(store: Store) -> None:
    sql = "SELECT '\x00\ud800\u202e' -- ok"
    opened = await store.gateway.open(
        request(sql=sql, reason="\x00", agent="bot\x00", context={"n": float("nan")}, approver_groups=[])
    )
    await decide(store.pool, opened.id, reviewer(CAROL), "deny", "no")
    from approvals.requests import load

    async with store.pool.acquire() as connection:
        found = await load(connection, opened.id)
    assert found is not None
    assert found["statement"]["sql"] == sql
    assert found["requester"]["agent"] == "bot\x00"
    assert found["requester"]["context"] == {"n": "nan"}
