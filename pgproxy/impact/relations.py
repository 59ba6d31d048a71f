"""The relations a statement names: which they are, how large, and who holds locks on them now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pgproxy.impact.aims import Name
from pgproxy.impact.connection import FAILURES, explain_failure
from pgproxy.impact.locks import AX, BY_LOCK_NAME, CONFLICTS, Found, mode_name

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

MAX_RELATIONS: Final = 20
MAX_HOLDERS: Final = 20  # a relation
MAX_PARTS: Final = 1000  # partitions whose sizes are added up
MAX_QUERY: Final = 200  # characters of other sessions' texts

KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
    "i": "index",
    "I": "partitioned index",
    "c": "composite type",
    "t": "toast table",
}
_STORED: Final = frozenset("rpmSiI")

_FIND = """
SELECT w.i::int AS i, c.oid::bigint AS oid, n.nspname::text AS schema, x.indrelid::bigint AS indexed
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (schema, name, i)
JOIN pg_class c ON c.relname = w.name
JOIN pg_namespace n ON n.oid = c.relnamespace AND (w.schema IS NULL OR n.nspname = w.schema)
LEFT JOIN pg_index x ON x.indexrelid = c.oid
WHERE n.nspname !~ '^pg_toast'
ORDER BY w.i, n.nspname LIMIT 500
"""
_FACTS = """
SELECT c.oid::bigint AS oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relkind::text AS kind,
       c.reltuples::float8 AS rows, pg_get_userbyid(c.relowner)::text AS owner, c.relrowsecurity AS row_security,
       (SELECT count(*) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = c.oid) AS children,
       (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D')
           AS triggers
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::bigint[]::oid[])
"""
_PARTS = """
WITH RECURSIVE part (oid) AS (
    SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid
), taken AS (SELECT p.oid, c.reltuples, c.relkind FROM part p JOIN pg_class c ON c.oid = p.oid LIMIT $2)
"""
_TREE = (
    _PARTS  # noqa: S608 (ours)
    + """
SELECT (SELECT count(*) FROM taken) - 1 AS partitions,
       (SELECT sum(greatest(reltuples, 0)) FROM taken WHERE relkind <> 'p')::float8 AS rows,
       (SELECT bool_or(reltuples < 0) FROM taken WHERE relkind <> 'p') AS unknown
"""
)
_SIZES = (
    _PARTS
    + """
SELECT sum(pg_total_relation_size(oid))::bigint AS total, sum(pg_relation_size(oid))::bigint AS heap,
       sum(pg_indexes_size(oid))::bigint AS indexes FROM taken
"""
)
_HOLDERS = """
SELECT l.relation::bigint AS oid, l.pid, l.mode, l.granted, a.usename::text AS "user", a.application_name, a.state,
       a.xact_start, a.state_change, a.query
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = ANY ($1::bigint[]::oid[])
  AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  AND l.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY l.relation, l.granted, l.pid LIMIT $2
"""
_HIDDEN: Final = "<insufficient privilege>"


@dataclass(frozen=True, slots=True)
class Target:
    """A name, and a relation it may mean; `mode` the statement takes on it."""

    name: Name
    oid: int | None
    mode: int | None
    is_certain: bool = True


def settled(search_path: Sequence[str] | None, user: str) -> list[str] | None:
    """The schemas in the order the server looks ("The Schema Search Path"); None where it is not known."""
    if search_path is None:
        return None
    path = [user if schema == "$user" else schema for schema in search_path]
    return path if "pg_catalog" in path else ["pg_catalog", *path]


async def find(connection: Connection, found: Found, path: Sequence[str] | None) -> tuple[list[Target], bool]:
    """What the names mean, and whether there were more of them. Without a search_path every relation of a name is
    listed, none of them as certain. An index brings its table."""
    names = list(found)
    rows = await connection.fetch(_FIND, [n.schema for n in names], [n.name for n in names])
    targets: list[Target] = []
    for i, name in enumerate(names, start=1):
        candidates = [row for row in rows if row["i"] == i]
        certain = name.schema is not None or path is not None
        if name.schema is None:
            # A session's own temporary ones come before all others, and which session's they are is not visible.
            temporary = [row for row in candidates if row["schema"].startswith("pg_temp")]
            if path is None:
                chosen = candidates
            else:
                chosen = [row for schema in path for row in candidates if row["schema"] == schema][:1]
            certain = certain and not temporary
            chosen = chosen + [row for row in temporary if row not in chosen]
            certain = certain or len(candidates) == 1
        else:
            chosen = candidates
        if not chosen:
            targets.append(Target(name, None, found[name], certain))
        for row in chosen:
            targets.append(Target(name, row["oid"], found[name], certain))
            if row["indexed"] is not None:
                targets.append(Target(name, row["indexed"], found[name], certain))
    return targets[:MAX_RELATIONS], len(targets) > MAX_RELATIONS or len(rows) == 500


async def describe(connection: Connection, targets: Sequence[Target], session_pid: int | None) -> list[dict[str, Any]]:
    """The section `relations`."""
    oids = [target.oid for target in targets if target.oid is not None]
    facts = {row["oid"]: row for row in await connection.fetch(_FACTS, oids)}
    limit = MAX_HOLDERS * MAX_RELATIONS
    locks = await connection.fetch(_HOLDERS, oids, limit + 1)
    described = []
    for target in targets:
        row = None if target.oid is None else facts.get(target.oid)
        entry: dict[str, Any] = {"as_written": target.name.text, "lock": mode_name(target.mode)}
        if row is None:
            described.append(entry | {"name": None, "note": "no such relation is visible now"})
            continue
        if target.mode is None:
            entry["lock_note"] = "which lock it takes is not known here"
        if not target.is_certain:
            entry["note"] = "which of this name is meant depends on the session's search_path or temporary tables"
        entry |= {
            "name": row["name"],
            "kind": KINDS.get(row["kind"], row["kind"]),
            "owner": row["owner"],
            "columns": row["columns"],
            "row_security": row["row_security"],
            "triggers": row["triggers"],
        }
        here = [lock for lock in locks if lock["oid"] == target.oid]
        entry |= await _extent(connection, row, here)
        entry["locks"] = [_holder(lock, target.mode, session_pid) for lock in here[:MAX_HOLDERS]]
        if len(here) > MAX_HOLDERS or len(locks) > limit:
            entry["locks_cut"] = True
        described.append(entry)
    return described


async def _extent(connection: Connection, row: Any, locks: Sequence[Any]) -> dict[str, Any]:
    """Rows and bytes. Asking for sizes takes a lock, so it is not even tried where that would wait."""
    extent: dict[str, Any] = {"estimated_rows": int(row["rows"]) if row["rows"] >= 0 else None}
    if row["kind"] not in _STORED:
        return {"estimated_rows": None}
    if row["children"]:
        tree = await connection.fetchrow(_TREE, row["oid"], MAX_PARTS)
        assert tree is not None
        extent = {
            "estimated_rows": None if tree["unknown"] or tree["rows"] is None else int(tree["rows"]),
            "partitions": tree["partitions"],
        }
        if tree["partitions"] >= MAX_PARTS - 1:
            extent["partitions_cut"] = True
    exclusive = [lock["pid"] for lock in locks if lock["granted"] and BY_LOCK_NAME.get(lock["mode"]) == AX]
    if exclusive:
        return extent | {"size": {"error": f"process {exclusive[0]} holds ACCESS EXCLUSIVE on it"}}
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        sizes = await connection.fetchrow(_SIZES, row["oid"], MAX_PARTS)
        assert sizes is not None
        extent |= {"total_bytes": sizes["total"], "heap_bytes": sizes["heap"], "index_bytes": sizes["indexes"]}
    except FAILURES as error:
        extent["size"] = {"error": explain_failure(error)}
    await savepoint.rollback()
    return extent


def _holder(lock: Any, mode: int | None, session_pid: int | None) -> dict[str, Any]:
    held = BY_LOCK_NAME.get(lock["mode"])
    mine = session_pid is not None and lock["pid"] == session_pid
    holder = {
        "pid": lock["pid"],  # None: a prepared transaction
        "user": lock["user"],
        "application_name": lock["application_name"],
        "state": lock["state"],
        "mode": mode_name(held) or lock["mode"],
        "granted": lock["granted"],
        "since": None if lock["xact_start"] is None else lock["xact_start"].isoformat(),
        "is_requester": mine,
        # A session does not conflict with itself.
        "conflicts": None if mode is None or held is None else not mine and held in CONFLICTS[mode],
    }
    if lock["query"] not in (None, "", _HIDDEN):
        holder["query"] = lock["query"][:MAX_QUERY]
        holder["query_cut"] = len(lock["query"]) > MAX_QUERY
    return holder


_OF_SESSION = """
SELECT l.mode, l.granted, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = $1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 3, 1 LIMIT 51
"""


async def held_by(connection: Connection, pid: int) -> dict[str, Any]:
    """The section `session_locks`: what waiting keeps locked for everybody else."""
    rows = await connection.fetch(_OF_SESSION, pid)
    held = [
        {"relation": row["name"], "mode": mode_name(BY_LOCK_NAME.get(row["mode"])) or row["mode"]} for row in rows[:50]
    ]
    return {"held": held} | ({"cut": True} if len(rows) > 50 else {})
