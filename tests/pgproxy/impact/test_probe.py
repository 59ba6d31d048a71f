"""Each section against a real server: what it says, and that looking changes, waits for and runs nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from pgproxy.dsn import Dsn
from pgproxy.impact import Probe
from tests.conftest import free_port
from tests.pgproxy.impact.conftest import World, approval


def relation(impact: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in impact["relations"] if each["name"] == name]
    return dict(found)


# Relations and locks --------------------------------------------------------------------------------------------


async def test_a_relation_is_described(world: World) -> None:
    await world.admin.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE ROLE impact_owner")
    try:
        await world.admin.execute("ALTER TABLE orders OWNER TO impact_owner")
        found = relation(await world.impact("TRUNCATE orders"), "public.orders")
        size = await world.admin.fetchval("SELECT pg_total_relation_size('orders')")
        heap, indexes = await world.admin.fetchrow("SELECT pg_relation_size('orders'), pg_indexes_size('orders')")
    finally:
        await world.admin.execute("DROP OWNED BY impact_owner CASCADE; DROP ROLE impact_owner")
    assert found == {
        "as_written": "orders",
        "name": "public.orders",
        "kind": "table",
        "owner": "impact_owner",
        "columns": 2,
        "row_security": True,
        "triggers": 0,
        "estimated_rows": 1000,
        "total_bytes": size,
        "heap_bytes": heap,
        "index_bytes": indexes,
        "lock": "ACCESS EXCLUSIVE",
        "locks": [],
    }


async def test_search_path_decides_which_is_meant_and_without_it_all_are_named(world: World) -> None:
    await world.admin.execute("CREATE SCHEMA app; CREATE TABLE app.orders (a int); CREATE SCHEMA other")
    await world.admin.execute("CREATE TABLE other.orders (a int)")
    (found,) = (await world.impact("DROP TABLE orders", search_path=["other", "public"]))["relations"]
    assert found["name"] == "other.orders" and "note" not in found
    (found,) = (await world.impact("DROP TABLE orders", search_path=["$user", "public"]))["relations"]
    assert found["name"] == "app.orders"
    (found,) = (await world.impact("DROP TABLE orders", search_path=["$user", "public"], role="bob"))["relations"]
    assert found["name"] == "public.orders"
    every = (await world.impact("DROP TABLE orders", search_path=None))["relations"]
    assert [each["name"] for each in every] == ["app.orders", "other.orders", "public.orders"]
    assert all("depends on the session's search_path" in each["note"] for each in every)
    (found,) = (await world.impact("DROP TABLE nowhere.orders"))["relations"]
    assert found["name"] is None and "no such relation" in found["note"]


async def test_a_temporary_table_of_the_name_is_told(world: World) -> None:
    session = await world.connect()
    await session.execute("CREATE TEMP TABLE orders (a int)")
    found = (await world.impact("DROP TABLE orders"))["relations"]
    await session.close()
    assert [each["name"].partition("_")[0] for each in found] == ["public.orders", "pg"]
    assert all("temporary tables" in each["note"] for each in found)


async def test_hostile_names_are_names(world: World) -> None:
    name = 'a"; DROP TABLE orders; --'
    quoted = name.replace('"', '""')
    await world.admin.execute(f'CREATE TABLE "{quoted}" (a int); CREATE SCHEMA "x.y"; CREATE TABLE "x.y"."Z" ()')
    found = (await world.impact(f'DROP TABLE "{quoted}", "x.y"."Z"'))["relations"]
    assert [each["name"] for each in found] == [f'public."{quoted}"', '"x.y"."Z"']
    assert [each["as_written"] for each in found] == [f'"{quoted}"', '"x.y"."Z"']
    plan = (await world.impact(f'SELECT * FROM "{quoted}"', search_path=['we"ird', "public"]))["plan"]
    assert "permission denied" in plan[0]["error"]
    assert await world.admin.fetchval("SELECT count(*) FROM orders") == 1000


async def test_who_is_on_the_table_and_who_would_wait(world: World) -> None:
    await world.admin.execute("GRANT pg_read_all_stats TO watcher")
    reading, writing, parked = [await world.connect() for _ in range(3)]
    blocks = [connection.transaction() for connection in (reading, writing, parked)]
    for block in blocks:
        await block.start()
    await reading.execute("SET application_name = 'reports'; SELECT FROM orders LIMIT 1")
    await writing.execute("LOCK TABLE orders IN ROW EXCLUSIVE MODE")
    await parked.execute("SELECT FROM customers LIMIT 1")
    pid = parked.get_server_pid()
    impact = await world.impact("CREATE INDEX ON orders (customer)", server_pid=pid)
    locks = relation(impact, "public.orders")["locks"]
    described = {each["pid"]: (each["mode"], each["granted"], each["conflicts"]) for each in locks}
    assert described == {
        reading.get_server_pid(): ("ACCESS SHARE", True, False),
        writing.get_server_pid(): ("ROW EXCLUSIVE", True, True),
    }
    (reader,) = [each for each in locks if each["pid"] == reading.get_server_pid()]
    assert (reader["application_name"], reader["state"], reader["user"]) == (
        "reports",
        "idle in transaction",
        "postgres",
    )
    assert "LIMIT 1" in reader["query"] and reader["since"] is not None
    held = {each["relation"]: each["mode"] for each in impact["session_locks"]["held"]}
    assert held["public.customers"] == "ACCESS SHARE"
    for connection in (reading, writing, parked):
        await connection.close()


async def test_other_peoples_texts_are_not_shown_to_an_observer_who_may_not_see_them(world: World) -> None:
    session = await world.connect()
    block = session.transaction()
    await block.start()
    await session.execute("LOCK TABLE orders IN ACCESS SHARE MODE; SELECT 'secret'")
    (lock,) = relation(await world.impact("DROP TABLE orders"), "public.orders")["locks"]
    await session.close()
    assert (lock["mode"], lock["conflicts"], lock["state"]) == ("ACCESS SHARE", True, None)
    assert "query" not in lock and "secret" not in json.dumps(lock)


@pytest.mark.parametrize("sql", ["DROP TABLE orders", "SELECT * FROM orders", "DELETE FROM orders"])
async def test_a_locked_table_is_not_waited_for(reader: World, sql: str) -> None:
    session = await reader.connect()
    block = session.transaction()
    await block.start()
    await session.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    impact = await reader.impact(sql)
    # Answered although the lock is still held.
    assert await reader.admin.fetchval("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'") >= 1
    found = relation(impact, "public.orders")
    assert found["size"] == {"error": f"process {session.get_server_pid()} holds ACCESS EXCLUSIVE on it"}
    assert found["locks"][0]["conflicts"] is True
    if "plan" in impact:
        assert impact["plan"] == [{"statement": 1, "error": "somebody holds a lock on it: given up after 250ms"}]
    await session.close()


async def test_nothing_stays_locked_by_looking(reader: World) -> None:
    for sql in ("DROP TABLE orders", "SELECT * FROM orders", "DELETE FROM customers"):
        await reader.impact(sql)
    held = await reader.admin.fetch(
        "SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE usename = 'watcher'"
    )
    assert held == []
    await reader.admin.execute("SET lock_timeout = '100ms'; DROP TABLE lines; RESET lock_timeout")


async def test_partitions_are_counted_and_added_up(world: World) -> None:
    await world.admin.execute(
        "CREATE TABLE parts (id int) PARTITION BY LIST (id);"
        "CREATE TABLE parts1 PARTITION OF parts FOR VALUES IN (1) PARTITION BY LIST (id);"
        "CREATE TABLE parts11 PARTITION OF parts1 FOR VALUES IN (1); CREATE TABLE parts2 PARTITION OF parts DEFAULT;"
        "INSERT INTO parts SELECT g % 2 FROM generate_series(1, 500) g; ANALYZE parts11; ANALYZE parts2"
    )
    found = relation(await world.impact("DROP TABLE parts"), "public.parts")
    size = await world.admin.fetchval("SELECT pg_total_relation_size('parts11') + pg_total_relation_size('parts2')")
    assert (found["kind"], found["partitions"], found["estimated_rows"]) == ("partitioned table", 3, 500)
    assert found["total_bytes"] == size


async def test_an_index_brings_its_table(world: World) -> None:
    found = (await world.impact("DROP INDEX orders_pkey"))["relations"]
    assert [(each["name"], each["lock"]) for each in found] == [
        ("public.orders_pkey", "ACCESS EXCLUSIVE"),
        ("public.orders", "ACCESS EXCLUSIVE"),
    ]


async def test_ten_thousand_tables_are_no_hindrance(world: World) -> None:
    for start in range(0, 10_000, 1000):
        await world.admin.execute(
            f"""DO $$ BEGIN FOR i IN {start}..{start + 999} LOOP
                EXECUTE format('CREATE TABLE many%s (a int)', i); END LOOP; END $$"""
        )
    impact = await world.impact("DROP TABLE " + ", ".join(f"many{n}" for n in range(300)))
    assert len(impact["relations"]) == 20 and impact["relations_cut"] is True
    assert "error" not in impact and impact["dependents"]["objects"] == []
    one = await world.impact("DELETE FROM customers")
    assert len(one["cascades"]["foreign_keys"]) == 4


# Plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM orders", 1000),
        ("SELECT /* a comment */ * FROM orders -- and one", 1000),
        ("TABLE emails", 1000),
        ("DELETE FROM orders", 1000),
        ("UPDATE customers SET note = '' WHERE id = 3", 1),
        ("INSERT INTO lines SELECT id, id FROM orders", 1000),
        ("MERGE INTO lines l USING orders o ON l.id = o.id WHEN NOT MATCHED THEN INSERT VALUES (o.id, o.id)", 1000),
        ("COPY (SELECT ')' || id FROM orders) TO STDOUT", 1000),
        ("CREATE TABLE made AS SELECT * FROM orders", 1000),
        ("DECLARE c CURSOR FOR SELECT * FROM orders", 1000),
        ("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM orders", 1000),
        ("SELECT * INTO made FROM orders", 1000),
    ],
)
async def test_the_planner_is_asked(reader: World, sql: str, rows: int) -> None:
    (plan,) = (await reader.impact(sql))["plan"]
    assert (plan.get("rows"), plan.get("generic")) == (rows, False), plan
    assert plan["cost"] > 0


async def test_parameters_have_a_generic_plan(reader: World) -> None:
    (plan,) = (await reader.impact("SELECT * FROM orders WHERE id < $1 AND customer < $2"))["plan"]
    assert plan["generic"] is True and 0 < plan["rows"] < 1000


async def test_a_prepared_statement_is_looked_at_by_its_text(reader: World) -> None:
    impact = await reader.impact("EXECUTE gone", executes={"gone": "DROP TABLE orders"})
    assert relation(impact, "public.orders")["lock"] == "ACCESS EXCLUSIVE"


async def test_without_privileges_the_planner_says_so_and_the_rest_is_there(world: World) -> None:
    impact = await world.impact("DELETE FROM customers")
    assert impact["plan"] == [
        {
            "statement": 1,
            "error": "the observer has no permission: permission denied for table customers",
        }
    ]
    assert relation(impact, "public.customers")["estimated_rows"] == 1000
    assert len(impact["cascades"]["foreign_keys"]) == 4


MARKER = "'BEGIN RAISE EXCEPTION ''it ran''; END'"
# Each makes something that planning the statement beside it would run, were it planned.
PLANTED = [
    ("CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m}", "SELECT * FROM orders WHERE id = f(1)"),
    ("CREATE FUNCTION f(int) RETURNS int STABLE LANGUAGE plpgsql AS {m}", "SELECT * FROM orders WHERE id = f(1)"),
    (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE VIEW planted AS SELECT * FROM orders WHERE id = f(1)",
        "SELECT * FROM planted",
    ),
    (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE VIEW below AS SELECT * FROM orders WHERE id = f(1); CREATE VIEW planted AS SELECT * FROM below",
        "SELECT * FROM planted",
    ),
    (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m};"
        "ALTER TABLE lines ALTER id SET DEFAULT f(1)",
        "INSERT INTO lines DEFAULT VALUES",
    ),
    (
        "CREATE FUNCTION f(int, int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = f)",
        "SELECT * FROM orders WHERE 1 === 2",
    ),
    (
        "CREATE FUNCTION f(int, int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE SCHEMA a; CREATE OPERATOR a.= (LEFTARG = int, RIGHTARG = int, FUNCTION = f)",
        "SELECT * FROM orders WHERE 1 IN (2, 3)",
    ),
    (
        "CREATE FUNCTION f(text) RETURNS point IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE CAST (text AS point) WITH FUNCTION f(text) AS IMPLICIT",
        "SELECT * FROM orders WHERE 'x'::text::point <-> point '(1,1)' > 3",
    ),
    (
        "CREATE FUNCTION f(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE DOMAIN planted AS text CHECK (f(VALUE))",
        "SELECT * FROM orders WHERE 'x'::planted = 'x'",
    ),
    (
        "CREATE FUNCTION f(text) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE DOMAIN planted AS text CHECK (f(VALUE)); CREATE TYPE holder AS (a planted)",
        "SELECT * FROM orders WHERE '(x)'::holder IS NULL",
    ),
    (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m};CREATE VIEW planted AS SELECT f(1) AS a",
        "SELECT * FROM orders WHERE table_to_xml('planted', true, false, '') IS NULL",
    ),
    (
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m};"
        "CREATE VIEW hidden AS SELECT f(1) AS a; CREATE VIEW planted AS SELECT * FROM orders"
        " WHERE table_to_xml('public.hidden', true, false, '') IS DOCUMENT",
        "SELECT * FROM planted",
    ),
    (
        "CREATE FUNCTION f(orders) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m}",
        "SELECT * FROM orders WHERE (ROW(1, 2)::orders).f = 1",
    ),
    (
        "CREATE SCHEMA a; CREATE FUNCTION a.lower(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS {m}",
        "SELECT lower('X') FROM orders",
    ),
    (
        "CREATE TABLE parts (id int) PARTITION BY LIST (id);"
        "CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';"
        "CREATE TABLE planted PARTITION OF parts (CHECK (id <> f(1))) DEFAULT;"
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS {m}",
        "SELECT * FROM parts WHERE id = 3",
    ),
]


@pytest.mark.parametrize(("plant", "sql"), PLANTED)
async def test_no_function_of_a_users_runs(reader: World, plant: str, sql: str) -> None:
    """It would raise, and the plan would say so. That several do run when planned is checked below."""
    await reader.admin.execute(plant.format(m=MARKER))
    (plan,) = (await reader.impact(sql, search_path=["a", "public"]))["plan"]
    assert "skipped" in plan and "it ran" not in json.dumps(plan), plan


async def test_planning_those_does_run_them(reader: World) -> None:
    """The other half: without the look before, the planner runs what was planted (as the observer)."""
    ran = 0
    for plant, sql in PLANTED:
        block = reader.admin.transaction()
        await block.start()
        await reader.admin.execute(plant.format(m=MARKER))
        await reader.admin.execute("SET LOCAL search_path = a, pg_catalog, public")
        try:
            await reader.admin.fetch(f"EXPLAIN {sql}")
        except asyncpg.RaiseError:
            ran += 1
        await block.rollback()
    assert ran >= 10


async def test_what_computes_only_is_planned(reader: World) -> None:
    await reader.admin.execute(
        "CREATE TYPE mood AS ENUM ('fine', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
        "CREATE TABLE moods (id positive, m mood, all_of mood[])"
    )
    (plan,) = (await reader.impact("SELECT upper(m::text) FROM moods WHERE m = 'fine' AND id BETWEEN 1 AND 3"))["plan"]
    assert plan.get("rows") is not None, plan


async def test_row_security_is_not_silently_the_observers(reader: World) -> None:
    await reader.admin.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON orders USING (id = 1)")
    (plan,) = (await reader.impact("SELECT * FROM orders"))["plan"]
    assert "row-level security" in plan["error"]


# Consequences ---------------------------------------------------------------------------------------------------


async def test_foreign_keys_behind_a_delete(world: World) -> None:
    found = (await world.impact("WITH x AS (DELETE FROM customers RETURNING id) SELECT * FROM x"))["cascades"]
    assert found["cut"] is False
    assert [
        (e["table"], e["on_delete"], e["depth"], e["effect"], e["estimated_rows"]) for e in found["foreign_keys"]
    ] == [
        ("public.invoices", "NO ACTION", 1, "refused while rows refer to it", 0),
        ("public.orders", "CASCADE", 1, "rows are deleted too", 1000),
        ("public.visits", "SET NULL", 1, "columns are set to NULL", 0),
        ("public.lines", "CASCADE", 2, "rows are deleted too", 0),
    ]


async def test_foreign_keys_behind_other_changes(world: World) -> None:
    def told(impact: dict[str, Any]) -> list[tuple[str, str]]:
        return [(e["table"].removeprefix("public."), e["effect"]) for e in impact["cascades"]["foreign_keys"]]

    update = await world.impact("UPDATE customers SET id = id + 1")
    assert ("orders", "rows are updated too") in told(update)
    assert ("visits", "refused while rows refer to it") in told(update)
    truncate = await world.impact("TRUNCATE customers CASCADE")
    assert [table for table, _ in told(truncate)] == ["invoices", "orders", "visits", "lines"]
    assert {effect for _, effect in told(truncate)} == {"every row is removed too"}
    assert told(await world.impact("TRUNCATE orders")) == [("lines", "refused: this table refers to it")]
    assert told(await world.impact("TRUNCATE orders, lines")) == [("lines", "is emptied as well")]


async def test_what_depends_on_a_dropped_table(world: World) -> None:
    await world.admin.execute(
        "CREATE FUNCTION of_row(customers) RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE FUNCTION bound() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM domains; END"
    )
    found = (await world.impact("DROP TABLE customers CASCADE"))["dependents"]
    assert (found["cascade"], found["refused"], found["cut"]) == (True, False, False)
    others = [f"{each['type']} {each['name']}" for each in found["objects"] if not each["belongs"]]
    assert others == [
        "function public.bound()",
        "function public.of_row(public.customers)",
        "table constraint invoices_customer_fkey on public.invoices",
        "table constraint orders_customer_fkey on public.orders",
        "table constraint visits_customer_fkey on public.visits",
        "view public.domains",
        "view public.emails",
    ]
    refused = (await world.impact("DROP TABLE customers"))["dependents"]
    assert refused["refused"] is True
    alone = (await world.impact("DROP TABLE lines"))["dependents"]
    assert alone["refused"] is False


async def test_what_depends_on_other_objects(world: World) -> None:
    await world.admin.execute(
        "CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('a'); CREATE TABLE app.t (m app.mood);"
        "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW public.v AS SELECT app.f() AS a"
    )
    schema = (await world.impact("DROP SCHEMA app CASCADE"))["dependents"]
    names = {each["name"] for each in schema["objects"]}
    assert {"app.t", "app.f()", "public.v"} <= names
    type_ = (await world.impact("DROP TYPE app.mood CASCADE"))["dependents"]
    assert [each["name"] for each in type_["objects"]] == ["app.t.m"]
    function = (await world.impact("DROP FUNCTION app.f"))["dependents"]
    assert function["refused"] is True and [each["name"] for each in function["objects"]] == ["public.v"]


# Code and settings ----------------------------------------------------------------------------------------------


async def test_functions_are_shown_by_their_bodies(world: World) -> None:
    await world.admin.execute(
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog"
        " AS 'SELECT 1 -- old';"
        f"CREATE FUNCTION long() RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '{'x' * 20_000}'$$"
    )
    sql = "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 2'"
    (old,) = (await world.impact(sql))["functions"]
    assert old == {
        "name": "public.f(integer)",
        "is": "replaced where its arguments are the same",
        "language": "sql",
        "volatility": "VOLATILE",
        "security_definer": True,
        "owner": "postgres",
        "settings": ["search_path=pg_catalog"],
        "body": "SELECT 1 -- old",
    }
    (called,) = (await world.impact("SELECT long(), lower('A')"))["functions"]
    assert (called["name"], called["is"], called["volatility"]) == ("public.long()", "called", "IMMUTABLE")
    assert called["body_cut"] is True and len(called["body"]) == 10_000 and called["body_length"] == 20_009
    (dropped,) = (await world.impact("DROP FUNCTION f(int)"))["functions"]
    assert (dropped["is"], dropped["body"]) == ("dropped", "SELECT 1 -- old")


async def test_settings_are_told_as_they_are(world: World) -> None:
    await world.admin.execute("ALTER ROLE watcher SET work_mem = '8MB'")
    (found,) = (await world.impact("ALTER SYSTEM SET work_mem = '1GB'"))["settings"]
    assert (found["value"], found["unit"]) == ("8192", "kB")
    assert found["stored"] == [{"database": None, "role": "watcher", "setting": "work_mem=8MB"}]
    (found,) = (await world.impact("SET statement_timeout = 0"))["settings"]
    assert found["value"] == "0"  # the server's, not this connection's own
    (found,) = (await world.impact("SET default_transaction_read_only = off"))["settings"]
    assert found["default"] == "off" and "not visible" in found["note"]
    (found,) = (await world.impact("SET my.own = 1"))["settings"]
    assert "no such setting" in found["note"]


# The whole ------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_read_says_why(world: World) -> None:
    for sql, reason in (
        ("SELECT " + "1+" * 2000 + "1", "too large or too deep"),
        ("SELECT '" + "x" * 9000 + "'", "too large or too deep"),
        ("SELEC 1", "not PostgreSQL's grammar"),
        ("SELECT '", "cannot be read"),
    ):
        impact = await world.impact(sql)
        assert reason in impact["unavailable"], sql
        assert impact.keys() == {"gathered_at", "sha256", "unavailable"}


async def test_several_statements_and_the_rest_counted(world: World) -> None:
    impact = await world.impact("; ".join(["DELETE FROM orders", "TRUNCATE lines"] * 4))
    assert impact["statements_cut"] == {"of": 8, "looked_at": 5}
    assert [(each["name"], each["lock"]) for each in impact["relations"]] == [
        ("public.orders", "ROW EXCLUSIVE"),
        ("public.lines", "ACCESS EXCLUSIVE"),
    ]


async def test_nothing_can_be_changed_by_it(reader: World) -> None:
    async with reader.probe._observer.transaction(reader.dsn.database or "") as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            async with connection.transaction():
                await connection.execute("DELETE FROM public.orders")


async def test_a_server_that_is_down_is_said_and_not_asked_again_at_once() -> None:
    dsn = Dsn(port=free_port())
    probe = Probe(dsn, "watcher", "secret")
    for _ in range(2):
        impact = await probe.probe(approval("DROP TABLE orders", "shop"))
        assert "the observer cannot connect" in impact["error"]
    await probe.close()


async def test_a_server_that_never_answers_ends_in_time() -> None:
    gone = asyncio.Event()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side has given up
        writer.close()
        await writer.wait_closed()
        gone.set()

    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    probe = Probe(Dsn(port=port, sslmode="disable"), "watcher", "secret", total_s=0.2)
    impact = await probe.probe(approval("DROP TABLE orders", "shop"))
    assert impact["error"] == "the rest was not gathered within 0.2 s"
    await probe.close()
    silent.close()
    async with asyncio.timeout(10):
        await gone.wait()


async def test_a_login_that_is_refused_is_said(world: World) -> None:
    probe = Probe(world.dsn, "watcher", "wrong")
    impact = await probe.probe(approval("DROP TABLE orders", world.dsn.database or ""))
    assert "password authentication failed" in impact["error"]
    await probe.close()
