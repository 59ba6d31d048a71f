from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgproxy.protocol.framing import (
    BACKEND_PASS_THROUGH,
    BACKEND_TYPES,
    FRONTEND_LARGE,
    FRONTEND_PASS_THROUGH,
    FRONTEND_TYPES,
    HEAD,
    LARGE_MESSAGE_LIMIT,
    Framer,
)
from pgproxy.protocol.violation import ProtocolViolation

Item = tuple[int, bytes, int]
LIMIT = 1000


def make(tag: str, body: bytes = b"") -> bytes:
    return tag.encode() + (len(body) + 4).to_bytes(4, "big") + body


def backend(limit: int = LIMIT) -> Framer:
    return Framer(BACKEND_PASS_THROUGH, limit, BACKEND_TYPES)


def frontend(limit: int = LIMIT) -> Framer:
    return Framer(FRONTEND_PASS_THROUGH, limit, FRONTEND_TYPES)


def merged(items: list[Item], pass_through: bytes) -> list[Item]:
    """Runs of one type joined, whatever pieces they came in."""
    out: list[Item] = []
    for tag, data, count in items:
        if out and tag in pass_through and out[-1][0] == tag:
            out[-1] = (tag, out[-1][1] + data, out[-1][2] + count)
        else:
            out.append((tag, data, count))
    return out


REPLY = [
    make("1"),
    make("2"),
    make("T", b"\0\1column\0" + bytes(18)),
    *[make("D", b"\0\1\0\0\0\3abc")] * 3,
    make("D"),
    make("C", b"SELECT 4\0"),
    make("H", b"\0\0\0"),
    make("d", b"x" * 40),
    make("D", b"\xff" * 20),  # no server does; a framer does not care
    make("d", b""),
    make("c"),
    make("Z", b"I"),
]
STREAM = b"".join(REPLY)
WHOLE = [
    (ord("1"), REPLY[0], 1),
    (ord("2"), REPLY[1], 1),
    (ord("T"), REPLY[2], 1),
    (ord("D"), b"".join(REPLY[3:7]), 4),
    (ord("C"), REPLY[7], 1),
    (ord("H"), REPLY[8], 1),
    (ord("d"), REPLY[9], 1),
    (ord("D"), REPLY[10], 1),
    (ord("d"), REPLY[11], 1),
    (ord("c"), REPLY[12], 1),
    (ord("Z"), REPLY[13], 1),
]


def test_a_whole_stream_comes_as_messages_and_runs() -> None:
    framer = backend()
    assert framer.feed(STREAM) == WHOLE
    assert framer.pending_bytes == 0
    assert not framer.mid_message


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_every_split_point_gives_the_same(at: int) -> None:
    framer = backend()
    first = framer.feed(STREAM[:at])
    assert sum(len(data) for _, data, _ in first) + framer.pending_bytes == at
    second = framer.feed(STREAM[at:])
    assert merged(first + second, BACKEND_PASS_THROUGH) == WHOLE
    assert framer.pending_bytes == 0


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 11, 64])
def test_every_chunk_size_gives_the_same(size: int) -> None:
    framer = backend()
    items: list[Item] = []
    for start in range(0, len(STREAM), size):
        items += framer.feed(STREAM[start : start + size])
    assert merged(items, BACKEND_PASS_THROUGH) == WHOLE


def test_an_incomplete_message_waits_and_nothing_of_it_comes_out() -> None:
    framer = frontend()
    message = make("Q", b"select 1\0")
    assert framer.feed(message[:-1]) == []
    assert framer.pending_bytes == len(message) - 1
    assert not framer.mid_message
    assert framer.feed(b"") == []
    assert framer.feed(message[-1:]) == [(ord("Q"), message, 1)]
    assert framer.pending_bytes == 0


def test_a_run_may_end_inside_a_message() -> None:
    framer = backend()
    row = make("D", b"r" * 50)
    assert framer.feed(row + row[:10]) == [(ord("D"), row + row[:10], 2)]
    assert framer.mid_message
    assert framer.pending_bytes == 0
    assert framer.feed(row[10:30]) == [(ord("D"), row[10:30], 0)]
    assert framer.mid_message
    assert framer.feed(row[30:]) == [(ord("D"), row[30:], 0)]
    assert not framer.mid_message


def test_a_run_goes_on_over_the_end_of_a_split_message() -> None:
    framer = backend()
    row = make("D", b"r" * 50)
    framer.feed(row[:20])
    rest = row[20:] + row + row + make("Z", b"I")
    assert framer.feed(rest) == [(ord("D"), row[20:] + row + row, 2), (ord("Z"), make("Z", b"I"), 1)]


def test_a_run_of_another_type_begins_a_new_item() -> None:
    framer = backend()
    framer.feed(make("D", b"abcdef")[:8])
    rest = make("D", b"abcdef")[8:]
    copied = make("d", b"line\n")
    assert framer.feed(rest + copied) == [(ord("D"), rest, 0), (ord("d"), copied, 1)]


def test_header_bytes_of_a_run_wait_until_the_header_is_complete() -> None:
    framer = backend()
    row = make("D", b"r")
    for length in range(1, 5):
        assert framer.feed(row[length - 1 : length]) == []
        assert framer.pending_bytes == length
    assert framer.feed(row[4:]) == [(ord("D"), row, 1)]


def test_a_value_of_any_size_passes_in_constant_memory() -> None:
    framer = backend(limit=10)
    header = b"D" + (0x3FFFFFFF).to_bytes(4, "big")
    assert framer.feed(header) == [(ord("D"), header, 1)]
    left = 0x3FFFFFFF - 4
    chunk = bytes(1 << 24)
    while left:
        piece = chunk[:left]
        ((_, data, count),) = framer.feed(piece)
        assert data is piece, "a run in one piece is not copied"
        assert count == 0
        left -= len(piece)
    assert not framer.mid_message and framer.pending_bytes == 0


def test_one_message_in_one_chunk_is_not_copied() -> None:
    message = make("Q", b"select 1\0")
    ((_, data, _),) = frontend().feed(message)
    assert data is message
    rows = make("D", b"abc") * 5
    ((_, data, _),) = backend().feed(rows)
    assert data is rows


@pytest.mark.parametrize("length", [0, 1, 2, 3, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("tag", ["Q", "d"])
def test_an_impossible_length_is_a_violation(length: int, tag: str) -> None:
    with pytest.raises(ProtocolViolation, match="invalid length") as caught:
        frontend().feed(tag.encode() + length.to_bytes(4, "big"))
    assert caught.value.sqlstate == "08P01"


@pytest.mark.parametrize("tag", sorted(set(range(256)) - set(FRONTEND_TYPES)))
def test_an_unknown_type_is_a_violation_at_its_first_byte(tag: int) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        frontend().feed(make("S") + bytes([tag]))
    assert caught.value.sqlstate == "08P01"


def test_a_message_beyond_the_limit_is_refused_from_its_header() -> None:
    exact = make("Q", b"x" * (LIMIT - 5))
    assert len(exact) == LIMIT
    assert frontend().feed(exact) == [(ord("Q"), exact, 1)]
    framer = frontend()
    with pytest.raises(ProtocolViolation) as caught:
        framer.feed(make("Q", b"x" * (LIMIT - 4))[:5])
    assert caught.value.sqlstate == "54000"
    assert framer.pending_bytes == 0


def test_after_a_violation_there_is_no_next_message() -> None:
    framer = frontend()
    with pytest.raises(ProtocolViolation):
        framer.feed(b"\0")
    with pytest.raises(ProtocolViolation):
        framer.feed(make("S"))


def test_a_large_message_in_many_pieces_takes_linear_time() -> None:
    """8 MB in 64-byte pieces: joining at each piece would copy half a terabyte."""
    framer = frontend(limit=1 << 24)
    body = bytes(range(256)) * (1 << 15)
    message = make("B", body)
    items: list[Item] = []
    for start in range(0, len(message), 64):
        items += framer.feed(message[start : start + 64])
    assert items == [(ord("B"), message, 1)]


# large messages


def large(limit: int = LIMIT, large_bytes: int = 30, head_bytes: int = 12) -> Framer:
    return Framer(FRONTEND_PASS_THROUGH, limit, FRONTEND_TYPES, FRONTEND_LARGE, large_bytes, head_bytes)


def joined(items: list[Item], head_bytes: int = 12) -> list[Item]:
    """Heads and their stretches joined into (type, message, HEAD); runs into one."""
    out: list[Item] = []
    for tag, data, count in items:
        if count == HEAD:
            assert len(data) == head_bytes
            out.append((tag, data, count))
        elif count == 0 and tag in FRONTEND_LARGE:
            assert data and out[-1][0] == tag and out[-1][2] == HEAD
            out[-1] = (tag, out[-1][1] + data, HEAD)
        elif out and tag in FRONTEND_PASS_THROUGH and out[-1][0] == tag:
            out[-1] = (tag, out[-1][1] + data, out[-1][2] + count)
        else:
            out.append((tag, data, count))
    return out


REQUESTS = [
    make("P", b"\0select $1\0\0\0"),
    make("B", bytes(range(26))),  # one byte more than is given whole
    make("B", bytes(range(60))),
    make("B", b"x" * 20),
    make("d", b"x" * 50),
    make("d", b"y"),
    make("Q", b"q" * 50),
    make("d", b"x" * 50),
    make("F", b"f" * 25),  # just not
    make("F", b"f" * 90),
    make("S"),
]
ASKED = b"".join(REQUESTS)
AS_ASKED = [
    (ord("P"), REQUESTS[0], 1),
    (ord("B"), REQUESTS[1], HEAD),
    (ord("B"), REQUESTS[2], HEAD),
    (ord("B"), REQUESTS[3], 1),
    (ord("d"), REQUESTS[4] + REQUESTS[5], 2),
    (ord("Q"), REQUESTS[6], HEAD),
    (ord("d"), REQUESTS[7], 1),
    (ord("F"), REQUESTS[8], 1),
    (ord("F"), REQUESTS[9], HEAD),
    (ord("S"), REQUESTS[10], 1),
]


@pytest.mark.parametrize("at", range(len(ASKED) + 1))
def test_large_messages_come_the_same_at_every_split_point(at: int) -> None:
    framer = large()
    first = framer.feed(ASKED[:at])
    assert sum(len(data) for _, data, _ in first) + framer.pending_bytes == at
    assert joined(first + framer.feed(ASKED[at:])) == AS_ASKED
    assert framer.pending_bytes == 0 and not framer.mid_message


@pytest.mark.parametrize("size", [*range(1, 14), 29, 30, 31, 64])
@pytest.mark.parametrize("head_bytes", [5, 12, 30])
def test_large_messages_come_the_same_in_every_chunk_size(size: int, head_bytes: int) -> None:
    framer = large(head_bytes=head_bytes)
    items: list[Item] = []
    for start in range(0, len(ASKED), size):
        items += framer.feed(ASKED[start : start + size])
        assert framer.pending_bytes <= 30
    assert joined(items, head_bytes) == AS_ASKED


def test_a_large_message_is_not_kept_and_its_stretches_are_not_copied() -> None:
    framer = large(large_bytes=1000, head_bytes=100)
    message = b"B" + LARGE_MESSAGE_LIMIT.to_bytes(4, "big") + bytes(95)
    assert framer.feed(message) == [(ord("B"), message, HEAD)]
    left = LARGE_MESSAGE_LIMIT - 99
    chunk = bytes(1 << 24)
    while left:
        assert framer.mid_message
        piece = chunk[:left]
        ((_, data, count),) = framer.feed(piece)
        assert data is piece and count == 0
        left -= len(piece)
    assert not framer.mid_message and framer.pending_bytes == 0
    assert framer.feed(make("S")) == [(ord("S"), make("S"), 1)]


def test_large_messages_have_the_servers_limit_and_others_their_own() -> None:
    with pytest.raises(ProtocolViolation, match="invalid message length") as caught:
        large().feed(b"B" + (LARGE_MESSAGE_LIMIT + 1).to_bytes(4, "big"))
    assert caught.value.sqlstate == "08P01"
    with pytest.raises(ProtocolViolation) as caught:
        large(limit=40).feed(make("E", b"x" * 40)[:5])
    assert caught.value.sqlstate == "54000"


def test_the_type_sets_hold_what_passes_through() -> None:
    assert set(FRONTEND_PASS_THROUGH) <= set(FRONTEND_TYPES)
    assert set(BACKEND_PASS_THROUGH) <= set(BACKEND_TYPES)


def feed_all(framer: Framer, pieces: list[bytes]) -> tuple[list[Item], str | None]:
    items: list[Item] = []
    for piece in pieces:
        try:
            items += framer.feed(piece)
        except ProtocolViolation as violation:
            return items, violation.sqlstate
    return items, None


messages = st.builds(make, st.sampled_from([chr(tag) for tag in BACKEND_TYPES]), st.binary(max_size=30))
streams = st.one_of(
    st.lists(messages, max_size=12).map(b"".join),
    st.binary(max_size=60),
    st.tuples(st.lists(messages, max_size=4).map(b"".join), st.binary(max_size=12)).map(b"".join),
)


@given(streams, st.lists(st.integers(0, 400), max_size=8))
@example(b"D\0\0\0\4", [1, 2, 3, 4])
def test_whole_split_and_byte_by_byte_agree(stream: bytes, cuts: list[int]) -> None:
    points = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(points)]
    whole, whole_error = feed_all(backend(20), [stream])
    split, split_error = feed_all(backend(20), pieces)
    bytewise, bytewise_error = feed_all(backend(20), [stream[i : i + 1] for i in range(len(stream))])
    assert whole_error == split_error == bytewise_error
    if whole_error is None:
        expected = merged(whole, BACKEND_PASS_THROUGH)
        assert merged(split, BACKEND_PASS_THROUGH) == expected
        assert merged(bytewise, BACKEND_PASS_THROUGH) == expected
    for items in (whole, split, bytewise):
        given_out = b"".join(data for _, data, _ in items)
        assert stream.startswith(given_out), "nothing lost, nothing invented, nothing reordered"


@given(streams)
def test_all_bytes_are_given_out_or_pending(stream: bytes) -> None:
    framer = backend()
    items, error = feed_all(framer, [stream])
    if error is None:
        assert sum(len(data) for _, data, _ in items) + framer.pending_bytes == len(stream)
