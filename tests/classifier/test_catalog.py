"""Snapshots as values, and that having one changes nothing for PostgreSQL's own objects."""

from __future__ import annotations

import asyncio

import pytest

from classifier import Environment, classify, functions, unknown
from classifier.catalog import CatalogSnapshot, changes_catalog, decode, encode, reach, settled_path, split_path
from classifier.walk import Knowledge
from tests.bypass.corpus import must_not_park, must_park
from tests.classifier.planted import judge, knowledge

PATH = ("pg_catalog", "public")


@pytest.fixture(scope="module")
def nothing(server_dsn: str) -> Knowledge:
    """Of an empty database."""
    return asyncio.run(knowledge(server_dsn, "SELECT 1"))


def test_ordinary_statements_still_pass(nothing: Knowledge) -> None:
    stopped = [(sql, found.reasons) for _, sql in must_not_park() if (found := judge(nothing, sql, PATH)).privileged]
    assert stopped == []


def test_evasions_stay_caught(nothing: Knowledge) -> None:
    missed = [
        (story, sql)
        for classes, story, sql in must_park()
        if not judge(nothing, sql, PATH).privileged or not set(classes) <= set(judge(nothing, sql, PATH).classes)
    ]
    assert missed == []


def test_builtins_mean_what_they_mean_without_a_catalog(nothing: Knowledge) -> None:
    changed = []
    for name in sorted(functions._KNOWN):
        sql = f'SELECT "{name}"(a, b) FROM t'
        if classify(sql).privileged != judge(nothing, sql, PATH).privileged:
            changed.append(name)
    assert changed == []


def test_only_snapshots_of_this_format_are_read() -> None:
    empty = CatalogSnapshot("shop")
    assert decode(encode(empty)) == empty
    for bad in (b"[]", b"{}", b"[2,1,[],[],[],[],[]]", b"nonsense", b'[1,"x"]'):
        with pytest.raises(ValueError, match=r".*"):
            decode(bad)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('"$user", public', ("$user", "public")),
        ('""', ()),
        ("", ()),
        ("Public,pg_temp", ("public", "pg_temp")),
        ('"We""ird, name", b', ('We"ird, name', "b")),
        ('"open', None),
    ],
)
def test_a_stored_search_path(value: str, names: tuple[str, ...] | None) -> None:
    assert split_path(value) == names


def test_the_reach_of_a_search_path() -> None:
    assert reach(("a",)) == (frozenset({"a"}), True)
    assert reach(("pg_catalog", "a")).system_first
    assert not reach(("a", "pg_catalog")).system_first
    assert reach(None).has("anything")
    assert not reach(None).system_first
    assert reach(("$user", "a")).has("anything")
    assert settled_path(("$user", "a"), "me") == ("me", "a")
    assert settled_path(("$user", "a"), None) == ("$user", "a")


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("CREATE TABLE a ()", True),
        ("CREATE TEMP TABLE a ()", False),
        ("DROP FUNCTION f", True),
        ("GRANT SELECT ON a TO b", True),
        ("DO 'x'", True),
        ("SELECT 1; UPDATE a SET b = 1 WHERE c = 2", False),
        ("TRUNCATE a", False),
    ],
)
def test_what_may_change_a_catalog(sql: str, changes: bool) -> None:
    assert changes_catalog(classify(sql)) is changes
    assert changes_catalog(unknown("x"))


def test_an_environment_is_hashable_with_its_version() -> None:
    assert hash(Environment(catalog_version=1)) != hash(Environment(catalog_version=2))
