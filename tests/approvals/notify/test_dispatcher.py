"""Planning, delivering, giving up, escalating: with channels that do as the test says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from approvals.decisions import decide
from approvals.notify import deliveries
from approvals.notify.dispatcher import Pace
from approvals.notify.ports import Kind, Message, NotDelivered
from approvals.outbox import last_seq
from tests.approvals.conftest import BOB, CAROL, Store, request, reviewer
from tests.approvals.notify.conftest import (
    ADMIN_TOKEN,
    QUICK,
    all_done,
    api,
    dispatching,
    eventually,
    rows,
)


@dataclass
class Scripted:
    """A channel. `errors`: raised first, one an attempt; `gate`: closed, a delivery hangs."""

    target: str = "slack:#dba"
    kind: Kind = "slack"
    every_event: bool = False
    errors: list[Exception] = field(default_factory=list)
    got: list[Message] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    ref: dict[str, Any] | None = field(default_factory=lambda: {"ts": "1"})
    running: int = 0
    most: int = 0
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            if self.errors:
                raise self.errors.pop(0)
            self.got.append(message)
            return self.ref if message.kind != "changed" else None
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.is_closed = True


def kinds(channel: Scripted) -> list[tuple[str, str]]:
    return [(message.kind, message.event) for message in channel.got]


async def test_opened_then_changed_with_where_it_was_put(store: Store) -> None:
    channel = Scripted()
    async with dispatching(store, [channel]):
        opened = await store.gateway.open(request())
        await all_done(store, channel.target, 1)
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        await all_done(store, channel.target, 3)
    assert kinds(channel) == [
        ("opened", "approval.pending"),
        ("changed", "approval.vote"),
        ("changed", "approval.approved"),
    ]
    assert [message.refs for message in channel.got] == [(), ({"ts": "1"},), ({"ts": "1"},)]
    assert channel.is_closed


async def test_dead_channel_delays_nobody(store: Store) -> None:
    dead, down, alive = Scripted("slack:#dead"), Scripted("slack:#down"), Scripted("webhook:w", "webhook")
    dead.gate.clear()
    down.errors = [NotDelivered("down") for _ in range(10_000)]
    async with dispatching(store, [dead, down, alive]) as metrics:
        ids = []
        for _ in range(10):
            opened = await store.gateway.open(request())
            ids.append(opened.id)
            await decide(store.pool, opened.id, reviewer(BOB), "approve")
        await all_done(store, "webhook:w", 30)
        assert [await store.status(each) for each in ids] == ["approved"] * 10
        assert dead.got == down.got == []
        assert dead.most == QUICK.concurrency
        assert metrics.counts["slack", "retried"] > 0

        async def is_seen() -> bool:
            return metrics.waiting.get("slack") == 60 and metrics.waiting["webhook"] == 0

        await eventually(is_seen)


async def test_hanging_attempt_ends_and_is_tried_again(store: Store) -> None:
    channel = Scripted()
    channel.gate.clear()
    async with dispatching(store, [channel], pace=replace(QUICK, timeout_s=0.05)):
        await store.gateway.open(request())

        async def is_tried() -> bool:
            found = await rows(store, channel.target)
            return bool(found and found[0]["last_error"] == "no answer in time")

        await eventually(is_tried)
        channel.gate.set()
        await all_done(store, channel.target, 1)
    assert len(channel.got) == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), NotDelivered("down")])
async def test_whatever_a_channel_raises_it_is_tried_again(store: Store, error: Exception) -> None:
    channel = Scripted(errors=[error])
    async with dispatching(store, [channel]):
        await store.gateway.open(request())
        (row,) = await all_done(store, channel.target, 1)
    assert (row["attempts"], len(channel.got)) == (2, 1)


async def test_it_is_given_up_after_its_time(store: Store) -> None:
    channel = Scripted(errors=[NotDelivered("down") for _ in range(10_000)])
    async with dispatching(store, [channel], pace=replace(QUICK, give_up_s=0.2)) as metrics:
        await store.gateway.open(request())
        (row,) = await all_done(store, channel.target, 1)
    assert (row["dead_at"] is not None, row["last_error"]) == (True, "down")
    assert metrics.counts["slack", "dead"] == 1


async def test_what_waits_for_a_target_no_longer_configured_is_given_up(store: Store) -> None:
    gone, other = Scripted(errors=[NotDelivered("down") for _ in range(10_000)]), Scripted("webhook:w", "webhook")
    async with dispatching(store, [gone]):
        await store.gateway.open(request())
        await eventually(lambda: rows(store, gone.target))
    async with dispatching(store, [other], pace=replace(QUICK, give_up_s=0.2)):
        (row,) = await all_done(store, gone.target, 1)
    assert (row["dead_at"] is not None, row["last_error"]) == (True, "the target is not configured")


async def test_a_new_target_begins_with_now(store: Store) -> None:
    await store.gateway.open(request())
    channel = Scripted()
    async with dispatching(store, [channel]):
        later = await store.gateway.open(request())
        await all_done(store, channel.target, 1)
    assert [message.approval["id"] for message in channel.got] == [later.id]


async def test_restart_goes_on_where_it_was(store: Store) -> None:
    """What was opened while nobody ran is told; what was told is not told again."""
    channel = Scripted()
    async with dispatching(store, [channel]):
        first = await store.gateway.open(request())
        await all_done(store, channel.target, 1)
    second = await store.gateway.open(request())
    async with dispatching(store, [channel]):
        await all_done(store, channel.target, 2)
    assert [message.approval["id"] for message in channel.got] == [first.id, second.id]


async def test_crash_between_sending_and_noting_sends_again_under_the_same_id(store: Store) -> None:
    channel = Scripted()
    await deliveries.start_reader(store.pool, channel.target)
    await store.gateway.open(request())
    assert await deliveries.plan(store.pool, channel, [channel.target]) == 1
    (taken,) = await deliveries.take(store.pool, channel.target, 10)  # … and the process is gone
    assert await deliveries.take(store.pool, channel.target, 10) == []
    await store.pool.execute("UPDATE approvals.deliveries SET next_at = clock_timestamp()")  # the lease ends
    async with dispatching(store, [channel]):
        (row,) = await all_done(store, channel.target, 1)
    assert [message.id for message in channel.got] == [taken.message_id]
    assert row["attempts"] == 2
    await deliveries.failed(store.pool, taken, "late", None)  # the lost one has no say any more
    (row,) = await rows(store, channel.target)
    assert row["dead_at"] is None
    assert row["delivered_at"] is not None


async def test_of_several_processes_one_delivers_each(store: Store) -> None:
    channel = Scripted(every_event=True)
    async with (
        dispatching(store, [channel]),
        dispatching(store, [channel]),
        dispatching(store, [channel]),
    ):
        for _ in range(40):
            opened = await store.gateway.open(request())
            await store.gateway.withdraw(opened.id, "left")
        await all_done(store, channel.target, 80)
    assert len({message.id for message in channel.got}) == len(channel.got) == 80


async def test_order_within_a_request_holds_while_the_first_fails(store: Store) -> None:
    channel = Scripted(every_event=True, errors=[NotDelivered("down") for _ in range(5)])
    async with dispatching(store, [channel]):
        opened = await store.gateway.open(request())
        await decide(store.pool, opened.id, reviewer(BOB), "deny")
        await all_done(store, channel.target, 3)
    assert [message.at_event["status"] for message in channel.got] == ["pending", "pending", "denied"]


async def test_only_the_rules_targets_are_told(store: Store) -> None:
    dba, security, audit = Scripted("slack:#dba"), Scripted("slack:#security"), Scripted("webhook:audit", "webhook")
    async with dispatching(store, [dba, security, audit], ["slack:#dba"]):
        one = await store.gateway.open(request())
        two = await store.gateway.open(request(notify=["slack:#security", "webhook:audit", "slack:#unknown"]))
        await all_done(store, dba.target, 1)
        await all_done(store, security.target, 1)
        await all_done(store, audit.target, 1)
    assert [[m.approval["id"] for m in channel.got] for channel in (dba, security, audit)] == [
        [one.id],
        [two.id],
        [two.id],
    ]


async def test_escalates_once_while_pending_by_the_stores_clock(store: Store) -> None:
    dba, boss = Scripted("slack:#dba"), Scripted("slack:#boss")
    steps = [{"after_s": 60, "notify": ["slack:#boss"]}, {"after_s": 120, "notify": ["slack:#dba", "slack:#boss"]}]
    async with dispatching(store, [dba, boss], ["slack:#dba"]):
        opened = await store.gateway.open(request(escalations=steps))
        fresh = await store.gateway.open(request(escalations=steps))
        decided = await store.gateway.open(request(escalations=steps))
        await decide(store.pool, decided.id, reviewer(BOB), "deny")
        await age(store, 61, opened.id, decided.id)
        await all_done(store, boss.target, 1)
        await age(store, 121, opened.id)
        await all_done(store, boss.target, 2)
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        await all_done(store, boss.target, 4)
    escalated = [(message.kind, message.approval["id"]) for message in boss.got]
    assert escalated[:2] == [("escalated", opened.id)] * 2
    assert [message.kind for message in boss.got[2:]] == ["changed", "changed"]
    assert len(boss.got[-1].refs) == 2
    assert fresh.id not in {each for _, each in escalated}
    assert [message.approval["id"] for message in dba.got if message.kind == "escalated"] == [opened.id]


async def age(store: Store, seconds: float, *ids: str) -> None:
    await store.pool.execute(
        "UPDATE approvals.requests SET created_at = clock_timestamp() - make_interval(secs => $1), "
        "expires_at = clock_timestamp() + interval '1 hour' WHERE id = ANY ($2::text[])",
        seconds,
        list(ids),
    )


async def test_what_a_grant_settled_is_told_to_programs_only(store: Store) -> None:
    from approvals.grants import Terms

    person, program = Scripted("slack:#dba"), Scripted("webhook:w", "webhook", every_event=True)
    first = await store.gateway.open(request())
    await decide(store.pool, first.id, reviewer(BOB), "approve", terms=Terms("text", 60.0))
    async with dispatching(store, [person, program]):
        second = await store.gateway.open(request())
        assert second.status == "approved"
        await eventually(lambda: _caught_up(store, person.target))
        await all_done(store, program.target, 3)
    assert person.got == []
    assert {message.event for message in program.got} == {"approval.approved", "approval.grant", "approval.vote"}


async def _caught_up(store: Store, target: str) -> bool:
    position = await store.pool.fetchval("SELECT seq FROM approvals.readers WHERE name = $1", f"notify:{target}")
    return bool(position == await last_seq(store.pool))


async def test_store_away_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from approvals.errors import StoreUnavailable

    real, failures = deliveries.take, [StoreUnavailable("gone") for _ in range(3)]

    async def take(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*arguments)

    monkeypatch.setattr(deliveries, "take", take)
    channel = Scripted()
    async with dispatching(store, [channel]):
        await store.gateway.open(request())
        await all_done(store, channel.target, 1)
    assert failures == []


def test_retries_grow_and_differ() -> None:
    pace = Pace(first_retry_s=1.0, longest_retry_s=300.0)
    for attempts, longest in ((1, 1.0), (2, 2.0), (5, 16.0), (50, 300.0), (100_000, 300.0)):
        drawn = [pace.retry_s(attempts) for _ in range(50)]
        assert all(longest / 2 <= each <= longest for each in drawn)
        assert len(set(drawn)) > 1
    with pytest.raises(ValueError, match="lease"):
        Pace(timeout_s=45.0)


async def test_list_for_administrators(store: Store) -> None:
    channel = Scripted(errors=[NotDelivered("gone", permanent=True)])
    async with dispatching(store, [channel, Scripted("webhook:w", "webhook")]), api(store) as client:
        await store.gateway.open(request())
        await all_done(store, channel.target, 1)
        await all_done(store, "webhook:w", 1)
        found = (await client.get("/v1/notifications", headers=ADMIN_TOKEN)).json()
        assert {(each["target"], each["state"]) for each in found["items"]} == {
            ("slack:#dba", "dead"),
            ("webhook:w", "delivered"),
        }
        first = (await client.get("/v1/notifications?limit=1", headers=ADMIN_TOKEN)).json()
        second = (await client.get(f"/v1/notifications?limit=1&cursor={first['next']}", headers=ADMIN_TOKEN)).json()
        assert [*first["items"], *second["items"]] == found["items"]
        dead = (await client.get("/v1/notifications?state=dead", headers=ADMIN_TOKEN)).json()["items"]
        assert [each["last_error"] for each in dead] == ["gone"]
        for query in ("cursor=x", "cursor=99999999999999999999", "state=lost", "limit=0"):
            assert (await client.get(f"/v1/notifications?{query}", headers=ADMIN_TOKEN)).status_code == 422
        for spec in (BOB, None):
            headers = {"Authorization": f"Bearer {spec.token}"} if spec else {}
            status = (await client.get("/v1/notifications", headers=headers)).status_code
            assert status == (403 if spec else 401)
        carol = {"Authorization": f"Bearer {CAROL.token}"}
        assert (await client.get("/v1/notifications", headers=carol)).status_code == 200
