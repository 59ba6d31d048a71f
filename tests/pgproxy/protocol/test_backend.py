from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.protocol import backend, tags
from pgproxy.protocol.violation import ProtocolViolation


def make(tag: str, body: bytes) -> bytes:
    return tag.encode() + (len(body) + 4).to_bytes(4, "big") + body


def i32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def refused(read: Callable[[bytes], object], message: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read(message)
    assert caught.value.sqlstate == "08P01"


def test_error_as_the_server_sends_it() -> None:
    body = b'SERROR\0VERROR\0C42P01\0Mrelation "x" does not exist\0P15\0Fparse_relation.c\0L1449\0\0'
    fields = backend.read_error(make("E", body))
    assert fields["C"] == "42P01"
    assert fields["M"] == 'relation "x" does not exist'
    assert fields["P"] == "15"
    assert set(fields) == set("SVCMPFL")


def test_notice_is_read_as_an_error_is() -> None:
    assert backend.read_error(make("N", b"SNOTICE\0\0")) == {"S": "NOTICE"}


def test_error_in_another_encoding_is_read_with_replacement() -> None:
    assert backend.read_error(make("E", b"Mcaf\xe9\0\0"))["M"] == "caf\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("body", [b"", b"S", b"SERROR", b"SERROR\0", b"SERROR\0\0x"])
def test_malformed_error(body: bytes) -> None:
    refused(backend.read_error, make("E", body))


def test_error_of_another_type() -> None:
    refused(backend.read_error, make("Z", b"SERROR\0\0"))
    refused(backend.read_error, b"")


@pytest.mark.parametrize("status", [tags.IDLE, tags.IN_TRANSACTION, tags.FAILED_TRANSACTION])
def test_ready_for_query(status: int) -> None:
    assert backend.read_ready_for_query(backend.ready_for_query(status)) == status


@pytest.mark.parametrize("body", [b"", b"X", b"i", b"II"])
def test_malformed_ready_for_query(body: bytes) -> None:
    refused(backend.read_ready_for_query, make("Z", body))


def test_command_complete() -> None:
    assert backend.read_command_complete(make("C", b"INSERT 0 1\0")) == b"INSERT 0 1"
    refused(backend.read_command_complete, make("C", b"INSERT 0 1"))


def test_parameter_status() -> None:
    message = backend.parameter_status(b"client_encoding", b"UTF8")
    assert message == make("S", b"client_encoding\0UTF8\0")
    assert backend.read_parameter_status(message) == (b"client_encoding", b"UTF8")
    for body in (b"", b"a\0", b"a\0b", b"a\0b\0c"):
        refused(backend.read_parameter_status, make("S", body))


@pytest.mark.parametrize("secret", [b"abcd", bytes(32), bytes(256)])
def test_backend_key_data(secret: bytes) -> None:
    message = backend.backend_key_data(0xFFFFFFFE, secret)
    assert backend.read_backend_key_data(message) == (0xFFFFFFFE, secret)


@pytest.mark.parametrize("secret", [b"", b"abc", bytes(257)])
def test_backend_key_data_of_impossible_length(secret: bytes) -> None:
    refused(backend.read_backend_key_data, make("K", i32(1) + secret))


def test_authentication() -> None:
    assert backend.read_authentication(make("R", i32(5) + b"salt")) == (tags.AUTH_MD5_PASSWORD, b"salt")
    assert backend.authentication(tags.AUTH_OK) == make("R", i32(0))
    refused(backend.read_authentication, make("R", b"\0\0\0"))


def test_negotiate_protocol_version() -> None:
    message = backend.negotiate_protocol_version(2, [b"_pq_.a", b"_pq_.b"])
    assert message == make("v", i32(3 << 16 | 2, 2) + b"_pq_.a\0_pq_.b\0")
    assert backend.read_negotiate_protocol_version(message) == (2, [b"_pq_.a", b"_pq_.b"])
    v = 3 << 16 | 2
    for body in (b"", i32(v), i32(v, 1), i32(v, 0xFFFFFFFF) + b"a\0", i32(v, 1) + b"a", i32(v, 0) + b"a\0", i32(2, 0)):
        refused(backend.read_negotiate_protocol_version, make("v", body))


def test_an_error_of_the_protocols_before_3_is_one_line() -> None:
    assert backend.old_error_response("FATAL", "no") == b"EFATAL:  no\n\0"


def test_error_response_has_the_fields_in_order() -> None:
    message = backend.error_response("FATAL", "28P01", "no", "because", "try again")
    assert message == make("E", b"SFATAL\0VFATAL\0C28P01\0Mno\0Dbecause\0Htry again\0\0")
    assert backend.error_response("ERROR", "42501", "no") == make("E", b"SERROR\0VERROR\0C42501\0Mno\0\0")


def test_notice_response() -> None:
    message = backend.notice_response("01000", "wait", None, "see the console")
    assert message == make("N", b"SNOTICE\0VNOTICE\0C01000\0Mwait\0Hsee the console\0\0")


@given(st.text(), st.text())
def test_a_reviewers_comment_makes_no_fields(message: str, detail: str) -> None:
    """NUL, lone surrogates, anything: it stays inside its field."""
    fields = backend.read_error(backend.error_response("ERROR", "42501", message, detail))
    assert set(fields) == set("SVCMD")
    assert fields["D"] == detail.replace("\0", "").encode("utf-8", "replace").decode()


def test_a_comment_with_a_lone_surrogate_is_sent() -> None:
    assert backend.read_error(backend.error_response("ERROR", "42501", "a\ud800b"))["M"] == "a?b"


READERS: list[tuple[str, Callable[[bytes], object]]] = [
    ("E", backend.read_error),
    ("Z", backend.read_ready_for_query),
    ("C", backend.read_command_complete),
    ("S", backend.read_parameter_status),
    ("K", backend.read_backend_key_data),
    ("R", backend.read_authentication),
    ("v", backend.read_negotiate_protocol_version),
]


@pytest.mark.parametrize(("tag", "read"), READERS)
@given(body=st.binary(max_size=60))
def test_only_protocol_violation_escapes(tag: str, read: Callable[[bytes], object], body: bytes) -> None:
    try:
        read(make(tag, body))
    except ProtocolViolation as violation:
        assert violation.sqlstate in {"08P01", "22021"}


@pytest.mark.parametrize(("tag", "read"), READERS)
def test_header_must_be_that_of_this_message(tag: str, read: Callable[[bytes], object]) -> None:
    refused(read, b"")
    refused(read, make("X", b"x\0"))
    refused(read, tag.encode() + i32(100) + b"x\0")
