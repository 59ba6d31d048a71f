"""Messages a server sends: readers for those the session follows, builders for those pgproxy answers itself.

pgproxy builds errors and notices of its own and, before a server is there, the greeting; it never builds a
ReadyForQuery while the server lives.
"""

from __future__ import annotations

from typing import Final

from pgproxy.protocol import tags
from pgproxy.protocol.body import INSUFFICIENT, body_of, int32, message, only_string, string
from pgproxy.protocol.violation import ProtocolViolation

# NegotiateProtocolVersion: the manual calls its number a minor version, but the server sends the whole
# version and libpq compares it as such.
_MAJOR: Final = 3 << 16


def read_error(m: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their letter (manual: "Error and Notice Message
    Fields").

    Text that is not UTF-8 is read with replacement characters: it is shown and compared, never sent on.
    """
    tag = m[0] if m else 0
    if tag != tags.ERROR_RESPONSE and tag != tags.NOTICE_RESPONSE:
        raise ProtocolViolation("unexpected message type")
    body = body_of(m, tag)
    fields: dict[str, str] = {}
    while True:
        letter = body.byte()
        if letter == 0:
            break
        fields[chr(letter)] = body.string().decode("utf-8", "replace")
    body.finish()
    return fields


def read_ready_for_query(m: bytes) -> int:
    """The transaction status: `tags.IDLE`, `IN_TRANSACTION` or `FAILED_TRANSACTION`."""
    body = body_of(m, tags.READY_FOR_QUERY)
    status = body.byte()
    body.finish()
    if status != tags.IDLE and status != tags.IN_TRANSACTION and status != tags.FAILED_TRANSACTION:
        raise ProtocolViolation("invalid transaction status in ReadyForQuery")
    return status


def read_command_complete(m: bytes) -> bytes:
    """The command tag, such as `INSERT 0 1`."""
    return only_string(m, tags.COMMAND_COMPLETE)


def read_parameter_status(m: bytes) -> tuple[bytes, bytes]:
    body = body_of(m, tags.PARAMETER_STATUS)
    name = body.string()
    value = body.string()
    body.finish()
    return name, value


def read_parameter_description(m: bytes) -> tuple[int, ...]:
    """The OIDs of a prepared statement's parameters."""
    body = body_of(m, tags.PARAMETER_DESCRIPTION)
    count = body.uint16()
    if body.remaining != 4 * count:
        raise ProtocolViolation(INSUFFICIENT)
    types = [body.uint32() for _ in range(count)]
    body.finish()
    return tuple(types)


def read_row_description(m: bytes) -> tuple[tuple[bytes, int], ...]:
    """Name and type OID of each column of a RowDescription."""
    body = body_of(m, tags.ROW_DESCRIPTION)
    count = body.uint16()
    columns: list[tuple[bytes, int]] = []
    for _ in range(count):
        name = body.string()
        body.uint32()  # the table's OID
        body.uint16()  # the column's number
        oid = body.uint32()
        body.uint16()  # typlen
        body.uint32()  # typmod
        body.uint16()  # the format code, which Bind decides
        columns.append((name, oid))
    body.finish()
    return tuple(columns)


def read_backend_key_data(m: bytes) -> tuple[int, bytes]:
    """Process id and secret; the secret has 4 bytes in protocol 3.0 and 4 to 256 in 3.2."""
    body = body_of(m, tags.BACKEND_KEY_DATA)
    pid = body.uint32()
    secret = body.rest()
    if len(secret) < 4 or len(secret) > 256:
        raise ProtocolViolation("invalid secret key length in BackendKeyData")
    return pid, secret


def read_authentication(m: bytes) -> tuple[int, bytes]:
    """The code (`tags.AUTH_…`) and what follows it: a salt, mechanism names, SASL or GSS data."""
    body = body_of(m, tags.AUTHENTICATION)
    return body.uint32(), body.rest()


def read_negotiate_protocol_version(m: bytes) -> tuple[int, list[bytes]]:
    """The newest minor version the server speaks and the options it did not recognise."""
    body = body_of(m, tags.NEGOTIATE_PROTOCOL_VERSION)
    newest = body.uint32()
    if newest >> 16 != 3:
        raise ProtocolViolation("invalid protocol version in NegotiateProtocolVersion")
    count = body.uint32()
    if count > body.remaining:
        raise ProtocolViolation(INSUFFICIENT)
    unrecognized: list[bytes] = []
    for _ in range(count):
        unrecognized.append(body.string())
    body.finish()
    return newest & 0xFFFF, unrecognized


def error_response(
    severity: str,
    sqlstate: str,
    text: str,
    detail: str | None = None,
    hint: str | None = None,
    codec: str = "utf-8",
) -> bytes:
    """An ErrorResponse with the fields S, V, C, M and, where given, D and H; in the client's encoding."""
    return message(tags.ERROR_RESPONSE, _report(severity, sqlstate, text, detail, hint, codec))


def old_error_response(severity: str, text: str) -> bytes:
    """An ErrorResponse of protocols 1 and 2, as the server still sends it to their clients: the byte E and a
    String, without a length."""
    return bytes([tags.ERROR_RESPONSE]) + _text(f"{severity}:  {text}\n", "utf-8")


def notice_response(
    sqlstate: str, text: str, detail: str | None = None, hint: str | None = None, codec: str = "utf-8"
) -> bytes:
    """A NoticeResponse of severity NOTICE; in the client's encoding."""
    return message(tags.NOTICE_RESPONSE, _report("NOTICE", sqlstate, text, detail, hint, codec))


def _report(severity: str, sqlstate: str, text: str, detail: str | None, hint: str | None, codec: str) -> bytes:
    body = b"S" + _text(severity, codec) + b"V" + _text(severity, codec)
    body += b"C" + _text(sqlstate, codec) + b"M" + _text(text, codec)
    if detail is not None:
        body += b"D" + _text(detail, codec)
    if hint is not None:
        body += b"H" + _text(hint, codec)
    return body + b"\x00"


def _text(value: str, codec: str) -> bytes:
    """Comments of reviewers end up here: a NUL must not start a new field, nor a lone surrogate raise, nor a character
    that the client's encoding lacks, which is shown by its number."""
    whole = value.replace("\x00", "").encode("utf-8", "replace")
    if codec == "utf-8":
        return whole + b"\x00"
    return whole.decode("utf-8").encode(codec, "backslashreplace") + b"\x00"


def ready_for_query(status: int) -> bytes:
    return message(tags.READY_FOR_QUERY, bytes([status]))


def parameter_status(name: bytes, value: bytes) -> bytes:
    return message(tags.PARAMETER_STATUS, string(name) + string(value))


def backend_key_data(pid: int, secret: bytes) -> bytes:
    return message(tags.BACKEND_KEY_DATA, int32(pid) + secret)


def authentication(code: int, payload: bytes = b"") -> bytes:
    return message(tags.AUTHENTICATION, int32(code) + payload)


def negotiate_protocol_version(newest_minor: int, unrecognized: list[bytes]) -> bytes:
    body = int32(_MAJOR | newest_minor) + int32(len(unrecognized))
    for name in unrecognized:
        body += string(name)
    return message(tags.NEGOTIATE_PROTOCOL_VERSION, body)
