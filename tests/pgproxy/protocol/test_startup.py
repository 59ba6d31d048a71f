from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.protocol import startup, tags
from pgproxy.protocol.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    join_options,
    parse_options,
    read_startup,
    split_options,
    startup_message,
    startup_packet_bytes,
)
from pgproxy.protocol.violation import OptionRejected, ProtocolViolation


def i32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def make(body: bytes) -> bytes:
    return i32(len(body) + 4) + body


def refused(packet: bytes, sqlstate: str = "08P01") -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read_startup(packet)
    assert caught.value.sqlstate == sqlstate


def read_message(packet: bytes) -> StartupMessage:
    message = read_startup(packet)
    assert isinstance(message, StartupMessage)
    return message


# StartupMessage


def test_startup_as_libpq_sends_it() -> None:
    packet = make(i32(3 << 16) + b"user\0bob\0database\0shop\0application_name\0psql\0client_encoding\0UTF8\0\0")
    message = read_message(packet)
    assert (message.major, message.minor) == (3, 0)
    assert message.parameters == [
        (b"user", b"bob"),
        (b"database", b"shop"),
        (b"application_name", b"psql"),
        (b"client_encoding", b"UTF8"),
    ]
    assert message.get(b"database") == b"shop"
    assert message.get(b"replication") is None
    assert startup_message(message.parameters) == packet


def test_the_last_duplicate_wins_and_all_are_kept() -> None:
    message = read_message(make(i32(3 << 16) + b"user\0bob\0role\0a\0RoLe\0b\0user\0eve\0\0"))
    assert message.get(b"user") == b"eve"
    assert [name for name, _ in message.parameters] == [b"user", b"role", b"RoLe", b"user"]


def test_minor_versions_and_pq_options_are_the_callers_to_negotiate() -> None:
    message = read_message(make(i32(3 << 16 | 2) + b"user\0bob\0_pq_.x\x001\0\0"))
    assert (message.minor, message.get(b"_pq_.x")) == (2, b"1")


@pytest.mark.parametrize("parameters", [b"\0", b"database\0shop\0\0", b"user\0\0\0", b"user\0bob\0user\0\0\0"])
def test_user_is_required(parameters: bytes) -> None:
    refused(make(i32(3 << 16) + parameters), "28000")


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        b"user",
        b"user\0",
        b"user\0bob",
        b"user\0bob\0",
        b"user\0bob\0database",
        b"user\0bob\0\0x",
        b"user\0bob\0\0role\0postgres\0\0",
    ],
)
def test_malformed_layout(parameters: bytes) -> None:
    refused(make(i32(3 << 16) + parameters))


def test_an_empty_value_is_a_value() -> None:
    message = read_message(make(i32(3 << 16) + b"user\0bob\0options\0\0\0"))
    assert message.get(b"options") == b""


@pytest.mark.parametrize("version", [2 << 16, 1 << 16, 4 << 16, 0, 1234 << 16 | 5681])
def test_other_majors_are_recognised_not_read(version: int) -> None:
    message = read_message(make(i32(version) + b"anything"))
    assert (message.major, message.minor, message.parameters) == (version >> 16, version & 0xFFFF, [])


# Lengths


def test_length_is_checked_from_four_bytes() -> None:
    assert startup_packet_bytes(i32(8)) == 8
    assert startup_packet_bytes(i32(10_004)) == 10_004
    for length in (0, 4, 7, 10_005, 0x7FFFFFFF, 0xFFFFFFFF):
        with pytest.raises(ProtocolViolation):
            startup_packet_bytes(i32(length))


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"QUIT", b""])
def test_other_protocols_are_refused(greeting: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        startup_packet_bytes(greeting[:4])


def test_length_that_lies() -> None:
    packet = make(i32(3 << 16) + b"user\0bob\0\0")
    refused(packet + b"x")
    refused(packet[:-1])


def test_the_largest_packet_is_the_servers() -> None:
    value = b"x" * (10_000 - len(i32(0) + b"user\0\0\0"))
    packet = startup_message([(b"user", value)])
    assert len(packet) == 10_004
    assert read_message(packet).get(b"user") == value
    with pytest.raises(ProtocolViolation):
        startup_message([(b"user", value + b"x")])


def test_no_packet_is_built_that_reads_otherwise() -> None:
    for parameters in ([(b"user", b"bob\0role\0postgres")], [(b"", b"x")], [(b"a\0b", b"x")]):
        with pytest.raises(ProtocolViolation):
            startup_message(parameters)


# The requests in its place


def test_requests() -> None:
    assert isinstance(read_startup(startup.ssl_request()), SSLRequest)
    assert isinstance(read_startup(startup.gssenc_request()), GSSENCRequest)
    assert startup.ssl_request() == i32(8, 80877103)
    refused(make(i32(tags.SSL_REQUEST) + b"x"))
    refused(make(i32(tags.GSSENC_REQUEST) + b"x"))


@pytest.mark.parametrize("secret", [b"abcd", bytes(32), bytes(256)])
def test_cancel_request(secret: bytes) -> None:
    request = read_startup(startup.cancel_request(0xFFFFFFFE, secret))
    assert isinstance(request, CancelRequest)
    assert (request.pid, request.secret) == (0xFFFFFFFE, secret)


@pytest.mark.parametrize("rest", [b"", b"\0\0\0\1", b"\0\0\0\1abc", b"\0\0\0\1" + bytes(257)])
def test_malformed_cancel_request(rest: bytes) -> None:
    refused(make(i32(tags.CANCEL_REQUEST) + rest))


@given(st.binary(max_size=80), st.sampled_from([3 << 16, 3 << 16 | 2, 2 << 16, 80877102, 80877103, 80877104]))
def test_only_protocol_violation_escapes(body: bytes, code: int) -> None:
    for packet in (make(i32(code) + body), make(body), body):
        try:
            read_startup(packet)
        except ProtocolViolation as violation:
            assert violation.sqlstate in {"08P01", "28000"}


# options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", []),
        ("  \t\n\v\f\r ", []),
        ("-c a=b", ["-c", "a=b"]),
        (" -c\ta=b \n--c=d ", ["-c", "a=b", "--c=d"]),
        (r"-c reason=two\ words", ["-c", "reason=two words"]),
        (r"-c a=back\\slash", ["-c", r"a=back\slash"]),
        (r"-c a='no\ quotes' x", ["-c", "a='no quotes'", "x"]),
        ("\\", [""]),
        ("a\\", ["a"]),
        (r"\-\c a", ["-c", "a"]),
        ("a\u00a0b\u2003c", ["a\u00a0b\u2003c"]),
        (b"-c a=caf\xe9", ["-c", "a=caf\udce9"]),
    ],
)
def test_split_options(options: str | bytes, words: list[str]) -> None:
    assert split_options(options) == words


def test_parse_options() -> None:
    words = [
        "-c",
        "a=1",
        "-cb=2",
        "--c=3",
        "--with-dashes-in=4-5",
        "-c",
        "geqo-seed=x",
        "-c",
        "e=f=g",
        "--h=",
    ]
    assert parse_options(words) == [
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("with_dashes_in", "4-5"),
        ("geqo_seed", "x"),
        ("e", "f=g"),
        ("h", ""),
    ]


def test_a_switch_takes_the_next_word_whatever_it_is() -> None:
    """As getopt does: `-c` swallows `-crole=x`, and the setting's name is then no name."""
    assert parse_options(["-c", "-crole=x"]) == [("_crole", "x")]
    assert parse_options(["-c", "--role=x"]) == [("__role", "x")]


@pytest.mark.parametrize(
    ("words", "switch"),
    [
        (["-d", "5"], "-d"),
        (["-B", "1000"], "-B"),
        (["-F"], "-F"),
        (["-fs"], "-f"),
        (["-s"], "-s"),
        (["-Ecrole=postgres"], "-E"),
        (["-c", "a=b", "-O"], "-O"),
        (["-c"], "-c"),
        (["-c", "role"], "-c"),
        (["-crole"], "-c"),
        (["-c", "=x"], "-c"),
        (["--role"], "--"),
        (["--"], "--"),
        (["--=x"], "--"),
        (["word"], ""),
        (["-"], ""),
        ([""], ""),
        (["-c", "a=b", "stray"], ""),
    ],
)
def test_other_words_are_rejected(words: list[str], switch: str) -> None:
    with pytest.raises(OptionRejected) as caught:
        parse_options(words)
    assert caught.value.switch == switch
    assert "postgres" not in caught.value.message, "the value may be a secret"


settings = st.lists(
    st.tuples(
        st.from_regex(r"[a-z_.]+", fullmatch=True),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    ),
    max_size=4,
)


@given(settings)
def test_joined_options_read_as_they_were(pairs: list[tuple[str, str]]) -> None:
    assert parse_options(split_options(join_options(pairs))) == pairs


def test_joined_options_escape_what_a_locale_could_call_space() -> None:
    assert join_options([("a", "x y\\\u00a0")]) == b"-c a=x\\ y\\\\\\\xc2\\\xa0"


@given(st.text(max_size=40))
def test_only_option_rejected_escapes(options: str) -> None:
    try:
        parse_options(split_options(options))
    except OptionRejected as rejected:
        assert rejected.sqlstate in {"0A000", "42601"}
