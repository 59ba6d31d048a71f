"""What the statements of a text name, by PostgreSQL's grammar. Pure.

Only texts that libpg_query can be given on an ordinary stack are read (`lexer.Scan.is_small`): this runs in the
control process, which a hostile text must not end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from classifier import grammar, lexer

Tree = dict[str, Any]

MAX_STATEMENTS: Final = 5
QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_SIMPLE: Final = re.compile(r"[a-z_][a-z0-9_$]*")


class Unreadable(Exception):
    """The text is not one that can be looked into here; the message says why."""


class Name(NamedTuple):
    """A name as the grammar has it: folded, cut at 63 bytes, without its quotes."""

    schema: str | None
    name: str

    @property
    def text(self) -> str:
        """As one would write it."""
        return ".".join(quoted(part) for part in self if part is not None)


def quoted(identifier: str) -> str:
    return identifier if _SIMPLE.fullmatch(identifier) else '"' + identifier.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Aim:
    """One statement: what it names, wherever it stands in it. `text` is free of comments; `plannable` what EXPLAIN may
    be given of it, None where nothing. `number` counts the text's statements from 1."""

    number: int
    kind: str
    tree: Tree
    text: str
    plannable: str | None
    parameters: int = 0  # the highest $n
    relations: tuple[Name, ...] = ()
    functions: tuple[Name, ...] = ()
    types: tuple[Name, ...] = ()
    operators: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()  # of table expressions: `relations` may name those


@dataclass(slots=True)
class _Found:
    relations: dict[Name, None] = field(default_factory=dict)
    functions: dict[Name, None] = field(default_factory=dict)
    types: dict[Name, None] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    common: set[str] = field(default_factory=set)
    parameters: int = 0


def read(sql: str, executes: Mapping[str, str] | None = None) -> list[Aim]:
    """The statements of a text, at most `MAX_STATEMENTS` of them. `executes`: what names given to EXECUTE stand for.

    Raises:
        Unreadable
    """
    aims = []
    for number, (kind, tree, text) in enumerate(_statements(sql)[:MAX_STATEMENTS], start=1):
        if kind == "ExecuteStmt" and tree.get("name") in (executes or {}):
            inner = _statements((executes or {})[tree["name"]])
            if len(inner) == 1 and inner[0][0] != "ExecuteStmt":
                kind, tree, text = inner[0]
        aims.append(_aim(number, kind, tree, text))
    return aims


def count(sql: str) -> int:
    """How many statements a text has."""
    return len(_statements(sql))


def nodes(tree: Any) -> Iterator[tuple[str, Tree]]:
    """Every object below a tree with the key it stands under: a node's name, or a field's where the grammar leaves
    that out."""
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        key, item = stack.pop()
        if isinstance(item, dict):
            yield key, item
            stack.extend(reversed(item.items()))
        elif isinstance(item, list):
            stack.extend((key, part) for part in reversed(item))


def range_vars(tree: Any) -> Iterator[Tree]:
    """The relations named anywhere; not those of FOR UPDATE OF, which are names of the FROM list, aliases too."""
    skipped: set[int] = set()
    for key, node in nodes(tree):
        if key == "LockingClause":
            skipped.update(id(item.get("RangeVar")) for item in node.get("lockedRels") or ())
        elif isinstance(node.get("relname"), str) and id(node) not in skipped:
            yield node


def strings(items: Any) -> list[str]:
    """The values of a list's String nodes."""
    if not isinstance(items, list):
        return []
    return [item["String"].get("sval", "") for item in items if isinstance(item, dict) and "String" in item]


def relation(range_var: Tree) -> Name:
    return Name(range_var.get("schemaname"), str(range_var.get("relname", "")))


def name_of(parts: list[str]) -> Name | None:
    """Of a qualified name's parts; the database's is not needed."""
    return Name(parts[-2] if len(parts) > 1 else None, parts[-1]) if parts else None


def _statements(sql: str) -> list[tuple[str, Tree, str]]:
    try:
        text = sql.encode()
        scan = lexer.scan(text)
        if not scan.is_small:
            raise Unreadable("the statement is too large or too deep to be looked into here")
        parsed = grammar.parse(scan.blanked)
    except UnicodeError:
        raise Unreadable("the statement is not valid Unicode") from None
    except (lexer.LexicalError, lexer.TooHostile) as error:
        raise Unreadable(f"the statement cannot be read: {error}") from None
    except grammar.Rejected as error:
        raise Unreadable(f"not PostgreSQL's grammar: {error}") from None
    except grammar.Unparsable as error:
        raise Unreadable(f"the statement could not be read: {error}") from None
    if [(s.start, s.end) for s in scan.spans] != [(p.start, p.end) for p in parsed]:
        raise Unreadable("lexer and grammar do not agree where statements begin and end")
    return [
        (each.kind, each.tree, scan.blanked[each.start : each.end].decode("utf-8", "replace").strip())
        for each in parsed
    ]


def _aim(number: int, kind: str, tree: Tree, text: str) -> Aim:
    plannable: str | None = text if kind in QUERIES or kind in ("CreateTableAsStmt", "DeclareCursorStmt") else None
    if kind == "SelectStmt" and any(key == "intoClause" for key, _ in nodes(tree)):
        plannable = None if "intoClause" not in tree else text
    if kind == "ExplainStmt":
        kind, tree = _inner(tree)
        plannable = _cut(text, kind, tree, b"explain")
    elif kind == "PrepareStmt":
        kind, tree = _inner(tree)
    elif kind == "CopyStmt" and isinstance(tree.get("query"), dict):
        plannable = _cut(text, *_inner(tree), b"copy")
    found = _look(tree)
    return Aim(
        number,
        kind,
        tree,
        text,
        plannable,
        found.parameters,
        tuple(found.relations),
        tuple(found.functions),
        tuple(found.types),
        frozenset(found.operators),
        frozenset(found.fields),
        frozenset(found.common),
    )


def _inner(tree: Tree) -> tuple[str, Tree]:
    ((kind, inner),) = tree["query"].items()
    return kind, inner


def _cut(text: str, kind: str, tree: Tree, word: bytes) -> str | None:
    """The query inside a statement, as text: from some bracket or word on to where the grammar reads exactly the tree
    that stands in the statement. None where that cannot be told, or it is nothing EXPLAIN takes."""
    if kind not in QUERIES and kind not in ("CreateTableAsStmt", "DeclareCursorStmt"):
        return None
    wanted = _bare({kind: tree})
    raw = text.encode()
    if word == b"copy":
        begin = raw.find(b"(")
        # Behind the query there are few brackets, if any.
        ends = [i for i, byte in enumerate(raw) if byte == 0x29 and i > begin][::-1]
        candidates = [raw[begin + 1 : end] for end in ends[:50]]
    else:
        spaces = [i for i, byte in enumerate(raw) if byte in b" \t\r\n\f\v)"]
        candidates = [raw[i + 1 :] for i in spaces[:50]]
    for candidate in candidates:
        try:
            parsed = grammar.parse(candidate)
        except (grammar.Rejected, grammar.Unparsable):
            continue
        if len(parsed) == 1 and _bare({parsed[0].kind: parsed[0].tree}) == wanted:
            return candidate.decode("utf-8", "replace").strip()
    return None


def _bare(tree: Any) -> Any:
    """Without what tells where things stood."""
    if isinstance(tree, dict):
        return {
            key: _bare(item)
            for key, item in tree.items()
            if key not in ("location", "list_start", "list_end", "rexpr_list_start", "rexpr_list_end")
        }
    return [_bare(item) for item in tree] if isinstance(tree, list) else tree


def _look(tree: Tree) -> _Found:
    found = _Found(dict.fromkeys(relation(node) for node in range_vars(tree)))
    for key, node in nodes(tree):
        if key == "ParamRef":
            found.parameters = max(found.parameters, int(node.get("number", 0)))
        elif "ctename" in node:
            found.common.add(str(node["ctename"]))
        elif key == "ColumnRef":
            found.fields.update(strings(node.get("fields"))[1:])
        elif key == "A_Indirection":
            found.fields.update(strings(node.get("indirection")))
        elif "names" in node and "typemod" in node:
            _add(found.types, strings(node["names"]))
        if isinstance(node.get("funcname"), list):
            _add(found.functions, strings(node["funcname"]))
        for operator in ("name", "operName", "useOp"):
            found.operators.update(strings(node.get(operator))[-1:])
        if key == "RangeTableSample":
            _add(found.functions, strings(node.get("method")))
    return found


def _add(names: dict[Name, None], parts: list[str]) -> None:
    name = name_of(parts)
    if name is not None:
        names[name] = None
