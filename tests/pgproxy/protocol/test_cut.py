"""Runs of rows are cut where a message begins, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.protocol.body import message
from pgproxy.protocol.cut import cut
from pgproxy.protocol.framing import BACKEND_PASS_THROUGH, BACKEND_TYPES, Framer

ROWS = [b"D\0\0\0\x06ab", b"D\0\0\0\x04", b"D\0\0\0\x09abcde"]
RUN = b"".join(ROWS)


@pytest.mark.parametrize(
    ("skip", "rows", "size", "expected"),
    [
        (0, 9, 999, (22, 3, 0)),
        (0, 2, 999, (12, 2, 0)),
        (0, 0, 999, (0, 0, 0)),
        (0, 9, 12, (12, 2, 0)),
        (0, 9, 11, (7, 1, 0)),
        (0, 9, 6, (0, 0, 0)),
        (7, 1, 999, (12, 1, 0)),
        (7, 9, 0, (7, 0, 0)),
        (30, 0, 0, (22, 0, 8)),  # all of it belongs to a message that began earlier
    ],
)
def test_cut(skip: int, rows: int, size: int, expected: tuple[int, int, int]) -> None:
    assert cut(RUN, skip, rows, size) == expected


def test_the_last_message_may_still_be_arriving() -> None:
    assert cut(RUN[:-3], 0, 3, 22) == (19, 3, 3)
    assert cut(RUN[:-3], 0, 3, 21) == (12, 2, 0)  # its size counts before it is here


@given(
    st.lists(st.binary(max_size=40), max_size=20),
    st.integers(0, 25),
    st.integers(0, 500),
    st.integers(1, 60),
)
def test_whatever_the_chunks_the_same_rows_pass(values: list[bytes], rows: int, size: int, chunk: int) -> None:
    messages = [message(ord("D"), value) for value in values]
    wire = b"".join(messages)
    passing, left = b"", size
    for one in messages[:rows]:
        if len(one) > left:
            break
        passing, left = passing + one, left - len(one)
    framer = Framer(BACKEND_PASS_THROUGH, 1 << 20, BACKEND_TYPES)
    passed, count, owed = b"", 0, 0
    for start in range(0, len(wire), chunk):
        for _, data, _ in framer.feed(wire[start : start + chunk]):
            end, more, owed_now = cut(data, owed, rows - count, size - len(passed) - owed)
            passed, count = passed + data[:end], count + more
            if end < len(data):
                assert passed == passing
                return
            owed = owed_now
        assert owed == framer.run_left
    assert passed == passing == wire
