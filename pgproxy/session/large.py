"""A message too large to be kept without need: its head is here, the rest arrives in stretches.

A Bind whose statement passes whatever its values are goes through as it arrives, in constant memory; so does anything
in `observe`. What has to be seen whole (by a reviewer, say) is collected, up to a limit. What is refused is dropped
while it arrives, and the message behind it is the next. The refusal waits for its end: a server answers only what it
has read, and a client that hears the answer while it still sends may then wait for one that it has already (psycopg2
with a wait callback does).
"""

from __future__ import annotations

import hashlib
from enum import Enum
from typing import Any

from pgproxy.protocol.frontend import BindHead
from pgproxy.session import values

_NULL = 0xFFFFFFFF
# A value of a streamed Bind that is longer is told by its size and digest.
_SHOWN_BYTES = 1024


class Fate(Enum):
    """What becomes of a large message."""

    OPEN = "not decided; kept while the client is held back"
    COLLECT = "kept until it is whole"
    PASS = "goes to the server as it arrives"  # noqa: S105 - no password
    REFUSE = "nobody gets it, and the client is told once it has sent all of it"
    DROP = "nobody gets it"


class Large:
    """One such message. `held` is what of it is kept here."""

    def __init__(self, kind: int, head: bytes) -> None:
        self.kind = kind
        self.head = head
        self.size = 1 + int.from_bytes(head[1:5], "big")
        self.arrived = len(head)
        self.fate = Fate.OPEN
        self._parts = [head]
        self.held = len(head)
        self.digest: ValueDigest | None = None

    @property
    def is_complete(self) -> bool:
        return self.arrived == self.size

    def take(self, stretch: bytes) -> bytes | None:
        """The next stretch; gives what is to go to the server now."""
        self.arrived += len(stretch)
        if self.fate in (Fate.REFUSE, Fate.DROP):
            return None
        if self.fate is Fate.PASS:
            if self.digest is not None:
                self.digest.feed(stretch)
            return stretch
        self._parts.append(stretch)
        self.held += len(stretch)
        return None

    def collect(self) -> None:
        self.fate = Fate.COLLECT

    def let_pass(self) -> bytes:
        """From now on it passes; gives what has arrived so far."""
        self.fate = Fate.PASS
        data = self._release()
        if self.digest is not None:
            self.digest.feed(data[self.digest.offset :])
        return data

    def refuse(self) -> None:
        self.fate = Fate.REFUSE
        self._release()

    def drop(self) -> None:
        self.fate = Fate.DROP
        self._release()

    def whole(self) -> bytes:
        assert self.is_complete
        return self._release()

    def _release(self) -> bytes:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self.held = 0
        return data


class ValueDigest:
    """The values of a Bind that passes: short ones as they are, long ones by size and SHA-256."""

    def __init__(self, head: BindHead, types: tuple[int, ...], codec: str) -> None:
        self._head = head
        self.offset = head.values_at
        self._formats = head.parameter_formats
        self._count = head.parameter_count
        self._types = types
        self._codec = codec
        self._index = 0
        self._word = b""
        self._left = 0
        self._size = 0
        self._short = b""
        self._hash: Any = None
        self._described: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> None:
        """The message's bytes from `offset` on, in any pieces."""
        view, pos, end = memoryview(data), 0, len(data)
        while pos < end and self._index < self._count:
            if self._left == 0:
                taken = min(4 - len(self._word), end - pos)
                self._word += data[pos : pos + taken]
                pos += taken
                if len(self._word) < 4:
                    return
                size = int.from_bytes(self._word, "big")
                self._word = b""
                if size == _NULL:
                    self._is(None)
                elif size == 0:
                    self._is(b"")
                else:
                    self._size = self._left = size
                    self._short = b""
                    self._hash = hashlib.sha256() if size > _SHOWN_BYTES else None
                continue
            taken = min(self._left, end - pos)
            if self._hash is not None:
                self._hash.update(view[pos : pos + taken])
            else:
                self._short += data[pos : pos + taken]
            pos += taken
            self._left -= taken
            if self._left == 0:
                self._is(self._short if self._hash is None else None, self._hash)

    def _is(self, value: bytes | None, digest: Any = None) -> None:
        i = self._index
        oid = self._types[i] if i < len(self._types) else 0
        if digest is not None:
            shown = f"<{self._size} bytes, sha256 {digest.hexdigest()}>"
            self._described.append({"type": values.type_name(oid), "value": shown})
        else:
            form = self._formats[i] if i < len(self._formats) else self._formats[0] if len(self._formats) == 1 else 0
            self._described.append(values.describe(value, oid, form == 1, self._codec))
        self._index += 1

    def described(self) -> list[dict[str, Any]]:
        """The values so far; the last may be incomplete, when the client left in the middle."""
        if self._left:
            broken = {"type": "unknown", "value": f"<{self._size} bytes, of which {self._size - self._left} arrived>"}
            return [*self._described, broken]
        return list(self._described)

    def beginning(self, head: bytes) -> list[dict[str, Any]]:
        """What the head alone tells, for the record made before anything is sent."""
        probe = ValueDigest(self._head, self._types, self._codec)
        probe.feed(head[self.offset :])
        shown = probe._described
        if probe._left:
            i = probe._index
            oid = self._types[i] if i < len(self._types) else 0
            shown.append({"type": values.type_name(oid), "value": f"<{probe._size} bytes, sha256 in the outcome>"})
        rest = self._count - len(shown)
        if rest > 0:
            shown.append({"type": "unknown", "value": f"<{rest} more, in the outcome>"})
        return shown
