"""What is taken from sqlglot, and what is not asked of it."""

from __future__ import annotations

import pytest

from classifier import Environment, classify, knowledge_of, meaning
from classifier.catalog import CatalogSnapshot, Relation


def test_relations_without_the_names_of_ctes() -> None:
    found = meaning.read("WITH x AS (SELECT 1 FROM a) SELECT * FROM x, b.c")
    assert found is not None
    assert set(found.relations) == {"a", "b.c"}


@pytest.mark.parametrize(
    ("sql", "defines", "changes"),
    [
        ("SELECT 1", False, False),
        ("DROP TABLE a", True, False),
        ("SELECT * INTO a FROM b", True, False),
        ("DELETE FROM a WHERE b = 1", False, True),
        ("WITH x AS (INSERT INTO a VALUES (1) RETURNING b) SELECT * FROM x", False, True),
    ],
)
def test_effects_anywhere(sql: str, defines: bool, changes: bool) -> None:
    found = meaning.read(sql)
    assert found is not None
    assert (found.defines, found.changes) == (defines, changes)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "a[1]" * (meaning.MAX_BRACKETS + 1),
        "SELECT '" + "x" * meaning.MAX_BYTES + "'",
        "VACUUM FULL a",
        "SELECT FROM FROM WHERE",
    ],
)
def test_what_it_cannot_or_should_not_read(sql: str) -> None:
    assert meaning.read(sql) is None


@pytest.mark.parametrize(
    ("sql", "reads", "writes"),
    [
        ("SELECT a.x, z.* FROM t a JOIN s.z z ON a.id = z.id", "t.x s.z.* t.id s.z.id", ""),
        ("SELECT * FROM t WHERE id IN (SELECT q FROM u WHERE u.r = t.b)", "t.* t.id t.b u.q u.r", ""),
        ("WITH c AS (SELECT a, b FROM t) SELECT c.a FROM c JOIN v ON true", "t.a t.b", ""),
        ("SELECT x FROM a, b", "x", ""),
        ("SELECT x FROM (SELECT y AS x FROM t) q", "t.y", ""),
        ("SELECT count(*) FROM t", "", ""),
        ("INSERT INTO t (a, b) SELECT c, d FROM u", "u.c u.d", "t.a t.b"),
        ("INSERT INTO t VALUES (1)", "", "t.*"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 2", "t.a", "t.a t.b"),
        ("UPDATE t SET a = 1, b = u.c FROM u WHERE t.id = u.id AND t.x = 3", "u.c t.id u.id t.x", "t.a t.b"),
        ("DELETE FROM t WHERE b = 1 RETURNING t.z", "t.b t.z", "t.*"),
        ("MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET a = u.b", "t.id u.id u.b", "t.a"),
    ],
)
def test_columns_without_a_catalog(sql: str, reads: str, writes: str) -> None:
    (statement,) = classify(sql).statements
    assert set(statement.columns_read) == set(reads.split())
    assert set(statement.columns_written) == set(writes.split())


def test_columns_with_a_catalog() -> None:
    def table(oid: int, name: str, *columns: str) -> Relation:
        return Relation(oid, "app", name, "r", 0, tuple((c, 25) for c in columns), "", (), (), (), (), (), None)

    snapshot = CatalogSnapshot("shop", relations=(table(1, "a", "id", "x"), table(2, "b", "id", "y")))
    environment = Environment(search_path=("app",), catalog_version=1)
    found = classify(
        "SELECT * FROM a; SELECT y FROM a, app.b; SELECT z FROM a, b; INSERT INTO b VALUES (1)",
        environment,
        knowledge_of(snapshot),
    )
    assert [s.columns_read for s in found.statements] == [("a.id", "a.x"), ("app.b.y",), ("z",), ()]
    assert found.statements[3].columns_written == ("b.id", "b.y")
    assert found.to_dict()["statements"][0]["columns_read"] == ["a.id", "a.x"]


def test_a_parameter_is_no_dollar_quote() -> None:
    """`$1 ORDER BY ''''` was one to sqlglot, so a constant decided whether it read the statement."""
    found = meaning.read("SELECT a FROM t WHERE b = 1 AND c = $1 ORDER BY ''''")
    assert found is not None and found.relations == ("t",)
    assert meaning.read('SELECT "$1" FROM t') == meaning.read('SELECT "$1" FROM t WHERE $2')
