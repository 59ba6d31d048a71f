"""A privileged statement stays privileged however it is dressed; no text makes the classifier raise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import classify
from tests.bypass.corpus import must_not_park, must_park

PRIVILEGED = [sql for classes, _, sql in must_park() if classify(sql).syntax_error is None]
QUERIES = [sql for sql in PRIVILEGED if classify(sql).statements[0].kind == "SelectStmt"]
CHANGES = [
    sql
    for sql in PRIVILEGED
    if [s.kind for s in classify(sql).statements] in (["SelectStmt"], ["DeleteStmt"], ["UpdateStmt"], ["InsertStmt"])
    and not sql.upper().startswith("WITH")
    and " into " not in sql.lower().replace("insert into", "")
    and not sql.rstrip().endswith(("$", "STDOUT"))
]
GAPS = ["", " ", "\n", "\t", "/* x */", "/* ' \" $$ */", "-- '\n", "/* /* */ ; */"]

STATEMENT_FORMS = [
    "EXPLAIN {}",
    "EXPLAIN (ANALYZE, COSTS off) {}",
    "PREPARE p AS {}",
    "PREPARE p AS {}; EXECUTE p",
    "COPY ({}) TO STDOUT",
    "EXPLAIN ANALYZE EXECUTE p; {}",
]
QUERY_FORMS = [
    "WITH x AS ({}) SELECT 1",
    "SELECT ({})",
    "SELECT * FROM ({}) x",
    "SELECT 1 UNION ALL ({})",
    "INSERT INTO t ({})",
    "SELECT 1 WHERE EXISTS ({})",
    "SELECT ARRAY({})",
    "DECLARE c CURSOR FOR {}",
    "CREATE TEMP TABLE t AS {}",
    "SELECT * FROM t, LATERAL ({}) x",
    "SELECT CASE WHEN true THEN ({}) END",
]


def lost(sql: str, dressed: str) -> bool:
    """Whether an effect of a statement went missing under its disguise."""
    found = classify(dressed)
    return not found.privileged or (
        found.syntax_error is None and not set(classify(sql).classes) - {"read"} <= set(found.classes)
    )


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PRIVILEGED), st.sampled_from(GAPS), st.sampled_from(GAPS))
def test_under_comments_and_white_space(sql: str, before: str, after: str) -> None:
    assert not lost(sql, f"{before}{sql}\n{after}")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PRIVILEGED), st.sampled_from(must_not_park()))
def test_beside_an_innocent_statement(sql: str, innocent: tuple[str, str]) -> None:
    other = innocent[1].rstrip().rstrip(";")
    assert not lost(sql, f"{other}\n;{sql}")
    assert not lost(sql, f"{sql}\n;{other}")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PRIVILEGED), st.randoms(use_true_random=False))
def test_under_another_case(sql: str, source: random.Random) -> None:
    if any(sign in sql for sign in "'\"$"):
        return  # constants and quoted names have their case
    assert not lost(sql, "".join(c.upper() if source.random() < 0.5 else c.lower() for c in sql))


@pytest.mark.parametrize("sql", CHANGES)
@pytest.mark.parametrize("form", STATEMENT_FORMS)
def test_wrapped_in_another_statement(sql: str, form: str) -> None:
    assert not lost(sql, form.format(sql))


@pytest.mark.parametrize("sql", QUERIES)
@pytest.mark.parametrize("form", QUERY_FORMS)
def test_wrapped_in_another_query(sql: str, form: str) -> None:
    assert not lost(sql, form.format(sql))


def test_disguises_are_statements_the_grammar_accepts() -> None:
    # else the tests above would prove nothing: a syntax error is privileged too
    dressed = [form.format(sql) for sql in QUERIES for form in QUERY_FORMS]
    dressed += [form.format(sql) for sql in CHANGES for form in STATEMENT_FORMS]
    accepted = sum(classify(sql).syntax_error is None for sql in dressed)
    assert accepted > 0.85 * len(dressed)


@settings(max_examples=400, deadline=None)
@given(st.text())
def test_no_text_raises(text: str) -> None:
    classify(text)


@settings(max_examples=200, deadline=None)
@given(st.binary())
def test_no_bytes_raise(text: bytes) -> None:
    classify(text)


_SALAD = """
select from where t a ( ) , ; * 1 'x' $1 = and or not null as with insert into values update set delete union
all copy to stdout stdin explain analyze prepare execute p drop table create [ ] . :: set role reset show do
$$x$$ call grant on lateral join using over partition by order limit
"""
WORDS = st.sampled_from(_SALAD.split())


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join))
def test_no_word_salad_raises(text: str) -> None:
    found = classify(text)
    assert found.privileged == any(str(a) not in ("read", "write", "import", "transaction") for a in found.classes)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([sql for _, sql in must_not_park()] + PRIVILEGED))
def test_the_same_text_gives_the_same_answer(sql: str) -> None:
    assert classify(sql) == classify(sql)
