"""Patterns of names: PostgreSQL's case, psql's wildcards, and what a name without a schema may mean."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.touched import qualified
from pgproxy.policy.patterns import ColumnPattern, Pattern, PatternError, RelationPattern, split_name


@pytest.mark.parametrize(
    ("pattern", "name", "may", "surely"),
    [
        ("billing.*", "billing.invoices", True, True),
        ("Billing.*", "billing.invoices", True, True),
        ('"Billing".*', "billing.invoices", False, False),
        ('"Billing".*', "Billing.invoices", True, True),
        ("billing.*", "Billing.invoices", False, False),
        ("billing.*", "invoices", True, False),
        ("billing.invoices", "orders", False, False),
        ("customers", "customers", True, True),
        ("customers", "public.customers", True, True),
        ("*.customers", "customers", True, True),
        ("public.customers", "customers", True, False),
        ("public.customers", "shop.customers", False, False),
        ("cust?mers", "customers", True, True),
        ("*", "anything", True, True),
        ('"a.b".c', '"a.b".c', True, True),
        ("a.b", '"a.b"', False, False),
        ("public.scratch", '"public.scratch"', False, False),
        ('"public.scratch"', '"public.scratch"', True, True),
        ('"*".a', '"x".a', False, False),
        ('"*".a', "*.a", True, True),
        ('"a""b"', '"a""b"', True, True),
        ("a[b]", "a[b]", True, True),
        ("a[b]", "ab", False, False),
    ],
)
def test_relations(pattern: str, name: str, may: bool, surely: bool) -> None:
    compiled = RelationPattern(pattern)
    assert (compiled.may_match(name, None), compiled.surely_matches(name, None)) == (may, surely)


@pytest.mark.parametrize("pattern", ["", ".", "a.", ".a", "a..b", '"a', 'a"', "a.b.c"])
def test_what_is_no_relation(pattern: str) -> None:
    with pytest.raises(PatternError):
        RelationPattern(pattern)


def test_columns() -> None:
    column = ColumnPattern("public.customers.E*")
    assert column.relation.surely_matches("public.customers", None)
    assert column.has_column(["id", "email"]) and not column.has_column(["id"])
    with pytest.raises(PatternError, match=r"schema\.relation\.column"):
        ColumnPattern("customers.email")


def test_other_names_keep_their_case() -> None:
    assert Pattern("etl-*").matches("etl-1") and not Pattern("etl-*").matches("ETL-1")
    assert Pattern("a[1]").matches("a[1]") and not Pattern("a").matches("aa")


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.none() | names, names)
def test_a_quoted_pattern_is_the_name_itself(schema: str | None, name: str) -> None:
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in (schema, name) if part is not None)
    written = qualified(schema, name)
    assert split_name(written) == (schema, name)
    assert RelationPattern(quoted).surely_matches(written, None)
    assert not RelationPattern(quoted).may_match(qualified(schema, name + "x"), None)


@pytest.mark.parametrize(
    ("pattern", "path", "may", "surely"),
    [
        ("hr.*", ("public",), False, False),
        ("public.*", ("pg_catalog", "public"), True, True),
        ("public.*", ("app", "public"), True, False),
        ("*.a", ("app", "public"), True, True),
        ("hr.*", (), False, False),
        ("pg_temp.*", ("public",), True, False),
        ("pg_catalog.*", ("public",), True, False),
    ],
)
def test_names_without_a_schema_are_in_the_search_path(
    pattern: str, path: tuple[str, ...], may: bool, surely: bool
) -> None:
    compiled = RelationPattern(pattern)
    assert (compiled.may_match("a", path), compiled.surely_matches("a", path)) == (may, surely)


@given(names, names, st.none() | st.lists(names, max_size=3).map(tuple))
def test_sure_is_no_more_than_perhaps(pattern: str, name: str, path: tuple[str, ...] | None) -> None:
    try:
        compiled = RelationPattern(pattern)
    except PatternError:
        return
    assert compiled.may_match(name, path) or not compiled.surely_matches(name, path)


def test_no_name_makes_the_search_long() -> None:
    before = time.process_time()
    assert not Pattern("*a" * 30 + "b").matches("a" * 5_000)
    assert time.process_time() - before < 5
