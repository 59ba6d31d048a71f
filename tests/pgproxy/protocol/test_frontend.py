from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.protocol import frontend, tags
from pgproxy.protocol.violation import ProtocolViolation


def make(tag: str, body: bytes) -> bytes:
    return tag.encode() + (len(body) + 4).to_bytes(4, "big") + body


def i16(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def i32(*values: int) -> bytes:
    return b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in values)


def value(data: bytes) -> bytes:
    return i32(len(data)) + data


def refused(read: Callable[[bytes], object], message: bytes, sqlstate: str = "08P01") -> None:
    with pytest.raises(ProtocolViolation) as caught:
        read(message)
    assert caught.value.sqlstate == sqlstate


# Query and CopyFail: one String and nothing else


def test_query() -> None:
    assert frontend.read_query(make("Q", b"select 1\0")) == b"select 1"
    assert frontend.read_query(make("Q", b"\0")) == b""


def test_query_without_terminator() -> None:
    refused(frontend.read_query, make("Q", b"select 1"))
    refused(frontend.read_query, make("Q", b""))


def test_query_with_bytes_behind_its_terminator() -> None:
    refused(frontend.read_query, make("Q", b"select 1\0x"))


def test_query_with_nul_inside_is_never_cut() -> None:
    """Cut at the NUL it would be classified as `select 1` while more bytes go to the server."""
    refused(frontend.read_query, make("Q", b"select 1\0; drop table t\0"), "22021")


def test_copy_fail() -> None:
    assert frontend.read_copy_fail(make("f", b"no more\0")) == b"no more"
    refused(frontend.read_copy_fail, make("f", b"no more"))


# Parse


def test_parse() -> None:
    parse = frontend.read_parse(make("P", b"s1\0select $1\0" + i16(2) + i32(23, 0)))
    assert (parse.name, parse.query, parse.parameter_types) == (b"s1", b"select $1", (23, 0))


def test_parse_types_are_unsigned_oids() -> None:
    parse = frontend.read_parse(make("P", b"\0\0" + i16(1) + i32(0xFFFFFFFE)))
    assert parse.parameter_types == (0xFFFFFFFE,)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"s1",
        b"s1\0select 1",
        b"s1\0select 1\0",
        b"s1\0select 1\0\0",
        b"s1\0select 1\0" + i16(1),
        b"s1\0select 1\0" + i16(1) + b"\0\0\0",
        b"s1\0select 1\0" + i16(0xFFFF) + i32(1),
        b"s1\0select 1\0" + i16(0) + b"x",
        b"s1\0select 1\0drop table t\0" + i16(0),
    ],
)
def test_malformed_parse(body: bytes) -> None:
    refused(frontend.read_parse, make("P", body))


# Bind


def test_bind_as_libpq_sends_it() -> None:
    """PQexecPrepared("s1", 2 parameters, one NULL, text in, binary out)."""
    body = b"\0s1\0" + i16(2, 0, 0) + i16(2) + value(b"42") + i32(-1) + i16(1, 1)
    bind = frontend.read_bind(make("B", body))
    assert (bind.portal, bind.statement) == (b"", b"s1")
    assert bind.parameter_formats == (0, 0)
    assert bind.parameters == [b"42", None]
    assert bind.result_formats == (1,)


def test_bind_values_may_be_empty_and_hold_nul() -> None:
    body = b"p\0\0" + i16(1, 1) + i16(2) + value(b"") + value(b"a\0b") + i16(0)
    bind = frontend.read_bind(make("B", body))
    assert (bind.portal, bind.parameters, bind.parameter_formats) == (b"p", [b"", b"a\0b"], (1,))


def test_bind_counts_are_unsigned() -> None:
    """libpq allows 65,535 parameters: the Int16 count is read as the server reads it."""
    body = b"\0\0" + i16(0) + i16(0xFFFF) + i32(-1) * 0xFFFF + i16(0)
    assert frontend.read_bind(make("B", body)).parameters == [None] * 0xFFFF


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0s1",
        b"\0s1\0",
        b"\0s1\0" + i16(1),
        b"\0s1\0" + i16(0xFFFF, 0),
        b"\0s1\0" + i16(0),
        b"\0s1\0" + i16(0, 1),
        b"\0s1\0" + i16(0, 1) + i32(5) + b"abcd",
        b"\0s1\0" + i16(0, 1) + i32(-2) + i16(0),
        b"\0s1\0" + i16(0, 1) + i32(0x7FFFFFFF) + i16(0),
        b"\0s1\0" + i16(0, 2) + value(b"a") + i16(0),
        b"\0s1\0" + i16(0, 0xFFFF) + i32(-1),
        b"\0s1\0" + i16(0, 0),
        b"\0s1\0" + i16(0, 0, 1),
        b"\0s1\0" + i16(0, 0, 0) + b"\0",
    ],
)
def test_malformed_bind(body: bytes) -> None:
    refused(frontend.read_bind, make("B", body))


# Describe, Close, Execute


@pytest.mark.parametrize(("tag", "read"), [("D", frontend.read_describe), ("C", frontend.read_close)])
def test_targets(tag: str, read: Callable[[bytes], frontend.Target]) -> None:
    target = read(make(tag, b"Sname\0"))
    assert (target.kind, target.name) == (tags.STATEMENT, b"name")
    target = read(make(tag, b"P\0"))
    assert (target.kind, target.name) == (tags.PORTAL, b"")
    for body in (b"", b"S", b"Sname", b"X\0", b"\0", b"Sname\0x", b"sname\0"):
        refused(read, make(tag, body))


def test_execute() -> None:
    execute = frontend.read_execute(make("E", b"p\0" + i32(100)))
    assert (execute.portal, execute.max_rows) == (b"p", 100)
    assert frontend.read_execute(make("E", b"\0" + i32(-1))).max_rows == -1
    for body in (b"", b"p\0", b"p\0\0\0\0", b"p\0" + i32(0) + b"x", b"p"):
        refused(frontend.read_execute, make("E", body))


# FunctionCall


def test_function_call_as_libpq_sends_it() -> None:
    """lo_open: PQfn with two binary Int4 arguments."""
    body = i32(952) + i16(1, 1) + i16(2) + value(i32(16400)) + value(i32(0x20000)) + i16(1)
    call = frontend.read_function_call(make("F", body))
    assert (call.oid, call.arguments) == (952, [i32(16400), i32(0x20000)])


def test_function_call_with_a_null() -> None:
    assert frontend.read_function_call(make("F", i32(1) + i16(0, 1) + i32(-1) + i16(0))).arguments == [None]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        i32(1),
        i32(1) + i16(1),
        i32(1) + i16(0),
        i32(1) + i16(0, 1) + i32(4) + b"abc",
        i32(1) + i16(0, 0xFFFF),
        i32(1) + i16(0, 0),
        i32(1) + i16(0, 0, 0) + b"x",
    ],
)
def test_malformed_function_call(body: bytes) -> None:
    refused(frontend.read_function_call, make("F", body))


def test_password_is_the_body_whatever_it_holds() -> None:
    assert frontend.read_password(make("p", b"secret\0")) == b"secret\0"
    assert frontend.read_password(make("p", b"")) == b""


# Headers that lie

READERS: list[tuple[str, Callable[[bytes], object]]] = [
    ("Q", frontend.read_query),
    ("P", frontend.read_parse),
    ("B", frontend.read_bind),
    ("D", frontend.read_describe),
    ("C", frontend.read_close),
    ("E", frontend.read_execute),
    ("F", frontend.read_function_call),
    ("f", frontend.read_copy_fail),
    ("p", frontend.read_password),
]


@pytest.mark.parametrize(("tag", "read"), READERS)
def test_header_must_be_that_of_this_message(tag: str, read: Callable[[bytes], object]) -> None:
    refused(read, b"")
    refused(read, tag.encode() + b"\0\0\0")
    refused(read, make("X", b"x\0"))
    refused(read, tag.encode() + i32(100) + b"x\0")
    refused(read, tag.encode() + i32(4) + b"x\0")


@pytest.mark.parametrize(("tag", "read"), READERS)
@given(body=st.binary(max_size=60))
def test_only_protocol_violation_escapes(tag: str, read: Callable[[bytes], object], body: bytes) -> None:
    try:
        read(make(tag, body))
    except ProtocolViolation as violation:
        assert violation.sqlstate in {"08P01", "22021"}


GOOD = {
    "P": b"s1\0select $1\0" + i16(2) + i32(23, 0),
    "B": b"p\0s1\0" + i16(1, 1) + i16(2) + value(b"abc") + i32(-1) + i16(2, 0, 1),
    "D": b"Sname\0",
    "C": b"Pname\0",
    "E": b"p\0" + i32(7),
    "F": i32(952) + i16(1, 1) + i16(1) + value(i32(1)) + i16(1),
    "Q": b"select 1\0",
    "f": b"why\0",
}


@pytest.mark.parametrize(("tag", "read"), [entry for entry in READERS if entry[0] in GOOD])
def test_every_truncation_and_every_extension_is_refused(tag: str, read: Callable[[bytes], object]) -> None:
    good = GOOD[tag]
    read(make(tag, good))
    for length in range(len(good)):
        refused(read, make(tag, good[:length]))
    with pytest.raises(ProtocolViolation):
        read(make(tag, good + b"\0"))


# Builders say what readers read

names = st.binary(max_size=70).filter(lambda name: b"\0" not in name)


@given(names, names, st.lists(st.integers(0, 0xFFFFFFFF), max_size=5))
def test_parse_is_built_as_read(name: bytes, sql: bytes, types: list[int]) -> None:
    parse = frontend.read_parse(frontend.parse(name, sql, tuple(types)))
    assert (parse.name, parse.query, parse.parameter_types) == (name, sql, tuple(types))
    assert frontend.read_query(frontend.query(sql)) == sql


@given(names, names)
def test_bind_describe_execute_close_are_built_as_read(portal: bytes, statement: bytes) -> None:
    bind = frontend.read_bind(frontend.bind(portal, statement))
    assert (bind.portal, bind.statement) == (portal, statement)
    assert (bind.parameters, bind.parameter_formats, bind.result_formats) == ([], (), ())
    described = frontend.read_describe(frontend.describe(tags.PORTAL, portal))
    assert (described.kind, described.name) == (tags.PORTAL, portal)
    closed = frontend.read_close(frontend.close(tags.STATEMENT, statement))
    assert (closed.kind, closed.name) == (tags.STATEMENT, statement)
    execute = frontend.read_execute(frontend.execute(portal, 9))
    assert (execute.portal, execute.max_rows) == (portal, 9)


def test_fixed_messages() -> None:
    assert make("S", b"") == frontend.SYNC
    assert make("H", b"") == frontend.FLUSH
    assert make("X", b"") == frontend.TERMINATE


def test_password_messages() -> None:
    assert frontend.password(b"secret") == make("p", b"secret\0")
    assert frontend.sasl_initial_response(b"SCRAM-SHA-256", b"n,,") == make("p", b"SCRAM-SHA-256\0" + i32(3) + b"n,,")
    assert frontend.sasl_response(b"c=biws") == make("p", b"c=biws")


def test_a_nul_is_never_built_into_a_string() -> None:
    """It would end the text early and make the rest of it the next field."""
    refused(frontend.query, b"select 1\0", "22021")
    refused(lambda name: frontend.close(tags.STATEMENT, name), b"s\0P", "22021")


def test_names_are_cut_where_the_server_cuts_them() -> None:
    assert frontend.truncate_name(b"n" * 63) == b"n" * 63
    assert frontend.truncate_name(b"n" * 64) == b"n" * 63
    assert frontend.truncate_name("é".encode() * 40) == ("é".encode() * 40)[:63]
    assert frontend.truncate_name(b"") == b""
