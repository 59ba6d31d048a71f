"""Recorded conversations as text: one line a message of the client's, `.` where the client waited for the server.

    ^ \\x00\\x00\\x00\\x2b\\x00\\x03\\x00\\x00user\\x00…     the connection's first packet, length word and all
    Q select 1\\x00                            a message: its type, a space, its body
    .

Lines that begin with `#` say where a conversation comes from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Seed:
    """One connection's conversation. `None` among the messages is where the client waited."""

    name: str
    first: bytes
    messages: tuple[bytes | None, ...]


def escaped(data: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in data)


def unescaped(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def message(kind: bytes, body: bytes) -> bytes:
    """Built here and not by the product, whose framing is under test."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def split(stream: bytes) -> list[bytes]:
    """Whole messages of a stream that is well formed."""
    found = []
    while stream:
        size = 1 + int.from_bytes(stream[1:5], "big")
        assert size >= 5 and len(stream) >= size, "cut off"
        found.append(stream[:size])
        stream = stream[size:]
    return found


def written(first: bytes, messages: list[bytes | None], note: str) -> str:
    lines = [f"# {note}", f"^ {escaped(first)}"]
    lines += ["." if m is None else f"{chr(m[0])} {escaped(m[5:])}" for m in messages]
    return "\n".join(lines) + "\n"


def read(name: str, text: str) -> Seed:
    first, messages = b"", list[bytes | None]()
    for line in text.split("\n"):
        if not line or line[0] == "#":
            continue
        if line == ".":
            messages.append(None)
        elif line[0] == "^":
            first = unescaped(line[2:])
        else:
            messages.append(message(line[0].encode(), unescaped(line[2:])))
    return Seed(name, first, tuple(messages))


def load() -> list[Seed]:
    found = [read(path.stem, path.read_text("ascii")) for path in sorted(DIRECTORY.glob("*.txt"))]
    assert found, f"no seeds in {DIRECTORY}"
    return found
