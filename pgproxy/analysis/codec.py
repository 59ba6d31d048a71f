"""Classifications and questions as bytes between a worker and its analysers: JSON behind a length.

JSON and not pickle: what comes back from a process that has parsed hostile text is read, never executed.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

from classifier.model import Action, ActionClass, Classification, Environment, Risk, Statement

HEADER: Final = struct.Struct("!I")


def frame(payload: bytes) -> bytes:
    """A payload with its length in front."""
    return HEADER.pack(len(payload)) + payload


def encode_question(text: str, environment: Environment) -> bytes:
    """A text and what its meaning depends on. The text stays out of the JSON: writing 16 MB of escapes would hold up
    the loop. Lone surrogates pass through, for the classifier to refuse."""
    about = json.dumps(
        [
            environment.database,
            environment.server_version,
            environment.standard_conforming_strings,
            environment.search_path,
        ]
    ).encode("ascii")
    return frame(about) + text.encode("utf-8", "surrogatepass")


def decode_question(payload: bytes) -> tuple[str, Environment]:
    """The inverse of `encode_question`."""
    (length,) = HEADER.unpack_from(payload)
    behind = HEADER.size + length
    database, version, conforming, path = json.loads(payload[HEADER.size : behind])
    environment = Environment(database, version, conforming, None if path is None else tuple(path))
    return payload[behind:].decode("utf-8", "surrogatepass"), environment


def encode_answer(classification: Classification) -> bytes:
    """Every field of a classification, those included that the public object leaves out."""
    return json.dumps(_to_list(classification)).encode("ascii")


def decode_answer(payload: bytes) -> Classification:
    """The inverse of `encode_answer`."""
    return _from_list(json.loads(payload))


def _to_list(c: Classification) -> list[Any]:
    return [
        c.privileged,
        c.risk,
        c.fingerprint,
        c.normalized,
        [
            [
                s.kind,
                s.tag,
                [[a.cls, a.verb, a.object, a.detail] for a in s.actions],
                s.relations,
                s.functions,
                s.reasons,
                s.prepares,
                None if s.prepared is None else _to_list(s.prepared),
                s.executes,
                s.deallocates,
                s.settings,
            ]
            for s in c.statements
        ],
        c.constant_free,
        c.syntax_error,
    ]


def _from_list(values: list[Any]) -> Classification:
    privileged, risk, fingerprint, normalized, statements, constant_free, syntax_error = values
    return Classification(
        privileged,
        Risk(risk),
        fingerprint,
        normalized,
        tuple(_statement(item) for item in statements),
        constant_free,
        syntax_error,
    )


def _statement(values: list[Any]) -> Statement:
    kind, tag, actions, relations, functions, reasons, prepares, prepared, executes, deallocates, settings = values
    return Statement(
        kind=kind,
        tag=tag,
        actions=tuple(Action(ActionClass(cls), verb, name, detail) for cls, verb, name, detail in actions),
        relations=tuple(relations),
        functions=tuple(functions),
        reasons=tuple(reasons),
        prepares=prepares,
        prepared=None if prepared is None else _from_list(prepared),
        executes=tuple(executes),
        deallocates=deallocates,
        settings=tuple(settings),
    )
