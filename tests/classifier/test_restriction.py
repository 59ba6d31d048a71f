"""Which conditions restrict."""

from __future__ import annotations

import pytest

from classifier import classify, grammar
from classifier.restriction import Reach, Scope, is_restricting, judge, scope_of


def restricts(condition: str, using: str = "") -> bool:
    (parsed,) = grammar.parse(f"delete from t {using} where {condition}".encode())
    scope = scope_of(parsed.tree["relation"], parsed.tree.get("usingClause", ()))
    return is_restricting(parsed.tree["whereClause"], scope)


def reach(condition: str) -> tuple[Reach, bool]:
    (parsed,) = grammar.parse(f"delete from t where {condition}".encode())
    scope = Scope("t", ("", "t"))
    return judge(parsed.tree["whereClause"], scope), scope.constants_matter


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
        "false",
        "not active",
        "a = 1 or false",
        "1 = 0",
        "a < 1 or a > 5",
        "a is null or b is not null",
        "exists (select 1 from u where u.a = t.a)",
        "exists (select 1 from u join v on v.a = t.a)",
        "exists (select from unnest(t.a) x)",
        "exists (select 1 from (select 1 from u where u.a = t.a) x)",
        "not exists (select 1 from u where u.a = t.a)",
        "a in (select a from t where b = 1)",
        "a in (select a from t limit 5)",
        "a = (select max(a) from t)",
        "case when a = 1 then true else false end",
        "a or (b and not a)",
        "a ->> 'x' is not null",
        "a is not null",
        "a similar to 'x%'",
        "(a = 1) is true",
        "(a = 1) is not true",
        "(select count(*) from u where u.a = t.a) > 3",
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
        "not (1 = 2)",
        "a or (b or not a)",
        "a or not a and true",
        "a or not a and $1",
        "a or not (not (not a))",
        "not (a and not a)",
        "a = 1 or (a <> 1 and 1 = 1)",
        "a = 1 or (b = 2 or (a <> 1))",
        "a = 1 or a <> 1",
        "a < 5 or 5 <= a",
        "a is null or a is not null",
        "a or not a",
        "a = t.a",
        "a is not distinct from a",
        "f(a, 1) = f(a, 1)",
        "a in (1, a)",
        "a between a and t.a",
        "a = any (array[a])",
        "a = any (array(select a from t))",
        "a = (select t.a)",
        "a in (select a from t)",
        "a in (select x.a from public.t x where true)",
        "a similar to '%'",
        "a ^@ ''",
        "starts_with(a, '')",
        "ctid is not null",
        "(a = 1) is not null",
        "(a = 1) is not unknown",
        "case when a = 1 then true else 1 = 1 end",
        "exists (select a from t)",
        "exists (select 1 from u where u.a = 5)",
        "exists (select 1 from (select a from u) x)",
        "not exists (select 1 from u)",
        "5 = (select count(*) from u where u.a = 1)",
    ],
)
def test_it_lets_every_row_through(condition: str) -> None:
    assert not restricts(condition)


def test_no_condition_restricts_nothing() -> None:
    assert not is_restricting(None)


@pytest.mark.parametrize(
    ("using", "condition", "expected"),
    [
        ("using u", "u.a = 1", False),
        ("using u", "u.a = 1 and t.b = u.b", True),
        ("using u", "a = 1", True),
        ("using t u", "t.a = u.a", False),
        ("using t u", "t.a < u.a", True),
        ("using t u", "t.a = u.b", True),
        ("using public.t u", "u.a = t.a", False),
        ("using (select 1 as one) s", "one = 1", False),
        ("using (values (1)) s(one)", "one = 1 and s is not null", False),
        ("using u join v on u.a = v.a", "v.b = 1", False),
        ("using u join v on u.a = v.a", "v.b = t.b", True),
    ],
)
def test_a_condition_on_other_tables_restricts_nothing(using: str, condition: str, expected: bool) -> None:
    assert restricts(condition, using) is expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a = 1", (Reach.SOME, False)),
        ("a = 1 or b = 2", (Reach.SOME, False)),
        ("(a, b) = (1, 2)", (Reach.SOME, False)),
        ("a < 1 or a > 5", (Reach.SOME, False)),
        ("a < 1 or a >= 5", (Reach.SOME, True)),
        ("a like 'x'", (Reach.SOME, True)),
        ("a = 1 and b like 'x'", (Reach.SOME, False)),
        ("a >= 1 and a < 5", (Reach.SOME, False)),
        ("1 = 0", (Reach.NONE, True)),
        ("true", (Reach.EVERY, True)),
        ("f(a, 1) = f(a, 2)", (Reach.SOME, True)),
        ("$1", (Reach.SAME, False)),
        ("not $1", (Reach.SAME, False)),
        ("current of c", (Reach.SOME, False)),
    ],
)
def test_it_says_whether_another_constant_could_change_the_answer(condition: str, expected: tuple[Reach, bool]) -> None:
    assert reach(condition) == expected


def test_an_answer_that_hangs_on_a_constant_is_not_constant_free() -> None:
    assert classify("delete from t where a = 1").constant_free
    assert not classify("delete from t where 1 = 0").constant_free
    assert not classify("insert into t select * from t where 1 = 0 on conflict (a) do update set b = 1").constant_free


def test_alternating_and_or_takes_no_exponential_time() -> None:
    condition = "a = 1"
    for n in range(40):
        condition = f"(b = {n} or (c = {n} and {condition}))"
    assert restricts(condition)
    assert not restricts(f"{condition} or not (a = 1 and not a = 1)")
