"""Which conditions restrict."""

from __future__ import annotations

import pytest

from classifier import grammar
from classifier.restriction import is_restricting


def restricts(condition: str) -> bool:
    (parsed,) = grammar.parse(f"delete from t where {condition}".encode())
    return is_restricting(parsed.tree["whereClause"])


@pytest.mark.parametrize(
    "condition",
    [
        "a = 1",
        "a = 1 and true",
        "a = 1 or b = 2",
        "not (a = 1)",
        "a in (1, 2)",
        "a in (select b from u)",
        "exists (select 1 from u where u.a = t.a)",
        "a is null",
        "a between 1 and 2",
        "a like 'x%'",
        "a not like '%'",
        "a ~ 'x'",
        "a = b",
        "t.a = u.a",
        "a = $1",
        "a = any($1)",
        "current of c",
        "(a, b) = (1, 2)",
        "coalesce(a, b) > 0",
        "active",
    ],
)
def test_it_restricts(condition: str) -> None:
    assert restricts(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "true",
        "1 = 1",
        "'a' <> 'b'",
        "$1",
        "$1 = 5",
        "not false",
        "a = a",
        "t.a = t.a",
        "a = 1 or true",
        "a = 1 or 1 = 1",
        "a = 1 or (b = 2 or 2 > 1)",
        "true and 1 = 1",
        "a like '%'",
        "a ilike '%%'",
        "a ~ '.*'",
        "a ~ ''",
        "a ~~ '%'",
        "exists (select 1)",
        "(select true)",
        "now() > '2020-01-01'",
        "random() >= 0",
    ],
)
def test_it_lets_every_row_through(condition: str) -> None:
    assert not restricts(condition)


def test_no_condition_restricts_nothing() -> None:
    assert not is_restricting(None)
