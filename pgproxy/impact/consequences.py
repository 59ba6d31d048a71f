"""What goes along: rows behind foreign keys, and objects that depend on what is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pgproxy.impact.aims import Aim, nodes, relation
from pgproxy.impact.locks import RELATIONS, dropped
from pgproxy.impact.relations import Target

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

MAX_LISTED: Final = 50
_PER_LEVEL: Final = 200
_MAX_DEPTH: Final = 8

_ACTIONS: Final = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_EFFECTS: Final = {
    "a": "refused while rows refer to it",
    "r": "refused while rows refer to it",
    "c": "rows are {verb} too",
    "n": "columns are set to NULL",
    "d": "columns are set to their default",
}
_REFERENCES = """
SELECT k.oid::bigint AS oid, k.conname::text AS constraint, k.confdeltype::text AS on_delete,
       k.confupdtype::text AS on_update, k.conrelid::bigint AS referencing, k.confrelid::bigint AS referenced,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name,
       quote_ident(rn.nspname) || '.' || quote_ident(r.relname) AS referenced_name, c.reltuples::float8 AS rows
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY ($1::bigint[]::oid[])
  AND NOT k.oid = ANY ($2::bigint[]::oid[])
ORDER BY n.nspname, c.relname, k.conname LIMIT $3
"""


def changed(aim: Aim) -> list[tuple[str, Any]]:
    """Which relations it deletes from, updates or empties: (delete | update | truncate | truncate cascade | drop | drop
    cascade, their names). Changes inside a WITH count."""
    found: list[tuple[str, Any]] = []
    for key, node in nodes({aim.kind: aim.tree}):
        if key in ("DeleteStmt", "UpdateStmt") and isinstance(node.get("relation"), dict):
            found.append((key.removesuffix("Stmt").lower(), [relation(node["relation"])]))
        elif key == "MergeStmt":
            done = {item.get("MergeWhenClause", {}).get("commandType") for item in node.get("mergeWhenClauses", [])}
            for command, event in (("CMD_DELETE", "delete"), ("CMD_UPDATE", "update")):
                if command in done:
                    found.append((event, [relation(node.get("relation", {}))]))
    cascade = " cascade" if aim.tree.get("behavior") == "DROP_CASCADE" else ""
    if aim.kind == "TruncateStmt":
        names = [relation(item.get("RangeVar", {})) for item in aim.tree.get("relations", [])]
        found.append((f"truncate{cascade}", names))
    elif aim.kind == "DropStmt" and aim.tree.get("removeType") in RELATIONS:
        found.append((f"drop{cascade}", dropped(aim.tree)))
    return found


async def cascades(connection: Connection, aim: Aim, targets: Sequence[Target]) -> dict[str, Any]:
    """The section `cascades`; empty where no foreign key points at what is changed."""
    listed: list[dict[str, Any]] = []
    is_cut = False
    for event, names in changed(aim):
        start = [target.oid for target in targets if target.oid is not None and target.name in names]
        entries, cut = await _follow(connection, event, start)
        listed += entries
        is_cut = is_cut or cut
    return {"foreign_keys": listed[:MAX_LISTED], "cut": is_cut or len(listed) > MAX_LISTED} if listed else {}


async def _follow(connection: Connection, event: str, start: list[int]) -> tuple[list[dict[str, Any]], bool]:
    """Breadth first; each foreign key once."""
    seen: set[int] = set()
    reached = set(start)
    level = start
    entries: list[dict[str, Any]] = []
    for depth in range(1, _MAX_DEPTH + 1):
        if not level:
            return entries, False
        rows = await connection.fetch(_REFERENCES, level, sorted(seen), MAX_LISTED + 1)
        level = []
        for row in rows:
            seen.add(row["oid"])
            action = row["on_update"] if event == "update" else row["on_delete"]
            effect, goes_on = _effect(event, action, is_inside=row["referencing"] in start)
            entries.append(
                {
                    "table": row["name"],
                    "constraint": row["constraint"],
                    "references": row["referenced_name"],
                    "on_update" if event == "update" else "on_delete": _ACTIONS.get(action, action),
                    "estimated_rows": int(row["rows"]) if row["rows"] >= 0 else None,
                    "depth": depth,
                    "effect": effect,
                }
            )
            if goes_on and row["referencing"] not in reached:
                reached.add(row["referencing"])
                level.append(row["referencing"])
        if len(rows) > MAX_LISTED:
            return entries, True
    return entries, bool(level)


def _effect(event: str, action: str, *, is_inside: bool) -> tuple[str, bool]:
    """What it means for the referencing table, and whether what refers to that follows."""
    match event:
        case "delete" | "update":
            return _EFFECTS[action].format(verb=f"{event}d"), action == "c"
        case "truncate cascade":
            return "every row is removed too", True
        case "truncate":
            return ("is emptied as well" if is_inside else "refused: this table refers to it"), False
        case "drop cascade":
            return "the constraint is dropped, its rows stay", False
    return ("is dropped as well" if is_inside else "refused: this table refers to it"), False


# Dropping -------------------------------------------------------------------------------------------------------

_CLASSES: Final = {
    "OBJECT_SCHEMA": ("pg_namespace", "SELECT oid::bigint FROM pg_namespace WHERE nspname = $2 AND $1 = ''"),
    "OBJECT_TYPE": ("pg_type", "type"),
    "OBJECT_DOMAIN": ("pg_type", "type"),
    "OBJECT_FUNCTION": ("pg_proc", "proc"),
    "OBJECT_PROCEDURE": ("pg_proc", "proc"),
    "OBJECT_ROUTINE": ("pg_proc", "proc"),
    "OBJECT_AGGREGATE": ("pg_proc", "proc"),
    "OBJECT_EXTENSION": ("pg_extension", "SELECT oid::bigint FROM pg_extension WHERE extname = $2 AND $1 = ''"),
}
_IN_SCHEMA: Final = {
    "type": """SELECT t.oid::bigint FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
               WHERE t.typname = $2 AND (n.nspname = $1 OR $1 = '') LIMIT 20""",
    "proc": """SELECT p.oid::bigint FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE p.proname = $2 AND (n.nspname = $1 OR $1 = '') LIMIT 20""",
}
# A rule is its view's, and a type its table's: what depends on them depends on those.
_DEPENDENTS = """
SELECT DISTINCT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END::bigint AS classid,
       CASE WHEN w.oid IS NULL THEN d.objid ELSE w.ev_class END::bigint AS objid,
       CASE WHEN w.oid IS NULL THEN d.objsubid ELSE 0 END AS objsubid, d.deptype::text AS deptype
FROM unnest($1::bigint[], $2::bigint[]) AS f (classid, objid)
JOIN pg_depend d ON d.refclassid = f.classid::oid AND d.refobjid = f.objid::oid AND d.deptype IN ('n', 'a', 'i')
LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
LIMIT $3
"""
_IDENTIFY = """
SELECT o.classid, o.objid, i.type, i.identity
FROM unnest($1::bigint[], $2::bigint[], $3::int[]) AS o (classid, objid, objsubid),
     LATERAL pg_identify_object(o.classid::oid, o.objid::oid, o.objsubid) i
"""
_HIDDEN_TYPES: Final = frozenset({"type", "composite type", "toast table", "rule"})


async def dependents(connection: Connection, aim: Aim, targets: Sequence[Target]) -> dict[str, Any]:
    """The section `dependents` of a DROP: what depends on its objects, over all levels, views and functions too.
    Without CASCADE the statement is refused for what does not simply belong to them."""
    kind = str(aim.tree.get("removeType", ""))
    names = dropped(aim.tree)
    cascade = aim.tree.get("behavior") == "DROP_CASCADE"
    roots: list[tuple[int, int]] = []
    if kind in RELATIONS:
        class_ = await connection.fetchval("SELECT 'pg_class'::regclass::oid::bigint")
        roots = [(class_, target.oid) for target in targets if target.oid is not None and target.name in names]
    elif kind in _CLASSES:
        catalog, query = _CLASSES[kind]
        class_ = await connection.fetchval("SELECT $1::text::regclass::oid::bigint", catalog)
        for name in names:
            rows = await connection.fetch(_IN_SCHEMA.get(query, query), name.schema or "", name.name)
            roots += [(class_, row[0]) for row in rows]
    else:
        return {"unavailable": "what depends on objects of this kind is not looked up"}
    found, is_cut = await _depending(connection, roots)
    identified = await connection.fetch(_IDENTIFY, *([each[i] for each in found] for i in range(3)))
    kinds = {(each[0], each[1]): each[3] for each in found}
    listed = [
        {"type": row["type"], "name": row["identity"], "belongs": kinds.get((row["classid"], row["objid"])) != "n"}
        for row in identified
        if row["type"] not in _HIDDEN_TYPES
        and row["identity"] is not None
        # What is internal to an object is a part of it: a constraint's triggers, a TOAST table's index.
        and (kinds.get((row["classid"], row["objid"])) != "i" or row["type"] == "sequence")
    ]
    listed.sort(key=lambda each: (each["belongs"], each["type"], each["name"]))
    return {
        "cascade": cascade,
        "refused": not cascade and any(not each["belongs"] for each in listed),
        "objects": listed[:MAX_LISTED],
        "count": len(listed),
        "cut": is_cut or len(listed) > MAX_LISTED,
    }


async def _depending(
    connection: Connection, roots: list[tuple[int, int]]
) -> tuple[list[tuple[int, int, int, str]], bool]:
    seen = set(roots)
    found: list[tuple[int, int, int, str]] = []
    level = roots
    for _ in range(_MAX_DEPTH):
        if not level:
            return found, False
        rows = await connection.fetch(_DEPENDENTS, [r[0] for r in level], [r[1] for r in level], _PER_LEVEL + 1)
        level = []
        for row in sorted(rows, key=lambda each: each["deptype"] != "n"):
            key = (row["classid"], row["objid"])
            if key in seen:
                continue
            seen.add(key)
            found.append((*key, row["objsubid"], row["deptype"]))
            if not row["objsubid"]:
                level.append(key)
        if len(rows) > _PER_LEVEL:
            return found, True
    return found, bool(level)
