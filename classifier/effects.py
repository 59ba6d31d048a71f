"""What queries, changes of data and expressions mean beyond their kind: one handler a node type.

A handler sees its node before the walk visits the children and returns the names of the fields it has dealt
with itself. Definitions and utility statements have theirs in `utility.py`.
"""

from __future__ import annotations

from typing import Any, Final

from classifier import relations, settings
from classifier.functions import EXACT, Effect
from classifier.model import SHADOWING_PATH, ActionClass
from classifier.restriction import is_restricting, reads_whole_target, scope_of
from classifier.touched import written
from classifier.walk import Handler, Tree, Walk, strings

C = ActionClass


_MAPPINGS: Final = Effect(C.EXPORT, "read_secret", "may show the options of user mappings, which hold passwords")
# Beside those of pg_catalog, which `relations.py` knows by column.
_SECRET_VIEWS: Final = {
    ("information_schema", "user_mapping_options"): _MAPPINGS,
    ("information_schema", "_pg_user_mappings"): _MAPPINGS,
}
# The values of any table's long columns, under a name that says nothing of the table ("TOAST").
_TOAST: Final = Effect(C.EXPORT, "read_toast", "reads the raw values of a table's long columns")


def constant(item: Any) -> str | None:
    """The text of a constant, also of one cast to text; None for everything else."""
    if not isinstance(item, dict):
        return None
    cast = item.get("TypeCast")
    if cast is not None:
        names = strings(cast.get("typeName", {}).get("names", []))
        if names[-1:] != ["text"] or len(names) > 2 or (len(names) == 2 and names[0] != "pg_catalog"):
            return None
        return constant(cast.get("arg"))
    value = item.get("A_Const")
    if value is None:
        return None
    if "sval" in value:
        return str(value["sval"].get("sval", ""))
    if "ival" in value:
        return str(value["ival"].get("ival", 0))
    if "fval" in value:
        return str(value["fval"].get("fval", ""))
    if "boolval" in value:
        return "true" if value["boolval"].get("boolval") else "false"
    return None


def is_temporary(range_var: Tree | None) -> bool:
    """Whether a relation goes with the session."""
    if not range_var:
        return False
    schema: str = range_var.get("schemaname", "")
    return range_var.get("relpersistence") == "t" or schema.startswith("pg_temp")


def _select(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    into = tree.get("intoClause")
    if into is not None:
        rel = into.get("rel", {})
        verb = "temp_select_into" if is_temporary(rel) else "select_into"
        walk.add(C.DDL, verb, walk.target(rel), "creates a table from a query")
    if "valuesLists" in tree and walk.actions:
        return None  # the VALUES of an INSERT
    walk.add(C.READ, "select")
    chosen = _setting_by_row(tree)
    if chosen is not None and walk.environment.search_path is not None:
        # the row it takes the name from says which: pg_dump's way to set what only some versions have
        walk.functions["set_config"] = None
        _set_config(walk, chosen, is_variadic=False)
        return ("targetList",)
    return None


def _setting_by_row(tree: Tree) -> list[Tree] | None:
    """The arguments of `SELECT set_config(name, 'value', false) FROM pg_settings WHERE name = 'constant'`, the name
    put in; None for everything else."""
    if tree.keys() - {"targetList", "fromClause", "whereClause", "limitOption", "op"} or len(tree) < 3:
        return None
    targets, sources = tree.get("targetList", []), tree.get("fromClause", [])
    if len(targets) != 1 or len(sources) != 1:
        return None
    call = targets[0].get("ResTarget", {}).get("val", {}).get("FuncCall", {})
    source = sources[0].get("RangeVar", {})
    where = tree.get("whereClause", {}).get("A_Expr", {})
    arguments = call.get("args", [])
    if strings(call.get("funcname", []))[-1:] != ["set_config"] or len(call.get("funcname", [])) > 1:
        return None
    if (
        source.get("relname") != "pg_settings"
        or "alias" in source
        or source.get("schemaname", "pg_catalog") != "pg_catalog"
    ):
        return None
    is_equality = where.get("kind") == "AEXPR_OP" and where.get("name") == [{"String": {"sval": "="}}]
    named = [_plain_column(item) for item in (where.get("lexpr"), arguments[0] if len(arguments) == 3 else None)]
    plain = [constant(item) for item in (where.get("rexpr"), *arguments[1:])]
    if not is_equality or named != ["name", "name"] or None in plain or "func_variadic" in call:
        return None
    return [where["rexpr"], *arguments[1:]]


def _plain_column(item: Any) -> str | None:
    """The name of a column said without a table."""
    fields = item.get("ColumnRef", {}).get("fields", []) if isinstance(item, dict) else []
    return strings(fields)[0] if len(fields) == 1 and strings(fields) else None


def _insert(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    target = tree.get("relation", {})
    name = walk.target(target)
    if tree.get("onConflictClause", {}).get("action") == "ONCONFLICT_UPDATE":
        conflict = tree["onConflictClause"]
        scope = scope_of(target)
        source = tree.get("selectStmt", {}).get("SelectStmt", {})
        if reads_whole_target(source, scope) and not is_restricting(conflict.get("whereClause"), scope):
            walk.add(C.BULK_WRITE, "upsert_all", name, "updates every row by inserting the table into itself")
        walk.constants_matter |= scope.constants_matter
    walk.add(C.WRITE, "insert", name)
    return None


def _change(walk: Walk, tree: Tree, verb: str) -> tuple[str, ...] | None:
    target = tree.get("relation", {})
    name = walk.target(target)
    scope = scope_of(target, tree.get("fromClause") or tree.get("usingClause") or ())
    if is_restricting(tree.get("whereClause"), scope):
        walk.add(C.WRITE, verb, name)
    else:
        walk.add(C.BULK_WRITE, f"{verb}_all", name, f"{verb}s without a restricting WHERE")
    walk.constants_matter |= scope.constants_matter
    if verb == "update" and target.get("relname") == "pg_settings":
        walk.constants_matter = True
    return None


def _update(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    return _change(walk, tree, "update")


def _delete(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    return _change(walk, tree, "delete")


def _merge(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    target = tree.get("relation", {})
    name = walk.target(target)
    scope = scope_of(target, [tree.get("sourceRelation", {})])
    joined = is_restricting(tree.get("joinCondition"), scope)
    bulk = False
    for item in tree.get("mergeWhenClauses", []):
        clause = item.get("MergeWhenClause", {})
        if clause.get("commandType") not in ("CMD_UPDATE", "CMD_DELETE"):
            continue
        unmatched = clause.get("matchKind") == "MERGE_WHEN_NOT_MATCHED_BY_SOURCE"
        if (unmatched or not joined) and not is_restricting(clause.get("condition"), scope):
            bulk = True
    if bulk:
        walk.add(C.BULK_WRITE, "merge_all", name, "may change every row")
    else:
        walk.add(C.WRITE, "merge", name)
    walk.constants_matter |= scope.constants_matter
    return None


def _range_var(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    schema = tree.get("schemaname")
    name: str = tree.get("relname", "")
    if schema is None and name in walk.visible:
        return None
    walk.relation(tree)
    walk.effect(relations.reading(schema, name) or _SECRET_VIEWS.get((schema or "", name)), written(tree))
    if schema is not None and schema.startswith("pg_toast"):
        walk.effect(_TOAST, written(tree))
    if name in relations.SECRET_COLUMNS and schema in (None, "pg_catalog"):
        alias = tree.get("alias")
        names = walk.secrets_read.setdefault(name, {name})
        if alias is not None:
            names.add(alias.get("aliasname", ""))
            if alias.get("colnames"):
                walk.reads_naturally = True
    return None


def _join(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    if tree.get("isNatural"):
        walk.reads_naturally = True
    walk.columns.update(strings(tree.get("usingClause", [])))
    walk.touched.join(tree, strings(tree.get("usingClause", [])))
    return None


def _column(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    fields = tree.get("fields", [])
    if any("A_Star" in item for item in fields):
        walk.has_star = True
    names = strings(fields)
    walk.touched.column(tree, names)
    walk.columns.update(names[-1:])
    # `u.f` calls f(u) where u has no column f ("Using Composite Types in Queries")
    if len(names) > 1:
        walk.effect(EXACT.get(names[-1]), names[-1])
    return None


def _indirection(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    items = tree.get("indirection", [])
    if any("A_Star" in item for item in items):
        walk.has_star = True
    walk.touched.indirection(tree, strings(items))
    for name in strings(items):
        walk.columns.add(name)
        walk.effect(EXACT.get(name), name)
    return None


def _call(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    names = tree.get("funcname", [])
    arguments = tree.get("args", [])
    parts = strings(names)
    if parts[-1:] == ["set_config"] and parts[:-1] in ([], ["pg_catalog"]):
        walk.functions[".".join(parts)] = None
        _set_config(walk, arguments, bool(tree.get("func_variadic")))
    else:
        walk.call(names, len(arguments))
    return None


def _set_config(walk: Walk, arguments: list[Tree], is_variadic: bool) -> None:
    walk.constants_matter = True
    values: dict[str, Tree] = {}
    for position, item in enumerate(arguments):
        named = item.get("NamedArgExpr")
        if named is not None:
            values[named.get("name", "")] = named.get("arg", {})
        elif position < 3:
            values[("setting_name", "new_value", "is_local")[position]] = item
    name = constant(values.get("setting_name"))
    if name is None or is_variadic:
        walk.settings["*"] = walk.settings[SHADOWING_PATH] = None
        walk.add(C.SESSION, "set_config", None, "changes a setting whose name is not a plain constant")
        return
    name = name.lower()
    walk.settings[name] = None
    value = constant(values.get("new_value"))
    if name == "search_path" and (value is None or not settings.is_system_first(value)):
        walk.settings[SHADOWING_PATH] = None
    walk.effect(settings.judge(name, value), name)


def _operator(walk: Walk, names: list[str]) -> None:
    if len(names) > 1 and names[0] != "pg_catalog":
        walk.effect(
            Effect(
                C.UNKNOWN,
                "unknown_operator",
                "uses an operator that is not PostgreSQL's own, and there is no catalog to ask",
            )
        )


def _expression(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    _operator(walk, strings(tree.get("name", [])))
    return None


def _sublink(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    _operator(walk, strings(tree.get("operName", [])))
    return None


def _sort(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    _operator(walk, strings(tree.get("useOp", [])))
    return None


def _sample(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    walk.call(tree.get("method", []), 1)
    return None


def _locking(walk: Walk, tree: Tree) -> tuple[str, ...] | None:
    return ("lockedRels",)  # names of the FROM list, aliases too


EFFECTS: Final[dict[str, Handler]] = {
    "SelectStmt": _select,
    "InsertStmt": _insert,
    "UpdateStmt": _update,
    "DeleteStmt": _delete,
    "MergeStmt": _merge,
    "RangeVar": _range_var,
    "JoinExpr": _join,
    "ColumnRef": _column,
    "A_Indirection": _indirection,
    "FuncCall": _call,
    "A_Expr": _expression,
    "SubLink": _sublink,
    "SortBy": _sort,
    "RangeTableSample": _sample,
    "LockingClause": _locking,
}
