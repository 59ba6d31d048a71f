"""Entries are committed in order, once, and an append that failed never stands there as permission."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgproxy import records
from pgproxy.audit import encoding
from pgproxy.audit import writer as writer_module
from pgproxy.audit.writer import StoreWriter
from pgproxy.session.ports import AuditUnavailable, AuditWriter, Requester

if TYPE_CHECKING:
    from pgproxy.store import Pool

Statement = Callable[..., records.Entry]


@asynccontextmanager
async def writing(dsn: str, **options: Any) -> AsyncIterator[StoreWriter]:
    writer = StoreWriter(dsn, node="n1", **options)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.close()


async def stored(pool: Pool) -> list[tuple[str, str | None, str | None]]:
    rows = await pool.fetch("SELECT kind, statement_id, decision FROM audit.entries ORDER BY seq")
    return [(row["kind"], row["statement_id"], row["decision"]) for row in rows]


async def until(condition: Callable[[], Awaitable[bool] | bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.01)


def as_outcome(statement: records.Entry) -> records.Entry:
    return records.outcome_entry(statement, time=datetime.now(UTC), outcome=records.Outcome(rows=1))


async def test_append_returns_once_the_entry_is_committed(dsn: str, pool: Pool, statement: Statement) -> None:
    stored_counts: list[int] = []
    async with writing(dsn, on_stored=stored_counts.append) as writer:
        port: AuditWriter = writer
        await port.append(statement(1))
        assert await stored(pool) == [("statement", "st-1", "allowed")]
    assert stored_counts == [1]


async def test_concurrent_appends_share_commits(dsn: str, pool: Pool, statement: Statement) -> None:
    stored_counts: list[int] = []
    async with writing(dsn, on_stored=stored_counts.append) as writer, asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(writer.append(statement(number)))
    assert sum(stored_counts) == 200
    assert len(stored_counts) < 20
    assert await pool.fetchval("SELECT count(DISTINCT statement_id) FROM audit.entries") == 200


async def test_entries_of_a_session_keep_their_order(
    dsn: str, pool: Pool, statement: Statement, requester: Callable[..., Requester]
) -> None:
    async def session(name: str) -> None:
        for number in range(20):
            entry = statement(number, requester=requester(session_id=name), statement_id=f"{name}/{number:02}")
            await writer.append(entry)
            writer.append_soon(as_outcome(entry))

    async with writing(dsn) as writer, asyncio.TaskGroup() as tasks:
        for name in ("a", "b", "c", "d"):
            tasks.create_task(session(name))
    rows = await pool.fetch("SELECT session_id, statement_id, kind FROM audit.entries ORDER BY seq")
    for name in ("a", "b", "c", "d"):
        lines = [(row["statement_id"], row["kind"]) for row in rows if row["session_id"] == name]
        assert lines == [(f"{name}/{number:02}", kind) for number in range(20) for kind in ("statement", "outcome")]


async def test_close_stores_what_nobody_waited_for(dsn: str, pool: Pool, statement: Statement) -> None:
    backlogs: list[int] = []
    async with writing(dsn, on_backlog=backlogs.append) as writer:
        for number in range(50):
            writer.append_soon(statement(number))
        assert writer.backlog == 50
    assert writer.backlog == 0
    assert (max(backlogs), backlogs[-1]) == (50, 0)
    assert len(await stored(pool)) == 50


async def test_a_writer_that_is_not_running_refuses(dsn: str, statement: Statement) -> None:
    writer = StoreWriter(dsn, node="n1")
    with pytest.raises(AuditUnavailable):
        await writer.append(statement())
    await writer.start()
    await writer.close()
    with pytest.raises(AuditUnavailable):
        await writer.append(statement())


async def test_any_text_is_stored(dsn: str, pool: Pool, statement: Statement) -> None:
    text = "select '\udce9 \x00 \\ \\u0000 é 🐘'"
    async with writing(dsn) as writer:
        await writer.append(statement(1, sql=text, params=[{"type": "text", "value": "\ud83d"}]))
        await writer.append(statement(2, sql="select '" + "x" * 5_000_000 + "'"))
    odd, large = await pool.fetch("SELECT sql, body FROM audit.entries ORDER BY seq")
    assert odd["sql"] == "select '\\udce9 \\u0000 \\\\ \\\\u0000 é 🐘'"
    body = json.loads(odd["body"])
    assert body["escaped"] == ["sql", "params"]
    assert body["params"] == [{"type": "text", "value": "\\ud83d"}]
    assert len(large["sql"]) == 5_000_009


async def test_an_append_fails_in_bounded_time_without_a_store(
    dsn: str, pool: Pool, wire: Any, statement: Statement
) -> None:
    await wire.down()
    async with writing(wire.dsn(dsn), timeout_s=0.3) as writer:
        async with asyncio.timeout(60):
            with pytest.raises(AuditUnavailable):
                await writer.append(statement(1))
        await wire.up()
        await writer.append(statement(2))
    assert await stored(pool) == [("statement", "st-1", "blocked"), ("statement", "st-2", "allowed")]


async def test_an_append_waits_for_a_store_that_comes_back_in_time(
    dsn: str, pool: Pool, wire: Any, statement: Statement
) -> None:
    async with writing(wire.dsn(dsn)) as writer:
        await writer.append(statement(1))
        await wire.down()
        waiting = asyncio.ensure_future(writer.append(statement(2)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await wire.up()
        await waiting
        assert await stored(pool) == [("statement", "st-1", "allowed"), ("statement", "st-2", "allowed")]


async def test_a_backlog_outlasts_an_outage_in_order(dsn: str, pool: Pool, wire: Any, statement: Statement) -> None:
    async with writing(wire.dsn(dsn)) as writer:
        await writer.append(statement(0))
        await wire.down()
        for number in range(1, 30):
            writer.append_soon(statement(number))
        await asyncio.sleep(0.1)
        assert writer.backlog == 29
        await wire.up()
        await writer.append(statement(30))
        assert writer.backlog == 0
    assert [line[1] for line in await stored(pool)] == [f"st-{number}" for number in range(31)]


async def test_a_full_backlog_refuses_appends_and_keeps_outcomes(
    dsn: str, pool: Pool, wire: Any, statement: Statement
) -> None:
    async with writing(wire.dsn(dsn), timeout_s=0.2, backlog_limit=3) as writer:
        await writer.append(statement(0))
        await wire.down()
        for number in range(1, 4):
            writer.append_soon(statement(number))
        for number in range(4, 7):
            with pytest.raises(AuditUnavailable, match="backlog is full"):
                await writer.append(statement(number))
        writer.append_soon(statement(7))  # a statement that was under way ends
        assert (writer.backlog, writer.refused_unrecorded) == (4, 3)
        await wire.up()
        await until(lambda: writer.backlog == 0)
        await writer.append(statement(8))
    assert [line[1] for line in await stored(pool)] == ["st-0", "st-1", "st-2", "st-3", "st-7", "st-8"]


async def test_a_full_backlog_is_waited_for_while_the_store_takes_entries(
    dsn: str, pool: Pool, statement: Statement
) -> None:
    """The outcomes of a long pipeline come all at once; nobody's statement is refused for that."""
    async with writing(dsn, backlog_limit=3) as writer:
        await writer.append(statement(0))
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE audit.entries IN SHARE MODE")
            for number in range(1, 6):
                writer.append_soon(statement(number))
            waiting = asyncio.ensure_future(writer.append(statement(6)))
            await until(lambda: connection_waits(connection))
            assert not waiting.done()
        await waiting
    assert [line[1] for line in await stored(pool)] == [f"st-{number}" for number in range(7)]


async def test_a_full_backlog_is_waited_for_beyond_the_time_limit_while_it_shrinks(
    dsn: str, pool: Pool, statement: Statement, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that takes a batch within each `timeout_s`, but not all of them."""
    monkeypatch.setattr(writer_module, "BATCH_ENTRIES", 1)
    async with writing(dsn, backlog_limit=1, timeout_s=1.0) as writer:
        insert = writer._store_connection.insert

        async def slowly(rows: Any) -> None:
            await asyncio.sleep(0.2)
            await insert(rows)

        monkeypatch.setattr(writer._store_connection, "insert", slowly)
        for number in range(8):
            writer.append_soon(statement(number))
        await writer.append(statement(8))
    assert [line[1] for line in await stored(pool)] == [f"st-{number}" for number in range(9)]


async def connection_waits(connection: Any) -> bool:
    """Whether the writer waits for that connection's lock."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    )
    return found


async def test_a_full_backlog_is_also_a_matter_of_bytes(dsn: str, wire: Any, statement: Statement) -> None:
    async with writing(wire.dsn(dsn), timeout_s=0.2, backlog_bytes=10_000) as writer:
        await wire.down()
        writer.append_soon(statement(1, sql="x" * 10_000))
        with pytest.raises(AuditUnavailable, match="backlog is full"):
            await writer.append(statement(2))
        await wire.up()


async def test_a_commit_whose_confirmation_is_lost_is_marked_blocked(
    dsn: str, pool: Pool, wire: Any, statement: Statement
) -> None:
    """The store has the entry, the statement was refused: what stands there as permission is taken back."""
    async with writing(wire.dsn(dsn), timeout_s=0.3) as writer:
        await writer.append(statement(1))
        wire.swallow_replies = True
        with pytest.raises(AuditUnavailable):
            await writer.append(statement(2))
        assert await stored(pool) == [("statement", "st-1", "allowed"), ("statement", "st-2", "allowed")]
        wire.swallow_replies = False
        wire.cut()
        await writer.append(statement(3))
        await until(lambda: writer.backlog == 0)
    assert sorted(await stored(pool)) == [
        ("outcome", "st-2", "blocked"),
        ("statement", "st-1", "allowed"),
        ("statement", "st-2", "allowed"),
        ("statement", "st-3", "allowed"),
    ]


async def test_entries_in_an_unconfirmed_batch_are_stored_once(
    dsn: str, pool: Pool, wire: Any, statement: Statement
) -> None:
    async with writing(wire.dsn(dsn), timeout_s=0.5) as writer:
        await writer.append(statement(0))
        wire.swallow_replies = True
        for number in range(1, 10):
            writer.append_soon(statement(number))
        async with asyncio.timeout(60):
            await wire.bytes_swallowed.wait()
        wire.swallow_replies = False
        wire.cut()
        await until(lambda: writer.backlog == 0)
    assert [line[1] for line in await stored(pool)] == [f"st-{number}" for number in range(10)]


MARKED = [("statement", "st-1", "allowed"), ("outcome", "st-1", "blocked")]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        # The append's own first attempt may still be waiting for the key, and be faster than its retraction.
        ("ROLLBACK", [[("statement", "st-1", "blocked")], MARKED]),
        ("COMMIT", [MARKED]),
    ],
)
async def test_a_lost_transaction_that_ends_late_cannot_leave_permission(
    dsn: str,
    pool: Pool,
    statement: Statement,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    expected: list[list[tuple[str, str, str]]],
) -> None:
    """The same entry sits in a transaction that nobody hears of while its append fails."""
    entry_id = encoding.new_entry_id()
    lost = await asyncpg.connect(dsn)
    await lost.execute("BEGIN")
    await lost.execute(
        "INSERT INTO audit.entries (entry_id, node, time, kind, statement_id, decision, size_bytes, body)"
        " VALUES ($1, 'n1', now(), 'statement', 'st-1', 'allowed', 0, '{}')",
        entry_id,
    )
    async with writing(dsn, timeout_s=0.3) as writer:
        monkeypatch.setattr(encoding, "new_entry_id", lambda: entry_id)
        with pytest.raises(AuditUnavailable):
            await writer.append(statement(1))
        await until(lambda: writer.backlog == 1)  # its attempt is over too, the retraction in line
        await lost.execute(end)
        await lost.close()
        await until(lambda: writer.backlog == 0)
    assert await stored(pool) in expected


async def test_a_cancelled_append_counts_as_failed(dsn: str, pool: Pool, wire: Any, statement: Statement) -> None:
    async with writing(wire.dsn(dsn)) as writer:
        await writer.append(statement(1))
        wire.swallow_replies = True
        in_flight = asyncio.ensure_future(writer.append(statement(2)))
        await wire.bytes_swallowed.wait()
        in_line = asyncio.ensure_future(writer.append(statement(3)))
        await asyncio.sleep(0)
        for task in (in_flight, in_line):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        wire.swallow_replies = False
        wire.cut()
        await until(lambda: writer.backlog == 0)
    lines = await stored(pool)
    assert ("statement", "st-3", "blocked") in lines
    assert ("outcome", "st-2", "blocked") in lines


async def test_an_entry_the_store_refuses_fails_alone(dsn: str, pool: Pool, statement: Statement) -> None:
    bad = {**statement(2), "decision": None, "kind": "nonsense"}
    async with writing(dsn, timeout_s=2) as writer:
        results = await asyncio.gather(
            *(writer.append(entry) for entry in (statement(1), bad, statement(3))), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), AuditUnavailable, type(None)]
        await until(lambda: writer.backlog == 0)
    assert [line[1] for line in await stored(pool)] == ["st-1", "st-3"]


async def test_facts_survive_text_that_is_too_large_for_the_store(dsn: str, pool: Pool, statement: Statement) -> None:
    await pool.execute("ALTER TABLE audit.entries ADD CHECK (length(sql) < 1000)")
    async with writing(dsn) as writer:
        writer.append_soon(statement(1, sql="x" * 2000))
        with pytest.raises(AuditUnavailable):
            await writer.append(statement(2, sql="x" * 2000))
    assert await stored(pool) == [("statement", "st-1", "allowed"), ("statement", "st-2", "blocked")]
    body = json.loads(await pool.fetchval("SELECT body FROM audit.entries WHERE statement_id = 'st-1'"))
    assert body["sha256"] == "ab" * 32
    assert "sql" in body["omitted"]


async def test_an_entry_that_is_no_json_is_the_callers_error(dsn: str, statement: Statement) -> None:
    async with writing(dsn) as writer:
        for value in (float("nan"), object()):
            with pytest.raises((ValueError, TypeError)):
                await writer.append({**statement(), "params": [value]})
        await writer.append(statement())


async def test_a_store_that_acknowledges_early_is_not_believed(dsn: str, statement: Statement) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$"
    )
    await connection.close()
    async with writing(dsn) as writer:
        await writer.append(statement())
        own = writer._store_connection._connection
        assert own is not None
        assert await own.fetchval("SHOW synchronous_commit") == "on"
