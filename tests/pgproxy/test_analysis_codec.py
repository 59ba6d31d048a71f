"""Every field survives the way between worker and analyser."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from io import BytesIO

import pytest

import pgproxy.analysis
from classifier import Environment, classify
from pgproxy.analysis.codec import (
    HEADER,
    ITEMS,
    PIECE,
    Answer,
    decode_answer,
    decode_question,
    encode_answer,
    encode_question,
    frame,
)
from pgproxy.analysis.deep import run_deep
from pgproxy.analysis.process import read_frames
from tests.bypass.corpus import must_not_park, must_park


def test_answers() -> None:
    for sql in [s for _, _, s in must_park()] + [s for _, s in must_not_park()]:
        answer = classify(sql)
        for kept in (None, (), ((3, b"\xc3'"),)):
            assert decode_answer(encode_answer(answer, kept)) == (answer, kept)


def parts(sql: str) -> list[bytes]:
    """The parts of its answer behind the first."""
    rest, found = encode_answer(classify(sql), None), []
    while rest:
        (length,) = HEADER.unpack_from(rest)
        found.append(rest[HEADER.size : HEADER.size + length])
        rest = rest[HEADER.size + length :]
    return found[1:]


LONG = {
    "statements": "select 1;" * (3 * ITEMS),
    "relations": "select 1 from " + ",".join(f"t{n}" for n in range(3 * ITEMS)),
    "actions": "drop table " + ",".join(f"t{n}" for n in range(3 * ITEMS)),
    "prepared": "prepare p as delete from t using " + ",".join(f"t{n}" for n in range(3 * ITEMS)) + "; select 2",
}


@pytest.mark.parametrize("sql", LONG.values(), ids=LONG)
def test_long_answers_are_read_in_parts(sql: str) -> None:
    """Whatever is long in them: between two parts it is the others' turn."""
    answer = classify(sql)
    reader = Answer(encode_answer(answer, None))
    turns = 1
    while not reader.read():
        turns += 1
    assert turns == len(parts(sql)) >= 3
    assert all(part.count(b",") < 12 * ITEMS for part in parts(sql))
    assert reader.result() == (answer, None)
    for cut in (1, 2000):
        with pytest.raises(ValueError, match="cut short"):
            decode_answer(encode_answer(answer, None)[:-cut])


def test_steps_that_no_answer_holds_are_refused() -> None:
    whole = encode_answer(classify("prepare p as select 1"), None)
    end = frame(b'[["prepared"]]')
    for more in (end, frame(b'[["begin", {}, 1]]'), frame(b'[["prepares", []]]')):
        with pytest.raises(ValueError):
            decode_answer(whole + more)


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
