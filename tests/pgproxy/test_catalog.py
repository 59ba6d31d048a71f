"""Snapshots against a real server: what they hold, how fresh they are, what the observer needs for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from classifier import Environment, knowledge_of
from classifier.catalog import CatalogSnapshot, decode, encode
from pgproxy.analysis.pool import AnalyserPool
from pgproxy.catalog import Catalogs, State, queries
from pgproxy.catalog.analyzer import CatalogAnalyzer
from pgproxy.catalog.reader import build, fetch
from pgproxy.dsn import Dsn
from tests.classifier.planted import judge

Connection = asyncpg.Connection  # type: ignore[type-arg]
HARMLESS = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'"
HARMFUL = "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN DROP TABLE IF EXISTS t; RETURN 1; END'"


@pytest.fixture
async def observer(store_dsn: str) -> AsyncIterator[tuple[Dsn, Connection]]:
    """A login that may connect and nothing else, and the superuser's connection to the same database."""
    admin = await asyncpg.connect(store_dsn)
    await admin.execute("DROP ROLE IF EXISTS observer")
    await admin.execute("CREATE ROLE observer LOGIN PASSWORD 'o/b'")
    try:
        yield Dsn.parse(store_dsn), admin
    finally:
        await admin.execute("DROP ROLE observer")
        await admin.close()


@pytest.fixture
async def catalogs(observer: tuple[Dsn, Connection]) -> AsyncIterator[Catalogs]:
    published.clear()
    found = Catalogs(observer[0], "observer", "o/b", lambda *item: published.append(item), poll_s=0.2)
    await found.start()
    yield found
    await found.close()


published: list[tuple[str, int, bytes]] = []


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for a condition; how long that takes is the machine's affair."""
    async with asyncio.timeout(60):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def test_foreign_changes_are_looked_for_every_second() -> None:
    """What is stated of a function replaced around the proxy ("within about a second")."""
    assert inspect.signature(Catalogs).parameters["poll_s"].default <= 1.0


def latest(catalogs: Catalogs, database: str) -> CatalogSnapshot:
    payload = catalogs.snapshot(database)
    assert payload is not None
    return decode(payload)


async def test_a_login_without_privileges_reads_everything(
    observer: tuple[Dsn, Connection], catalogs: Catalogs
) -> None:
    dsn, admin = observer
    await admin.execute("CREATE SCHEMA hidden; REVOKE ALL ON SCHEMA hidden FROM PUBLIC; CREATE TABLE hidden.t (a int)")
    await admin.execute("CREATE FUNCTION hidden.f() RETURNS void LANGUAGE sql AS 'DELETE FROM hidden.t'")
    await admin.execute("CREATE VIEW hidden.v AS SELECT a + 1 AS b FROM hidden.t; REVOKE ALL ON hidden.v FROM PUBLIC")
    assert catalogs.version(dsn.database or "") == 1
    assert await catalogs.wait(dsn.database or "")
    theirs = latest(catalogs, dsn.database or "")
    await admin.execute("SET search_path = ''")
    rows = await fetch(admin)
    assert rows.is_complete
    ours = build(rows)
    assert ours == theirs
    assert encode(ours) == catalogs.snapshot(dsn.database or "")
    assert judge(knowledge_of(theirs), "SELECT hidden.f()").classes == ("read", "bulk_write")


async def test_an_announced_change_counts_at_once(observer: tuple[Dsn, Connection], catalogs: Catalogs) -> None:
    dsn, admin = observer
    name = dsn.database or ""
    pool = AnalyserPool(processes=1)
    catalogs._publish = pool.set_catalog
    analyzer = CatalogAnalyzer(pool, catalogs)
    await pool.start()
    try:

        async def privileged() -> bool:
            environment = Environment(name, search_path=("public",), catalog_version=catalogs.version(name))
            found = analyzer.lookup("SELECT f()", environment)
            return (found or await analyzer.analyze("SELECT f()", environment)).privileged

        assert await privileged()  # not seen yet
        for _ in range(5):
            await admin.execute(HARMLESS)
            catalogs.invalidate(name)
            assert not await privileged()
            await admin.execute(HARMFUL)
            catalogs.invalidate(name)
            assert await privileged()
    finally:
        await pool.close()


async def test_a_foreign_change_is_noticed_within_a_second(
    observer: tuple[Dsn, Connection], catalogs: Catalogs
) -> None:
    dsn, admin = observer
    name = dsn.database or ""
    await admin.execute(HARMLESS)
    catalogs.version(name)
    assert await catalogs.wait(name)
    for change, harmful in ((HARMFUL, True), (HARMLESS, False), (HARMFUL, True)):
        before = catalogs.version(name)
        await admin.execute(change)
        await until(lambda before=before: catalogs.version(name) != before)
        assert judge(knowledge_of(latest(catalogs, name)), "SELECT f()").privileged is harmful


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("CREATE TABLE t (a int)", "ALTER TABLE t ADD b int DEFAULT length(pg_read_file('x'))"),
        ("CREATE TABLE t (a int)", "ALTER TABLE t ALTER a SET DEFAULT length(pg_read_file('x'))"),
        ("CREATE TABLE t (a int)", "ALTER TABLE t ADD CHECK (length(pg_read_file('x')) > a)"),
        ("CREATE TABLE t (a int)", "CREATE RULE r AS ON INSERT TO t DO ALSO SELECT pg_notify('a', 'b')"),
        ("CREATE TABLE t (a int)", "CREATE POLICY p ON t USING (length(pg_read_file('x')) > a)"),
        ("CREATE TABLE t (a int)", "CREATE TABLE u () INHERITS (t)"),
        ("CREATE VIEW v AS SELECT 1 AS a", "CREATE OR REPLACE VIEW v AS SELECT length(pg_read_file('x')) AS a"),
        ("CREATE DOMAIN d AS int", "ALTER DOMAIN d ADD CHECK (length(pg_read_file('x')) > VALUE)"),
        (HARMLESS, "ALTER FUNCTION f() SECURITY DEFINER"),
        (HARMLESS, "ALTER FUNCTION f() RENAME TO g"),
        (HARMLESS, "CREATE OPERATOR @@@ (RIGHTARG = text, FUNCTION = pg_read_file)"),
        (HARMLESS, "DROP FUNCTION f()"),
        ("CREATE SCHEMA a; CREATE TABLE a.t ()", "ALTER SCHEMA a RENAME TO b"),
        ("CREATE TYPE c AS (a int)", "CREATE CAST (text AS c) WITH INOUT"),
    ],
)
async def test_every_kind_of_change_moves_the_watermark(
    observer: tuple[Dsn, Connection], before: str, change: str
) -> None:
    _, admin = observer
    await admin.execute(before)
    first = await admin.fetchval(queries.WATERMARK)
    assert await admin.fetchval(queries.WATERMARK) == first
    await admin.execute(change)
    assert await admin.fetchval(queries.WATERMARK) != first


async def test_temporary_relations_and_rows_do_not_move_the_watermark(observer: tuple[Dsn, Connection]) -> None:
    _, admin = observer
    await admin.execute("CREATE TABLE t (a int)")
    first = await admin.fetchval(queries.WATERMARK)
    await admin.execute(
        "CREATE TEMP TABLE x (a serial PRIMARY KEY, b text CHECK (b > 'a')); CREATE TEMP VIEW y AS TABLE x"
    )
    await admin.execute("INSERT INTO t SELECT generate_series(1, 1000); ANALYZE t; DELETE FROM t")
    await admin.execute("VACUUM t")
    assert await admin.fetchval(queries.WATERMARK) == first


async def test_nothing_changed_gives_the_old_version_back(observer: tuple[Dsn, Connection], catalogs: Catalogs) -> None:
    dsn, _ = observer
    name = dsn.database or ""
    catalogs.version(name)
    assert await catalogs.wait(name)
    for _ in range(3):
        catalogs.invalidate(name)
        assert catalogs.version(name) > 1
        assert await catalogs.wait(name)
        assert catalogs.version(name) == 1
    assert [version for _, version, _ in published] == [1]


async def test_a_locked_table_holds_nobody_up(observer: tuple[Dsn, Connection], catalogs: Catalogs) -> None:
    dsn, admin = observer
    name = dsn.database or ""
    await admin.execute(
        "CREATE TABLE t (a int DEFAULT length('x')); CREATE VIEW v AS SELECT a FROM t; CREATE TABLE u ()"
    )
    other = await asyncpg.connect(dsn.uri())
    try:
        async with other.transaction():
            await other.execute("LOCK TABLE t")
            catalogs.version(name)
            await until(lambda: catalogs.snapshot(name) is not None)  # the lock is still held
            known = knowledge_of(latest(catalogs, name))
            assert "unknown" in judge(known, "SELECT * FROM v").classes
            assert not judge(known, "SELECT * FROM u").privileged
    finally:
        await other.close()
    await until(lambda: not judge(knowledge_of(latest(catalogs, name)), "SELECT * FROM v").privileged)


async def test_an_observer_that_cannot_log_in_is_said(observer: tuple[Dsn, Connection]) -> None:
    dsn, _ = observer
    name = dsn.database or ""
    found = Catalogs(dsn, "observer", "wrong", lambda *_: None)
    await found.start()
    try:
        found.version(name)
        await until(lambda: found.problems() == [f"no catalog of database {name}"])
        assert found.state(name) == State(0, True)
        assert not await found.wait(name)
    finally:
        await found.close()


async def test_a_lost_observer_leaves_the_last_snapshot_stale(
    observer: tuple[Dsn, Connection], catalogs: Catalogs
) -> None:
    dsn, admin = observer
    name = dsn.database or ""
    catalogs.version(name)
    assert await catalogs.wait(name)
    await admin.execute("ALTER ROLE observer NOLOGIN")
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'observer'")
    await until(lambda: catalogs.state(name).is_stale)
    assert catalogs.state(name) == State(1, True)
    catalogs.invalidate(name)
    assert await catalogs.wait(name)
    await admin.execute("ALTER ROLE observer LOGIN")
    await until(lambda: not catalogs.state(name).is_stale)
    assert await catalogs.wait(name)


async def test_before_start_and_beyond_the_limit_there_is_no_catalog(store_dsn: str) -> None:
    found = Catalogs(Dsn.parse(store_dsn), "nobody", None, lambda *_: None)
    assert found.state("shop") == State(0, False)
    found.invalidate("shop")
    assert not await found.wait("shop")
    assert found.snapshot("shop") is None
