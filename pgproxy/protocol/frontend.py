"""Messages a client sends: readers for those that are judged, builders for those pgproxy sends itself.

Readers take the whole message, header included. They are as strict as the server (manual: "Message Formats"):
every field inside the message, nothing behind the last one.
"""

from __future__ import annotations

from typing import Final

from pgproxy.protocol import tags
from pgproxy.protocol.body import HEADER_BYTES, INSUFFICIENT, Body, body_of, int16, int32, message, only_string, string
from pgproxy.protocol.violation import ProtocolViolation

SYNC: Final[bytes] = b"S\x00\x00\x00\x04"
FLUSH: Final[bytes] = b"H\x00\x00\x00\x04"
TERMINATE: Final[bytes] = b"X\x00\x00\x00\x04"

# The server keeps statement and portal names in tables keyed by char[NAMEDATALEN] and cuts longer ones,
# unlike SQL identifiers, at the byte and not at the character.
NAME_BYTES: Final = 63


class Parse:
    """Parse: names a statement; `parameter_types` are OIDs, 0 where the server is to infer one."""

    def __init__(self, name: bytes, query: bytes, parameter_types: tuple[int, ...]) -> None:
        self.name: Final[bytes] = name
        self.query: Final[bytes] = query
        self.parameter_types: Final[tuple[int, ...]] = parameter_types


class Bind:
    """Bind: makes a portal of a statement and values (None is NULL). Format codes as sent: none, one for all,
    or one each; whether their number fits is left to the server, which answers with an ERROR."""

    def __init__(
        self,
        portal: bytes,
        statement: bytes,
        parameter_formats: tuple[int, ...],
        parameters: list[bytes | None],
        result_formats: tuple[int, ...],
    ) -> None:
        self.portal: Final[bytes] = portal
        self.statement: Final[bytes] = statement
        self.parameter_formats: Final[tuple[int, ...]] = parameter_formats
        self.parameters: Final[list[bytes | None]] = parameters
        self.result_formats: Final[tuple[int, ...]] = result_formats


class BindHead:
    """What the beginning of a Bind says before its values, which begin at `values_at` of the message."""

    def __init__(
        self,
        portal: bytes,
        statement: bytes,
        parameter_formats: tuple[int, ...],
        parameter_count: int,
        values_at: int,
    ) -> None:
        self.portal: Final[bytes] = portal
        self.statement: Final[bytes] = statement
        self.parameter_formats: Final[tuple[int, ...]] = parameter_formats
        self.parameter_count: Final[int] = parameter_count
        self.values_at: Final[int] = values_at


class Target:
    """What Describe and Close name: `kind` is `tags.STATEMENT` or `tags.PORTAL`."""

    def __init__(self, kind: int, name: bytes) -> None:
        self.kind: Final[int] = kind
        self.name: Final[bytes] = name


class Execute:
    """Execute: `max_rows` as sent; zero and below mean all rows."""

    def __init__(self, portal: bytes, max_rows: int) -> None:
        self.portal: Final[bytes] = portal
        self.max_rows: Final[int] = max_rows


class FunctionCall:
    """FunctionCall: a function by OID, without any SQL (how libpq does large objects)."""

    def __init__(self, oid: int, arguments: list[bytes | None]) -> None:
        self.oid: Final[int] = oid
        self.arguments: Final[list[bytes | None]] = arguments


def truncate_name(name: bytes) -> bytes:
    """The name under which the server keeps a protocol-level statement or portal."""
    return name if len(name) <= NAME_BYTES else name[:NAME_BYTES]


def read_query(m: bytes) -> bytes:
    return only_string(m, tags.QUERY)


def read_parse(m: bytes) -> Parse:
    body = body_of(m, tags.PARSE)
    name = body.string()
    query = body.string()
    count = body.uint16()
    if body.remaining < 4 * count:
        raise ProtocolViolation(INSUFFICIENT)
    types: list[int] = []
    for _ in range(count):
        types.append(body.uint32())
    body.finish()
    return Parse(name, query, tuple(types))


def read_bind(m: bytes) -> Bind:
    body = body_of(m, tags.BIND)
    portal = body.string()
    statement = body.string()
    parameter_formats = body.codes()
    count = body.uint16()
    if body.remaining < 4 * count:
        raise ProtocolViolation(INSUFFICIENT)
    parameters: list[bytes | None] = []
    for _ in range(count):
        parameters.append(body.value())
    result_formats = body.codes()
    body.finish()
    return Bind(portal, statement, parameter_formats, parameters, result_formats)


def read_bind_head(head: bytes) -> BindHead:
    """`head` is the beginning of a Bind, long enough for names of any sense and 65,535 format codes."""
    body = Body(head, HEADER_BYTES)
    portal = body.string()
    statement = body.string()
    parameter_formats = body.codes()
    count = body.uint16()
    return BindHead(portal, statement, parameter_formats, count, len(head) - body.remaining)


def read_parse_head(head: bytes) -> bytes:
    """The statement's name, from the beginning of a Parse."""
    return Body(head, HEADER_BYTES).string()


def read_describe(m: bytes) -> Target:
    return _read_target(m, tags.DESCRIBE)


def read_close(m: bytes) -> Target:
    return _read_target(m, tags.CLOSE)


def _read_target(m: bytes, tag: int) -> Target:
    body = body_of(m, tag)
    kind = body.byte()
    if kind != tags.STATEMENT and kind != tags.PORTAL:
        raise ProtocolViolation("invalid Describe or Close message subtype")
    name = body.string()
    body.finish()
    return Target(kind, name)


def read_execute(m: bytes) -> Execute:
    body = body_of(m, tags.EXECUTE)
    portal = body.string()
    max_rows = body.int32()
    body.finish()
    return Execute(portal, max_rows)


def read_function_call(m: bytes) -> FunctionCall:
    body = body_of(m, tags.FUNCTION_CALL)
    oid = body.uint32()
    body.codes()
    count = body.uint16()
    if body.remaining < 4 * count:
        raise ProtocolViolation(INSUFFICIENT)
    arguments: list[bytes | None] = []
    for _ in range(count):
        arguments.append(body.value())
    body.uint16()  # the result's format code
    body.finish()
    return FunctionCall(oid, arguments)


def read_copy_fail(m: bytes) -> bytes:
    """The client's reason for failing its COPY."""
    return only_string(m, tags.COPY_FAIL)


def read_password(m: bytes) -> bytes:
    """The body of whichever of the 'p' messages it is: only the authentication method in use can tell."""
    return body_of(m, tags.PASSWORD).rest()


def query(sql: bytes) -> bytes:
    return message(tags.QUERY, string(sql))


def parse(name: bytes, sql: bytes, parameter_types: tuple[int, ...] = ()) -> bytes:
    body = string(name) + string(sql) + int16(len(parameter_types))
    for oid in parameter_types:
        body += int32(oid)
    return message(tags.PARSE, body)


def bind(portal: bytes, statement: bytes) -> bytes:
    """A Bind without parameters, results as text."""
    return message(tags.BIND, string(portal) + string(statement) + b"\x00\x00\x00\x00\x00\x00")


def bind_other(m: bytes, statement: bytes) -> bytes:
    """The same Bind, of another statement."""
    body = body_of(m, tags.BIND)
    portal = body.string()
    body.string()
    return message(tags.BIND, string(portal) + string(statement) + body.rest())


def copy_fail(reason: bytes) -> bytes:
    return message(tags.COPY_FAIL, string(reason))


def describe(kind: int, name: bytes) -> bytes:
    return message(tags.DESCRIBE, bytes([kind]) + string(name))


def execute(portal: bytes, max_rows: int = 0) -> bytes:
    return message(tags.EXECUTE, string(portal) + int32(max_rows))


def close(kind: int, name: bytes) -> bytes:
    return message(tags.CLOSE, bytes([kind]) + string(name))


def password(value: bytes) -> bytes:
    """PasswordMessage, for cleartext and MD5 answers."""
    return message(tags.PASSWORD, string(value))


def sasl_initial_response(mechanism: bytes, data: bytes) -> bytes:
    return message(tags.PASSWORD, string(mechanism) + int32(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    return message(tags.PASSWORD, data)
