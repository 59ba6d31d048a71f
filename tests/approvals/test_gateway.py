"""The gateway on a real PostgreSQL: one winner a step, whatever races it or happens to the store."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from typing import Any

import asyncpg
import pytest

from approvals.decisions import decide
from approvals.errors import Conflict, LimitReached, StoreUnavailable
from approvals.gateway import Gateway
from approvals.model import NewRequest, Opened, Status
from approvals.wakeups import Wakeups
from pgproxy.store import open_pool
from tests.approvals.conftest import BOB, CAROL, SHA, Store, request, reviewer
from tests.approvals.fakes import FakeJudge


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
    assert await store.gateway.claim(opened.id, "b1", SHA)
    await store.gateway.finish(opened.id, "executed", {"command_tag": "COPY 3", "rows": 3, "bytes": 90})
    assert await store.statuses(opened.id) == ["pending", "approved", "executing", "executed"]


async def test_a_denial_tells_who_and_why(store: Store) -> None:
    opened = await store.gateway.open(request())
    await decide(store.pool, opened.id, reviewer(BOB), "deny", "not before the audit")
    resolved = await store.gateway.wait(opened.id)
    assert resolved.status == "denied"
    assert (resolved.reviewer, resolved.comment) == (BOB.name, "not before the audit")
    assert resolved.reviewers == (BOB.name,)
    assert not await store.gateway.claim(opened.id, "b1", SHA)


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
    won = await asyncio.gather(*(rival.claim(approval_id, "b1", SHA) for rival in rivals))
    assert won.count(True) == 1
    assert (await store.statuses(approval_id)).count("executing") == 1


async def test_a_claim_needs_the_binding_that_was_approved(store: Store) -> None:
    approval_id = await approved(store)
    assert not await store.gateway.claim(approval_id, "another", SHA)
    assert await store.gateway.claim(approval_id, "b1", SHA)


async def test_an_expired_approval_cannot_be_claimed(store: Store) -> None:
    approval_id = await approved(store)
    await store.make_due(approval_id)
    assert not await store.gateway.claim(approval_id, "b1", SHA)
    assert await store.status(approval_id) == "approved"  # the claim refused by time alone, before any sweep


async def test_claim_expiry_and_withdrawal_race_to_one_winner(store: Store) -> None:
    from approvals.lifecycle import expire_due

    for _ in range(20):
        approval_id = await approved(store, timeout_s=0.05)
        claimed, withdrawn, _ = await asyncio.gather(
            store.gateway.claim(approval_id, "b1", SHA),
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
    assert await store.gateway.claim(approval_id, "b1", SHA)
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
            await gateway.claim(approval_id, "b1", SHA)
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
            await impatient.claim(approval_id, "b1", SHA)
    assert not await impatient.claim(approval_id, "b1", SHA)
    await impatient.settle()
    assert await store.status(approval_id) in ("withdrawn", "failed")


async def test_a_cancelled_claim_that_was_made_ends_failed(store: Store) -> None:
    approval_id = await approved(store)
    assert await store.gateway.claim(approval_id, "b1", SHA)
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
    assert await impatient.claim(approval_id, "b1", SHA)
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
    from approvals.reading import load

    async with store.pool.acquire() as connection:
        found = await load(connection, opened.id)
    assert found is not None
    assert found["statement"]["sql"] == sql
    assert found["requester"]["agent"] == "bot\x00"
    assert found["requester"]["context"] == {"n": "nan"}


def retry(**changes: Any) -> NewRequest:
    return request(**({"wait": False, "binding": f"b{next(_bindings)}"} | changes))


_bindings = itertools.count(100)


async def test_a_retry_finds_the_pending_request_and_then_its_approval_once(store: Store) -> None:
    first = await store.gateway.open(retry())
    elsewhere = Gateway(store.pool, store.wakeups, "n2", "w7")
    assert (first.status, await elsewhere.open(retry())) == ("pending", first)
    await decide(store.pool, first.id, reviewer(BOB), "approve")
    found = await elsewhere.open(retry())
    assert (found.id, found.status) == (first.id, "approved")
    claims = [elsewhere.claim(found.id, "r1", SHA), store.gateway.claim(found.id, "r1", SHA)]
    assert sorted(await asyncio.gather(*claims)) == [False, True]
    again = await store.gateway.open(retry())
    assert (again.id != first.id, again.status) == (True, "pending")


async def test_a_retry_of_what_was_denied_is_denied_until_it_would_have_expired(store: Store) -> None:
    first = await store.gateway.open(retry())
    await decide(store.pool, first.id, reviewer(BOB), "deny", "no")
    found = await store.gateway.open(retry())
    assert (found.id, found.status) == (first.id, "denied")
    assert (await store.gateway.wait(found.id)).comment == "no"
    await store.make_due(first.id)
    assert (await store.gateway.open(retry())).status == "pending"


@pytest.mark.parametrize(
    "other",
    [
        {"retry_binding": "r2"},
        {"agent": "other-bot"},
        {"owner": "mallory@example.com"},
        {"required_approvals": 2},
        {"channels": ("console",)},
    ],
)
async def test_an_approval_stands_for_the_same_asked_in_the_same_way_only(store: Store, other: dict[str, Any]) -> None:
    first = await store.gateway.open(retry())
    await decide(store.pool, first.id, reviewer(BOB), "approve")
    found = await store.gateway.open(retry(**other))
    assert (found.id != first.id, found.status) == (True, "pending")


async def test_a_modified_request_is_still_found_by_what_the_agent_sends(store: Store) -> None:
    first = await store.gateway.open(retry())
    await decide(store.pool, first.id, reviewer(BOB), "modify", sql="SELECT 1", judge=FakeJudge())
    found = await store.gateway.open(retry())
    assert (found.id, found.status) == (first.id, "approved")
    assert (await store.gateway.wait(found.id)).sql == "SELECT 1"
    assert not await store.gateway.claim(found.id, "r1", SHA)
    assert await store.gateway.claim(found.id, "r1", hashlib.sha256(b"SELECT 1").hexdigest())


async def test_what_waits_is_no_retrys(store: Store) -> None:
    waiting = await store.gateway.open(request())
    await decide(store.pool, waiting.id, reviewer(BOB), "approve")
    assert (await store.gateway.open(retry())).status == "pending"
    assert not await store.gateway.claim(waiting.id, "r1", SHA)  # a waiting one is claimed by its session's binding


async def test_twenty_retries_at_once_are_one_request(store: Store) -> None:
    opened = await asyncio.gather(*(store.gateway.open(retry()) for _ in range(20)))
    assert len({each.id for each in opened}) == 1


async def test_a_request_that_does_not_wait_needs_something_to_be_found_by(store: Store) -> None:
    with pytest.raises(ValueError, match="retry_binding"):
        await store.gateway.open(retry(retry_binding=""))


async def test_an_agent_has_so_many_open_requests_and_no_more(store: Store) -> None:
    workers = [
        Gateway(store.pool, store.wakeups, node, "w1", max_open_per_agent=3) for node in ("n1", "n2", "n3", "n4")
    ]

    async def attempt(number: int, **changes: Any) -> Opened | None:
        try:
            return await workers[number % 4].open(request(binding=f"b{number}", **changes))
        except LimitReached as error:
            assert error.limit == "limits.open_per_agent"
            return None

    opened = [each for each in await asyncio.gather(*map(attempt, range(12))) if each is not None]
    assert len(opened) == 3
    assert await attempt(1, agent="another") is not None
    await decide(store.pool, opened[0].id, reviewer(BOB), "approve")
    assert await attempt(2) is None  # approved and unused is open
    await decide(store.pool, opened[1].id, reviewer(BOB), "deny")
    assert await attempt(3) is not None
    assert await attempt(4) is None
    await store.make_due(opened[2].id)  # overdue is not open, though nobody has swept it yet
    assert await attempt(5) is not None


async def test_no_limit_is_no_limit(store: Store) -> None:
    gateway = Gateway(store.pool, store.wakeups, "n1", "w1", max_open_per_agent=0)
    assert len([await gateway.open(request()) for _ in range(5)]) == 5


async def test_a_claim_is_for_the_text_that_was_approved(store: Store) -> None:
    approval_id = await approved(store)
    assert not await store.gateway.claim(approval_id, "b1", "cd" * 32)
    assert await store.gateway.claim(approval_id, "b1", SHA)
