"""What a grantee may do before and after a GRANT or REVOKE, and what a role is before and after it is changed.

The state after is worked out from the access privileges and memberships the server has now ("Privileges", "Role
Membership"). A REVOKE takes away what was granted to the grantee directly; what comes by PUBLIC, by a role or by
ownership stays, and `after` says by which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from pgproxy.impact.aims import Aim, Name, name_of, relation, strings

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

MAX_ENTRIES: Final = 20
MAX_ROLES: Final = 100
FLAGS: Final = {
    "superuser": "rolsuper",
    "createrole": "rolcreaterole",
    "createdb": "rolcreatedb",
    "isreplication": "rolreplication",
    "bypassrls": "rolbypassrls",
    "canlogin": "rolcanlogin",
    "inherit": "rolinherit",
}
_SHOWN_FLAGS: Final = {
    "rolsuper": "SUPERUSER",
    "rolcreaterole": "CREATEROLE",
    "rolcreatedb": "CREATEDB",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
    "rolcanlogin": "LOGIN",
}
_ROLE = """
SELECT oid::bigint AS oid, rolname::text AS name, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
       rolcanlogin, rolinherit FROM pg_roles WHERE rolname = $1
"""
# Whose privileges a role has without SET ROLE; of a superuser the server would say: everybody's.
_HELD = """
SELECT r.oid::bigint AS oid, r.rolname::text AS name FROM pg_roles r
WHERE CASE WHEN (SELECT rolsuper FROM pg_roles WHERE oid = $1::bigint::oid) THEN r.oid = $1::bigint::oid
           ELSE pg_has_role($1::bigint::oid, r.oid, 'USAGE') END
ORDER BY r.oid <> $1::bigint::oid, r.rolname LIMIT 1000
"""
_MEMBERSHIPS = """
WITH RECURSIVE up (oid) AS (
    SELECT unnest($1::text[])::regrole::oid UNION SELECT m.roleid FROM up JOIN pg_auth_members m ON m.member = up.oid
) SELECT r.rolname::text AS name, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin
FROM up JOIN pg_roles r ON r.oid = up.oid ORDER BY r.rolname LIMIT 101
"""
_OBJECTS: Final = {
    "relation": """
        SELECT c.oid::bigint AS oid, CASE WHEN c.relkind = 'S' THEN 'sequence ' ELSE 'table ' END
               || quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, n.nspname::text AS schema,
               c.relowner::bigint AS owner, coalesce(c.relacl, acldefault(t.kind, c.relowner))::text[] AS acl, t.kind
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
             LATERAL (SELECT CASE WHEN c.relkind = 'S' THEN 's' ELSE 'r' END::"char" AS kind) t
        WHERE c.relname = $2 AND (n.nspname = $1 OR $1 = '') AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')""",
    "all": """
        SELECT c.oid::bigint AS oid, CASE WHEN c.relkind = 'S' THEN 'sequence ' ELSE 'table ' END
               || quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, n.nspname::text AS schema,
               c.relowner::bigint AS owner, coalesce(c.relacl, acldefault(t.kind, c.relowner))::text[] AS acl, t.kind
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
             LATERAL (SELECT CASE WHEN c.relkind = 'S' THEN 's' ELSE 'r' END::"char" AS kind) t
        WHERE n.nspname = $2 AND CASE WHEN $1 = 'S' THEN c.relkind = 'S' ELSE c.relkind IN ('r', 'p', 'v', 'm', 'f') END
        ORDER BY c.relname""",
    "function": """
        SELECT p.oid::bigint AS oid, 'function ' || p.oid::regprocedure::text AS name, n.nspname::text AS schema,
               p.proowner::bigint AS owner, coalesce(p.proacl, acldefault('f', p.proowner))::text[] AS acl,
               'f'::"char" AS kind
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.proname = $2 AND (n.nspname = $1 OR $1 = '')""",
    "schema": """
        SELECT oid::bigint AS oid, 'schema ' || quote_ident(nspname) AS name, nspname::text AS schema,
               nspowner::bigint AS owner, coalesce(nspacl, acldefault('n', nspowner))::text[] AS acl,
               'n'::"char" AS kind FROM pg_namespace WHERE nspname = $2 AND $1 = ''""",
    "database": """
        SELECT oid::bigint AS oid, 'database ' || quote_ident(datname) AS name, '' AS schema, datdba::bigint AS owner,
               coalesce(datacl, acldefault('d', datdba))::text[] AS acl, 'd'::"char" AS kind
        FROM pg_database WHERE datname = $2 AND $1 = ''""",
}
_ACL = """
SELECT a.grantee::bigint AS grantee, a.privilege_type AS privilege, a.is_grantable,
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS name
FROM aclexplode($1::text[]::aclitem[]) a
"""
_ALL = """SELECT array_agg(privilege_type ORDER BY privilege_type) FROM aclexplode(acldefault($1::"char", 10))
WHERE grantee = 10"""
_KINDS: Final = {
    "OBJECT_TABLE": "relation",
    "OBJECT_SEQUENCE": "relation",
    "OBJECT_FUNCTION": "function",
    "OBJECT_PROCEDURE": "function",
    "OBJECT_ROUTINE": "function",
    "OBJECT_SCHEMA": "schema",
    "OBJECT_DATABASE": "database",
}
# "Predefined Roles": privileges that stand in no object's list.
_PREDEFINED: Final = {
    "pg_read_all_data": {"r": {"SELECT"}, "s": {"SELECT"}, "n": {"USAGE"}},
    "pg_write_all_data": {"r": {"INSERT", "UPDATE", "DELETE"}, "s": {"UPDATE"}, "n": {"USAGE"}},
    "pg_maintain": {"r": {"MAINTAIN"}},
}


def _role_name(spec: dict[str, Any], current: str) -> str | None:
    """None: PUBLIC."""
    kind = spec.get("roletype")
    if kind == "ROLESPEC_PUBLIC":
        return None
    return str(spec.get("rolename", "")) if kind == "ROLESPEC_CSTRING" else current


def _names(aim: Aim) -> tuple[str, list[Name]]:
    """The kind of object of a GRANT, and their names."""
    tree = aim.tree
    kind = _KINDS.get(str(tree.get("objtype")), "")
    if tree.get("targtype") == "ACL_TARGET_ALL_IN_SCHEMA":
        if kind != "relation":
            return "", []
        letter = "S" if tree.get("objtype") == "OBJECT_SEQUENCE" else "r"
        return "all", [Name(letter, name) for name in strings(tree.get("objects"))]
    names: list[Name] = []
    for item in tree.get("objects", []):
        if "RangeVar" in item:
            names.append(relation(item["RangeVar"]))
        else:
            parts = strings(item.get("ObjectWithArgs", {}).get("objname")) or strings([item])
            name = name_of(parts)
            if name is not None:
                names.append(name)
    return kind, names


async def privileges(
    connection: Connection, aim: Aim, path: list[str] | None, current: str
) -> list[dict[str, Any]] | dict[str, Any]:
    """The section `privileges` of a GRANT or REVOKE on objects."""
    kind, names = _names(aim)
    if not kind:
        return {"unavailable": "privileges on objects of this kind are not looked up"}
    objects: list[Any] = []
    for name in names:
        rows = await connection.fetch(f"{_OBJECTS[kind]} LIMIT {MAX_ENTRIES + 1}", name.schema or "", name.name)
        if kind in ("relation", "function") and name.schema is None and path is not None:
            first = next((schema for schema in path if any(row["schema"] == schema for row in rows)), None)
            rows = [row for row in rows if row["schema"] == first]
        objects += rows
    is_grant = bool(aim.tree.get("is_grant"))
    only_option = not is_grant and bool(aim.tree.get("grant_option"))
    entries: list[dict[str, Any]] = []
    for item in objects:
        every = set(await connection.fetchval(_ALL, item["kind"]))
        acl = await connection.fetch(_ACL, item["acl"])
        named, columns = _asked(aim, every)
        for spec in aim.tree.get("grantees", []):
            role = _role_name(spec.get("RoleSpec", {}), current)
            entry = await _entry(connection, item, acl, every, role, named if not only_option else set(), is_grant)
            if columns:
                entry["of_columns"] = columns
            if only_option:
                entry["note"] = "only the right to grant it on is revoked"
            elif is_grant and aim.tree.get("grant_option"):
                entry["note"] = "the grantee may grant it on"
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                return [*entries[:MAX_ENTRIES], {"cut": True}]
    return entries


def _asked(aim: Aim, every: set[str]) -> tuple[set[str], dict[str, list[str]]]:
    """The privileges that are named, of whole objects and of columns."""
    whole: set[str] = set()
    columns: dict[str, list[str]] = {}
    for item in aim.tree.get("privileges", []):
        access = item.get("AccessPriv", {})
        name = str(access.get("priv_name", "")).upper()
        if access.get("cols"):
            columns[name or "ALL"] = strings(access["cols"])
        else:
            whole |= {name} & every if name else every
    return (whole, columns) if aim.tree.get("privileges") else (every, {})


async def _entry(
    connection: Connection, item: Any, acl: list[Any], every: set[str], role: str | None, named: set[str], grant: bool
) -> dict[str, Any]:
    entry: dict[str, Any] = {"object": item["name"], "grantee": "PUBLIC" if role is None else role}
    held: dict[int, str] = {}
    flags: list[str] = []
    own = 0
    if role is not None:
        found = await connection.fetchrow(_ROLE, role)
        if found is None:
            return entry | {"error": "there is no such role"}
        own = found["oid"]
        flags = _flags(found)
        held = {row["oid"]: row["name"] for row in await connection.fetch(_HELD, own)}
        entry["flags"] = flags
    before = _effective(item, acl, every, held, own, flags)
    if grant:
        after = before | {privilege: "granted by this" for privilege in named if privilege not in before}
    else:
        rest = [row for row in acl if not (row["grantee"] == own and row["privilege"] in named)]
        after = _effective(item, rest, every, held, own, flags)
    return entry | {
        "before": dict(sorted(before.items())),
        "after": dict(sorted(after.items())),
        "gains": sorted(after.keys() - before.keys()),
        "loses": sorted(before.keys() - after.keys()),
    }


def _effective(
    item: Any, acl: Iterable[Any], every: set[str], held: dict[int, str], own: int, flags: list[str]
) -> dict[str, str]:
    """Each privilege there is, and by what."""
    if "SUPERUSER" in flags:
        return dict.fromkeys(every, "superuser")
    found: dict[str, str] = {}
    for row in acl:
        grantee = row["grantee"]
        if grantee == own:
            found[row["privilege"]] = "PUBLIC" if own == 0 else "granted to it"
        elif grantee == 0:
            found.setdefault(row["privilege"], "PUBLIC")
        elif grantee in held:
            found.setdefault(row["privilege"], f"member of {held[grantee]}")
    for name in held.values():
        for privilege in _PREDEFINED.get(name, {}).get(_letter(item["kind"]), set()) & every:
            found.setdefault(privilege, f"member of {name}")
    if item["owner"] == own:
        # Owners can grant themselves whatever was revoked ("Privileges").
        found = {privilege: "owner" if how == "granted to it" else how for privilege, how in found.items()}
    return found


def _letter(kind: Any) -> str:
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _flags(row: Any) -> list[str]:
    return [shown for column, shown in _SHOWN_FLAGS.items() if row[column]]


# Roles ----------------------------------------------------------------------------------------------------------


async def roles(connection: Connection, aim: Aim, current: str) -> list[dict[str, Any]]:
    """The section `roles`: of each role that is made, changed, dropped or given another's membership, what it is
    before and after."""
    tree = aim.tree
    if aim.kind == "GrantRoleStmt":
        granted = [str(item.get("AccessPriv", {}).get("priv_name", "")) for item in tree.get("granted_roles", [])]
        members = [_role_name(item.get("RoleSpec", {}), current) for item in tree.get("grantee_roles", [])]
        return [
            await _membership(connection, str(member), granted, is_grant=bool(tree.get("is_grant")))
            for member in members[:MAX_ENTRIES]
        ]
    if aim.kind == "DropRoleStmt":
        names = [_role_name(item.get("RoleSpec", {}), current) for item in tree.get("roles", [])]
        return [{"role": name, "before": await _state(connection, str(name)), "after": None} for name in names[:20]]
    role = tree.get("role")
    name = str(role) if isinstance(role, str) else str(_role_name(role or {}, current))
    before = await _state(connection, name)
    flags = set(before["flags"]) if before is not None else set()
    member_of = set(before["reaches"]) if before is not None else set()
    for item in tree.get("options", []):
        option = item.get("DefElem", {})
        column = FLAGS.get(str(option.get("defname")))
        shown = _SHOWN_FLAGS.get(column or "")
        if shown is not None:
            flags = flags | {shown} if option.get("arg", {}).get("Boolean", {}).get("boolval") else flags - {shown}
        elif option.get("defname") == "addroleto":
            into = [_role_name(each.get("RoleSpec", {}), current) for each in option["arg"]["List"]["items"]]
            member_of |= {str(each) for each in into}
    if aim.kind == "CreateRoleStmt" and tree.get("stmt_type") == "ROLESTMT_USER" and not _says(tree, "canlogin"):
        flags.add("LOGIN")
    after = {"flags": [flag for flag in _SHOWN_FLAGS.values() if flag in flags], "reaches": sorted(member_of)}
    return [{"role": name, "before": before, "after": after}]


def _says(tree: dict[str, Any], option: str) -> bool:
    return any(item.get("DefElem", {}).get("defname") == option for item in tree.get("options", []))


async def _state(connection: Connection, role: str, *also: str) -> dict[str, Any] | None:
    """What a role is, and which roles it may act as, of itself and through others; None where there is none."""
    names = [name for name in (role, *also) if await connection.fetchrow(_ROLE, name) is not None]
    found = await connection.fetchrow(_ROLE, role)
    if found is None:
        return None
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    rows = await connection.fetch(_MEMBERSHIPS, quoted)
    others = [row for row in rows if row["name"] != role]
    return {
        "flags": _flags(found),
        "reaches": [row["name"] for row in others[:MAX_ROLES]],
        # By SET ROLE: the attributes are never inherited, and can be had all the same.
        "reaches_flags": sorted({flag for row in others for flag in _flags(row)} - {"LOGIN"}),
    } | ({"cut": True} if len(rows) > MAX_ROLES else {})


async def _membership(connection: Connection, member: str, granted: list[str], *, is_grant: bool) -> dict[str, Any]:
    before = await _state(connection, member)
    if before is None:
        return {"role": member, "error": "there is no such role"}
    if is_grant:
        after = await _state(connection, member, *granted)
        return {"role": member, "granted": granted, "before": before, "after": after}
    return {
        "role": member,
        "revoked": granted,
        "before": before,
        "note": "other ways to the same roles stay: memberships through other roles, grants by other grantors",
    }
