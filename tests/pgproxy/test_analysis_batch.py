"""`classify --jsonl`: every line answered, in order, whatever the others do."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier import classify
from pgproxy.analysis import batch
from pgproxy.analysis.batch import answer_line, classify_chunks, classify_lines, lines_of


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


def test_a_failing_classifier_fails_one_line_and_quotes_nothing() -> None:
    def fails(text: str) -> dict[str, Any]:
        raise MemoryError(text)

    assert answer_line('{"sql": "SELECT secret"}', fails) == {"error": "the classifier failed: MemoryError"}


def test_lines_are_answered_before_more_come() -> None:
    """A program that waits for an answer before it writes its next line must get it."""
    reading, writing = os.pipe()
    try:
        answers = classify_chunks(lines_of(reading), 1)
        os.write(writing, b'{"sql": "select 1"}\n{"sql": "drop ta')
        assert next(answers)["privileged"] is False
        os.write(writing, b'ble t"}\nx')
        assert next(answers)["privileged"] is True
        os.close(writing)
        writing = -1
        assert list(answers) == [{"error": "the line is not JSON"}]
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
