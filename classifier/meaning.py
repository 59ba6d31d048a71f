"""sqlglot's reading of a text that PostgreSQL has written back from its own tree.

It never sees the client's bytes: `SELECT $1::int,$2::int, pg_read_file('x') --$1::int,$` is one string
literal to it. It decides no class. It adds relations to those the walk found, and an effect it sees that
the walk did not makes the statement unknown. It fails on much that is valid PostgreSQL; that is not
disagreement.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp

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


@dataclass(frozen=True, slots=True)
class Reading:
    """Relations as sqlglot names them, and whether it sees definitions or changes of data anywhere."""

    relations: tuple[str, ...]
    defines: bool
    changes: bool


def read(sql: str) -> Reading | None:
    """sqlglot's view of a deparsed text, or None where it has none."""
    if len(sql) > MAX_BYTES or sql.count("[") > MAX_BRACKETS:
        return None
    try:
        trees = sqlglot.parse(sql, dialect="postgres")
    except (sqlglot.errors.SqlglotError, *_ITS_OWN_BUGS):
        return None
    relations: dict[str, None] = {}
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
            elif isinstance(node, exp.CTE):
                queries.add(node.alias)
            elif isinstance(node, exp.Table) and isinstance(node.this, exp.Identifier):
                relations[f"{node.db}.{node.name}" if node.db else node.name] = None
        for name in queries:
            relations.pop(name, None)
    return Reading(tuple(relations), defines, changes)
