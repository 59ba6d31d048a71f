"""The table of lock modes against the server itself: each statement is run, and pg_locks asked what it took."""

from __future__ import annotations

import asyncpg
import psycopg
import pytest

from pgproxy.impact import aims, locks
from tests import debian

SCHEMA = """
CREATE TABLE a (id int PRIMARY KEY, x int, t text);
CREATE TABLE b (id int PRIMARY KEY, a int);
CREATE TABLE p (id int) PARTITION BY LIST (id);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE free (id int);
CREATE TABLE child () INHERITS (b);
CREATE TABLE orphan (id int NOT NULL, a int, CONSTRAINT checked CHECK (a > 0));
CREATE INDEX a_x ON a (x);
CREATE VIEW v AS SELECT x FROM a;
CREATE MATERIALIZED VIEW m AS SELECT x FROM a;
CREATE SEQUENCE s;
CREATE SCHEMA other;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f();
CREATE POLICY pol ON a USING (true);
CREATE TABLE ruled (id int);
CREATE RULE ru AS ON DELETE TO ruled DO ALSO SELECT 1;
ALTER TABLE b ADD CONSTRAINT checked CHECK (a > 0) NOT VALID;
CREATE ROLE lock_role;
"""
# What a transaction block refuses (VACUUM, CONCURRENTLY) is tested by the manual's words below.
STATEMENTS = """
SELECT * FROM a
SELECT * FROM a, b FOR UPDATE
SELECT * FROM a, b AS z FOR SHARE OF z
SELECT * FROM a WHERE x IN (SELECT a FROM b)
INSERT INTO a SELECT id, a FROM b
UPDATE a SET x = 1 FROM b WHERE a.id = b.id
DELETE FROM a USING b WHERE a.id = b.id
MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE
WITH gone AS (DELETE FROM b RETURNING a) SELECT * FROM a, gone
EXPLAIN ANALYZE DELETE FROM a
COPY a TO STDOUT
COPY (SELECT 1 FROM a) TO STDOUT
CREATE TABLE made AS SELECT * FROM a
SELECT * INTO made FROM a
TRUNCATE a, b
LOCK a IN SHARE ROW EXCLUSIVE MODE
LOCK TABLE a, b
ANALYZE a
CLUSTER a USING a_x
REINDEX TABLE a
REINDEX INDEX a_x
CREATE INDEX made ON a (x)
DROP INDEX a_x
REFRESH MATERIALIZED VIEW m
CREATE STATISTICS made ON id, x FROM a
CREATE TABLE made PARTITION OF p FOR VALUES IN (2)
CREATE TABLE made () INHERITS (a)
CREATE TABLE made (LIKE a)
CREATE TABLE made (id int REFERENCES a)
CREATE OR REPLACE VIEW v AS SELECT x FROM a
CREATE VIEW made AS SELECT x FROM a
ALTER TABLE a RENAME TO made
ALTER TABLE a RENAME x TO made
ALTER TABLE a RENAME CONSTRAINT a_pkey TO made
ALTER INDEX a_x RENAME TO made
ALTER VIEW v RENAME TO made
ALTER TRIGGER tr ON a RENAME TO made
ALTER TABLE a SET SCHEMA other
ALTER SEQUENCE s RESTART
CREATE TRIGGER made BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()
CREATE RULE made AS ON DELETE TO a DO ALSO SELECT 1
CREATE POLICY made ON a USING (true)
ALTER POLICY pol ON a USING (false)
DROP TABLE b CASCADE
DROP VIEW v
DROP MATERIALIZED VIEW m
DROP SEQUENCE s
DROP TRIGGER tr ON a
DROP RULE ru ON ruled
DROP POLICY pol ON a
COMMENT ON TABLE a IS 'x'
COMMENT ON COLUMN a.x IS 'x'
COMMENT ON VIEW v IS 'x'
COMMENT ON INDEX a_x IS 'x'
CREATE PUBLICATION made FOR TABLE a
ALTER TABLE a ADD made int
ALTER TABLE a DROP x CASCADE
ALTER TABLE a ALTER t TYPE varchar
ALTER TABLE a ALTER x SET DEFAULT 1
ALTER TABLE a ALTER x SET NOT NULL
ALTER TABLE a ALTER x SET STATISTICS 10
ALTER TABLE a ALTER x SET (n_distinct = 5)
ALTER TABLE a ALTER t SET STORAGE EXTERNAL
ALTER TABLE a ADD CHECK (x > 0)
ALTER TABLE a ADD UNIQUE (x)
ALTER TABLE b ADD FOREIGN KEY (a) REFERENCES a
ALTER TABLE b VALIDATE CONSTRAINT checked
ALTER TABLE a DROP CONSTRAINT a_pkey
ALTER TABLE a DISABLE TRIGGER tr
ALTER TABLE a ENABLE TRIGGER ALL
ALTER TABLE ruled DISABLE RULE ru
ALTER TABLE a ENABLE ROW LEVEL SECURITY
ALTER TABLE a CLUSTER ON a_x
ALTER TABLE a SET WITHOUT CLUSTER
ALTER TABLE a SET (fillfactor = 70)
ALTER TABLE a SET (autovacuum_enabled = off)
ALTER TABLE a RESET (fillfactor)
ALTER TABLE a SET (user_catalog_table = true)
ALTER TABLE a SET UNLOGGED
ALTER TABLE a OWNER TO lock_role
ALTER TABLE a REPLICA IDENTITY FULL
ALTER TABLE orphan INHERIT b
ALTER TABLE child NO INHERIT b
ALTER TABLE p ATTACH PARTITION free FOR VALUES IN (3)
ALTER TABLE p DETACH PARTITION p1
ALTER TABLE a ADD made int, ADD FOREIGN KEY (made) REFERENCES b, ALTER x SET STATISTICS 9
ALTER VIEW v ALTER x SET DEFAULT 1
ALTER TABLE a ADD made int REFERENCES b
GRANT SELECT ON a TO lock_role
REVOKE SELECT ON a FROM lock_role
""".strip().splitlines()


def expected(sql: str) -> dict[str, int | None]:
    (aim,) = aims.read(sql)
    return {name.name: mode for name, mode in locks.of(aim.kind, aim.tree).items() if name.name not in aim.common}


def strongest(rows: list[tuple[str, str]], names: dict[int, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for oid, mode in rows:
        name = names[int(oid)]
        found[name] = max(found.get(name, 0), locks.BY_LOCK_NAME[mode])
    return found


def differing(sql: str, took: dict[str, int]) -> list[str]:
    """Agree, or say that it is not known."""
    return [
        f"{name}: {locks.mode_name(mode)} expected, {locks.mode_name(took.get(name))} taken"
        for name, mode in expected(sql).items()
        if name != "made" and mode is not None and mode != took.get(name)
    ]


NAMES = "SELECT oid::bigint, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
LOCKS = "SELECT relation::bigint, mode FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid() AND granted"


async def test_every_mode_is_the_one_the_server_takes(store_dsn: str) -> None:
    connection = await asyncpg.connect(store_dsn)
    try:
        await connection.execute("DROP ROLE IF EXISTS lock_role")
        await connection.execute(SCHEMA)
        names = {row[0]: row[1] for row in await connection.fetch(NAMES)}
        wrong = {}
        for sql in STATEMENTS:
            block = connection.transaction()
            await block.start()
            if sql.startswith("COPY"):
                await connection.execute("SELECT FROM a")  # the same, and asyncpg has no COPY in a script
            else:
                await connection.execute(sql)
            took = strongest([(row[0], row[1]) for row in await connection.fetch(LOCKS) if row[0] in names], names)
            await block.rollback()
            if differing(sql, took):
                wrong[sql] = differing(sql, took)
        assert wrong == {}
    finally:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP ROLE lock_role")
        await connection.close()


def test_the_same_on_the_installed_server() -> None:
    with debian.running() as server, server.admin() as connection:
        connection.execute(SCHEMA)
        names = dict(connection.execute(NAMES).fetchall())
        wrong = {}
        for sql in STATEMENTS:
            if sql.startswith("COPY"):
                continue
            connection.execute("BEGIN")
            try:
                connection.execute(sql.encode())
                rows = [(row[0], row[1]) for row in connection.execute(LOCKS).fetchall() if row[0] in names]
                took = strongest(rows, names)
                if differing(sql, took):
                    wrong[sql] = differing(sql, took)
            except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported) as error:
                wrong[sql] = [str(error)]
            finally:
                connection.execute("ROLLBACK")
        assert wrong == {}


@pytest.mark.parametrize(
    ("sql", "mode"),
    [
        ("VACUUM a", "SHARE UPDATE EXCLUSIVE"),
        ("VACUUM FULL a", "ACCESS EXCLUSIVE"),
        ("VACUUM (FULL, VERBOSE) a", "ACCESS EXCLUSIVE"),
        ("VACUUM (FULL off) a", "SHARE UPDATE EXCLUSIVE"),
        ("VACUUM (FULL 0) a", "SHARE UPDATE EXCLUSIVE"),
        ("CREATE INDEX CONCURRENTLY i ON a (x)", "SHARE UPDATE EXCLUSIVE"),
        ("DROP INDEX CONCURRENTLY a", "SHARE UPDATE EXCLUSIVE"),
        ("REINDEX TABLE CONCURRENTLY a", "SHARE UPDATE EXCLUSIVE"),
        ("REINDEX (CONCURRENTLY) TABLE a", "SHARE UPDATE EXCLUSIVE"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY a", "EXCLUSIVE"),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", "SHARE UPDATE EXCLUSIVE"),
        ("COPY a FROM STDIN", "ROW EXCLUSIVE"),
        ("CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 1'", None),
    ],
)
def test_what_no_transaction_block_takes_is_as_the_manual_says(sql: str, mode: str | None) -> None:
    assert locks.mode_name(expected(sql).get("a")) == mode


def test_conflicts_are_symmetric_and_the_manuals() -> None:
    for one, others in locks.CONFLICTS.items():
        assert all(one in locks.CONFLICTS[other] for other in others)
    assert [len(locks.CONFLICTS[mode]) for mode in range(1, 9)] == [1, 2, 4, 5, 5, 6, 7, 8]
