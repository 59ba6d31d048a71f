"""What is taken from sqlglot, and what is not asked of it."""

from __future__ import annotations

import pytest

from classifier import meaning


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
