"""Every field survives the way between worker and analyser."""

from __future__ import annotations

import logging

import pytest

import pgproxy.analysis
from classifier import Environment, classify
from pgproxy.analysis.codec import decode_answer, decode_question, encode_answer, encode_question
from pgproxy.analysis.deep import run_deep
from tests.bypass.corpus import must_not_park, must_park


def test_answers() -> None:
    for sql in [s for _, _, s in must_park()] + [s for _, s in must_not_park()]:
        answer = classify(sql)
        assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "environment",
    [
        Environment(),
        Environment("d", 140005, False, None),
        Environment(search_path=()),
        Environment(search_path=("a",)),
    ],
)
def test_questions(environment: Environment) -> None:
    for text in ("", "select 'é\0\ud800'", "x" * 10_000):
        assert decode_question(encode_question(text, environment)) == (text, environment)


def test_sqlglot_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    pgproxy.analysis.silence_sqlglot()
    logging.getLogger("sqlglot").warning("create user x password 'hunter2'")
    assert caplog.text == ""


def test_deep_stack_takes_deep_trees_and_hands_on_what_is_raised() -> None:
    answer = run_deep(lambda: classify("select " + "+".join(["1"] * 10_000)))
    assert answer.classes == ("read",)
    with pytest.raises(KeyError):
        run_deep(lambda: {}["x"])
