"""Newest first, pages that neither overlap nor skip, a statement and its outcome as one entry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pgproxy import records
from pgproxy.audit import filters, reader
from pgproxy.audit.reader import StoreReader
from pgproxy.audit.writer import StoreWriter
from pgproxy.session.ports import Requester

if TYPE_CHECKING:
    from pgproxy.store import Pool

Statement = Callable[..., records.Entry]
START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
async def writer(dsn: str) -> AsyncIterator[StoreWriter]:
    writer = StoreWriter(dsn, node="n1")
    await writer.start()
    yield writer
    await writer.close()


@pytest.fixture
def trail(pool: Pool) -> StoreReader:
    return StoreReader(pool)


def outcome(statement: records.Entry, *, at_s: float, **changes: Any) -> records.Entry:
    return records.outcome_entry(statement, time=START + timedelta(seconds=at_s), outcome=records.Outcome(**changes))


async def ids(trail: StoreReader, **asked: Any) -> list[str]:
    return [item["statement_id"] for item in (await trail.search(**asked))["items"]]


async def test_an_entry_has_every_field_of_the_contract(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    entry = statement(1, params=[{"type": "int4", "value": "7"}])
    await writer.append(entry)
    answer = await trail.search()
    assert answer["next"] is None
    (item,) = answer["items"]
    assert item == {**entry, "seq": item["seq"], "node": "n1"}
    assert list(item) == list(records.FIELDS)
    assert item["time"] == "2026-03-01T12:00:00.000000Z"


async def test_statements_are_counted_by_class_in_steps(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    for number, (at_s, classes) in enumerate([(-1, ["read"]), (0, ["read"]), (59, ["read", "export"]), (60, ["read"])]):
        await writer.append({**statement(number, at_s=at_s), "classes": classes})
    await writer.append(outcome(statement(1, at_s=0), at_s=1, command_tag="SELECT 1"))
    minute = START + timedelta(minutes=1)
    assert await trail.count_by_class(START, 60) == [(START, "export", 1), (START, "read", 2), (minute, "read", 1)]


async def test_newest_comes_first_by_time_not_arrival(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    for number, at_s in ((1, 10), (2, 30), (3, 20)):
        await writer.append(statement(number, at_s=at_s))
    assert await ids(trail) == ["st-2", "st-3", "st-1"]


async def test_pages_neither_overlap_nor_skip_while_entries_arrive(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    for number in range(20):
        await writer.append(statement(number, at_s=number // 4))  # several share a time
    seen: list[str] = []
    cursor = None
    for page in range(7):
        answer = await trail.search(limit=3, cursor=cursor)
        seen += [item["statement_id"] for item in answer["items"]]
        cursor = answer["next"]
        await writer.append(statement(100 + page, at_s=100))
    assert cursor is None
    assert seen == [f"st-{number}" for number in reversed(range(20))]


async def test_a_last_page_that_is_full_has_no_next(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    for number in range(4):
        await writer.append(statement(number, at_s=number))
    first = await trail.search(limit=2)
    second = await trail.search(limit=2, cursor=first["next"])
    assert (len(second["items"]), second["next"]) == (2, None)


async def test_an_outcome_within_five_seconds_is_part_of_its_statement(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    made = statement(1)
    await writer.append(made)
    (before,) = (await trail.search())["items"]
    assert before["outcome"] is None
    writer.append_soon(outcome(made, at_s=5, command_tag="SELECT 1", rows=1))
    await writer.append(statement(2, at_s=-1))
    after = (await trail.search())["items"]
    assert [item["statement_id"] for item in after] == ["st-1", "st-2"]
    assert after[0]["kind"] == "statement"
    assert after[0]["outcome"]["command_tag"] == "SELECT 1"
    assert after[1]["outcome"] is None
    assert await ids(trail, kind="outcome") == []


async def test_a_late_outcome_is_an_entry_of_its_own(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    made = statement(1)
    await writer.append(made)
    await writer.append(outcome(made, at_s=5.000001, rows=1))
    late, first = (await trail.search())["items"]
    assert (late["kind"], late["statement_id"], late["outcome"]["rows"]) == ("outcome", "st-1", 1)
    assert late["agent"] == "etl-bot"
    assert (first["kind"], first["outcome"]) == ("statement", None)


async def test_a_second_outcome_is_an_entry_of_its_own(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    made = statement(1)
    await writer.append(made)
    await writer.append(outcome(made, at_s=1, rows=1, transaction=records.TransactionFate.OPEN))
    await writer.append(outcome(made, at_s=2, transaction=records.TransactionFate.COMMITTED))
    fate, first = (await trail.search())["items"]
    assert (fate["kind"], fate["outcome"]["transaction"]) == ("outcome", "committed")
    assert first["outcome"]["transaction"] == "open"


async def test_an_outcome_without_its_statement_is_listed(
    trail: StoreReader, writer: StoreWriter, statement: Statement
) -> None:
    await writer.append(outcome(statement(9), at_s=1))
    assert await ids(trail) == ["st-9"]


@pytest.mark.parametrize("at_s", [1, 60])
async def test_a_statement_taken_back_is_blocked(
    trail: StoreReader, writer: StoreWriter, statement: Statement, at_s: float
) -> None:
    made = statement(1)
    await writer.append(made)
    await writer.append(statement(2))
    await writer.append({**outcome(made, at_s=at_s, sqlstate="58030"), "decision": "blocked"})
    items = {item["statement_id"]: item for item in (await trail.search(kind="statement"))["items"]}
    assert items["st-1"]["decision"] == "blocked"
    assert items["st-2"]["decision"] == "allowed"
    assert await ids(trail, decision="allowed") == ["st-2"]
    assert set(await ids(trail, decision="blocked")) == {"st-1"}


async def test_filters_choose_entries(
    trail: StoreReader, writer: StoreWriter, statement: Statement, requester: Callable[..., Requester]
) -> None:
    await writer.append(statement(1, at_s=1))
    await writer.append(
        statement(2, at_s=2, classes=("read", "export"), decision=records.Decision.DENIED, sql="COPY T_1 to x")
    )
    other = requester(agent="bi", session_id="s-2", ticket="OPS-99", reason="100% of it")
    await writer.append(statement(3, at_s=3, requester=other, sql="select TX1"))
    await writer.append(records.session_start_entry(time=START, requester=other))
    expected: list[tuple[dict[str, Any], list[str | None]]] = [
        ({"agent": "bi"}, ["st-3", None]),
        ({"agent": "nobody"}, []),
        ({"class_": "export"}, ["st-2"]),
        ({"class_": "read"}, ["st-3", "st-2", "st-1"]),
        ({"decision": "denied"}, ["st-2"]),
        ({"decision": "allowed"}, ["st-3", "st-1"]),
        ({"kind": "session_start"}, [None]),
        ({"session_id": "s-2"}, ["st-3", None]),
        ({"statement_id": "st-1"}, ["st-1"]),
        ({"since": START + timedelta(seconds=2)}, ["st-3", "st-2"]),
        ({"until": "2026-03-01T12:00:02Z"}, ["st-1", None]),
        ({"since": "2026-03-01T13:00:02 01:00"}, ["st-3", "st-2"]),  # `+` lost in a query string
        ({"q": "copy"}, ["st-2"]),
        ({"q": "t_1"}, ["st-2"]),  # `_` means itself
        ({"q": "100% of"}, ["st-3", None]),
        ({"q": "ops-99"}, ["st-3", None]),
        ({"q": "\\"}, []),
        ({"q": ""}, ["st-3", "st-2", "st-1", None]),
        ({"agent": "etl-bot", "class_": "read", "q": "SELECT", "until": START + timedelta(hours=1)}, ["st-1"]),
    ]
    for asked, found in expected:
        assert await ids(trail, **asked) == found, asked


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"since": "yesterday"}, "since: not an RFC 3339"),
        ({"until": "2026-03-01T12:00:00"}, "until: needs a time zone"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since: out of range"),
        ({"class_": "exports"}, "class: one of read, write"),
        ({"decision": "maybe"}, "decision: one of allowed"),
        ({"kind": "note"}, "kind: one of statement"),
        ({"limit": 0}, "limit: from 1 to"),
        ({"limit": 1001}, "limit: from 1 to"),
        ({"q": "\ud800"}, "q: not valid Unicode"),
        ({"q": "a\x00"}, "q: must not hold a NUL"),
        ({"agent": "x" * 1001}, "agent: longer"),
        ({"cursor": "x"}, "cursor: not one"),
        ({"cursor": "ü"}, "cursor: not one"),
        ({"cursor": ""}, "cursor: not one"),
        ({"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkuMQ"}, "cursor: not one"),
    ],
)
async def test_a_bad_filter_is_named(trail: StoreReader, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await trail.search(**asked)


def test_a_cursor_is_read_back() -> None:
    time = START + timedelta(microseconds=1)
    assert filters.read_cursor(filters.make_cursor(time, 2**62)) == (time, 2**62)


async def test_a_page_of_large_statements_ends_early(
    trail: StoreReader, writer: StoreWriter, statement: Statement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PAGE_BYTES", 5000)
    for number in range(4):
        await writer.append(statement(number, at_s=number, sql="x" * 2000))
    await writer.append(statement(4, at_s=4, sql="x" * 6000))
    sizes, cursor = [], None
    while True:
        answer = await trail.search(cursor=cursor)
        sizes.append(len(answer["items"]))
        cursor = answer["next"]
        if cursor is None:
            break
    assert sum(sizes) == 5
    assert sizes[0] == 1
    assert max(sizes) < 3
