"""sqlglot's reading of a text that PostgreSQL has written back from its own tree.

It never sees the client's bytes: `SELECT $1::int,$2::int, pg_read_file('x') --$1::int,$` is one string
literal to it. It decides no class. It adds relations to those the walk found, and an effect it sees that
the walk did not makes the statement unknown. It fails on much that is valid PostgreSQL; that is not
disagreement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.optimizer.scope import traverse_scope

from classifier.touched import qualified

# sqlglot's time grows with the square and worse of some shapes (`a[1][1]…` of 3 KB takes 1.5 s).
MAX_BYTES = 32 * 1024
MAX_BRACKETS = 60

_DEFINITIONS = (
    exp.Create,
    exp.Drop,
    exp.Alter,
    exp.TruncateTable,
    exp.Grant,
    exp.Copy,
    exp.Into,
    exp.Comment,
    exp.Refresh,
)
_CHANGES = (exp.Insert, exp.Update, exp.Delete, exp.Merge)

# sqlglot raises these for some texts, beside its own errors
_ITS_OWN_BUGS = (TypeError, AttributeError, ValueError, RecursionError, KeyError, IndexError)


# The relations a column may belong to (one, where a name or a lone FROM item tells), and its name or `*`.
Column = tuple[tuple[str, ...], str]
EVERY: Final = "*"


# What follows a parameter can look like the rest of a dollar quote to sqlglot, and then the text's constants decide
# whether it reads the statement at all. What the parameter is changes nothing here.
_PARAMETER: Final = re.compile(r'(?<![\w"$])\$\d+')


@dataclass(frozen=True, slots=True)
class Reading:
    """Relations as sqlglot names them, whether it sees definitions or changes of data anywhere, and columns."""

    relations: tuple[str, ...]
    defines: bool
    changes: bool
    reads: tuple[Column, ...] = field(default=())
    writes: tuple[Column, ...] = field(default=())


def read(sql: str) -> Reading | None:
    """sqlglot's view of a deparsed text, or None where it has none."""
    if len(sql) > MAX_BYTES or sql.count("[") > MAX_BRACKETS:
        return None
    try:
        trees = sqlglot.parse(_PARAMETER.sub("NULL", sql), dialect="postgres")
    except (sqlglot.errors.SqlglotError, *_ITS_OWN_BUGS):
        return None
    relations: dict[str, None] = {}
    reads: dict[Column, None] = {}
    writes: dict[Column, None] = {}
    defines = changes = False
    for tree in trees:
        if tree is None:
            continue
        queries: set[str] = set()
        for node in tree.walk():
            if isinstance(node, exp.Command):
                return None
            if isinstance(node, _DEFINITIONS):
                defines = True
            elif isinstance(node, _CHANGES):
                changes = True
                _changed(node, reads, writes)
            elif isinstance(node, exp.CTE):
                queries.add(node.alias)
            elif isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
                relations[_name(node)] = None
        for name in queries:
            relations.pop(name, None)
        try:
            for scope in traverse_scope(tree):
                _read(scope, reads)
        except (sqlglot.errors.SqlglotError, *_ITS_OWN_BUGS):
            reads.clear()
        for found in (reads, writes):
            for column in [c for c in found if queries.intersection(c[0])]:
                del found[column]
    return Reading(tuple(relations), defines, changes, tuple(reads), tuple(writes))


def _name(table: exp.Table) -> str:
    return qualified(str(table.db), str(table.name))


def _read(scope: Any, reads: dict[Column, None]) -> None:
    """Columns one query names, by the tables of its FROM list; those of inner queries are their own scopes'."""
    query = scope.expression
    if not isinstance(query, exp.Select):
        return
    tables = {alias: _name(source) for alias, source in scope.sources.items() if isinstance(source, exp.Table)}
    lone = [tables[alias] for alias in scope.selected_sources if alias in tables]
    if any(alias not in tables for alias in scope.selected_sources):
        lone = []  # an unqualified name may be a derived table's
    for column in scope.columns:
        if column.find_ancestor(exp.Select) is query or column.table:
            _note(column, tables, lone, reads)
    for item in query.expressions:
        if isinstance(item, exp.Star):
            for alias in scope.selected_sources:
                if alias in tables:
                    reads[((tables[alias],), EVERY)] = None
        elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            _note(item, tables, lone, reads)


def _note(column: exp.Column, tables: dict[str, str], lone: list[str], reads: dict[Column, None]) -> None:
    name = EVERY if isinstance(column.this, exp.Star) else column.name
    if column.table:
        if column.table in tables:
            reads[((tables[column.table],), name)] = None
    elif lone:
        reads[(tuple(dict.fromkeys(lone)), name)] = None


def _changed(node: exp.Expression, reads: dict[Column, None], writes: dict[Column, None]) -> None:
    """Columns a change of data names; `*` where it changes whole rows. Inner queries are read elsewhere."""
    target = node.this
    names: list[str] = []
    if isinstance(target, exp.Schema):
        names = [item.name for item in target.expressions]
        target = target.this
    if not isinstance(target, exp.Table):
        return
    tables: dict[str, str] = {}
    written: set[int] = set()
    for item in node.walk(prune=lambda n: isinstance(n, exp.Select)):
        if isinstance(item, exp.Table):
            tables[item.alias_or_name] = _name(item)
        elif isinstance(item, exp.EQ) and _is_assignment(item):
            written.add(id(item.this))
            if isinstance(item.this, exp.Column):
                names.append(item.this.name)
    if isinstance(node, (exp.Delete, exp.Merge)):
        names = names if isinstance(node, exp.Merge) else []
    for name in dict.fromkeys(names or [EVERY]):
        writes[((_name(target),), name)] = None
    lone = list(tables.values())
    for item in node.walk(prune=lambda n: isinstance(n, exp.Select)):
        if isinstance(item, exp.Column) and id(item) not in written:
            _note(item, tables, lone, reads)


def _is_assignment(item: exp.EQ) -> bool:
    """Whether it stands in a SET list and compares nothing."""
    return isinstance(item.parent, (exp.Update, exp.OnConflict)) and item.arg_key == "expressions"
