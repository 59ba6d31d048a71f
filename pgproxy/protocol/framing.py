"""Cuts a byte stream into messages (manual: "Protocol Flow" and "Message Formats").

A message is one type byte, an Int32 length that counts itself, and the body. Most types are handed on whole,
since they are judged; the bulk types pass as *runs*, stretches of consecutive messages of one type that may
begin and end anywhere, because rows are only counted and a value may be 1 GB.

A client's Query, Parse, Bind and FunctionCall may be 1 GB as well, and are judged: beyond a size they come as a *head*,
enough of the beginning to say what it is, and then as stretches, so that whoever judges decides how much to keep.

Rejected: a memoryview instead of slices (slower than the copy for messages of ordinary size, and it would pin
the read buffer while a session is parked).
"""

from __future__ import annotations

from typing import Final

from pgproxy.protocol.violation import PROGRAM_LIMIT_EXCEEDED, ProtocolViolation

# Bulk types: forwarded as runs.
FRONTEND_PASS_THROUGH: Final[bytes] = b"d"  # CopyData
BACKEND_PASS_THROUGH: Final[bytes] = b"Dd"  # DataRow, CopyData

# Types the server takes up to 1 GB, where it takes others up to 10,000 bytes (both numbers are the length word's).
FRONTEND_LARGE: Final[bytes] = b"QPBF"  # Query, Parse, Bind, FunctionCall
LARGE_MESSAGE_LIMIT: Final = 0x3FFFFFFE
SMALL_MESSAGE_LIMIT: Final = 10_000

# The count of a head; a stretch of what follows it has count 0, as the middle of a run's message has.
HEAD: Final = -1

# Every type byte of protocol 3; names in `tags`.
FRONTEND_TYPES: Final[bytes] = b"BCDEFHPQSXcdfp"
BACKEND_TYPES: Final[bytes] = b"123ACDEGHIKNRSTVWZcdnstv"

_HEADER_BYTES: Final = 5
_UNKNOWN: Final = 0
_WHOLE: Final = 1
_RUN: Final = 2
_LARGE: Final = 3


class Framer:
    """One direction of one connection. After a ProtocolViolation every further `feed` raises it again: where
    the next message begins can no longer be known."""

    def __init__(
        self,
        pass_through: bytes,
        max_message_bytes: int,
        known: bytes,
        large: bytes = b"",
        large_bytes: int = 0,
        head_bytes: int = 0,
    ) -> None:
        """Messages of the types in `large` that have more than `large_bytes` come as a head of `head_bytes` and
        stretches; `max_message_bytes` is for all others, and does not hold for `pass_through`."""
        assert 5 <= head_bytes <= large_bytes or not large
        kinds = [_UNKNOWN] * 256
        for tag in known:
            kinds[tag] = _WHOLE
        for tag in pass_through:
            kinds[tag] = _RUN
        for tag in large:
            kinds[tag] = _LARGE
        self._large_bytes: int = large_bytes
        self._head_bytes: int = head_bytes
        self._large_need: int = 0  # the size of the large message whose head is still arriving
        self._kinds: bytes = bytes(kinds)
        self._max_message_bytes: int = max_message_bytes
        # A message whose body is still arriving (or its header): the pieces so far, joined once at the end,
        # so that a large message costs linear time whatever the chunk size.
        self._parts: list[bytes] = []
        self._have: int = 0
        self._need: int = 0  # 0: not even the header is complete
        # A run (or what follows a head) in the middle of a message.
        self._run_type: int = 0
        self._run_left: int = 0
        self._broken: ProtocolViolation | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes taken and not yet given out: the beginning of an incomplete message."""
        return self._have

    @property
    def mid_message(self) -> bool:
        """Whether the last run given out ended inside a message, so nothing else may be written in
        between."""
        return self._run_left > 0

    @property
    def run_left(self) -> int:
        """Bytes still to come of the message that the last run given out ended inside of."""
        return self._run_left

    def feed(self, data: bytes) -> list[tuple[int, bytes, int]]:
        """Take bytes as they were read; give (type, data, count) items.

        Outside pass-through types: one item a complete message, header included, count 1. Pass-through types:
        runs; count is the number of messages whose header lies in this stretch (0 when it is all the middle
        of one). A large message: its head with count HEAD, then stretches of it. The items' bytes joined, plus what
        is pending, are exactly the bytes fed.

        Raises:
            ProtocolViolation: 08P01 for an unknown type or an impossible length; 54000 for a message beyond
                the limit, known from its header alone. Complete messages before it in `data` are not given
                out: the connection ends, and nothing of the chunk may have been forwarded.
        """
        if self._broken is not None:
            raise self._broken
        items: list[tuple[int, bytes, int]] = []
        size = len(data)
        pos = 0
        if self._have > 0:
            if self._need == 0:
                data = self._parts[0] + data  # at most 4 bytes of a header, in front of the chunk
                size = len(data)
                self._parts = []
                self._have = 0
            else:
                missing = self._need - self._have
                if size < missing:
                    if size > 0:
                        self._parts.append(data)
                        self._have += size
                    return items
                self._parts.append(data if size == missing else data[:missing])
                message = b"".join(self._parts)
                if self._large_need > 0:
                    items.append((message[0], message, HEAD))
                    self._run_type = message[0]
                    self._run_left = self._large_need - self._need
                    self._large_need = 0
                else:
                    items.append((message[0], message, 1))
                self._parts = []
                self._have = 0
                self._need = 0
                pos = missing
        kinds = self._kinds
        run_start = pos
        run_count = 0
        run_type = self._run_type if self._run_left > 0 else -1
        if self._run_left > 0:
            if size - pos < self._run_left:
                if size > pos:
                    self._run_left -= size - pos
                    items.append((run_type, data if pos == 0 else data[pos:], 0))
                return items
            pos += self._run_left
            self._run_left = 0
            if kinds[run_type] == _LARGE:  # the next message is another, of whatever type
                items.append((run_type, data if run_start == 0 and pos == size else data[run_start:pos], 0))
                run_type = -1
        while pos < size:
            if size - pos < _HEADER_BYTES:
                tag = data[pos]
                if kinds[tag] == _UNKNOWN:
                    raise self._break(f"invalid message type {tag}")
                break
            tag = data[pos]
            kind = kinds[tag]
            length = (data[pos + 1] << 24) | (data[pos + 2] << 16) | (data[pos + 3] << 8) | data[pos + 4]
            if kind == _UNKNOWN:
                raise self._break(f"invalid message type {tag}")
            if length < 4 or length > 0x7FFFFFFF:
                raise self._break(f"invalid length of message type {tag}")
            end = pos + 1 + length
            if kind == _RUN:
                if tag != run_type:
                    if run_type >= 0:
                        items.append((run_type, data[run_start:pos], run_count))
                    run_type = tag
                    run_start = pos
                    run_count = 0
                run_count += 1
                if end > size:
                    self._run_type = tag
                    self._run_left = end - size
                    pos = size
                    break
                pos = end
                continue
            if run_type >= 0:
                items.append((run_type, data[run_start:pos], run_count))
                run_type = -1
            if kind == _LARGE:
                if length > LARGE_MESSAGE_LIMIT:
                    raise self._break("invalid message length")
                if length >= self._large_bytes:
                    total = 1 + length
                    head_end = pos + self._head_bytes
                    if head_end > size:
                        self._need = self._head_bytes
                        self._large_need = total
                        break
                    items.append((tag, data[pos:head_end], HEAD))
                    if end > size:
                        if head_end < size:
                            items.append((tag, data[head_end:], 0))
                        self._run_type = tag
                        self._run_left = end - size
                        pos = size
                        break
                    if end > head_end:
                        items.append((tag, data[head_end:end], 0))
                    pos = end
                    continue
            elif length >= self._max_message_bytes:  # the whole message is one byte longer than its length word
                raise self._break(
                    f"message of {length + 1} bytes exceeds the limit of {self._max_message_bytes} bytes",
                    PROGRAM_LIMIT_EXCEEDED,
                )
            if end > size:
                self._need = 1 + length
                break
            items.append((tag, data if pos == 0 and end == size else data[pos:end], 1))
            pos = end
        if run_type >= 0:
            items.append((run_type, data if run_start == 0 and pos == size else data[run_start:pos], run_count))
        if pos < size:
            self._parts.append(data if pos == 0 else data[pos:])
            self._have = size - pos
        return items

    def _break(self, message: str, sqlstate: str = "08P01") -> ProtocolViolation:
        self._broken = ProtocolViolation(message, sqlstate)
        self._parts = []
        self._have = 0
        return self._broken
