"""Which relations, and which of their columns, a statement can touch, as far as its tree tells for certain.

`meaning.py` tells people which columns a statement names; a policy needs more: no column that could be reached may be
missing. So a column counts wherever its name stands, and a relation's whole rows count where they can be meant
without naming a column: by `*`, by the row itself (`SELECT c FROM customers c`), by a function called as if it were a
column (`c.to_jsonb`), by a natural join or by renaming. What names its relations in strings, as code or not at all
(DO, DROP SCHEMA, `query_to_xml`) makes them unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from classifier.grammar import Tree
from classifier.model import Action, ActionClass, Statement

if TYPE_CHECKING:
    from classifier.walk import Knowledge

EVERY: Final = "*"
_PARTS: Final = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')
# Statements whose columns can be told: every column they reach is named, or stands behind a `*`.
_COLUMNS: Final = frozenset(
    {
        *("SelectStmt", "InsertStmt", "UpdateStmt", "ExplainStmt", "PrepareStmt", "ExecuteStmt", "DeallocateStmt"),
        *("DeclareCursorStmt", "FetchStmt", "ClosePortalStmt", "TransactionStmt", "VariableSetStmt"),
        *("VariableShowStmt", "DiscardStmt", "ConstraintsSetStmt", "ListenStmt", "UnlistenStmt", "NotifyStmt"),
    }
)
# Statements that touch no relation but those named in their tree. (A cursor's query was judged at its DECLARE, and
# what EXECUTE runs is judged beside it.)
_RELATIONS: Final = _COLUMNS | {
    *("DeleteStmt", "MergeStmt", "CopyStmt", "TruncateStmt", "LockStmt", "VacuumStmt", "CreateStmt"),
    *("CreateTableAsStmt", "CreateForeignTableStmt", "ViewStmt", "IndexStmt", "AlterTableStmt", "RefreshMatViewStmt"),
    *("CreateTrigStmt", "CreateSeqStmt", "AlterSeqStmt", "RuleStmt", "CreatePolicyStmt", "AlterPolicyStmt"),
    *("RenameStmt", "AlterObjectSchemaStmt", "AlterOwnerStmt", "DropStmt", "GrantStmt"),
}
_RELATION_TYPES: Final = frozenset(
    f"OBJECT_{word}" for word in ("TABLE", "VIEW", "MATVIEW", "FOREIGN_TABLE", "SEQUENCE", "INDEX")
)
_ELSEWHERE: Final = frozenset({ActionClass.UNKNOWN, ActionClass.CODE, ActionClass.REPLICATION})
_EXPORTS_OF_WHAT_IS_NAMED: Final = frozenset(
    {"copy_to_stdout", "copy_to_file", "copy_to_program", "notify", "read_secret"}
)
# Functions of PostgreSQL's own that take any row whole. `row.f` calls them too ("Using Composite Types in Queries").
_OF_ANY_ROW: Final = frozenset(
    {
        *("to_json", "to_jsonb", "row_to_json", "json_agg", "json_agg_strict", "jsonb_agg", "jsonb_agg_strict"),
        *("array_agg", "json_build_array", "jsonb_build_array", "concat", "quote_literal", "quote_nullable"),
        *("record_out", "record_send", "any_value", "mode", "first_value", "last_value", "lag", "lead", "min", "max"),
        *("hash_record", "hstore", "xmlagg"),
    }
)


class Touched:
    """Gathers while one statement's tree is walked. `rows`: relations, as written, to the names their rows go by."""

    def __init__(self) -> None:
        self.rows: dict[str, set[str]] = {}
        self.full: dict[str, tuple[str, ...]] = {}  # by the catalog: what a name as written may mean
        self.reached: dict[str, None] = {}  # full names, through views, functions, triggers
        self.names: dict[str, None] = {}  # every name that may be a column's
        self.stars: set[str] = set()  # whose columns are all meant
        self.calls: list[tuple[str, str]] = []  # `row.name`: what may be a function called on a row
        self.inner: list[Statement] = []  # what it prepares, or executes
        self.has_elsewhere = False
        self.has_every_row = False
        self._placed: set[int] = set()

    def statement(self, kind: str, tree: Tree) -> None:
        """One statement met on the way."""
        if kind not in _RELATIONS or _is_wider(kind, tree):
            self.has_elsewhere = True
        if kind not in _COLUMNS and not (kind == "CopyStmt" and "relation" not in tree):
            self.has_every_row = True
        if kind == "InsertStmt" and ("cols" not in tree or "onConflictClause" in tree):
            self.has_every_row = True
        for field in {"InsertStmt": ("cols",), "UpdateStmt": ("targetList",)}.get(kind, ()):
            for item in tree.get(field, []):
                self._name(item.get("ResTarget", {}).get("name", ""))
        if kind == "SelectStmt":
            self._select(tree)

    def relation(self, name: str, range_var: Tree) -> None:
        """One relation named."""
        known_as = self.rows.setdefault(name, {range_var.get("relname", "")})
        alias = range_var.get("alias")
        if alias:
            known_as.add(alias.get("aliasname", ""))
            if alias.get("colnames"):
                self.stars.add(EVERY)

    def column(self, tree: Tree, names: list[str]) -> None:
        """One column reference, which may be a whole row or `*`."""
        if any("A_Star" in item for item in tree.get("fields", [])):
            if id(tree) not in self._placed:
                self.stars.add(names[-1] if names else EVERY)
            return
        if names:
            self._name(names[-1])
        if len(names) > 1:
            self.calls.append((names[-2], names[-1]))

    def indirection(self, tree: Tree, names: list[str]) -> None:
        """`(row).column`, `(row).*`."""
        if any("A_Star" in item for item in tree.get("indirection", [])):
            self.stars.add(EVERY)
        for name in names:
            self._name(name)
            self.calls.append((EVERY, name))

    def join(self, tree: Tree, using: list[str]) -> None:
        """A join of two items; its alias names the rows of both."""
        for name in using:
            self._name(name)
        if tree.get("isNatural"):
            self.stars.add(EVERY)
        alias = tree.get("alias")
        if alias:
            if alias.get("colnames"):
                self.stars.add(EVERY)
            for item in _sources([{"JoinExpr": tree}]):
                self.rows.setdefault(written(item), {item.get("relname", "")}).add(alias.get("aliasname", ""))

    def _select(self, tree: Tree) -> None:
        """A plain `*` means the FROM list of its own query only."""
        for item in tree.get("targetList", []):
            value = item.get("ResTarget", {}).get("val", {}).get("ColumnRef", {})
            if value.get("fields") == [{"A_Star": {}}]:
                self._placed.add(id(value))
                for source in _sources(tree.get("fromClause", [])):
                    self.stars.add(source.get("alias", {}).get("aliasname") or source.get("relname", ""))

    def _name(self, name: str) -> None:
        self.names[name] = None

    def whole_rows(self, knowledge: Knowledge | None, path: tuple[str, ...] | None) -> list[str]:
        """The relations, as written, whose whole rows may be meant."""
        if self.has_every_row or EVERY in self.stars:
            return list(self.rows)
        return [
            relation
            for relation, known_as in self.rows.items()
            if not known_as.isdisjoint(self.stars)
            or not known_as.isdisjoint(self.names)
            or self._is_argument(known_as, knowledge.columns(relation, path) if knowledge is not None else None)
        ]

    def _is_argument(self, known_as: set[str], columns: tuple[str, ...] | None) -> bool:
        """Whether a function may be called on a relation's row as if it were a column of it."""
        return any(
            (row == EVERY or row in known_as) and (name in _OF_ANY_ROW or (columns is not None and name not in columns))
            for row, name in self.calls
        )

    def is_known(self, actions: Iterable[Action]) -> bool:
        """Whether `rows` are all relations that the statement itself touches."""
        return not self.has_elsewhere and not any(
            a.cls in _ELSEWHERE or (a.cls is ActionClass.EXPORT and a.verb not in _EXPORTS_OF_WHAT_IS_NAMED)
            for a in actions
        )


def written(range_var: Tree) -> str:
    """A relation's name as written, schema included when it was; a part with a dot or a quote in it is quoted, for
    `"a.b"` is not the `b` of schema `a`."""
    name: str = range_var.get("relname", "")
    return qualified(range_var.get("schemaname"), name)


def qualified(schema: str | None, name: str) -> str:
    """A name with its schema."""
    return f"{_part(schema)}.{_part(name)}" if schema else _part(name)


def split(name: str) -> tuple[str | None, str]:
    """The inverse of `qualified`."""
    parts = [part.replace('""', '"') if part else plain for part, plain in _PARTS.findall(name)]
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0] if parts else "")


def _part(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name


def _is_wider(kind: str, tree: Tree) -> bool:
    """Whether a statement of a kind that names its relations reaches others this time."""
    match kind:
        case "RenameStmt" | "AlterObjectSchemaStmt" | "AlterOwnerStmt":
            return "relation" not in tree
        case "DropStmt":
            return tree.get("removeType") not in _RELATION_TYPES or tree.get("behavior") == "DROP_CASCADE"
        case "TruncateStmt":
            return tree.get("behavior") == "DROP_CASCADE"
        case "VacuumStmt":
            return not tree.get("rels")
        case "GrantStmt":
            return tree.get("targtype") != "ACL_TARGET_OBJECT" or not all(
                "RangeVar" in item for item in tree.get("objects", [])
            )
        case _:
            return False


def _sources(items: Any) -> list[Tree]:
    """The relations of a FROM list; those inside a query in it are that query's own."""
    found: list[Tree] = []
    pending = [item for item in items if item]
    while pending:
        for kind, tree in pending.pop().items():
            if kind == "RangeVar":
                found.append(tree)
            elif kind == "JoinExpr":
                pending += [tree[side] for side in ("larg", "rarg") if tree.get(side)]
            elif kind == "RangeTableSample" and tree.get("relation"):
                pending.append(tree["relation"])
    return found
