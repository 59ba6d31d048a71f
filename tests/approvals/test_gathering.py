"""Context is gathered behind a request's back: it holds up nothing, and what fails says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from approvals import requests as store_requests
from approvals.decisions import decide
from approvals.errors import NotFound
from approvals.gathering import AT_ONCE, NO_PROBE, Gatherer
from approvals.model import Requirement
from approvals.outbox import events_after
from approvals.reading import load
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.fakes import FakeServices


class FakeProbe:
    """Answers when it is let, and knows what it was asked at the same time."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.failure: Exception | None = None
        self.asked_for = asyncio.Condition()

    async def probe(self, approval: dict[str, Any]) -> dict[str, Any]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            async with self.asked_for:
                self.asked.append(approval["statement"]["sql"])
                self.asked_for.notify_all()
            await self.go.wait()
            if self.failure is not None:
                raise self.failure
            return {"relations": [{"name": "public.customers", "as_written": "customers"}], "odd": "\0\ud800"}
        finally:
            self.under_way -= 1

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(20), self.asked_for:
            await self.asked_for.wait_for(lambda: len(self.asked) >= count)


@asynccontextmanager
async def gathering(store: Store, probe: FakeProbe | None, audit: Any = None) -> AsyncIterator[Gatherer]:
    gatherer = Gatherer(store.pool, audit or FakeServices(), probe, node="n1")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(gatherer.run(store.wakeups))
        yield gatherer
        running.cancel()


async def context(store: Store, approval_id: str, key: str) -> Any:
    """Waits for a part of a request's context."""
    with store.wakeups.subscribe(approval_id) as changed:
        async with asyncio.timeout(20):
            while True:
                approval = await approval_of(store, approval_id)
                if key in approval["context"]:
                    return approval["context"][key]
                await changed.wait(0.5)


async def approval_of(store: Store, approval_id: str) -> dict[str, Any]:
    async with store.pool.acquire() as connection:
        found = await load(connection, approval_id)
    assert found is not None
    return found


async def test_a_new_request_gets_both_parts_and_its_first_event_is_the_opening(store: Store) -> None:
    probe = FakeProbe()
    async with gathering(store, probe):
        opened = await store.gateway.open(replace(request(), context={"in_transaction": True}))
        history = await context(store, opened.id, "history")
    approval = await approval_of(store, opened.id)
    assert approval["context"]["in_transaction"] is True
    assert approval["context"]["impact"]["odd"] == "\0\ud800"
    assert history["relations"][0]["relation"] == "public.customers"
    events = await events_after(store.pool, 0)
    assert [(event.kind, event.status) for event in events] == [
        ("status", "pending"),
        ("context", "pending"),
        ("context", "pending"),
    ]


async def test_a_probe_that_hangs_holds_up_no_decision_and_no_other_request(store: Store) -> None:
    probe = FakeProbe()
    probe.go.clear()
    async with gathering(store, probe):
        opened = [await store.gateway.open(request(sql=f"SELECT {n}")) for n in range(AT_ONCE + 3)]
        await probe.until_asked(AT_ONCE)
        await decide(store.pool, opened[0].id, reviewer(BOB), "approve", "seen")
        assert await store.gateway.claim(opened[0].id, "b1", request().sha256)
        await decide(store.pool, opened[-1].id, reviewer(BOB), "deny", "no")
        assert probe.under_way == AT_ONCE
        probe.go.set()
        for each in opened[1:-1]:
            assert await context(store, each.id, "history")
    assert probe.most == AT_ONCE
    # Decided while it waited for its turn: nobody reads it any more.
    assert "impact" not in (await approval_of(store, opened[-1].id))["context"]
    assert await store.status(opened[0].id) == "executing"


async def test_a_probe_that_raises_is_an_error_in_its_place(store: Store) -> None:
    probe = FakeProbe()
    probe.failure = RuntimeError("COPY secret TO STDOUT")
    async with gathering(store, probe):
        opened = await store.gateway.open(request())
        assert await context(store, opened.id, "impact") == {"error": "it could not be gathered (RuntimeError)"}
        probe.failure = None
        other = await store.gateway.open(request())
        assert "relations" in await context(store, other.id, "impact")


async def test_without_an_observer_it_says_so(store: Store) -> None:
    async with gathering(store, None):
        opened = await store.gateway.open(request())
        assert await context(store, opened.id, "impact") == NO_PROBE
        history = await context(store, opened.id, "history")
    # As it was written, for nobody has resolved it.
    assert [each["relation"] for each in history["relations"]] == ["customers"]


async def test_what_was_pending_before_the_start_is_looked_at(store: Store) -> None:
    opened = await store.gateway.open(request())
    denied = await store.gateway.open(request())
    await decide(store.pool, denied.id, reviewer(BOB), "deny")
    async with gathering(store, FakeProbe()):
        assert await context(store, opened.id, "history")
    assert "impact" not in (await approval_of(store, denied.id))["context"]


async def test_a_modified_statement_is_looked_at_again(store: Store) -> None:
    probe = FakeProbe()
    async with gathering(store, probe):
        opened = await store.gateway.open(request())
        await context(store, opened.id, "history")
        judge = FakeServices().judge.answers(requirements=[Requirement("exports", ("dba",), 2)])
        await decide(store.pool, opened.id, reviewer(BOB), "modify", sql="SELECT 2", judge=judge)
        await probe.until_asked(2)
    assert probe.asked == [request().sql, "SELECT 2"]


async def test_what_belongs_to_an_earlier_text_is_not_kept(store: Store) -> None:
    opened = await store.gateway.open(request())
    assert not await store_requests.add_context(store.pool, opened.id, "impact", {}, sha256="00" * 32)
    assert await store_requests.add_context(store.pool, opened.id, "impact", {"a": 1}, sha256=request().sha256)
    assert (await approval_of(store, opened.id))["context"]["impact"] == {"a": 1}


async def test_parts_added_at_the_same_time_are_all_there(store: Store) -> None:
    opened = await store.gateway.open(request())
    names = [f"part{n}" for n in range(8)]
    added = await asyncio.gather(*(store_requests.add_context(store.pool, opened.id, each, each) for each in names))
    assert all(added)
    assert set(names) <= (await approval_of(store, opened.id))["context"].keys()
    assert await store.status(opened.id) == "pending"


async def test_context_of_nothing_is_refused(store: Store) -> None:
    assert not await store_requests.add_context(store.pool, "a000000000000000", "impact", {})
    assert not await store_requests.add_context(store.pool, "'; DROP", "impact", {})
    gatherer = Gatherer(store.pool, FakeServices(), FakeProbe(), node="n1")
    with pytest.raises(NotFound):
        await gatherer.refresh("a000000000000000")


async def test_other_nodes_requests_are_theirs(store: Store) -> None:
    probe = FakeProbe()
    async with gathering(store, probe) as gatherer:
        mine = await store.gateway.open(request())
        await context(store, mine.id, "history")
        await store.pool.execute("UPDATE approvals.requests SET node = 'n2'")
        assert await gatherer._left_over() == []


class Trail(FakeServices):
    async def search(self, **filters: Any) -> dict[str, Any]:
        self.searched.append(filters)
        return {
            "items": [
                {"kind": "statement", "statement_id": "own", "sql": "COPY customers TO STDOUT"},
                {"kind": "approval", "sql": None},
                {"kind": "statement", "statement_id": "2", "sql": "x" * 600, "decision": "allowed", "time": "t"},
            ],
            "next": None,
        }


async def test_history_tells_decisions_counts_and_statements(store: Store) -> None:
    first = await store.gateway.open(request())
    await decide(store.pool, first.id, reviewer(BOB), "deny", "not today")
    second = await store.gateway.open(request())
    await store.gateway.withdraw(second.id, "left")
    await store.gateway.open(request(agent="other-bot"))
    trail = Trail()
    async with gathering(store, FakeProbe(), trail) as gatherer:
        for earlier in (first, second):
            await gatherer.refresh(earlier.id)
        opened = await store.gateway.open(replace(request(), context={"statement_id": "own"}))
        history = await context(store, opened.id, "history")
    same = history["same_fingerprint"]
    assert (same["approved"], same["denied"], same["withdrawn"], same["pending"]) == (0, 1, 1, 0)
    assert [each["id"] for each in same["last"]] == [second.id, first.id]
    (vote,) = same["last"][1]["decisions"]
    assert (vote["reviewer"], vote["decision"], vote["comment"], vote["via"]) == (BOB.name, "deny", "not today", "api")
    assert history["agent_24h"] == {"approved": 0, "denied": 1, "expired": 0, "withdrawn": 1, "pending": 0}
    (statement,) = history["recent_statements"]
    assert (statement["sql"], statement["sql_cut"], statement["sql_length"]) == ("x" * 500, True, 600)
    assert trail.searched[-1]["agent"] == "etl-bot"
    (relation,) = history["relations"]
    assert relation["relation"] == "public.customers" and not relation["first_request"]


async def test_the_first_request_about_a_relation_stays_the_first(store: Store) -> None:
    first = await store.gateway.open(request())
    second = await store.gateway.open(request())
    gatherer = Gatherer(store.pool, FakeServices(), FakeProbe(), node="n1")
    told = {}
    for each in (second, first, second, first):  # whichever is looked at first
        told[each.id] = (await gatherer.refresh(each.id))["context"]["history"]["relations"][0]["first_request"]
    assert told == {first.id: True, second.id: False}
    other = await store.gateway.open(request(agent="other-bot"))
    elsewhere = await store.gateway.open(request(database="books"))
    for each in (other, elsewhere):
        assert (await gatherer.refresh(each.id))["context"]["history"]["relations"][0]["first_request"] is True


async def test_a_trail_that_fails_is_said(store: Store) -> None:
    class Broken(FakeServices):
        async def search(self, **filters: Any) -> dict[str, Any]:
            raise ValueError("secret")

    gatherer = Gatherer(store.pool, Broken(), None, node="n1")
    opened = await store.gateway.open(request())
    history = (await gatherer.refresh(opened.id))["context"]["history"]
    assert history["recent_statements"] == {"error": "the audit trail did not answer (ValueError)"}
