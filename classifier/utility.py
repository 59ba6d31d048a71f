"""What utility statements and definitions mean beyond their kind: COPY, SET, PREPARE, GRANT, CREATE …

One handler a statement, as in `effects.py`. Statements without one take their class from `statements.py` as it
stands; `_definition` finds the object for them.
"""

from __future__ import annotations

from typing import Any, Final

from classifier import settings
from classifier.effects import constant, is_temporary
from classifier.model import SHADOWING_PATH, ActionClass
from classifier.statements import STATEMENTS, object_word
from classifier.walk import Handler, Tree, Walk, strings

C = ActionClass
_RELATION_FIELDS: Final = ("relation", "view", "sequence", "typevar", "table")
_NAME_FIELDS: Final = (
    *("schemaname", "role", "dbname", "extname", "servername", "fdwname", "plname", "tablespacename"),
    *("pubname", "subname", "trigname", "amname", "conditionname", "portalname", "orig_tablespacename"),
)
_NAME_LISTS: Final = ("funcname", "defnames", "typeName", "domainname", "opclassname", "opfamilyname", "dictname")
_TRANSACTION_TAGS: Final = {
    "START": "START TRANSACTION",
    "ROLLBACK TO": "ROLLBACK",
    "PREPARE": "PREPARE TRANSACTION",
}
_OFF: Final = frozenset({"off", "false", "no", "0"})


def _object(kind: str, tree: Tree) -> tuple[str | None, bool]:
    """The object a definition is about as far as one name can say it, and whether it is a temporary one."""
    for field in _RELATION_FIELDS:
        if isinstance(tree.get(field), dict) and "relname" in tree[field]:
            found = tree[field]
            name = found["relname"]
            schema = found.get("schemaname")
            return (f"{schema}.{name}" if schema else name), is_temporary(found)
    for field in _NAME_LISTS:
        names = strings(tree[field]) if isinstance(tree.get(field), list) else []
        if names:
            return ".".join(names), names[0].startswith("pg_temp")
    role = tree.get("role") or tree.get("user")
    if isinstance(role, dict):
        return role.get("rolename"), False
    for field in _NAME_FIELDS:
        if isinstance(tree.get(field), str):
            return tree[field], False
    return None, False


def _definition(kind: str) -> Handler:
    def handle(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
        meaning = STATEMENTS[kind]
        assert meaning.cls is not None
        name, temporary = _object(kind, tree)
        verb = f"temp_{meaning.verb}" if temporary and meaning.cls == C.DDL else meaning.verb
        walk.add(meaning.cls, verb, name, meaning.detail)
        walk.also(kind, name)
        if meaning.cls == C.CODE:
            walk.settings["*"] = None
        return None

    return handle


def _option(options: list[Tree], name: str) -> bool:
    """Whether a boolean option is on; one without a value is."""
    on = False
    for item in options:
        element = item.get("DefElem", {})
        if element.get("defname", "").lower() == name:
            on = _text(element.get("arg")) not in _OFF
    return on


def _text(argument: Any) -> str | None:
    if not isinstance(argument, dict):
        return None
    if "String" in argument:
        return str(argument["String"].get("sval", "")).lower()
    if "Integer" in argument:
        return str(argument["Integer"].get("ival", 0))
    if "Boolean" in argument:
        return "true" if argument["Boolean"].get("boolval") else "false"
    return None


def _copy(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    relation = tree.get("relation")
    is_from = bool(tree.get("is_from"))
    name = None
    if relation is not None:
        name = walk.target(relation) if is_from else walk.relation(relation)
    filename = tree.get("filename")
    if filename is not None:
        where = "a program on the server" if tree.get("is_program") else "a file on the server"
        verb = f"copy_{'from' if is_from else 'to'}_{'program' if tree.get('is_program') else 'file'}"
        detail = f"COPY … {'FROM' if is_from else 'TO'} {where}"
        walk.add(C.FILE, verb, name, detail)
        if not is_from:
            walk.add(C.EXPORT, verb, name, detail)
            return None
        walk.add(C.IMPORT, verb, name)
    elif is_from:
        walk.add(C.IMPORT, "copy_from_stdin", name)
    else:
        what = "table rows" if relation is not None else "a query's rows"
        walk.add(C.EXPORT, "copy_to_stdout", name, f"COPY … TO STDOUT sends {what} to the client")
    return None


def _set(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    kind = tree.get("kind")
    name = str(tree.get("name", "")).lower()
    if kind == "VAR_RESET_ALL":
        walk.set_tag("RESET")
        walk.settings["*"] = None
        walk.add(C.READ, "reset_all")
        return None
    if kind == "VAR_SET_MULTI":
        walk.add(C.TRANSACTION, "set_transaction")
        return None
    walk.settings[name] = None
    value = None
    if kind == "VAR_SET_VALUE":
        values = [constant(item) for item in tree.get("args", [])]
        if values and all(v is not None for v in values):
            value = ", ".join(v for v in values if v is not None)
            if name == "search_path":
                walk.new_path = tuple(v for v in values if v is not None)
                value = ", ".join('"' + schema.replace('"', '""') + '"' for schema in walk.new_path)  # each is one name
                if not settings.is_system_first(value):
                    walk.settings[SHADOWING_PATH] = None
    elif kind == "VAR_RESET":
        walk.set_tag("RESET")
    effect = settings.judge(name, value)
    if effect is None:
        walk.add(C.READ, "reset" if kind == "VAR_RESET" else "set", name)
    else:
        walk.effect(effect, name)
    return None


def _stored_setting(kind: str) -> Handler:
    """ALTER SYSTEM, ALTER ROLE … SET and ALTER DATABASE … SET: nothing changes in this session."""
    define = _definition(kind)

    def handle(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
        define(walk, tree)
        return ("setstmt",)

    return handle


def _discard(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.READ, "discard")
    if tree.get("target") == "DISCARD_ALL":
        walk.settings["*"] = None
        walk.deallocates = ""
    return None


def _transaction(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    words = str(tree.get("kind", "")).removeprefix("TRANS_STMT_").replace("_", " ")
    tag = _TRANSACTION_TAGS.get(words, words)
    walk.set_tag(tag)
    walk.add(C.TRANSACTION, tag.lower().replace(" ", "_"))
    return None


def _prepare(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.READ, "prepare")
    ((kind, query),) = tree.get("query", {"": {}}).items()
    inner = Walk(walk.handlers, walk.environment, {})
    inner.run(kind, query)
    walk.prepares = str(tree.get("name", ""))
    walk.prepared = inner.statement(kind)
    walk.merge(walk.prepared)
    return ("query",)


def _execute(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    name = str(tree.get("name", ""))
    walk.add(C.READ, "execute")
    known = walk.prepared_here.get(name)
    if known is None:
        walk.executes[name] = None
    else:
        walk.merge(known)
        walk.settings.update(dict.fromkeys(known.settings))
    return None


def _deallocate(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.deallocates = "" if tree.get("isall") else str(tree.get("name", ""))
    walk.add(C.READ, "deallocate")
    return None


def _declare(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.READ, "declare_cursor")
    walk.names_cursor(tree)
    walk.cursor_holds = bool(int(tree.get("options", 0)) & _CURSOR_HOLD)
    return None


def _fetch(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.READ, "fetch")
    walk.names_cursor(tree)
    return None


def _close(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.READ, "close_cursor")
    walk.names_cursor(tree)
    return None


def _vacuum(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    if not tree.get("is_vacuumcmd"):
        walk.set_tag("ANALYZE")
        walk.add(C.READ, "analyze")
    elif _option(tree.get("options", []), "full"):
        walk.add(C.MAINTENANCE, "vacuum_full", None, "VACUUM FULL rewrites tables under an exclusive lock")
    else:
        walk.add(C.READ, "vacuum")
    return None


def _truncate(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    for item in tree.get("relations", []):
        name = walk.target(item.get("RangeVar", {}))
        walk.add(C.BULK_WRITE, "truncate", name, "removes every row")
    return None


def _lock(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    """ACCESS SHARE is what any SELECT of the table takes, until the end of the transaction and for the same privilege
    ("Explicit Locking"): pg_dump takes it on every table. The stronger modes stop others."""
    for item in tree.get("relations", []):
        relation = walk.relation(item.get("RangeVar", {}))
        if tree.get("mode") == _ACCESS_SHARE:
            walk.add(C.READ, "lock_access_share", relation)
        else:
            walk.add(C.MAINTENANCE, "lock", relation, "locks a table")
    return None


_CURSOR_HOLD: Final = 0x0020  # CURSOR_OPT_HOLD
_ACCESS_SHARE: Final = 1  # AccessShareLock, the weakest; the tree holds the mode's number


def _procedure(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    call = tree.get("funccall", {})
    name = ".".join(strings(call.get("funcname", [])))
    walk.functions[name] = None
    walk.add(C.CODE, "call", name, "runs a procedure")
    walk.settings["*"] = None
    for item in call.get("args", []):
        for kind, argument in item.items():
            walk.visit(kind, argument, walk.visible)
    return ("funccall",)


def _grant(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    revoke = not tree.get("is_grant")
    walk.set_tag("REVOKE" if revoke else "GRANT")
    names = [walk.relation(item["RangeVar"]) for item in tree.get("objects", []) if "RangeVar" in item]
    detail = "revokes privileges" if revoke else "grants privileges"
    walk.add(C.GRANT, "revoke" if revoke else "grant", ", ".join(names) or None, detail)
    return None


def _grant_role(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    revoke = not tree.get("is_grant")
    walk.set_tag("REVOKE ROLE" if revoke else "GRANT ROLE")
    roles = [item.get("AccessPriv", {}).get("priv_name", "") for item in tree.get("granted_roles", [])]
    verb = "revoke_role" if revoke else "grant_role"
    walk.add(C.ROLE, verb, ", ".join(roles) or None, "changes membership in a role")
    return None


def _default_privileges(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.add(C.GRANT, "alter_default_privileges", None, "changes privileges of future objects")
    return ("action",)


def _alter_table(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    relation = tree.get("relation", {})
    word = object_word(str(tree.get("objtype", "OBJECT_TABLE")))
    walk.set_tag(f"ALTER {word}")
    name = walk.target(relation)
    verb = "alter_" + word.lower().replace(" ", "_")
    walk.add(C.DDL, f"temp_{verb}" if is_temporary(relation) else verb, name, f"changes a {word.lower()}")
    for item in tree.get("cmds", []):
        subtype = item.get("AlterTableCmd", {}).get("subtype")
        if subtype == "AT_ChangeOwner":
            walk.add(C.GRANT, "change_owner", name, "changes who owns it")
        elif subtype == "AT_GenericOptions":
            _foreign_options(walk, item["AlterTableCmd"].get("def", {}).get("List", {}).get("items", []), verb, name)
        elif subtype in ("AT_DisableRowSecurity", "AT_NoForceRowSecurity"):
            walk.add(C.DDL, "disable_row_security", name, "switches row security off")
    return None


def _drop(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    word = object_word(str(tree.get("removeType", "")))
    walk.set_tag(f"DROP {word}")
    names = []
    for item in tree.get("objects", []):
        parts = strings(item.get("List", {}).get("items", [])) if "List" in item else strings([item])
        if "TypeName" in item:
            parts = strings(item["TypeName"].get("names", []))
        if "ObjectWithArgs" in item:
            parts = strings(item["ObjectWithArgs"].get("objname", []))
        names.append(".".join(parts))
        if word in ("TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE", "INDEX") and parts:
            walk.relation({"relname": parts[-1]} | ({"schemaname": parts[-2]} if len(parts) > 1 else {}))
    temporary = bool(names) and all(name.startswith("pg_temp") for name in names)
    walk.add(C.DDL, "temp_drop" if temporary else "drop", ", ".join(names) or None, f"drops a {word.lower()}")
    return None


def _create_table(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    relation = tree.get("relation", {})
    verb = "temp_create_table" if is_temporary(relation) else "create_table"
    walk.add(C.DDL, verb, walk.relation(relation), "creates a table")
    return None


def _create_table_as(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    relation = tree.get("into", {}).get("rel", {})
    word = object_word(str(tree.get("objtype", "OBJECT_TABLE")))
    if word == "MATERIALIZED VIEW":
        walk.set_tag("CREATE MATERIALIZED VIEW")
    verb = "create_table_as" if word == "TABLE" else "create_materialized_view"
    walk.add(
        C.DDL,
        f"temp_{verb}" if is_temporary(relation) else verb,
        walk.relation(relation),
        f"creates a {word.lower()} from a query",
    )
    return None


def _foreign_table(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    name = walk.relation(tree.get("base", {}).get("relation", {}))
    walk.add(C.DDL, "create_foreign_table", name, "creates a foreign table")
    _foreign_options(walk, tree.get("options", []), "create_foreign_table", name)
    return None


def _foreign_options(walk: Walk, options: list[Tree], verb: str, name: str) -> None:
    names = {item.get("DefElem", {}).get("defname", "") for item in options}
    if names & {"filename", "program"}:
        walk.add(C.FILE, verb, name, "reaches a file or program of the server")


def _rename(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    if tree.get("renameType") == "OBJECT_ROLE":
        walk.set_tag("ALTER ROLE")
        walk.add(C.ROLE, "alter_role", tree.get("subname"), "renames a role")
        return None
    return _RENAME(walk, tree)


def _with_word(kind: str, field: str, verb: str) -> Handler:
    """ALTER … statements whose tag names the kind of object."""
    meaning = STATEMENTS[kind]
    assert meaning.cls is not None

    def handle(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
        assert meaning.cls is not None
        word = object_word(str(tree.get(field, "")))
        walk.set_tag(f"{verb} {word}".strip())
        name, temporary = _object(kind, tree)
        if name is None:
            held = tree.get("object", {})
            parts = strings([held]) or strings(held.get("List", {}).get("items", []))
            name = ".".join(parts) or None
        walk.add(meaning.cls, f"temp_{meaning.verb}" if temporary else meaning.verb, name, meaning.detail)
        return None

    return handle


_RENAME: Final = _with_word("RenameStmt", "renameType", "ALTER")
_SPECIAL: Final[dict[str, Handler]] = {
    "CopyStmt": _copy,
    "VariableSetStmt": _set,
    "DiscardStmt": _discard,
    "TransactionStmt": _transaction,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "DeallocateStmt": _deallocate,
    "DeclareCursorStmt": _declare,
    "FetchStmt": _fetch,
    "ClosePortalStmt": _close,
    "VacuumStmt": _vacuum,
    "TruncateStmt": _truncate,
    "LockStmt": _lock,
    "CallStmt": _procedure,
    "GrantStmt": _grant,
    "GrantRoleStmt": _grant_role,
    "AlterDefaultPrivilegesStmt": _default_privileges,
    "AlterTableStmt": _alter_table,
    "DropStmt": _drop,
    "CreateStmt": _create_table,
    "CreateTableAsStmt": _create_table_as,
    "CreateForeignTableStmt": _foreign_table,
    "AlterSystemStmt": _stored_setting("AlterSystemStmt"),
    "AlterRoleSetStmt": _stored_setting("AlterRoleSetStmt"),
    "AlterDatabaseSetStmt": _stored_setting("AlterDatabaseSetStmt"),
    "RenameStmt": _rename,
    "AlterOwnerStmt": _with_word("AlterOwnerStmt", "objectType", "ALTER"),
    "AlterObjectSchemaStmt": _with_word("AlterObjectSchemaStmt", "objectType", "ALTER"),
    "DefineStmt": _with_word("DefineStmt", "kind", "CREATE"),
}
_QUERIES: Final = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})

UTILITY: Final[dict[str, Handler]] = {
    kind: _SPECIAL.get(kind) or _definition(kind)
    for kind, meaning in STATEMENTS.items()
    if kind not in _QUERIES and (kind in _SPECIAL or meaning.cls is not None)
}
