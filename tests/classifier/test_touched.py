"""What a statement can touch: no relation, and no column, that could be reached may be missing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier import Environment, Statement, classify
from classifier.touched import qualified, split
from classifier.walk import Knowledge
from tests.classifier.planted import judge, knowledge


def one(sql: str) -> Statement:
    return classify(sql).statements[-1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM customers",
        "TABLE customers",
        "SELECT c FROM customers c",
        "SELECT (c).* FROM customers c",
        "SELECT to_jsonb(c) FROM customers AS c",
        "SELECT c.to_jsonb FROM customers c",
        "SELECT (c).row_to_json FROM customers c",
        "SELECT j.* FROM (customers JOIN orders ON true) j",
        "SELECT j FROM (orders CROSS JOIN customers) AS j",
        "SELECT a FROM customers AS c(a, b)",
        "SELECT 1 FROM customers NATURAL JOIN orders",
        "SELECT s FROM (SELECT * FROM customers) s",
        "WITH c AS (SELECT * FROM customers) SELECT id FROM c",
        "SELECT (SELECT c FROM customers c LIMIT 1)",
        "SELECT * FROM orders, customers TABLESAMPLE SYSTEM (1)",
        "INSERT INTO customers VALUES (1)",
        "INSERT INTO customers (id) VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO log (id) SELECT c.* FROM customers c",
        "UPDATE customers SET id = 1 WHERE id = 2 RETURNING *",
        "DELETE FROM customers WHERE id = 1",
        "COPY customers TO STDOUT",
        "COPY customers (id) TO STDOUT",
        "DECLARE c CURSOR FOR SELECT * FROM customers",
        "PREPARE p AS SELECT * FROM customers",
        "LOCK customers",
    ],
)
def test_whole_rows_count_however_they_are_meant(sql: str) -> None:
    assert {"customers", "*"} & set(one(sql).whole_rows)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM customers",
        "SELECT count(*) FROM customers",
        "SELECT c.id FROM customers c JOIN orders o USING (id)",
        "SELECT o.* FROM customers c JOIN orders o ON o.customer = c.id",
        "SELECT * FROM (SELECT id FROM customers) s",
        "WITH c AS (SELECT id FROM customers) SELECT * FROM c",
        "SELECT EXISTS (SELECT 1 FROM customers WHERE id = 1)",
        "UPDATE customers SET id = 1 WHERE id = 2 RETURNING id",
        "INSERT INTO customers (id) VALUES (1)",
        "COPY (SELECT id FROM customers) TO STDOUT",
    ],
)
def test_named_columns_are_no_whole_rows(sql: str) -> None:
    found = one(sql)
    assert found.relations_known and "customers" in found.relations
    assert not {"customers", "*"} & set(found.whole_rows)
    assert "email" not in found.column_names


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT email FROM customers",
        "SELECT id FROM customers WHERE email = 'x'",
        "SELECT id FROM customers ORDER BY customers.email",
        "SELECT id FROM customers JOIN orders USING (email)",
        "SELECT (c).email FROM customers c",
        "UPDATE customers SET email = 'x' WHERE id = 1",
        "INSERT INTO customers (email) VALUES ('x')",
        "SELECT 1 FROM customers GROUP BY email",
        "SELECT sum(1) OVER (PARTITION BY email) FROM customers",
        "PREPARE p AS SELECT email FROM customers",
    ],
)
def test_a_column_counts_wherever_its_name_stands(sql: str) -> None:
    assert "email" in one(sql).column_names


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$BEGIN PERFORM 1; END$$",
        "CALL p()",
        "SELECT query_to_xml('SELECT * FROM customers', true, true, '')",
        "SELECT unknown_function()",
        "SELECT lo_get(1)",
        "DROP SCHEMA billing CASCADE",
        "DROP TABLE a CASCADE",
        "TRUNCATE a CASCADE",
        "VACUUM",
        "REINDEX DATABASE shop",
        "GRANT SELECT ON ALL TABLES IN SCHEMA billing TO bot",
        "ALTER SCHEMA billing RENAME TO b",
        "DROP OWNED BY bot",
        "COMMENT ON TABLE customers IS 'x'",
        "this is no SQL",
    ],
)
def test_what_does_not_name_its_relations_is_not_known(sql: str) -> None:
    found = one(sql)
    assert (found.relations_known, found.reaches) == (False, None)


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "BEGIN", "SHOW all", "FETCH 3 FROM c", "EXECUTE p", "SET work_mem = '1MB'", "DROP TABLE a, b.c"]
)
def test_what_names_its_relations_is_known(sql: str) -> None:
    found = one(sql)
    assert found.relations_known
    assert found.reaches is None  # there is no catalog


def test_a_dot_in_a_name_is_no_schema() -> None:
    assert one('SELECT 1 FROM "public.scratch"').relations == ('"public.scratch"',)
    assert one('SELECT 1 FROM "a.b".c, "d""e"').relations == ('"a.b".c', '"d""e"')
    assert one('DROP TABLE "public.scratch"').relations == ('"public.scratch"',)


names = st.text(st.sampled_from('ab."'), min_size=1, max_size=6)


@given(st.none() | names, names)
def test_splitting_undoes_joining(schema: str | None, name: str) -> None:
    assert split(qualified(schema, name)) == (schema, name)


def test_where_names_are_looked_for() -> None:
    def path(sql: str, **environment: Any) -> tuple[str, ...] | None:
        return classify(sql, Environment(**environment)).statements[-1].search_path

    assert path("SELECT 1 FROM a") == ("pg_catalog", "public")
    assert path("SELECT 1 FROM a", search_path=("$user", "public"), role="bob") == ("bob", "public")
    assert path("SELECT 1 FROM a", search_path=("$user", "public")) is None
    assert path("SELECT 1 FROM a", search_path=None) is None
    for before in ("SET search_path = x", "SET ROLE x", "RESET ALL", "DO 'BEGIN END'", "SELECT set_config(a, b, true)"):
        assert path(f"{before}; SELECT 1 FROM a") is None


PLANTED = """
CREATE SCHEMA billing; CREATE SCHEMA own;
CREATE TABLE public.customers (id int PRIMARY KEY, email text);
CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES public.customers ON DELETE CASCADE);
CREATE TABLE billing.invoices (id int);
CREATE VIEW public.mails AS SELECT id AS n, email AS m FROM public.customers;
CREATE VIEW own.deep AS SELECT m FROM public.mails;
CREATE FUNCTION public.total() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM billing.invoices';
CREATE FUNCTION public.f(public.customers) RETURNS text LANGUAGE sql AS 'SELECT $1.email';
CREATE TABLE "public.customers" (id int);
"""


@pytest.fixture(scope="module")
def known(server_dsn: str) -> Knowledge:
    return asyncio.run(knowledge(server_dsn, PLANTED))


@pytest.mark.parametrize(
    ("sql", "reaches"),
    [
        ("SELECT id FROM customers", {"public.customers"}),
        ("SELECT id FROM mails", {"public.mails", "public.customers"}),
        ("SELECT m FROM own.deep", {"own.deep", "public.mails", "public.customers"}),
        ("SELECT total()", {"billing.invoices"}),
        ("DELETE FROM customers WHERE id = 1", {"public.customers", "public.orders"}),
        ("COPY customers TO STDOUT", {"public.customers"}),
        ("DROP TABLE orders", {"public.orders"}),
        ("PREPARE p AS SELECT total() FROM mails", {"public.mails", "public.customers", "billing.invoices"}),
        ('SELECT 1 FROM "public.customers"', {'public."public.customers"'}),
        ("SELECT 1 FROM pg_class", {"pg_catalog.pg_class"}),
        ("SELECT 1 FROM billing.invoices", {"billing.invoices"}),
    ],
)
def test_the_catalog_tells_what_names_reach(known: Knowledge, sql: str, reaches: set[str]) -> None:
    found = judge(known, sql).statements[-1].reaches
    assert found is not None and set(found) == reaches


def test_of_what_stands_behind_a_view_any_column_may_be_meant(known: Knowledge) -> None:
    found = judge(known, "SELECT n FROM mails JOIN customers USING (id)").statements[-1]
    assert set(found.whole_rows) == {"public.customers"}
    assert judge(known, "SELECT id FROM customers").statements[-1].whole_rows == ()


def test_a_function_called_as_a_column_takes_the_row(known: Knowledge) -> None:
    assert judge(known, "SELECT c.f FROM customers c").statements[-1].whole_rows == ("public.customers",)
    assert judge(known, "SELECT c.id FROM customers c").statements[-1].whole_rows == ()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM not_seen_yet",
        "SET search_path = billing; SELECT 1 FROM customers",
        "CREATE TABLE t (); SELECT 1 FROM customers",
        "DO 'BEGIN END'",
    ],
)
def test_what_the_catalog_cannot_tell_stays_unknown(known: Knowledge, sql: str) -> None:
    assert judge(known, sql).statements[-1].reaches is None


def test_a_changed_catalog_tells_nothing(known: Knowledge) -> None:
    environment = replace(Environment(search_path=("public",), catalog_version=1), catalog_changed=True)
    assert classify("SELECT id FROM customers", environment, known).statements[-1].reaches is None
