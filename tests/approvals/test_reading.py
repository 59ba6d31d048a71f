"""Lists of requests: each filter, hostile text in them, and what was decided before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from approvals.decisions import decide
from approvals.reading import Filters, history, search
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.fakes import classified


async def found(store: Store, **filters: Any) -> list[str]:
    async with store.pool.acquire() as connection:
        items, _ = await search(connection, Filters(**filters))
    return [item["id"] for item in items]


@pytest.mark.parametrize(
    ("changes", "filters", "misses"),
    [
        ({"agent": "a1"}, {"agent": "a1"}, {"agent": "a"}),
        ({"owner": "o1"}, {"owner": "o1"}, {"owner": "o"}),
        ({"database": "d1"}, {"database": "d1"}, {"database": "shop2"}),
        ({"risk": "low"}, {"risk": "low"}, {"risk": "critical"}),
        ({"classification": classified("ddl", "t")}, {"class_": "ddl"}, {"class_": "grant"}),
        ({"classification": classified("ddl", "t")}, {"fingerprint": "f-ddl"}, {"fingerprint": "f"}),
        ({"sql": "DROP TABLE Zebra"}, {"q": "zEBra"}, {"q": "zebras"}),
        ({"sql": "SELECT 'äöü\n\"x\"'"}, {"q": 'äöü\n"x"'}, {"q": "äöüx"}),
        ({"sql": "SELECT '100%_\\'"}, {"q": "100%_\\"}, {"q": "1%0"}),
        ({"sql": 'SELECT \'", "sha256": "\' || zebra'}, {"q": "zebra"}, {"q": "zebras"}),
        ({"sql": "sql"}, {"q": "sql"}, {"q": "params"}),
        ({"reason": "quarterly numbers"}, {"q": "QUARTERLY"}, {"q": "yearly"}),
        ({"ticket": "OPS-99"}, {"q": "ops-99"}, {"q": "ops-98"}),
        ({"sql": "a\0b\ud800"}, {"q": "\ud800"}, {"q": "\ud801"}),
    ],
)
async def test_each_filter_finds_its_own_and_nothing_else(
    store: Store, changes: dict[str, Any], filters: dict[str, Any], misses: dict[str, Any]
) -> None:
    await store.gateway.open(request())
    wanted = await store.gateway.open(request(**changes))
    assert await found(store, **filters) == [wanted.id]
    assert wanted.id not in await found(store, **misses)


async def test_times_and_several_filters_at_once(store: Store) -> None:
    opened = await store.gateway.open(request())
    now, minute = datetime.now(UTC), timedelta(minutes=1)
    assert await found(store, since=now - minute, until=now + minute, status="pending", q="copy") == [opened.id]
    assert await found(store, since=now + minute) == []
    assert await found(store, until=now - minute) == []
    assert await found(store, q="copy", status="denied") == []


async def test_a_risk_that_there_is_not(store: Store) -> None:
    with pytest.raises(ValueError, match="critical"):
        await found(store, risk="huge")


async def test_history_is_the_same_agents_same_fingerprint_before(store: Store) -> None:
    first = await store.gateway.open(request())
    await decide(store.pool, first.id, reviewer(BOB), "deny", "not today")
    await store.gateway.open(request(agent="other"))
    await store.gateway.open(request(classification=classified("ddl", "t")))
    second = await store.gateway.open(request())
    third = await store.gateway.open(request())
    async with store.pool.acquire() as connection:
        items = await history(connection, second.id)
        assert [item["id"] for item in items] == [first.id]
        assert items[0]["decisions"][0]["comment"] == "not today"
        assert [item["id"] for item in await history(connection, third.id)] == [second.id, first.id]
        assert await history(connection, third.id, limit=1) == (await history(connection, third.id))[:1]
        assert await history(connection, "a00000000000000a") == []


async def test_a_statement_without_a_fingerprint_has_no_history(store: Store) -> None:
    blank = classified("unknown", "t") | {"fingerprint": ""}
    await store.gateway.open(request(classification=blank))
    second = await store.gateway.open(request(classification=blank))
    async with store.pool.acquire() as connection:
        assert await history(connection, second.id) == []
