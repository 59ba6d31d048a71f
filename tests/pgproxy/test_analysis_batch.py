"""`classify --jsonl`: every line answered, in order, whatever the others do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import classify
from pgproxy.analysis import batch
from pgproxy.analysis.batch import classify_lines


def line(sql: str) -> str:
    return json.dumps({"sql": sql})


def test_answers_are_the_classifiers_in_order() -> None:
    texts = [f"select a{n} from t where b = {n}" if n % 3 else f"drop table t{n}" for n in range(500)]
    answers = list(classify_lines(map(line, texts), processes=2))
    assert [a["privileged"] for a in answers] == [t.startswith("drop") for t in texts]
    assert answers[:10] == [classify(text).to_dict() for text in texts[:10]]


def test_a_line_that_fails_is_told_and_the_run_goes_on() -> None:
    lines = [
        "{",
        "[]",
        '{"sql": 1}',
        "{}",
        line("select 1"),
        '{"sql": "\\ud800"}',
        "[" * 100_000,
        line("select 1") + "\n",
    ]
    answers = list(classify_lines(lines, processes=1))
    assert [set(a) == {"error"} for a in answers] == [True, True, True, True, False, False, True, False]
    assert answers[5]["statements"][0]["reasons"] == ["the text is not valid UTF-8"]


def test_a_line_that_is_late_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "TIME_LIMIT_S", 0.4)
    slow = line("select " + ", ".join(f"f{n}(a) + 1" for n in range(40_000)))
    answers = list(classify_lines([line("select 1"), slow, line("drop table t")], processes=1))
    assert [a["privileged"] for a in answers] == [False, True, True]
    assert answers[1]["statements"][0]["reasons"] == ["its analysis took longer than 0.4 s"]
    assert answers[2]["statements"][0]["kind"] == "DropStmt"


@settings(max_examples=5, deadline=None)
@given(st.lists(st.text() | st.text().map(line), max_size=30))
def test_as_many_answers_as_lines(lines: list[str]) -> None:
    answers = list(classify_lines(lines, processes=1))
    assert len(answers) == len(lines)
    assert all(set(a) == {"error"} or "privileged" in a for a in answers)
