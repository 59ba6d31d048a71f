"""PostgreSQL's own grammar, in the libpg_query that postgast ships: tree, normal form, fingerprint, deparse.

The tree is taken as JSON and not as protobuf, whose Python reader stops at depth 100 (47 terms of `a||b||…`).
The deparse goes from protobuf to text inside the library, so that limit does not reach it either. Every text
given to this module must have passed `lexer.scan`: comments blanked out, and nothing in it that could exhaust
the stack the caller has.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

Tree = dict[str, Any]

# Imported by name: the stubs postgast ships are not valid for mypy (`def` used as an attribute's name).
lib: Any = import_module("postgast.native").lib

# libpg_query's errors carry no SQLSTATE; these come from its own limits and say nothing about the syntax.
_NOT_SYNTAX: Final = (
    "stack depth limit exceeded",
    "out of memory",
    "memory exhausted",
    "invalid memory alloc",
)
_NEAR: Final = re.compile(r' at or near "(.*)"$', re.DOTALL)
_TOKEN: Final = re.compile(r"\w{1,63}|\$\d{1,5}|[^\w\s'\"$]{1,4}", re.ASCII)


class Rejected(Exception):
    """The grammar does not accept the text; the message is PostgreSQL's, with at most one token of the
    text."""


class Unparsable(Exception):
    """The text could not be parsed for a reason that says nothing about its syntax."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """One statement as the grammar sees it: its node's name, its tree and its bounds in bytes."""

    kind: str
    tree: Tree
    start: int
    end: int


def parse(text: bytes) -> list[Parsed]:
    """The statements of a text.

    Raises:
        Rejected: a syntax error.
        Unparsable: the parser or the reader of its tree gave up.
    """
    result = lib.pg_query_parse(text)
    try:
        if result.error:
            raise _error(result.error.contents)
        raw: bytes = result.parse_tree
    finally:
        lib.pg_query_free_parse_result(result)
    try:
        document = json.loads(raw)
    except (RecursionError, ValueError, MemoryError) as error:
        raise Unparsable(f"the parse tree could not be read ({type(error).__name__})") from None
    statements = []
    for item in document["stmts"]:
        unknown = item.keys() - {"stmt", "stmt_location", "stmt_len"}
        if unknown or len(item["stmt"]) != 1:
            raise Unparsable("the parse tree has a shape that is not known")
        ((kind, tree),) = item["stmt"].items()
        start = item.get("stmt_location", 0)
        length = item.get("stmt_len", 0)
        statements.append(Parsed(kind, tree, start, start + length if length else len(text)))
    return statements


def normalize(text: bytes) -> bytes | None:
    """The text with its constants replaced by `$n`, or None where the grammar does not accept it."""
    result = lib.pg_query_normalize(text)
    try:
        if result.error:
            return None
        normalized: bytes = result.normalized_query
        return normalized
    finally:
        lib.pg_query_free_normalize_result(result)


def fingerprint(text: bytes) -> str:
    """libpg_query's fingerprint, the same for texts that differ only in constants; empty where it has
    none."""
    result = lib.pg_query_fingerprint(text)
    try:
        if result.error:
            return ""
        value: bytes = result.fingerprint_str
        return value.decode("ascii")
    finally:
        lib.pg_query_free_fingerprint_result(result)


def deparse(text: bytes) -> str | None:
    """The text as PostgreSQL writes it back from its tree, or None where the library cannot."""
    parsed = lib.pg_query_parse_protobuf(text)
    try:
        if parsed.error:
            return None
        result = lib.pg_query_deparse_protobuf(parsed.parse_tree)
        try:
            if result.error:
                return None
            query: bytes = result.query
            return query.decode("utf-8", "replace")
        finally:
            lib.pg_query_free_deparse_result(result)
    finally:
        lib.pg_query_free_protobuf_parse_result(parsed)


def _error(error: Any) -> Exception:
    text: bytes = error.message
    message = text.decode("utf-8", "replace")
    if any(sign in message for sign in _NOT_SYNTAX):
        return Unparsable(message)
    return Rejected(without_secrets(message))


def without_secrets(message: str) -> str:
    """PostgreSQL's message, its quoted token kept only where that is one word or sign and no string."""
    found = _NEAR.search(message)
    if found is not None and not _TOKEN.fullmatch(found.group(1)):
        message = message[: found.start()]
    return message
