"""Which objects of a catalog the names in a tree may reach. Unknown types: every candidate counts.

Functions are called by more than calls: operators (those that IN, BETWEEN, CASE, USING and NATURAL stand for too),
casts, the functional notation of columns (`u.f`) and of casts (`typename(x)`).
"""

from __future__ import annotations

from typing import Final

from classifier import functions
from classifier.catalog import Catalog
from classifier.functions import Effect
from classifier.model import ActionClass
from classifier.relations import is_system
from classifier.touched import qualified, split
from classifier.walk import Node, Tree, Walk, strings

_QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "CopyStmt", ""})
_CHANGES: Final = {"UpdateStmt": "U", "DeleteStmt": "D"}
_MERGE: Final = {"CMD_INSERT": "I", "CMD_UPDATE": "U", "CMD_DELETE": "D"}
# "Functional notation" works for these beside composite types: record, "any", anyelement and its kin
_ANY_ROW: Final = frozenset({2249, 2276, 2283, 2776, 5077, 5079})
_BETWEEN: Final = ("<", "<=", ">", ">=")
_SYSTEM: Final = (None, "pg_catalog", "information_schema")


class Names:
    """A catalog's answers to what a walk meets."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.casts: dict[int, list[int]] = {}  # by a user's type: the functions of casts from and to it
        self._everywhere: list[int] = []  # casts between PostgreSQL's own types
        for cast in catalog.snapshot.casts:
            if not cast.function:
                continue
            own = [oid for oid in (cast.source, cast.target) if oid in catalog.type or oid in catalog.row_types]
            for oid in own:
                self.casts.setdefault(oid, []).append(cast.function)
            if not own:
                self._everywhere.append(cast.function)

    def look(self, walk: Walk, kind: str, tree: Tree) -> None:
        """Notes what one node's names reach."""
        match kind:
            case "A_Expr":
                names = strings(tree.get("name", []))
                if "BETWEEN" in tree.get("kind", ""):
                    for name in _BETWEEN:
                        self._operator(walk, [name])
                elif names:
                    self._operator(walk, names)
            case "SubLink":
                self._operator(walk, strings(tree.get("operName", [])) or ["="])
            case "SortBy":
                self._operator(walk, strings(tree.get("useOp", [])))
            case "JoinExpr":
                if tree.get("isNatural") or "usingClause" in tree:
                    self._operator(walk, ["="])
            case "CaseExpr":
                if "arg" in tree:
                    self._operator(walk, ["="])
            case "TypeName":
                self._type(walk, strings(tree.get("names", [])))
            case "RangeVar":
                self._relation(walk, tree)
            case "ColumnRef":
                names = strings(tree.get("fields", []))
                if len(names) > 1:
                    self._functional(walk, names[-1])
            case "A_Indirection":
                for name in strings(tree.get("indirection", [])):
                    self._functional(walk, name)
            case "FuncCall":
                self._set_config(walk, strings(tree.get("funcname", [])))
            case "CallStmt":
                self._procedure(walk, strings(tree.get("funccall", {}).get("funcname", [])))
            case "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "CopyStmt" | "TruncateStmt":
                self._changes(walk, kind, tree)
                for oid in self._everywhere:
                    walk.nodes[Node("function", oid, "", walk.run_path)] = None
            case "VacuumRelation":
                relation = tree.get("relation")
                if relation:
                    self._write(walk, relation, "A")

    def call(self, walk: Walk, schema: str | None, name: str, arguments: int | None) -> None:
        """Notes what a call may reach: a builtin, functions of somebody's own, a cast in functional notation."""
        path = walk.environment.search_path
        found = self.catalog.functions(schema, name, arguments, path)
        for item in found:
            walk.nodes[Node("function", item.oid, "", walk.run_path)] = None
        full = name if schema is None else f"{schema}.{name}"
        if found and walk.environment.catalog_changed:
            walk.effect(_unknown(f"{full} may have been changed in this transaction"))
        types = self.catalog.types(schema, name, path) if arguments == 1 else []
        for type_ in types:
            walk.nodes[Node("type", type_.oid, "make", walk.run_path)] = None
        version = walk.environment.server_version
        if schema in _SYSTEM and functions.is_builtin(name, version):
            effect = functions.resolve(schema, name, arguments or 0, None, version)
        elif found or types:
            return
        else:
            effect = functions.dangerous(name)
            if effect is None:
                if arguments == 1 and self.catalog.relations(schema, name, path):
                    self._row_casts(walk, schema, name)
                    return
                detail = "takes no such number of arguments" if self._has(schema, name, path) else "has not been seen"
                effect = _unknown(f"{full} {detail} in this database's catalog")
        walk.effect(effect, name if effect is not None and effect.cls != ActionClass.UNKNOWN else None)

    def columns(self, relation: str, search_path: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """A relation's columns; None where more than one of its name could be meant, or none is known."""
        schema, name = split(relation)
        found = self.catalog.relations(schema, name, search_path)
        if len(found) > 1 and search_path is not None and not schema:
            found = [item for wanted in search_path for item in found if item.schema == wanted][:1]
        return tuple(column for column, _ in found[0].columns) if len(found) == 1 else None

    def full_names(self, schema: str | None, name: str, search_path: tuple[str, ...] | None) -> tuple[str, ...]:
        """The relations that a name may mean, with their schemas; none where nothing of that name is known."""
        found = self.catalog.relations(schema, name, search_path)
        if found:
            return tuple(qualified(item.schema, item.name) for item in found)
        if schema is not None:
            return (qualified(schema, name),)
        return (qualified("pg_catalog", name),) if is_system(None, name) else ()

    def _has(self, schema: str | None, name: str, path: tuple[str, ...] | None) -> bool:
        return bool(self.catalog.functions(schema, name, None, path))

    def _operator(self, walk: Walk, names: list[str]) -> None:
        if not names:
            return
        schema = names[-2] if len(names) > 1 else None
        found = self.catalog.operators(schema, names[-1], walk.environment.search_path)
        for item in found:
            for oid in item.functions:
                walk.nodes[Node("function", oid, "", walk.run_path)] = None
        if schema not in (None, "pg_catalog") and not found:
            walk.effect(
                Effect(ActionClass.UNKNOWN, "unseen_operator", "uses an operator that the catalog does not hold")
            )
        elif found and walk.environment.catalog_changed:
            walk.effect(_unknown("uses an operator that may have been changed in this transaction"))

    def _type(self, walk: Walk, names: list[str]) -> None:
        if not names:
            return
        schema = names[-2] if len(names) > 1 else None
        for type_ in self.catalog.types(schema, names[-1], walk.environment.search_path):
            walk.nodes[Node("type", type_.oid, "make", walk.run_path)] = None
        self._row_casts(walk, schema, names[-1])

    def _row_casts(self, walk: Walk, schema: str | None, name: str) -> None:
        """A relation's name is its rows' type too."""
        for relation in self.catalog.relations(schema, name, walk.environment.search_path):
            for oid in self.casts.get(relation.type, ()):
                walk.nodes[Node("function", oid, "", walk.run_path)] = None

    def _functional(self, walk: Walk, name: str) -> None:
        for item in self.catalog.functions(None, name, 1, walk.environment.search_path):
            if not item.arguments:
                continue
            first = item.arguments[0]
            if first in _ANY_ROW or first in self.catalog.row_types or first in self.catalog.type:
                walk.nodes[Node("function", item.oid, "", walk.run_path)] = None

    def _set_config(self, walk: Walk, names: list[str]) -> None:
        """The one function whose builtin `effects.py` judges by its arguments and not by `call`."""
        if names == ["set_config"]:
            for item in self.catalog.functions(None, "set_config", None, walk.environment.search_path):
                walk.nodes[Node("function", item.oid, "", walk.run_path)] = None

    def _procedure(self, walk: Walk, names: list[str]) -> None:
        if names:
            schema = names[-2] if len(names) > 1 else None
            for item in self.catalog.functions(schema, names[-1], None, walk.environment.search_path):
                walk.nodes[Node("function", item.oid, "", walk.run_path)] = None

    def _relation(self, walk: Walk, tree: Tree) -> None:
        schema, name = tree.get("schemaname"), tree.get("relname", "")
        if walk.last_statement not in _QUERIES or (schema is None and name in walk.visible):
            return
        for item in self.catalog.relations(schema, name, walk.environment.search_path):
            walk.nodes[Node("read", item.oid, "", walk.run_path)] = None

    def _changes(self, walk: Walk, kind: str, tree: Tree) -> None:
        relation = tree.get("relation") or {}
        if kind == "InsertStmt":
            self._write(walk, relation, "I")
            if tree.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE":
                self._write(walk, relation, "U")
        elif kind in _CHANGES:
            self._write(walk, relation, _CHANGES[kind])
        elif kind == "CopyStmt" and tree.get("is_from"):
            self._write(walk, relation, "I")
        elif kind == "MergeStmt":
            for item in tree.get("mergeWhenClauses", []):
                event = _MERGE.get(item.get("MergeWhenClause", {}).get("commandType", ""))
                if event is not None:
                    self._write(walk, relation, event)
        elif kind == "TruncateStmt":
            for item in tree.get("relations", []):
                self._write(walk, item.get("RangeVar", {}), "T")

    def _write(self, walk: Walk, relation: Tree, event: str) -> None:
        schema, name = relation.get("schemaname"), relation.get("relname", "")
        for item in self.catalog.relations(schema, name, walk.environment.search_path):
            walk.nodes[Node("write", item.oid, event, walk.run_path)] = None


def _unknown(detail: str) -> Effect:
    return Effect(ActionClass.UNKNOWN, "unknown_function", detail)
