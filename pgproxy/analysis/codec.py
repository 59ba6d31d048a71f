"""Classifications and questions as bytes between a worker and its analysers: JSON behind a length.

JSON and not pickle: what comes back from a process that has parsed hostile text is read, never executed.

A frame is a length and that many bytes; the length's highest bit says that the next frame goes on with the same
payload. So a long text is sent, and a long answer read, in pieces between which a loop may do other things.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from classifier.model import Action, ActionClass, Classification, Environment, Risk, Statement
from classifier.normal import Kept

HEADER: Final = struct.Struct("!I")
MORE: Final = 0x8000_0000
PIECE: Final = 64 * 1024  # characters of a text that are encoded in one go
STATEMENTS: Final = 100  # of an answer that are read in one go

_CLASSIFICATION: Final = tuple(f.name for f in fields(Classification) if f.name != "statements")
_STATEMENT: Final = tuple(f.name for f in fields(Statement) if f.name not in ("actions", "prepared"))
_ENVIRONMENT: Final = tuple(f.name for f in fields(Environment))


def frame(payload: bytes, more: bool = False) -> bytes:
    """A payload, or a part of one, with its length in front."""
    return HEADER.pack(len(payload) | (MORE if more else 0)) + payload


def encode_question(text: str, environment: Environment) -> Iterator[bytes]:
    """A text and what its meaning depends on, as frames. The text stays out of the JSON: writing 16 MB of escapes
    takes long. Lone surrogates pass through, for the classifier to refuse."""
    about = json.dumps([getattr(environment, name) for name in _ENVIRONMENT]).encode("ascii")
    start = frame(about)
    for position in range(0, len(text), PIECE):
        piece = start + text[position : position + PIECE].encode("utf-8", "surrogatepass")
        start = b""
        yield frame(piece, more=position + PIECE < len(text))
    if start:
        yield frame(start)


def decode_question(payload: bytes) -> tuple[str, Environment]:
    """The inverse of `encode_question`, its frames joined."""
    (length,) = HEADER.unpack_from(payload)
    behind = HEADER.size + length
    values = [_frozen(value) for value in json.loads(payload[HEADER.size : behind])]
    return payload[behind:].decode("utf-8", "surrogatepass"), Environment(*values)


def encode_catalog(database: str, payload: bytes) -> Iterator[bytes]:
    """A database's catalog, as frames; it is answered by nothing and holds for the questions that follow."""
    whole = frame(json.dumps({"catalog": database}).encode("ascii")) + payload
    for position in range(0, len(whole), PIECE):
        yield frame(whole[position : position + PIECE], more=position + PIECE < len(whole))


def decode_catalog(payload: bytes) -> tuple[str, bytes] | None:
    """The inverse of `encode_catalog`, its frames joined; None for a question."""
    if payload[HEADER.size : HEADER.size + 1] != b"{":
        return None
    (length,) = HEADER.unpack_from(payload)
    behind = HEADER.size + length
    return json.loads(payload[HEADER.size : behind])["catalog"], payload[behind:]


def encode_answer(classification: Classification, kept: Kept | None) -> bytes:
    """Every field of a classification, those included that the public object leaves out, and what was learnt about
    the text's normal form. The statements follow the rest in parts."""
    about = [
        [getattr(classification, name) for name in _CLASSIFICATION],
        None if kept is None else [[number, constant.decode("latin-1")] for number, constant in kept],
    ]
    parts = [json.dumps(about).encode("ascii")]
    statements = classification.statements
    for start in range(0, len(statements), STATEMENTS):
        part = [_statement_to_list(s) for s in statements[start : start + STATEMENTS]]
        parts.append(json.dumps(part).encode("ascii"))
    return b"".join(frame(part) for part in parts)


def decode_answer(payload: bytes) -> tuple[Classification, Kept | None]:
    """The inverse of `encode_answer`."""
    answer = Answer(payload)
    while not answer.read():
        pass
    return answer.result()


class Answer:
    """An answer read part by part: call `read` until it says that nothing is left."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0
        self._values, kept = self._part()
        self._kept = None if kept is None else tuple((number, c.encode("latin-1")) for number, c in kept)
        self._statements: list[Statement] = []

    def read(self) -> bool:
        """Reads the next part; whether it was the last."""
        if self._position < len(self._payload):
            self._statements.extend(_statement(item) for item in self._part())
        return self._position >= len(self._payload)

    def result(self) -> tuple[Classification, Kept | None]:
        """What was read."""
        return _classification(self._values, tuple(self._statements)), self._kept

    def _part(self) -> Any:
        (length,) = HEADER.unpack_from(self._payload, self._position)
        start = self._position + HEADER.size
        self._position = start + length
        if self._position > len(self._payload):
            raise ValueError("an answer is cut short")
        return json.loads(self._payload[start : self._position])


def _frozen(value: Any) -> Any:
    """Lists are tuples again, at every depth."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _classification(values: list[Any], statements: tuple[Statement, ...]) -> Classification:
    named = dict(zip(_CLASSIFICATION, values, strict=True))
    named["risk"] = Risk(named["risk"])
    return Classification(statements=statements, **named)


def _statement_to_list(s: Statement) -> list[Any]:
    prepared = s.prepared
    return [
        [getattr(s, name) for name in _STATEMENT],
        [[a.cls, a.verb, a.object, a.detail] for a in s.actions],
        None
        if prepared is None
        else [
            [getattr(prepared, name) for name in _CLASSIFICATION],
            [_statement_to_list(inner) for inner in prepared.statements],
        ],
    ]


def _statement(item: list[Any]) -> Statement:
    values, actions, prepared = item
    named = {name: _frozen(value) for name, value in zip(_STATEMENT, values, strict=True)}
    return Statement(
        actions=tuple(Action(ActionClass(cls), verb, name, detail) for cls, verb, name, detail in actions),
        prepared=None
        if prepared is None
        else _classification(prepared[0], tuple(_statement(inner) for inner in prepared[1])),
        **named,
    )
