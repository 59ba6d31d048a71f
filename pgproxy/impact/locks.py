"""Which lock modes a statement takes on which relations ("Explicit Locking", "ALTER TABLE"). Pure.

A mode of None is one that is not known here, and it is said to be; nothing is guessed. `tests/pgproxy/impact` runs the
statements on real servers and compares with what `pg_locks` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pgproxy.impact.aims import QUERIES, Name, Tree, name_of, nodes, range_vars, relation, strings

# From weakest to strongest, as the manual lists them; a mode's number is its place.
MODES: Final = (
    *("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE", "SHARE UPDATE EXCLUSIVE"),
    *("SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"),
)
AS, RS, RX, SUX, S, SRX, X, AX = range(1, 9)
# "Conflicting Lock Modes"
CONFLICTS: Final[dict[int, frozenset[int]]] = {
    AS: frozenset({AX}),
    RS: frozenset({X, AX}),
    RX: frozenset({S, SRX, X, AX}),
    SUX: frozenset({SUX, S, SRX, X, AX}),
    S: frozenset({RX, SUX, SRX, X, AX}),
    SRX: frozenset({RX, SUX, S, SRX, X, AX}),
    X: frozenset({RS, RX, SUX, S, SRX, X, AX}),
    AX: frozenset(range(AS, AX + 1)),
}
# As pg_locks.mode has them.
BY_LOCK_NAME: Final = {
    "AccessShareLock": AS,
    "RowShareLock": RS,
    "RowExclusiveLock": RX,
    "ShareUpdateExclusiveLock": SUX,
    "ShareLock": S,
    "ShareRowExclusiveLock": SRX,
    "ExclusiveLock": X,
    "AccessExclusiveLock": AX,
}
Found = dict[Name, int | None]


def mode_name(mode: int | None) -> str | None:
    return None if mode is None else MODES[mode - 1]


def of(kind: str, tree: Tree) -> Found:
    """The strongest mode on each relation the statement names."""
    found: Found = {}
    handler = _HANDLERS.get(kind)
    if kind in QUERIES:
        _query(found, {kind: tree})
    elif handler is not None:
        handler(found, tree)
    # What is named and not known by now: a default's or a body's relations, say.
    for node in range_vars(tree):
        found.setdefault(relation(node), None)
    return found


def _take(found: Found, name: Name | None, mode: int | None) -> None:
    if name is None or not name.name:
        return
    before = found.get(name, 0)
    found[name] = mode if mode is None or before is None else max(before, mode)


def _query(found: Found, tree: Any) -> None:
    """What a query reads and, anywhere in it, changes."""
    sources: dict[str, Name] = {}
    strengthened: list[Name] = []
    every = False
    for node in range_vars(tree):
        name = relation(node)
        _take(found, name, AS)
        sources[str(node.get("alias", {}).get("aliasname", name.name))] = name
    for key, node in nodes(tree):
        if key in QUERIES and key != "SelectStmt" and isinstance(node.get("relation"), dict):
            _take(found, relation(node["relation"]), RX)
        elif key == "LockingClause":
            every = every or not node.get("lockedRels")
            strengthened += [relation(item.get("RangeVar", {})) for item in node.get("lockedRels") or ()]
    for name in strengthened:
        _take(found, sources.get(name.name), RS)
    if every:
        for name in sources.values():
            _take(found, name, RS)


def _on(field: str, mode: int) -> Callable[[Found, Tree], None]:
    """One relation in one mode; what else is named in expressions is read when the statement looks at it."""

    def handle(found: Found, tree: Tree) -> None:
        if isinstance(tree.get(field), dict):
            _take(found, relation(tree[field]), mode)

    return handle


def _options(tree: Tree, field: str) -> set[str]:
    on = set()
    for item in tree.get(field, []):
        element = item.get("DefElem", {})
        argument = element.get("arg", {})
        value = argument.get("String", {}).get("sval", "on") if isinstance(argument, dict) else "on"
        number = argument.get("Integer", {}).get("ival", 0) if "Integer" in argument else 1
        boolean = argument.get("Boolean", {}).get("boolval", False) if "Boolean" in argument else True
        if str(value).lower() not in ("off", "false", "no", "0") and number and boolean:
            on.add(str(element.get("defname", "")).lower())
    return on


def _copy(found: Found, tree: Tree) -> None:
    if isinstance(tree.get("relation"), dict):
        _take(found, relation(tree["relation"]), RX if tree.get("is_from") else AS)
    _query(found, tree.get("query", {}))


def _create_as(found: Found, tree: Tree) -> None:
    _query(found, tree.get("query", {}))


def _view(found: Found, tree: Tree) -> None:
    _query(found, tree.get("query", {}))
    if tree.get("replace"):
        _take(found, relation(tree.get("view", {})), AX)


def _truncate(found: Found, tree: Tree) -> None:
    for item in tree.get("relations", []):
        _take(found, relation(item.get("RangeVar", {})), AX)


def _lock(found: Found, tree: Tree) -> None:
    mode = tree.get("mode")
    for item in tree.get("relations", []):
        _take(found, relation(item.get("RangeVar", {})), mode if mode in CONFLICTS else None)


def _vacuum(found: Found, tree: Tree) -> None:
    mode = AX if tree.get("is_vacuumcmd") and "full" in _options(tree, "options") else SUX
    for item in tree.get("rels", []):
        _take(found, relation(item.get("VacuumRelation", {}).get("relation", {})), mode)


def _reindex(found: Found, tree: Tree) -> None:
    if isinstance(tree.get("relation"), dict):
        weak = AX if tree.get("kind") == "REINDEX_OBJECT_INDEX" else S
        _take(found, relation(tree["relation"]), SUX if "concurrently" in _options(tree, "params") else weak)


def _index(found: Found, tree: Tree) -> None:
    _take(found, relation(tree.get("relation", {})), SUX if tree.get("concurrent") else S)


def _refresh(found: Found, tree: Tree) -> None:
    _take(found, relation(tree.get("relation", {})), X if tree.get("concurrent") else AX)


def _statistics(found: Found, tree: Tree) -> None:
    for item in tree.get("relations", []):
        _take(found, relation(item.get("RangeVar", {})), SUX)


def _publication(found: Found, tree: Tree) -> None:
    for key, node in nodes(tree.get("pubobjects", [])):
        if key == "relation" and isinstance(node.get("relname"), str):
            _take(found, relation(node), SUX)


def _references(found: Found, tree: Any) -> None:
    for _, node in nodes(tree):
        if isinstance(node.get("pktable"), dict):
            _take(found, relation(node["pktable"]), SRX)


def _create_table(found: Found, tree: Tree) -> None:
    for item in tree.get("inhRelations", []):
        _take(found, relation(item.get("RangeVar", {})), AX if "partbound" in tree else SUX)
    for key, node in nodes(tree.get("tableElts", [])):
        if key == "TableLikeClause":
            _take(found, relation(node.get("relation", {})), AS)
    _references(found, tree.get("tableElts", []))


def _rename(found: Found, tree: Tree) -> None:
    if isinstance(tree.get("relation"), dict):
        _take(found, relation(tree["relation"]), SUX if tree.get("renameType") == "OBJECT_INDEX" else AX)


RELATIONS: Final = frozenset(
    f"OBJECT_{each}" for each in ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE")
)
_OF_A_RELATION: Final = frozenset({"OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"})


def dropped(tree: Tree) -> list[Name]:
    """The objects a DROP names, where one name says which: relations, types, schemas (as a bare name)."""
    names = []
    for item in tree.get("objects", []):
        if "TypeName" in item:
            parts = strings(item["TypeName"].get("names", []))
        elif "ObjectWithArgs" in item:
            parts = strings(item["ObjectWithArgs"].get("objname", []))
        else:
            parts = strings(item.get("List", {}).get("items", [])) or strings([item])
        name = name_of(parts)
        if name is not None:
            names.append(name)
    return names


def _drop(found: Found, tree: Tree) -> None:
    kind = tree.get("removeType")
    if kind in RELATIONS:
        for name in dropped(tree):
            _take(found, name, SUX if tree.get("concurrent") else AX)
    elif kind in _OF_A_RELATION:
        for item in tree.get("objects", []):
            _take(found, name_of(strings(item.get("List", {}).get("items", []))[:-1]), AX)


def _remark(found: Found, tree: Tree) -> None:
    parts = strings(tree.get("object", {}).get("List", {}).get("items", []))
    kind = tree.get("objtype")
    if kind in RELATIONS:
        _take(found, name_of(parts), SUX)
    elif kind == "OBJECT_COLUMN":
        _take(found, name_of(parts[:-1]), SUX)


# "ALTER TABLE": what takes less than ACCESS EXCLUSIVE on the table itself.
_WEAK_STORAGE: Final = frozenset(
    {"fillfactor", "toast_tuple_target", "parallel_workers", "log_autovacuum_min_duration"}
    | {"vacuum_index_cleanup", "vacuum_truncate", "vacuum_max_eager_freeze_failure_rate"}
)
_SUBCOMMANDS: Final = {
    "AT_SetStatistics": SUX,
    "AT_SetOptions": SUX,
    "AT_ResetOptions": SUX,
    "AT_ClusterOn": SUX,
    "AT_DropCluster": SUX,
    "AT_ValidateConstraint": SUX,
    "AT_AttachPartition": SUX,
    **dict.fromkeys(
        (
            *("AT_EnableTrig", "AT_EnableAlwaysTrig", "AT_EnableReplicaTrig", "AT_EnableTrigAll"),
            *("AT_EnableTrigUser", "AT_DisableTrig", "AT_DisableTrigAll", "AT_DisableTrigUser"),
        ),
        SRX,
    ),
}


def _subcommand(command: Tree) -> int:
    subtype = command.get("subtype", "")
    definition = command.get("def", {})
    if subtype in ("AT_SetRelOptions", "AT_ResetRelOptions"):
        names = {
            item.get("DefElem", {}).get("defname", "").lower() for item in definition.get("List", {}).get("items", [])
        }
        return SUX if all(n in _WEAK_STORAGE or n.startswith("autovacuum_") for n in names) else AX
    if subtype == "AT_AddConstraint" and definition.get("Constraint", {}).get("contype") == "CONSTR_FOREIGN":
        return SRX
    if subtype == "AT_DetachPartition" and definition.get("PartitionCmd", {}).get("concurrent"):
        return SUX
    return _SUBCOMMANDS.get(subtype, AX)


def _alter_table(found: Found, tree: Tree) -> None:
    """The strictest of all subcommands ("ALTER TABLE", at its end); and what they name beside."""
    commands = [item.get("AlterTableCmd", {}) for item in tree.get("cmds", [])]
    _take(found, relation(tree.get("relation", {})), max(map(_subcommand, commands), default=AX))
    for command in commands:
        definition = command.get("def", {})
        other = definition.get("PartitionCmd", {}).get("name")
        if isinstance(other, dict):
            _take(found, relation(other), AX)
        if command.get("subtype") == "AT_AddInherit":
            _take(found, relation(definition.get("RangeVar", {})), SUX)
        _references(found, definition)


_HANDLERS: Final[dict[str, Callable[[Found, Tree], None]]] = {
    "CopyStmt": _copy,
    "CreateTableAsStmt": _create_as,
    "DeclareCursorStmt": _create_as,
    "ViewStmt": _view,
    "TruncateStmt": _truncate,
    "LockStmt": _lock,
    "VacuumStmt": _vacuum,
    "ReindexStmt": _reindex,
    "ClusterStmt": _on("relation", AX),
    "IndexStmt": _index,
    "RefreshMatViewStmt": _refresh,
    "CreateStatsStmt": _statistics,
    "CreatePublicationStmt": _publication,
    "CreateStmt": _create_table,
    "RenameStmt": _rename,
    "AlterObjectSchemaStmt": _on("relation", AX),
    "AlterSeqStmt": _on("sequence", SRX),
    "CreateTrigStmt": _on("relation", SRX),
    "RuleStmt": _on("relation", AX),
    "CreatePolicyStmt": _on("table", AX),
    "AlterPolicyStmt": _on("table", AX),
    "DropStmt": _drop,
    "CommentStmt": _remark,
    "SecLabelStmt": _remark,
    "AlterTableStmt": _alter_table,
}
