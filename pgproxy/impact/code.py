"""Functions that are called, replaced or dropped, by their bodies; settings by what they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pgproxy.impact.aims import Aim, Name, strings
from pgproxy.impact.connection import FAILURES, STARTUP_SETTINGS, explain_failure
from pgproxy.impact.locks import dropped

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

MAX_FUNCTIONS: Final = 10
MAX_BODY: Final = 10_000
_VOLATILITY: Final = {"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}
_FUNCTIONS = """
SELECT p.oid::bigint AS oid, p.oid::regprocedure::text AS name, n.nspname::text AS schema, l.lanname::text AS language,
       p.provolatile::text AS volatility, p.prosecdef AS security_definer, pg_get_userbyid(p.proowner)::text AS owner,
       p.prosrc AS body, p.prosqlbody IS NOT NULL AS is_bound, p.proconfig::text[] AS settings
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND p.proname = $2 AND (n.nspname = $1 OR $1 = '')
ORDER BY n.nspname, p.oid::regprocedure::text LIMIT 50
"""
_ROUTINES: Final = frozenset({"OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE"})


def named(aim: Aim) -> list[tuple[Name, str]]:
    """The functions a statement names, and what becomes of them."""
    made = aim.tree.get("funcname") if aim.kind == "CreateFunctionStmt" else None
    found: list[tuple[Name, str]] = []
    for name in aim.functions:
        becomes = "called"
        if made is not None and tuple(strings(made)[-2:]) == tuple(part for part in name if part is not None):
            becomes = "replaced where its arguments are the same" if aim.tree.get("replace") else "exists already"
        found.append((name, becomes))
    if aim.kind == "DropStmt" and aim.tree.get("removeType") in _ROUTINES:
        found += [(name, "dropped") for name in dropped(aim.tree)]
    elif aim.kind in ("AlterFunctionStmt", "RenameStmt", "AlterOwnerStmt", "AlterObjectSchemaStmt"):
        holder = aim.tree.get("func") or aim.tree.get("object", {}).get("ObjectWithArgs", {})
        parts = strings(holder.get("objname")) if isinstance(holder, dict) else []
        if parts:
            found.append((Name(parts[-2] if len(parts) > 1 else None, parts[-1]), "changed"))
    return found


async def functions(connection: Connection, aim: Aim, path: Sequence[str] | None) -> list[dict[str, Any]]:
    """The section `functions`: those of users; PostgreSQL's own need no showing. Of a name every function that a call
    might reach, whatever its arguments."""
    listed: list[dict[str, Any]] = []
    for name, becomes in named(aim):
        for row in await connection.fetch(_FUNCTIONS, name.schema or "", name.name):
            if name.schema is None and path is not None and row["schema"] not in path:
                continue
            if len(listed) == MAX_FUNCTIONS:
                return [*listed, {"cut": True}]
            listed.append(await _function(connection, row, becomes))
    return listed


async def _function(connection: Connection, row: Any, becomes: str) -> dict[str, Any]:
    entry = {
        "name": row["name"],
        "is": becomes,
        "language": row["language"],
        "volatility": _VOLATILITY.get(row["volatility"], row["volatility"]),
        "security_definer": row["security_definer"],
        "owner": row["owner"],
        "settings": row["settings"] or [],
    }
    body = row["body"] or ""
    if row["is_bound"]:
        savepoint = connection.transaction()
        await savepoint.start()
        try:
            body = await connection.fetchval("SELECT pg_get_function_sqlbody($1::bigint::oid)", row["oid"]) or ""
        except FAILURES as error:
            entry["error"] = explain_failure(error)
        await savepoint.rollback()
    entry["body"] = body[:MAX_BODY]
    if len(body) > MAX_BODY:
        entry |= {"body_cut": True, "body_length": len(body), "body_sha256": hashlib.sha256(body.encode()).hexdigest()}
    return entry


# Settings -------------------------------------------------------------------------------------------------------

_SETTING = """
SELECT name, reset_val AS value, boot_val, unit, context, source, pending_restart FROM pg_settings WHERE name = $1
"""
_STORED = """
SELECT coalesce(d.datname::text, '') AS database, coalesce(r.rolname::text, '') AS role, c.setting
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole,
     LATERAL unnest(s.setconfig) AS c (setting)
WHERE lower(split_part(c.setting, '=', 1)) = $1 ORDER BY 1, 2 LIMIT 21
"""


async def settings(connection: Connection, aim: Aim) -> list[dict[str, Any]]:
    """The section `settings`: what the server has before a SET, ALTER SYSTEM, ALTER ROLE or ALTER DATABASE … SET."""
    statement = aim.tree if aim.kind == "VariableSetStmt" else aim.tree.get("setstmt", {})
    name = str(statement.get("name", "")).lower()
    if not name:
        return []
    entry: dict[str, Any] = {"name": name}
    row = await connection.fetchrow(_SETTING, name)
    if row is None:
        entry["note"] = "the server has no such setting, or hides it from the observer"
    elif name in STARTUP_SETTINGS:
        entry |= {"default": row["boot_val"], "note": "what is in force is not visible from the observer's connection"}
    else:
        entry |= {
            "value": row["value"],
            "unit": row["unit"],
            "from": row["source"] if row["source"] != "session" else None,  # that is this very transaction's
            "takes_effect": row["context"],
            "pending_restart": row["pending_restart"],
            "note": "as a new session of the observer has it",
        }
    stored = await connection.fetch(_STORED, name)
    entry["stored"] = [
        {"database": each["database"] or None, "role": each["role"] or None, "setting": each["setting"]}
        for each in stored[:20]
    ]
    return [entry] + ([{"cut": True}] if len(stored) > 20 else [])
