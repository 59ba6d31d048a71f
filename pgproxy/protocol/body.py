"""Reading and building the fields of one message's body (manual: "Message Data Types")."""

from __future__ import annotations

from typing import Final

from pgproxy.protocol.violation import CHARACTER_NOT_IN_REPERTOIRE, ProtocolViolation

HEADER_BYTES: Final = 5

INSUFFICIENT: Final = "insufficient data left in message"
TRAILING: Final = "invalid message format"
UNTERMINATED: Final = "invalid string in message"


class Body:
    """A cursor over one whole message's fields. Each take checks that it stays inside the message, so a
    length or a count that lies can neither read on into nothing nor make us allocate."""

    def __init__(self, message: bytes, start: int) -> None:
        self._data: bytes = message
        self._pos: int = start
        self._end: int = len(message)

    @property
    def remaining(self) -> int:
        return self._end - self._pos

    def byte(self) -> int:
        pos = self._pos
        if pos >= self._end:
            raise ProtocolViolation(INSUFFICIENT)
        self._pos = pos + 1
        return self._data[pos]

    def uint16(self) -> int:
        """An Int16 that is a count: the server reads it unsigned, 65535 parameters are legal."""
        pos = self._pos
        if self._end - pos < 2:
            raise ProtocolViolation(INSUFFICIENT)
        self._pos = pos + 2
        return (self._data[pos] << 8) | self._data[pos + 1]

    def uint32(self) -> int:
        pos = self._pos
        if self._end - pos < 4:
            raise ProtocolViolation(INSUFFICIENT)
        self._pos = pos + 4
        data = self._data
        return (data[pos] << 24) | (data[pos + 1] << 16) | (data[pos + 2] << 8) | data[pos + 3]

    def int32(self) -> int:
        value = self.uint32()
        return value - 0x100000000 if value > 0x7FFFFFFF else value

    def string(self) -> bytes:
        """A String: up to its NUL, without it."""
        pos = self._pos
        end = self._data.find(b"\x00", pos)
        if end < 0:
            raise ProtocolViolation(UNTERMINATED)
        self._pos = end + 1
        return self._data[pos:end]

    def value(self) -> bytes | None:
        """A length-prefixed value, as in Bind and FunctionCall; length -1 is NULL."""
        length = self.uint32()
        if length == 0xFFFFFFFF:
            return None
        pos = self._pos
        if length > self._end - pos:
            raise ProtocolViolation(INSUFFICIENT)
        self._pos = pos + length
        return self._data[pos : pos + length]

    def codes(self) -> tuple[int, ...]:
        """A count and as many Int16 format codes."""
        count = self.uint16()
        if count == 0:
            return ()
        if self._end - self._pos < 2 * count:
            raise ProtocolViolation(INSUFFICIENT)
        found: list[int] = []
        for _ in range(count):
            found.append(self.uint16())
        return tuple(found)

    def rest(self) -> bytes:
        pos = self._pos
        self._pos = self._end
        return self._data[pos:]

    def finish(self) -> None:
        """Nothing may follow the last field."""
        if self._pos != self._end:
            raise ProtocolViolation(TRAILING)


def body_of(message: bytes, tag: int) -> Body:
    """A cursor behind the header, after checking that this is one whole message of that type."""
    size = len(message)
    if size < HEADER_BYTES or message[0] != tag:
        raise ProtocolViolation("unexpected message type")
    length = (message[1] << 24) | (message[2] << 16) | (message[3] << 8) | message[4]
    if length != size - 1:
        raise ProtocolViolation("invalid message length")
    return Body(message, HEADER_BYTES)


def only_string(message: bytes, tag: int) -> bytes:
    """The text of a message that is one String and nothing else.

    A NUL before the last byte hides what follows it from whoever stops there: 22021, not cut silently.
    """
    body_of(message, tag)
    end = len(message) - 1
    if end < HEADER_BYTES or message[end] != 0:
        raise ProtocolViolation(UNTERMINATED)
    if message.find(b"\x00", HEADER_BYTES) != end:
        raise ProtocolViolation("text contains a NUL byte", CHARACTER_NOT_IN_REPERTOIRE)
    return message[HEADER_BYTES:end]


def int16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def int32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "big")


def string(value: bytes) -> bytes:
    """A String. A NUL inside would end it early and turn its tail into other fields: never built."""
    if value.find(b"\x00") >= 0:
        raise ProtocolViolation("text contains a NUL byte", CHARACTER_NOT_IN_REPERTOIRE)
    return value + b"\x00"


def message(tag: int, body: bytes) -> bytes:
    return bytes([tag]) + int32(len(body) + 4) + body
