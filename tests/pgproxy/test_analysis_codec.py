"""Every field survives the way between worker and analyser."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from io import BytesIO

import pytest

import pgproxy.analysis
from classifier import Environment, classify
from pgproxy.analysis.codec import (
    PIECE,
    STATEMENTS,
    Answer,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
)
from pgproxy.analysis.deep import run_deep
from pgproxy.analysis.process import read_frames
from tests.bypass.corpus import must_not_park, must_park


def test_answers() -> None:
    for sql in [s for _, _, s in must_park()] + [s for _, s in must_not_park()]:
        answer = classify(sql)
        for kept in (None, (), ((3, b"\xc3'"),)):
            assert decode_answer(encode_answer(answer, kept)) == (answer, kept)


def test_long_answers_are_read_in_parts() -> None:
    answer = classify("select 1;" * (2 * STATEMENTS + 1))
    reader = Answer(encode_answer(answer, None))
    assert [reader.read() for _ in range(3)] == [False, False, True]
    assert reader.result() == (answer, None)
    with pytest.raises(ValueError, match="cut short"):
        decode_answer(encode_answer(answer, None)[:-1])


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
        assert decode_question(joined(encode_question(text, environment))) == (text, environment)


def test_long_questions_are_sent_in_pieces() -> None:
    text = "é" * (2 * PIECE + 1)
    frames = list(encode_question(text, Environment()))
    assert len(frames) == 3
    assert decode_question(joined(frames)) == (text, Environment())


def joined(frames: Iterable[bytes]) -> bytes:
    payload = read_frames(BytesIO(b"".join(frames)))
    assert payload is not None
    return payload


def test_sqlglot_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    pgproxy.analysis.silence_sqlglot()
    logging.getLogger("sqlglot").warning("create user x password 'hunter2'")
    assert caplog.text == ""


def test_deep_stack_takes_deep_trees_and_hands_on_what_is_raised() -> None:
    answer = run_deep(lambda: classify("select " + "+".join(["1"] * 10_000)))
    assert answer.classes == ("read",)
    with pytest.raises(KeyError):
        run_deep(lambda: {}["x"])
