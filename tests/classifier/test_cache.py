"""What the cache may remember, and for which other text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import Environment, classify, normal
from classifier.cache import MAX_TEXT, ClassificationCache
from tests.bypass.corpus import must_not_park, must_park

HERE = Environment()


def filled(*texts: str, environment: Environment = HERE) -> ClassificationCache:
    cache = ClassificationCache()
    for text in texts:
        cache.store(text, environment, classify(text, environment), normal.learn(text.encode()))
    return cache


def test_exact_text() -> None:
    cache = filled("set role x")
    assert cache.find_exact("set role x", HERE) == classify("set role x")
    assert cache.find_exact("set role  x", HERE) is None


def test_normal_form_answers_for_other_constants() -> None:
    cache = filled("select a from t where b = 'c'")
    found = cache.find_normal("select a from t where b = 'x;y'", HERE)
    assert found is not None
    assert found.classes == ("read",)
    assert cache.find_exact("select a from t where b = 'x;y'", HERE) == found


@pytest.mark.parametrize(
    ("remembered", "asked"),
    [
        ("select set_config('jit', 'x', false)", "select set_config('role', 'x', false)"),
        ("set role a", "set role b"),
        ("delete from t where a like 'x'", "delete from t where a like '%'"),
        ("update t set a = 1 where b ~ 'x'", "update t set a = 1 where b ~ ''"),
        ("do 'a'", "do 'b'"),
        ("copy t from stdin", "copy t from 'x'"),
        ("prepare p as select 1", "prepare p as select 2"),
    ],
)
def test_constants_that_matter_are_never_ignored(remembered: str, asked: str) -> None:
    assert filled(remembered).find_normal(asked, HERE) is None


def test_another_environment_is_another_entry() -> None:
    cache = filled("select now()")
    other = Environment(search_path=("evil", "pg_catalog"))
    assert cache.find_exact("select now()", other) is None
    assert cache.find_normal("select now()", other) is None
    assert cache.find_exact("select now()", Environment()) is not None


def test_no_normal_form_where_backslashes_matter() -> None:
    off = Environment(standard_conforming_strings=False)
    cache = filled("select 'a'", environment=off)
    assert cache.find_exact("select 'a'", off) is not None
    assert cache.find_normal("select '\\'", off) is None


def test_hostile_and_long_texts_are_not_normalised_here() -> None:
    cache = filled("select 1")
    for text in ("select " + "1+" * 20_000 + "1", "select '", "select 1\0", "select '\ud800'", "(" * 5000):
        assert cache.find_normal(text, HERE) is None
    long = f"select '{'x' * MAX_TEXT}'"
    cache.store(long, HERE, classify("select 'x'"))
    assert cache.find_exact(long, HERE) is None


def test_it_stays_within_its_bounds() -> None:
    cache = ClassificationCache(entries=10, characters=400)
    answer = classify("select 1")
    for number in range(100):
        cache.store(f"select a{number} from t", HERE, answer)
    assert len(cache) <= 20
    assert cache.find_exact("select a99 from t", HERE) is not None
    assert cache.find_exact("select a0 from t", HERE) is None
    cache.clear()
    assert len(cache) == 0


def test_the_least_recently_used_goes_first() -> None:
    cache = ClassificationCache(entries=2)
    answer = classify("set work_mem = 1")
    cache.store("a", HERE, answer)
    cache.store("b", HERE, answer)
    assert cache.find_exact("a", HERE) is not None
    cache.store("c", HERE, answer)
    assert cache.find_exact("b", HERE) is None
    assert cache.find_exact("a", HERE) is not None


CORPUS = [sql for _, _, sql in must_park()] + [sql for _, sql in must_not_park()]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(CORPUS), min_size=1, max_size=20), st.sampled_from(CORPUS))
def test_normal_forms_never_change_an_answer(remembered: list[str], asked: str) -> None:
    found = filled(*remembered).find_normal(asked, HERE)
    if found is not None:
        direct = classify(asked)
        assert found.privileged == direct.privileged
        assert found.classes == direct.classes


TEMPLATES = st.sampled_from(
    [
        *("select a from t where b = {} and c = {} order by {}", "select {}, x::varchar({}) from t group by {}, 2"),
        *(
            "insert into t values ({}, {}), ({}, -{})",
            "select a - {}, a -{} from t limit {} -- {}",
            "select {}::int[{}]",
        ),
        *("update t set a = {} where b in ({}, {})", "select interval {} second({}), f({} /* x */, {})"),
        *(
            "delete from t where a like {} or b = {} or c = {}",
            "select n{}, e{} {}",
            "with x as (select {}) select {}{}",
        ),
    ]
)
CONSTANTS = st.sampled_from(
    [
        *("1", "2", "20", "2147483648", "1.5", ".5", "1e3", "0x1F", "1_0", "null", "$1", "-1", "B'1'", "X'f'"),
        *("'a'", "'%'", "'1'", "E'\\''", "$$x$$", "$t$'$t$", "U&'a'", "'a'\n'b'", "'--'", "'\\'"),
    ]
)


def fill(template: str, constants: list[str]) -> str:
    return template.format(*constants[: template.count("{}")])


@settings(max_examples=400, deadline=None)
@given(TEMPLATES, *[st.lists(CONSTANTS, min_size=5, max_size=5)] * 2)
def test_an_answer_found_by_its_form_is_the_answer(template: str, first: list[str], second: list[str]) -> None:
    remembered, asked = fill(template, first), fill(template, second)
    found = filled(remembered).find_normal(asked, HERE)
    if found is not None:
        assert found == classify(asked)


def test_constants_of_the_statement_itself_must_be_the_same() -> None:
    cache = filled("select a::varchar(20) from t where b = 1 order by 1")
    assert cache.find_normal("select a::varchar(20) from t where b = 2 order by 1", HERE) is not None
    assert cache.find_normal("select a::varchar(20) from t where b = 1 order by 2", HERE) is None
    assert cache.find_normal("select a::varchar(30) from t where b = 1 order by 1", HERE) is None


def test_comments_and_types_of_constants() -> None:
    cache = filled("select a from t where b = 'x' /* 1 */")
    assert cache.find_normal("select a from t where b = $$y;$$ /* 2; */", HERE) is not None
    for other in ("B'1'", "1", "1.5", "U&'x'", "N'x'", "null"):
        assert cache.find_normal(f"select a from t where b = {other} /* 1 */", HERE) is None
