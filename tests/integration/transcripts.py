"""Conversations in raw messages, held with the server directly and through pgproxy, and compared byte for byte.

A script is a list of steps; a step sends messages in one write and reads until the replies it names have come. The
connection is logged in by libpq, whose socket is then taken over, so both conversations begin after ReadyForQuery.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from pgproxy.protocol import tags
from pgproxy.protocol.body import message
from tests.integration.system import PATIENCE_S, Person

# A Bind of a name that stands for nothing never reaches the server, lest somebody makes the name exist meanwhile: the
# error is ours, the server's but for the place in its source, which no client has a use for.
_UNKNOWN_NAME = re.compile(rb"(C26000\0M[^\0]*\0)F[^\0]*\0L\d+\0R[^\0]*\0")


def q(sql: str | bytes) -> bytes:
    """Query"""
    return message(tags.QUERY, _bytes(sql) + b"\0")


def parse(sql: str, name: str = "", types: tuple[int, ...] = ()) -> bytes:
    return message(
        tags.PARSE, _bytes(name) + b"\0" + _bytes(sql) + b"\0" + struct.pack(f"!H{len(types)}I", len(types), *types)
    )


def bind(
    *values: bytes | None,
    name: str = "",
    portal: str = "",
    formats: tuple[int, ...] = (),
    results: tuple[int, ...] = (),
) -> bytes:
    body = _bytes(portal) + b"\0" + _bytes(name) + b"\0"
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats) + struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!I", len(value)) + value
    return message(tags.BIND, body + struct.pack(f"!H{len(results)}H", len(results), *results))


def describe(kind: str, name: str = "") -> bytes:
    return message(tags.DESCRIBE, _bytes(kind + name) + b"\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(tags.EXECUTE, _bytes(portal) + b"\0" + struct.pack("!I", rows))


def close(kind: str, name: str = "") -> bytes:
    return message(tags.CLOSE, _bytes(kind + name) + b"\0")


def call(oid: int, *values: bytes) -> bytes:
    """FunctionCall with binary arguments and a binary result"""
    body = struct.pack("!IHHH", oid, 1, 1, len(values))
    for value in values:
        body += struct.pack("!I", len(value)) + value
    return message(tags.FUNCTION_CALL, body + struct.pack("!H", 1))


def copy_data(data: bytes) -> bytes:
    return message(tags.COPY_DATA, data)


def copy_fail(reason: str) -> bytes:
    return message(tags.COPY_FAIL, _bytes(reason) + b"\0")


SYNC = message(tags.SYNC, b"")
FLUSH = message(tags.FLUSH, b"")
COPY_DONE = message(tags.COPY_DONE, b"")


def run(sql: str, *values: bytes | None, rows: int = 0) -> bytes:
    """One statement of the extended protocol, as most drivers send it, without its Sync."""
    return parse(sql) + bind(*values) + describe("P") + execute(rows=rows)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


@dataclass(frozen=True)
class Step:
    """`until` is the type of the last reply awaited, and how often it comes."""

    send: bytes
    until: str = "Z"
    times: int = 1


def ask(*messages: bytes, until: str = "Z", times: int = 1) -> Step:
    return Step(b"".join(messages), until, times)


def converse(dsn: str, steps: list[Step], options: str = "", encoding: str = "UTF8") -> list[tuple[str, bytes]]:
    """Every message the server sent, with what differs between any two conversations masked."""
    with psycopg.connect(dsn, options=options, client_encoding=encoding, sslmode="disable") as connection:
        wire = socket.socket(fileno=os.dup(connection.pgconn.socket))
        wire.setblocking(True)
        wire.settimeout(PATIENCE_S)
        with wire:
            heard = list(_converse(wire, steps))
            wire.sendall(message(tags.TERMINATE, b""))
            assert wire.recv(1) == b"", "more was said after the last reply"
    return heard


def _converse(wire: socket.socket, steps: list[Step]) -> Iterator[tuple[str, bytes]]:
    buffer = b""
    for step in steps:
        wire.sendall(step.send)
        missing = step.times
        while missing:
            while len(buffer) < 5 or len(buffer) < 1 + int.from_bytes(buffer[1:5], "big"):
                data = wire.recv(1 << 16)
                assert data, "the server closed the connection"
                buffer += data
            size = 1 + int.from_bytes(buffer[1:5], "big")
            one, buffer = buffer[:size], buffer[size:]
            kind = chr(one[0])
            missing -= kind == step.until
            if kind == "A":
                one = one[:5] + b"\0\0\0\0" + one[9:]  # the process id: each conversation has its own server process
            if kind == "E" and _UNKNOWN_NAME.search(one):
                one = message(tags.ERROR_RESPONSE, _UNKNOWN_NAME.sub(rb"\1", one[5:]))
            yield kind, one
    assert not buffer, f"more than was awaited: {buffer!r}"


@contextmanager
def approving(reviewer: Person) -> Iterator[list[str]]:
    """Somebody who approves whatever comes; gives the texts approved so far."""
    approved: list[str] = []
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            for request in reviewer.approvals(status="pending"):
                if reviewer.decide(request["id"], "approve", "by the test").status_code == 200:
                    approved.append(request["statement"]["sql"])

    person = threading.Thread(target=work, name="reviewer")
    person.start()
    try:
        yield approved
    finally:
        over.set()
        person.join()
