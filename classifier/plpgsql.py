"""The static SQL of a PL/pgSQL body, as PostgreSQL's own PL/pgSQL parser in libpg_query finds it.

That parser's JSON is not complete: it leaves out the default of a variable of a composite type. So what it returns
is taken out of the body again, declarations' defaults still standing are read here, and if anything is left that
could be SQL the body is not understood. It also knows no schema but pg_catalog and public: the types of parameters
and of declarations (`Function.parameters`, `_declared`) are replaced by ones of the same nature first.
"""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from classifier import lexer
from classifier.catalog import Function
from classifier.grammar import Tree, lib, without_secrets

STATEMENT: Final = 0
TYPE: Final = 1
EXPRESSION: Final = 2  # and above it the three kinds of assignment

lib.pg_query_parse_opts.argtypes = [ctypes.c_char_p, ctypes.c_int]
lib.pg_query_parse_opts.restype = lib.pg_query_parse.restype

_NODE_NAMES: Final = """
function var rec row recfield type expr stmt_block exception_block exception condition stmt_assign stmt_if
if_elsif stmt_case case_when stmt_loop stmt_while stmt_fori stmt_fors stmt_forc stmt_foreach_a stmt_exit
stmt_return stmt_return_next stmt_return_query stmt_raise raise_option stmt_assert stmt_execsql
stmt_dynexecute stmt_dynfors stmt_getdiag diag_item stmt_open stmt_fetch stmt_close stmt_perform stmt_call
stmt_commit stmt_rollback stmt_set nsitem promise
"""
_NODES: Final = frozenset(_NODE_NAMES.split())
_DYNAMIC_FIELDS: Final = frozenset({"dynquery"})
_DYNAMIC_NODES: Final = frozenset({"PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"})
# For variables the parser makes for triggers it prints `{}}` where `{}` is meant.
_TORN: Final = re.compile(r"(?<=[\[,])\{\}\}")
_WORD: Final = r"[A-Za-z_\x80-\U0010ffff][\w$]*"
# One declaration's type, in the text between DECLARE and BEGIN.
_SECTION: Final = re.compile(r"(?<![\w$.])declare(?![\w$]).*?(?<![\w$.])begin(?![\w$])", re.IGNORECASE | re.DOTALL)
_NAMED: Final = rf"((?:^declare|;)\s*{_WORD}\s+(?:constant\s+)?)"
_DECLARED: Final = re.compile(
    rf"{_NAMED}({_WORD})\.({_WORD})(?=\s*(?:\[|;|:=|=|\bdefault\b|\bnot\b|\bcollate\b))", re.IGNORECASE
)
_ROW: Final = re.compile(rf"{_NAMED}(?:({_WORD})\.)?({_WORD})\s*%\s*rowtype\b", re.IGNORECASE)
_COLUMN: Final = re.compile(rf"{_NAMED}(?:({_WORD})\.)?({_WORD})\.{_WORD}\s*%\s*type\b", re.IGNORECASE)
_PLAIN: Final = re.compile(
    rf'(?=(?:^declare|;)\s*{_WORD}\s+(?:constant\s+)?({_WORD}|"[^"]+")(?![\w$.%]))', re.IGNORECASE
)
_DEFAULT: Final = re.compile(r"(?::=|\bdefault\b|=)([^;]+);", re.IGNORECASE)
_LEFT_CALL: Final = re.compile(rf'({_WORD}|")\s*\(')
_LEFT_SQL: Final = re.compile(
    r"::|\b(?:select|insert|update|delete|merge|values|call|perform|copy|truncate|create|alter|drop|grant"
    r"|revoke|with|do|set|reset|lock|notify|refresh|vacuum|cluster|reindex|import|comment|security)\b",
    re.IGNORECASE,
)
_DIAGNOSTICS: Final = re.compile(r"\bget\s+(?:current\s+|stacked\s+)?diagnostics\b[^;]*;", re.IGNORECASE)
_EXECUTE: Final = re.compile(r"\bexecute\b", re.IGNORECASE)
# what stands before a parenthesis in a declaration or a statement's frame and calls nothing
_FRAME_WORDS: Final = """
bit bpchar char character cursor dec decimal elsif for float if in interval into numeric return strict time
timestamp varbit varchar varying when while and or not then loop case else using until exists any all
"""
_FRAMES: Final = frozenset(_FRAME_WORDS.split())


class NotUnderstood(Exception):
    """The body cannot be read with certainty; the message says why and quotes nothing of it."""


class Query(NamedTuple):
    mode: int
    text: str


class Body(NamedTuple):
    """`dynamic` are the expressions whose values are executed; `types` the names declarations use."""

    queries: tuple[Query, ...]
    dynamic: tuple[str, ...]
    types: tuple[tuple[str | None, str], ...]


def read(function: Function, is_row: Callable[[str | None, str], bool]) -> Body:
    """What a function's body holds. `is_row` says whether a type's name means a composite type.

    Raises:
        NotUnderstood: the parser does not accept it, or something was left over.
        lexer.TooHostile, lexer.LexicalError: it may not be parsed at all.
    """
    source = lexer.scan(function.body.encode()).blanked.decode()
    types: list[tuple[str | None, str]] = []
    declared = _with_plain_types(source, is_row, types)
    text = f"{_header(function)} {_quoted(declared)}"
    queries: list[Query] = []
    dynamic: list[str] = []
    cursors: set[str] = set()
    _collect(_parse(text), queries, dynamic, cursors)
    left = _without(declared, [*queries, *(Query(EXPRESSION, text) for text in dynamic)])
    left = _WITHOUT_STRINGS.sub("''", left)
    queries.extend(_defaults(left, declared, len(dynamic), cursors))
    return Body(tuple(queries), tuple(dynamic), tuple(types))


def parse(query: Query) -> tuple[str, Tree]:
    """One query's tree. Raises `NotUnderstood`."""
    result = lib.pg_query_parse_opts(query.text.encode(), query.mode)
    try:
        if result.error:
            raise NotUnderstood(without_secrets(result.error.contents.message.decode("utf-8", "replace")))
        statements = json.loads(result.parse_tree)["stmts"]
    except (RecursionError, ValueError):
        raise NotUnderstood("a parse tree could not be read") from None
    finally:
        lib.pg_query_free_parse_result(result)
    if len(statements) != 1 or len(statements[0]["stmt"]) != 1:
        raise NotUnderstood("a query has a shape that is not known")
    ((kind, tree),) = statements[0]["stmt"].items()
    return kind, tree


def _header(function: Function) -> str:
    """A CREATE that gives the body's names the nature they have."""
    shown = []
    table = []
    for position, item in enumerate(function.parameters):
        # a parameter without a name can be meant only as $n
        name = '"' + (item.name or f"pgproxy {position}").replace('"', '""') + '"'
        if item.mode == "t":
            table.append(f"{name} {item.type}")
        else:
            mode = {"i": "IN", "o": "OUT", "b": "INOUT", "v": "IN"}[item.mode]
            shown.append(f"{mode} {name} {item.type}")
    word = "PROCEDURE" if function.kind == "p" else "FUNCTION"
    returns = f"RETURNS TABLE ({', '.join(table)})" if table else f"RETURNS {function.returns}"
    if function.kind == "p":
        returns = ""
    return f"CREATE {word} f({', '.join(shown)}) {returns} LANGUAGE plpgsql AS"


def _quoted(body: str) -> str:
    number = 0
    while f"$b{number}$" in body:
        number += 1
    return f"$b{number}${body}$b{number}$"


def _with_plain_types(
    source: str, is_row: Callable[[str | None, str], bool], types: list[tuple[str | None, str]]
) -> str:
    """The body with types in its declarations that the parser can look up."""

    def plain(found: re.Match[str]) -> str:
        schema, name = found.group(2).lower(), found.group(3).lower()
        types.append((schema, name))
        is_array = found.string[found.end() :].lstrip().startswith("[")
        return found.group(1) + ("record" if is_row(schema, name) and not is_array else "text")

    def row(found: re.Match[str]) -> str:
        types.append((_folded(found.group(2)), found.group(3).lower()))
        return found.group(1) + "record"

    def column(found: re.Match[str]) -> str:
        types.append((_folded(found.group(2)), found.group(3).lower()))
        return found.group(1) + "text"

    def section(found: re.Match[str]) -> str:
        text = found.group(0)
        for item in _PLAIN.finditer(text):
            name = item.group(1)
            types.append((None, name[1:-1] if name.startswith('"') else name.lower()))
        return _DECLARED.sub(plain, _COLUMN.sub(column, _ROW.sub(row, text)))

    return _SECTION.sub(section, source)


def _folded(name: str | None) -> str | None:
    return None if name is None else name.lower()


def _parse(text: str) -> list[Any]:
    result = lib.pg_query_parse_plpgsql(text.encode())
    try:
        if result.error:
            raise NotUnderstood(without_secrets(result.error.contents.message.decode("utf-8", "replace")))
        raw = result.plpgsql_funcs.decode()
    finally:
        lib.pg_query_free_plpgsql_parse_result(result)
    try:
        try:
            found = json.loads(raw)
        except ValueError:
            # only in front of the variable `found`, where no text of the body can stand
            front, mark, rest = raw.partition('{"PLpgSQL_var":{"refname":"found"')
            found = json.loads(_TORN.sub("{}", front) + mark + rest)
    except (RecursionError, ValueError):
        raise NotUnderstood("its parse tree could not be read") from None
    if not isinstance(found, list) or len(found) != 1:
        raise NotUnderstood("its parse tree has a shape that is not known")
    return found


def _collect(root: Any, queries: list[Query], dynamic: list[str], cursors: set[str]) -> None:
    """Every expression in a tree of known nodes, each once, and the names of bound cursors."""
    pending: list[tuple[Any, bool]] = [(root, False)]
    while pending:
        item, is_dynamic = pending.pop()
        if isinstance(item, list):
            pending.extend((below, is_dynamic) for below in item)
        elif isinstance(item, dict):
            for name, value in item.items():
                if name == "PLpgSQL_expr":
                    if not isinstance(value.get("query"), str):
                        raise NotUnderstood("an expression without a text")
                    if is_dynamic:
                        dynamic.append(value["query"])
                    else:
                        queries.append(Query(int(value.get("parseMode", 0)), value["query"]))
                    continue
                if name.startswith("PLpgSQL_"):
                    if name.removeprefix("PLpgSQL_") not in _NODES:
                        raise NotUnderstood(f"{name} is not a node this classifier knows")
                    if "cursor_explicit_expr" in value:
                        cursors.add(str(value.get("refname", "")).lower())
                    if name in _DYNAMIC_NODES:
                        rest = {key: below for key, below in value.items() if key != "query"}
                        pending.append((value.get("query"), True))
                        pending.append((rest, False))
                        continue
                pending.append((value, name in _DYNAMIC_FIELDS))


_WITHOUT_STRINGS: Final = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_INTO: Final = r"(?:\s+|\s*\binto\b(?:\s+strict\b)?[\s\w.,\[\]\"$]*?)"


def _without(source: str, queries: list[Query]) -> str:
    """What of a body no query covers."""
    for query in sorted(queries, key=lambda item: -len(item.text)):
        text = query.text
        if query.mode == STATEMENT and text.startswith("SELECT "):
            source, count = _cut(source, "PERFORM " + text[7:])
            if count:
                continue
            source, count = _cut(source, text)
            if not count:  # a cursor's arguments
                source, _ = _cut(source, text[7:])
            continue
        if text.startswith('"__Case__Variable_'):
            text = text.partition(" IN (")[2].removesuffix(")")
        source, _ = _cut(source, text)
    return source


def _cut(source: str, text: str) -> tuple[str, int]:
    words = text.split()
    if not words:
        return source, 0
    exact = r"\s+".join(re.escape(word) for word in words)
    guard = rf"(?<![\w$]){exact}(?![\w$])" if words[0][0].isalnum() else exact
    source, count = re.subn(guard, " ", source, count=1, flags=re.IGNORECASE)
    if not count and len(words) < 2000:
        # INTO was taken out and blanks put in its place
        gaps = re.split(r"(\s+)", text.strip())
        pattern = "".join(
            (_INTO if len(piece) > 4 else r"\s+") if piece.isspace() else re.escape(piece) for piece in gaps
        )
        tail = r"(?:\s*\binto\b[\s\w.,\[\]\"$]*)?"
        source, count = re.subn(pattern + tail, " ", source, count=1, flags=re.IGNORECASE)
    return source, count


def _defaults(left: str, declared: str, executed: int, cursors: set[str]) -> list[Query]:
    """Defaults (and targets of GET DIAGNOSTICS) that no query covers; raises when something else is left."""
    left = _DIAGNOSTICS.sub(";", left)
    for cursor in cursors:
        # its arguments have been handed on, written another way where they were named
        use = rf"\b(open|in)\s+{re.escape(cursor)}\s*\([^;]*?\)(?=\s*(?:;|loop\b))"
        left = re.sub(use, r"\1 ", left, flags=re.IGNORECASE)
    found = [Query(EXPRESSION, item.group(1).strip()) for item in _DEFAULT.finditer(left) if item.group(1).strip()]
    rest = _DEFAULT.sub(";", left)
    for call in _LEFT_CALL.finditer(rest):
        if call.group(1).lower() not in _FRAMES | cursors:
            raise NotUnderstood("a part of its body was not read by the parser of PL/pgSQL")
    if _LEFT_SQL.search(rest) or len(_EXECUTE.findall(rest)) != executed:
        raise NotUnderstood("a part of its body was not read by the parser of PL/pgSQL")
    # the texts themselves stand in `declared`, where strings have not been taken out
    exact = [Query(EXPRESSION, item.group(1).strip()) for item in _DEFAULT.finditer(declared)]
    wanted = {item.text: item for item in found}
    return [
        next((e for e in exact if _WITHOUT_STRINGS.sub("''", e.text) == text), query) for text, query in wanted.items()
    ]
