"""What somebody planted is not taken for PostgreSQL's own; what a write sets off counts."""

from __future__ import annotations

import asyncio

import pytest

from classifier.walk import Knowledge
from tests.classifier.planted import judge, knowledge

PLANTED = r"""
SET check_function_bodies = off;
CREATE SCHEMA app; CREATE SCHEMA evil; CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION vector SCHEMA ext; CREATE EXTENSION tablefunc SCHEMA ext;
CREATE EXTENSION dblink SCHEMA ext; CREATE EXTENSION file_fdw; CREATE EXTENSION postgres_fdw; CREATE EXTENSION pg_trgm;
CREATE FUNCTION evil.drops() RETURNS void LANGUAGE plpgsql AS 'BEGIN DROP TABLE IF EXISTS app.plain; END';
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.drops(); SELECT pg_catalog.now()';
CREATE FUNCTION public.lower(x varchar) RETURNS text LANGUAGE sql AS 'SELECT evil.drops(); SELECT x::text';
CREATE FUNCTION public.upper(x text) RETURNS text LANGUAGE sql AS 'SELECT evil.drops(); SELECT x';
CREATE FUNCTION public.set_config(a int, b int, c bool) RETURNS int LANGUAGE sql AS 'SELECT evil.drops(); SELECT 1';
CREATE FUNCTION evil.bad_eq(a text, b int) RETURNS bool LANGUAGE sql AS 'SELECT evil.drops(); SELECT true';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = int, FUNCTION = evil.bad_eq);
CREATE OPERATOR app.@@@ (RIGHTARG = text, FUNCTION = pg_catalog.pg_read_file);
CREATE FUNCTION app.fine(a int, b int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT a > b';
CREATE OPERATOR app.>>>> (LEFTARG = int, RIGHTARG = int, FUNCTION = app.fine);
CREATE FUNCTION app.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION evil.same(text, text) RETURNS bool LANGUAGE sql AS 'SELECT evil.drops(); SELECT true';
CREATE OPERATOR app.~~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = app.same, COMMUTATOR = OPERATOR(evil.~~~~));
CREATE OPERATOR evil.~~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.same, COMMUTATOR = OPERATOR(app.~~~~));

CREATE TABLE app.plain (id int PRIMARY KEY, name text, at timestamptz DEFAULT now());
CREATE TABLE app.other (id int PRIMARY KEY, plain int REFERENCES app.plain ON DELETE CASCADE);
CREATE FUNCTION evil.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM evil.drops(); RETURN NULL; END';
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON app.plain FOR EACH ROW EXECUTE FUNCTION app.touch();
CREATE TRIGGER deleted AFTER DELETE ON app.other FOR EACH STATEMENT EXECUTE FUNCTION evil.trigger();

CREATE FUNCTION app.is_bad(int) RETURNS bool LANGUAGE sql AS 'SELECT evil.drops(); SELECT true';
CREATE TABLE app.inserted (id int); CREATE TRIGGER t AFTER INSERT ON app.inserted EXECUTE FUNCTION evil.trigger();
CREATE TABLE app.truncated (id int); CREATE TRIGGER t AFTER TRUNCATE ON app.truncated EXECUTE FUNCTION evil.trigger();
CREATE TABLE app.conditional (id int);
CREATE TRIGGER t BEFORE INSERT ON app.conditional FOR EACH ROW WHEN (app.is_bad(NEW.id)) EXECUTE FUNCTION app.touch();
CREATE TABLE app.disabled (id int); CREATE TRIGGER t AFTER INSERT ON app.disabled EXECUTE FUNCTION evil.trigger();
ALTER TABLE app.disabled DISABLE TRIGGER t;
CREATE TABLE app.ruled (id int);
CREATE RULE r AS ON UPDATE TO app.ruled DO ALSO SELECT pg_notify('a', 'b');
CREATE TABLE app.defaulted (id int, x text DEFAULT pg_read_file('/etc/hostname'));
CREATE TABLE app.checked (id int CHECK (app.is_bad(id)));
CREATE FUNCTION app.bad_index(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
AS 'BEGIN PERFORM evil.drops(); RETURN 1; END';
CREATE TABLE app.generated (id int, g int GENERATED ALWAYS AS (app.bad_index(id)) STORED);
CREATE TABLE app.indexed (id int); CREATE INDEX ON app.indexed (app.bad_index(id));
CREATE TABLE app.secured (id int); ALTER TABLE app.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON app.secured USING (app.is_bad(id));
CREATE TABLE app.parted (id int) PARTITION BY LIST (id);
CREATE TABLE app.part1 PARTITION OF app.parted FOR VALUES IN (1);
CREATE TRIGGER t AFTER INSERT ON app.part1 FOR EACH ROW EXECUTE FUNCTION evil.trigger();

CREATE VIEW app.good_view AS SELECT id, upper(name) AS name, now() AS n FROM app.plain WHERE id IN (1, 2);
CREATE VIEW app.deep_view AS SELECT * FROM (SELECT pg_read_file('x') AS f) q;
CREATE VIEW app.deeper_view AS SELECT f FROM app.deep_view;
CREATE VIEW app.op_view AS SELECT OPERATOR(app.@@@) 'x'::text AS f;
CREATE VIEW app.inserted_view AS SELECT * FROM app.inserted;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE app.file_table (x text) SERVER files OPTIONS (filename '/etc/hostname');
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE app.remote_table (x text) SERVER remote;

CREATE DOMAIN app.bad_domain AS int CHECK (app.is_bad(VALUE));
CREATE DOMAIN app.good_domain AS text CHECK (VALUE ~ '^a' AND length(VALUE) > 1);
CREATE TABLE app.with_domain (d app.bad_domain, e app.good_domain);
CREATE TYPE app.coin AS (n int);
CREATE FUNCTION app.to_coin(text) RETURNS app.coin LANGUAGE sql AS 'SELECT evil.drops(); SELECT ROW(1)::app.coin';
CREATE CAST (text AS app.coin) WITH FUNCTION app.to_coin(text);
CREATE FUNCTION app.whole(app.plain) RETURNS text LANGUAGE sql AS 'SELECT evil.drops(); SELECT ''x''';
CREATE FUNCTION app.in_domain() RETURNS void LANGUAGE plpgsql AS 'DECLARE a int; d bad_domain := 1; BEGIN NULL; END';
CREATE FUNCTION app.in_column() RETURNS void LANGUAGE plpgsql
AS 'DECLARE d app.with_domain.d%TYPE := 1; BEGIN NULL; END';
CREATE FUNCTION app.in_row() RETURNS void LANGUAGE plpgsql AS 'DECLARE d with_domain%ROWTYPE; BEGIN d.d := 1; END';
CREATE FUNCTION app.to_plain(text) RETURNS app.plain LANGUAGE sql AS 'SELECT evil.drops(); SELECT NULL::app.plain';
CREATE FUNCTION app.of_other(app.other) RETURNS text LANGUAGE sql AS 'SELECT evil.drops(); SELECT NULL::text';
CREATE CAST (app.other AS text) WITH FUNCTION app.of_other(app.other) AS IMPLICIT;
CREATE CAST (text AS app.conditional) WITH INOUT;
CREATE TABLE app.moved (id int) PARTITION BY LIST (id);
CREATE TABLE app.moved1 PARTITION OF app.moved FOR VALUES IN (1);
CREATE TRIGGER t AFTER DELETE ON app.moved1 FOR EACH ROW EXECUTE FUNCTION evil.trigger();
CREATE MATERIALIZED VIEW app.kept AS SELECT 1 AS one;
"""
APP = ("app", "public", "ext")


@pytest.fixture(scope="module")
def known(server_dsn: str) -> Knowledge:
    return asyncio.run(knowledge(server_dsn, PLANTED))


@pytest.mark.parametrize(
    ("path", "sql"),
    [
        (("public",), "SELECT pg_catalog.now(), now(), pg_catalog.lower('x'), upper('x')"),
        (("public", "evil"), "SELECT now()"),
        (APP, "SELECT 1 = 2, 1 >>>> 2 FROM plain"),
        (APP, "INSERT INTO plain (id) VALUES (1); UPDATE plain SET name = 'x' WHERE id = 1"),
        (APP, "SELECT * FROM good_view"),
        (APP, "INSERT INTO disabled VALUES (1)"),
        (APP, "UPDATE inserted SET id = 2 WHERE id = 1; DELETE FROM inserted WHERE id = 1"),
        (APP, "SELECT * FROM inserted_view, ruled, defaulted, checked, indexed, generated"),
        (APP, "INSERT INTO ruled VALUES (1)"),
        (APP, "SELECT * FROM remote_table, kept"),
        (APP, "SELECT 'abc'::good_domain, 'x'::text, '{}'::int[], NULL::plain"),
        (APP, "SELECT 'a=>1'::hstore -> 'a', '[1,2]'::vector <-> '[1,3]'::vector, similarity('a', 'b'), 'a' % 'b'"),
        (APP, "SELECT normal_rand(1, 2, 3), hstore('a', 'b'), each(hstore('a', 'b'))"),
        (APP, "WITH deep_view AS (SELECT 1) SELECT * FROM deep_view"),
        ((), "SELECT 1 BETWEEN 0 AND 2, CASE 1 WHEN 2 THEN 3 END"),
        (APP, "SELECT p.id, p.name, p.at FROM plain p"),
        (None, "SELECT a, b + 1, count(*) FROM app.plain GROUP BY 1, 2"),
    ],
)
def test_ordinary_statements_pass(known: Knowledge, path: tuple[str, ...] | None, sql: str) -> None:
    found = judge(known, sql, path)
    assert not found.privileged, found.reasons


@pytest.mark.parametrize(
    ("path", "sql", "class_"),
    [
        (("public",), "SELECT evil.now()", "ddl"),
        (("evil", "pg_catalog"), "SELECT now()", "ddl"),
        (None, "SELECT now()", "ddl"),
        (("$user", "public"), "SELECT drops()", "ddl"),
        (("public",), "SELECT lower(name) FROM app.plain", "ddl"),
        (("public", "pg_catalog"), "SELECT upper('x')", "ddl"),
        (("public",), "SELECT set_config(1, 2, true)", "ddl"),
        (("evil",), "SELECT name = 1 FROM app.plain", "ddl"),
        (("evil",), "SELECT name IN (1) FROM app.plain", "ddl"),
        (("evil",), "SELECT CASE name WHEN 1 THEN 2 END FROM app.plain", "ddl"),
        (("evil",), "SELECT 1 FROM app.plain JOIN app.ruled USING (id)", "ddl"),
        (("evil",), "SELECT 1 FROM app.plain NATURAL JOIN app.ruled", "ddl"),
        (("evil",), "SELECT name IN (SELECT id FROM app.ruled) FROM app.plain", "ddl"),
        (("evil",), "SELECT nullif(name, 1), name IS DISTINCT FROM 1 FROM app.plain", "ddl"),
        (APP, "SELECT @@@ 'x'", "file"),
        ((), "SELECT OPERATOR(app.@@@) 'x'", "file"),
        (APP, "SELECT 'a' ~~~~ 'b'", "ddl"),
        ((), "SELECT 1 OPERATOR(nowhere.+) 2", "unknown"),
        (APP, "DELETE FROM plain WHERE id = 1", "ddl"),
        (APP, "DELETE FROM other WHERE id = 1", "ddl"),
        (APP, "INSERT INTO inserted VALUES (1)", "ddl"),
        (APP, "INSERT INTO inserted_view VALUES (1)", "ddl"),
        (APP, "COPY inserted FROM STDIN", "ddl"),
        (APP, "MERGE INTO inserted i USING plain p ON p.id = i.id WHEN NOT MATCHED THEN INSERT VALUES (1)", "ddl"),
        (APP, "WITH x AS (INSERT INTO inserted VALUES (1) RETURNING id) SELECT * FROM x", "ddl"),
        (APP, "PREPARE p AS INSERT INTO inserted VALUES ($1)", "ddl"),
        (APP, "EXPLAIN ANALYZE INSERT INTO inserted VALUES (1)", "ddl"),
        (APP, "TRUNCATE truncated", "ddl"),
        (APP, "INSERT INTO conditional VALUES (1)", "ddl"),
        (APP, "UPDATE ruled SET id = 1 WHERE id = 2", "export"),
        (APP, "INSERT INTO defaulted (id) VALUES (1)", "file"),
        (APP, "INSERT INTO checked VALUES (1)", "ddl"),
        (APP, "UPDATE generated SET id = 1 WHERE id = 2", "ddl"),
        (APP, "INSERT INTO indexed VALUES (1)", "ddl"),
        (APP, "ANALYZE indexed", "ddl"),
        (APP, "SELECT * FROM secured", "ddl"),
        (APP, "DELETE FROM secured WHERE id = 1", "ddl"),
        (APP, "INSERT INTO parted VALUES (1)", "ddl"),
        (APP, "SELECT * FROM deep_view", "file"),
        ((), "SELECT * FROM app.deeper_view", "file"),
        (APP, "TABLE op_view", "file"),
        (APP, "SELECT * FROM file_table", "file"),
        (APP, "SELECT 1::bad_domain", "ddl"),
        (APP, "INSERT INTO with_domain (d) VALUES (1)", "ddl"),
        (APP, "SELECT name::coin FROM plain", "ddl"),
        (APP, "SELECT coin(name) FROM plain", "ddl"),
        (APP, "SELECT p.whole FROM plain p", "ddl"),
        (APP, "SELECT (p).whole FROM plain p", "ddl"),
        *((APP, f"SELECT in_{where}()", "ddl") for where in ("domain", "column", "row")),
        (APP, "SELECT o || 'x' FROM other o", "ddl"),
        (APP, "UPDATE moved SET id = 2 WHERE id = 1", "ddl"),
        (APP, "SELECT * FROM crosstab('drop table x')", "unknown"),
        (APP, "SELECT dblink_exec('a', 'b')", "code"),
    ],
)
def test_what_was_planted_counts(known: Knowledge, path: tuple[str, ...] | None, sql: str, class_: str) -> None:
    found = judge(known, sql, path)
    assert found.privileged
    assert class_ in found.classes, (found.classes, found.reasons)
    assert not any("failed" in reason or "not at hand" in reason for reason in found.reasons)


def test_the_role_is_whose_schema_the_path_means(known: Knowledge) -> None:
    assert "ddl" in judge(known, "SELECT drops()", ("$user",), role="evil").classes
    assert judge(known, "SELECT drops()", ("$user",), role="app").classes == ("read", "unknown")


def test_reasons_name_the_way(known: Knowledge) -> None:
    reasons = judge(known, "DELETE FROM app.plain WHERE id = 1").reasons
    assert reasons == (
        "function evil.drops does more than read: app.plain: drops a table"
        " (reached through table app.plain, table app.other, function evil.trigger)",
    )


def test_a_version_without_its_catalog_is_unknown() -> None:
    from classifier import Environment, classify

    assert classify("SELECT 1", Environment(catalog_version=3)).classes == ("unknown",)
