"""What somebody's own objects do when a statement sets them off, read from a real server's catalog."""

from __future__ import annotations

import asyncio

import pytest

from classifier.walk import Knowledge
from tests.classifier.planted import judge, knowledge

PLANTED = r"""
CREATE SCHEMA app;
CREATE TABLE t (id int PRIMARY KEY, name text, at timestamptz DEFAULT now());
CREATE TABLE log (id bigserial PRIMARY KEY, what text);
CREATE TYPE app.pair AS (a int, b text);
CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
CREATE TYPE app.mood AS ENUM ('good', 'bad');

-- harmless ones
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2';
CREATE FUNCTION thrice(a int) RETURNS int LANGUAGE sql IMMUTABLE RETURN a * 3;
CREATE FUNCTION atomic(a int) RETURNS int LANGUAGE sql
BEGIN ATOMIC SELECT count(*) FROM t WHERE id = a; SELECT twice(a); END;
CREATE FUNCTION finder(x int) RETURNS SETOF t LANGUAGE plpgsql STABLE AS $$
-- a comment with drop table t;
DECLARE r public.t%ROWTYPE; n int := 0; /* execute 'x' */ p app.pair; q app.positive := 1; m app.mood DEFAULT 'good';
  c CURSOR (k int) FOR SELECT * FROM t WHERE id = k; z varchar(10) = 'a(b'; w t.name%TYPE;
BEGIN
  SELECT * INTO r FROM t WHERE id = x;
  SELECT id, name INTO STRICT n, z FROM t WHERE id = x LIMIT 1;
  IF FOUND THEN RETURN NEXT r; ELSIF n > 3 THEN n := n + 1; END IF;
  FOR r IN SELECT * FROM t ORDER BY id LOOP PERFORM twice(r.id); CONTINUE WHEN r.id = 4; RETURN NEXT r; END LOOP;
  FOR i IN REVERSE 10..1 BY 2 LOOP n := n + i; END LOOP;
  OPEN c(3); FETCH NEXT FROM c INTO r; CLOSE c;
  CASE n WHEN 1, 2 THEN NULL; ELSE RAISE NOTICE 'hm % %', n, upper(z) USING HINT = 'so (it) is'; END CASE;
  p.a := 3;
  BEGIN
    n := 1 / 0;
  EXCEPTION WHEN division_by_zero THEN GET STACKED DIAGNOSTICS z = MESSAGE_TEXT; RAISE;
  END;
  RETURN QUERY SELECT * FROM t WHERE id = ANY (ARRAY[n, 2]) AND name IN ('x', 'y');
  RETURN;
END $$;
CREATE FUNCTION writer(x int, OUT n int) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO log (what) VALUES ('w') RETURNING id INTO n;
  UPDATE t SET name = 'b' WHERE id = x;
  IF NOT FOUND THEN INSERT INTO t (id) VALUES (x) ON CONFLICT (id) DO NOTHING; END IF;
  DELETE FROM log WHERE id < x;
END $$;
CREATE FUNCTION fact(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN RETURN CASE WHEN n < 2 THEN 1 ELSE n * fact(n - 1) END; END $$;
CREATE FUNCTION ping(n int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION pong(n int) RETURNS int LANGUAGE sql AS 'SELECT ping(n)';
CREATE OR REPLACE FUNCTION ping(n int) RETURNS int LANGUAGE sql AS 'SELECT pong(n)';
CREATE FUNCTION table_of(x int) RETURNS TABLE (a int, b text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN RETURN QUERY SELECT t.id, t.name FROM t; END $$;
CREATE FUNCTION diagnosed() RETURNS text LANGUAGE plpgsql AS $$
DECLARE a text; b text; n int; c CURSOR (k int, l int) FOR SELECT * FROM t WHERE id BETWEEN k AND l; r record;
BEGIN
  OPEN c(l := 3 + 1, k := 2); CLOSE c;
  FOR r IN c(k := 1, l := abs(-2)) LOOP n := r.id; END LOOP;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN a;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS a = MESSAGE_TEXT, b = PG_EXCEPTION_DETAIL;
  RETURN b;
END $$;
CREATE FUNCTION in_named() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c CURSOR (k int) FOR SELECT k; BEGIN OPEN c(k := lo_unlink(3)); END $$;
CREATE FUNCTION constant_execute() RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SELECT 1'; END $$;
CREATE FUNCTION secure(a int) RETURNS int LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT a';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION defaulted(a int, b int DEFAULT 2, VARIADIC c int[] DEFAULT '{}') RETURNS int
LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION full_name(t) RETURNS text LANGUAGE sql AS 'SELECT $1.name';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();

-- what must not pass
CREATE FUNCTION dropper() RETURNS void LANGUAGE plpgsql AS $$
BEGIN DROP TABLE IF EXISTS t; END $$;
CREATE FUNCTION deep_dropper(x int) RETURNS int LANGUAGE sql AS 'SELECT dropper(); SELECT 1';
CREATE FUNCTION sql_grant() RETURNS void LANGUAGE sql AS 'GRANT SELECT ON t TO PUBLIC';
CREATE FUNCTION dynamic(x text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'SELECT ' || x; END $$;
CREATE FUNCTION dynamic_loop(x text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record; BEGIN FOR r IN EXECUTE x LOOP NULL; END LOOP; END $$;
CREATE FUNCTION dynamic_query(x text) RETURNS SETOF int LANGUAGE plpgsql AS $$
BEGIN RETURN QUERY EXECUTE x; END $$;
CREATE FUNCTION dynamic_open(x text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE c refcursor; BEGIN OPEN c FOR EXECUTE x; END $$;
CREATE FUNCTION constant_drop() RETURNS void LANGUAGE plpgsql AS $$
BEGIN EXECUTE 'DROP TABLE t'; END $$;
CREATE FUNCTION file_reader(x text) RETURNS text LANGUAGE sql AS 'SELECT pg_read_file(x)';
CREATE FUNCTION in_default() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r t := pg_read_file('x'); BEGIN NULL; END $$;
CREATE FUNCTION in_record_default() RETURNS void LANGUAGE plpgsql AS $$
DECLARE r record := deep_dropper(1); BEGIN NULL; END $$;
CREATE FUNCTION in_cursor() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c CURSOR FOR SELECT lo_unlink(3); BEGIN OPEN c; END $$;
CREATE FUNCTION in_open() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c CURSOR (k int) FOR SELECT k; BEGIN OPEN c(lo_unlink(3)); END $$;
CREATE FUNCTION in_loop() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c CURSOR (k int) FOR SELECT k; BEGIN FOR r IN c(lo_unlink(3)) LOOP NULL; END LOOP; END $$;
CREATE FUNCTION in_else() RETURNS void LANGUAGE plpgsql AS $$
BEGIN IF true THEN NULL; ELSE PERFORM lo_unlink(3); END IF; END $$;
CREATE FUNCTION in_handler() RETURNS void LANGUAGE plpgsql AS $$
BEGIN NULL; EXCEPTION WHEN OTHERS THEN PERFORM lo_unlink(3); END $$;
CREATE FUNCTION in_raise() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE '%', lo_unlink(3); END $$;
CREATE FUNCTION in_using() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION USING MESSAGE = pg_read_file('x'); END $$;
CREATE FUNCTION in_assert() RETURNS void LANGUAGE plpgsql AS $$
BEGIN ASSERT lo_unlink(3) > 0; END $$;
CREATE FUNCTION in_index() RETURNS void LANGUAGE plpgsql AS $$
DECLARE a int[]; BEGIN a[lo_unlink(3)] := 1; END $$;
CREATE FUNCTION in_bounds() RETURNS void LANGUAGE plpgsql AS $$
BEGIN FOR i IN 1..lo_unlink(3) LOOP NULL; END LOOP; END $$;
CREATE FUNCTION in_foreach() RETURNS void LANGUAGE plpgsql AS $$
DECLARE i int; BEGIN FOREACH i IN ARRAY ARRAY[lo_unlink(3)] LOOP NULL; END LOOP; END $$;
CREATE FUNCTION in_case() RETURNS void LANGUAGE plpgsql AS $$
BEGIN CASE lo_unlink(3) WHEN 1 THEN NULL; END CASE; END $$;
CREATE FUNCTION in_exit() RETURNS void LANGUAGE plpgsql AS $$
BEGIN LOOP EXIT WHEN lo_unlink(3) = 1; END LOOP; END $$;
CREATE FUNCTION in_return() RETURNS int LANGUAGE plpgsql AS $$
BEGIN RETURN lo_unlink(3); END $$;
CREATE FUNCTION in_fetch() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c refcursor; r record; BEGIN FETCH RELATIVE lo_unlink(3) FROM c INTO r; END $$;
CREATE FUNCTION bulk() RETURNS void LANGUAGE sql AS 'DELETE FROM t';
CREATE FUNCTION roles() RETURNS void LANGUAGE plpgsql AS $$
BEGIN SET LOCAL ROLE postgres; END $$;
CREATE FUNCTION set_role() RETURNS void LANGUAGE sql SET role = 'postgres' AS 'SELECT 1';
CREATE FUNCTION guard() RETURNS int LANGUAGE sql SET row_security = off AS 'SELECT 1';
CREATE FUNCTION internal_reader(text) RETURNS text LANGUAGE internal AS 'pg_read_file_all';
CREATE FUNCTION bound_reader() RETURNS text LANGUAGE sql RETURN pg_read_file('x');
CREATE SCHEMA "Odd Schema";
CREATE TYPE "Odd Schema".odd AS ENUM ();
CREATE FUNCTION unparsable() RETURNS void LANGUAGE plpgsql AS $$
DECLARE x "Odd Schema"."odd"; BEGIN NULL; END $$;
"""


@pytest.fixture(scope="module")
def known(server_dsn: str) -> Knowledge:
    return asyncio.run(knowledge(server_dsn, PLANTED))


@pytest.mark.parametrize(
    "call",
    [
        *("twice(1)", "public.twice(1)", "thrice(1)", "atomic(1)", "finder(1)", "writer(1)", "fact(3)", "ping(1)"),
        *(
            "table_of(1)",
            "constant_execute()",
            "diagnosed()",
            "secure(1)",
            "total(1)",
            "defaulted(1)",
            "defaulted(1, 2, 3, 4)",
        ),
        *("t.full_name, lower('x'), now()", "id::app.positive", "'good'::app.mood"),
    ],
)
def test_ordinary_functions_pass(known: Knowledge, call: str) -> None:
    found = judge(known, f"SELECT {call} FROM t WHERE id = 1")
    assert not found.privileged, found.reasons


@pytest.mark.parametrize(
    ("call", "class_"),
    [
        ("dropper()", "ddl"),
        ("deep_dropper(1)", "ddl"),
        ("sql_grant()", "grant"),
        *((f"{name}('x')", "code") for name in ("dynamic", "dynamic_loop", "dynamic_query", "dynamic_open")),
        ("constant_drop()", "ddl"),
        ("file_reader('x')", "file"),
        ("in_default()", "file"),
        ("in_record_default()", "ddl"),
        ("in_using()", "file"),
        *(
            (f"in_{place}()", "bulk_write")
            for place in (
                *("cursor", "open", "loop", "else", "handler", "raise", "assert", "index", "bounds", "foreach"),
                *("case", "exit", "return", "fetch", "named"),
            )
        ),
        ("bulk()", "bulk_write"),
        ("roles()", "role"),
        ("set_role()", "role"),
        ("guard()", "session"),
        ("internal_reader('x')", "code"),
        ("bound_reader()", "file"),
        ("unparsable()", "unknown"),
        ("unseen()", "unknown"),
        ("twice(1, 2, 3)", "unknown"),
    ],
)
def test_what_a_body_does_counts(known: Knowledge, call: str, class_: str) -> None:
    found = judge(known, f"SELECT {call}")
    assert found.privileged
    assert class_ in found.classes, found.reasons
    name = call.partition("(")[0]
    assert any(name in reason or "dropper" in reason for reason in found.reasons), found.reasons


def test_writes_of_a_body_are_the_statements(known: Knowledge) -> None:
    found = judge(known, "SELECT writer(1)")
    assert set(found.classes) == {"read", "write"}


def test_security_definer_is_said_and_raises_the_risk(known: Knowledge) -> None:
    found = judge(known, "SELECT secure(1)")
    assert (found.privileged, found.risk) == (False, "medium")
    assert any("runs with the rights of postgres" in reason for reason in found.reasons)


def test_without_a_catalog_and_in_a_changed_one_functions_are_unknown(known: Knowledge) -> None:
    assert "unknown" in judge(known, "SELECT twice(1)", catalog_changed=True).classes
    assert not judge(known, "SELECT lower('X'), 1 + 1 FROM t", catalog_changed=True).privileged
