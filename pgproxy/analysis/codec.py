"""Classifications and questions as bytes between a worker and its analysers: JSON behind a length.

JSON and not pickle: what comes back from a process that has parsed hostile text is read, never executed.

A frame is a length and that many bytes; the length's highest bit says that the next frame goes on with the same
payload. So a long text is sent, and a long answer read, in pieces between which a loop may do other things.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

from classifier.model import Action, ActionClass, Classification, Environment, Risk, Statement
from classifier.normal import Kept

HEADER: Final = struct.Struct("!I")
MORE: Final = 0x8000_0000
PIECE: Final = 64 * 1024  # characters of a text that are encoded in one go
ITEMS: Final = 1000  # of an answer (names, actions) that are read in one go
_STATEMENT_WEIGHT: Final = 10  # what beginning a statement costs beside them

_CLASSIFICATION: Final = tuple(f.name for f in fields(Classification) if f.name != "statements")
# Of these a missing value means that nobody can tell, and an empty list is an answer of its own.
_MAY_BE_UNKNOWN: Final = frozenset(f.name for f in fields(Statement) if f.default != ())
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
    the text's normal form. The statements follow the rest, as steps that put them together, in parts."""
    about = [
        _values(classification),
        None if kept is None else [[number, constant.decode("latin-1")] for number, constant in kept],
    ]
    parts = [json.dumps(about).encode("ascii")]
    part: list[list[Any]] = []
    size = 0
    for step in _steps(classification.statements):
        part.append(step)
        size += len(step[-1]) if step[0] in (_MORE, _ACTIONS) else _STATEMENT_WEIGHT
        if size >= ITEMS:
            parts.append(json.dumps(part).encode("ascii"))
            part, size = [], 0
    if part:
        parts.append(json.dumps(part).encode("ascii"))
    return b"".join(frame(part) for part in parts)


def decode_answer(payload: bytes) -> tuple[Classification, Kept | None]:
    """The inverse of `encode_answer`."""
    answer = Answer(payload)
    while not answer.read():
        pass
    return answer.result()


# Steps of an answer: a statement begins with the values that are no lists; more of one of its lists; more actions;
# what it prepares, up to the end of that.
_BEGIN, _MORE, _ACTIONS, _PREPARES, _PREPARED = "begin", "more", "actions", "prepares", "prepared"


def _steps(statements: Iterable[Statement]) -> Iterator[list[Any]]:
    for s in statements:
        values = {name: getattr(s, name) for name in _STATEMENT}
        yield [_BEGIN, {name: value for name, value in values.items() if not isinstance(value, tuple)}]
        for name, value in values.items():
            if isinstance(value, tuple):
                if not value and name in _MAY_BE_UNKNOWN:
                    yield [_MORE, name, []]
                for start in range(0, len(value), ITEMS):
                    yield [_MORE, name, value[start : start + ITEMS]]
        actions = [[a.cls, a.verb, a.object, a.detail] for a in s.actions]
        for start in range(0, len(actions), ITEMS):
            yield [_ACTIONS, actions[start : start + ITEMS]]
        if s.prepared is not None:
            yield [_PREPARES, _values(s.prepared)]
            yield from _steps(s.prepared.statements)
            yield [_PREPARED]


class _Draft:
    """A statement being put together."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.lists: dict[str, list[Any]] = {}
        self.actions: list[Action] = []
        self.prepared: tuple[list[Any], list[_Draft]] | None = None

    def statement(self) -> Statement:
        prepared = self.prepared
        values = self.values | {name: tuple(items) for name, items in self.lists.items()}
        return Statement(
            actions=tuple(self.actions),
            prepared=None if prepared is None else _classification(prepared[0], _finished(prepared[1])),
            **values,
        )


def _finished(drafts: list[_Draft]) -> tuple[Statement, ...]:
    return tuple(draft.statement() for draft in drafts)


class Answer:
    """An answer read part by part: call `read` until it says that nothing is left."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0
        self._values, kept = self._part()
        self._kept = None if kept is None else tuple((number, c.encode("latin-1")) for number, c in kept)
        self._statements: list[Statement] = []
        self._levels: list[list[_Draft]] = [[]]  # the statements of the text, of what the last of them prepares, …

    def read(self) -> bool:
        """Reads the next part; whether it was the last."""
        if self._position < len(self._payload):
            for step in self._part():
                self._take(step)
        if self._position < len(self._payload):
            return False
        self._finish()
        return True

    def _take(self, step: list[Any]) -> None:
        match step:
            case [kind, values] if kind == _BEGIN:
                if len(self._levels) == 1:
                    self._finish()
                self._levels[-1].append(_Draft(values))
            case [kind, name, items] if kind == _MORE:
                self._levels[-1][-1].lists.setdefault(name, []).extend(_frozen(item) for item in items)
            case [kind, actions] if kind == _ACTIONS:
                self._levels[-1][-1].actions.extend(
                    Action(ActionClass(cls), verb, name, detail) for cls, verb, name, detail in actions
                )
            case [kind, values] if kind == _PREPARES:
                inner: list[_Draft] = []
                self._levels[-1][-1].prepared = values, inner
                self._levels.append(inner)
            case [kind] if kind == _PREPARED and len(self._levels) > 1:
                self._levels.pop()
            case _:
                raise ValueError("an answer holds what no answer does")

    def _finish(self) -> None:
        """The last statement is whole: so that none of this is left for the end."""
        if len(self._levels) > 1:
            raise ValueError("an answer is cut short")
        self._statements.extend(_finished(self._levels[0]))
        self._levels[0].clear()

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


def _values(classification: Classification) -> list[Any]:
    return [getattr(classification, name) for name in _CLASSIFICATION]


def _classification(values: list[Any], statements: tuple[Statement, ...]) -> Classification:
    named = dict(zip(_CLASSIFICATION, values, strict=True))
    named["risk"] = Risk(named["risk"])
    return Classification(statements=statements, **named)
