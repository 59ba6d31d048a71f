"""Whether a WHERE clause restricts the rows a change reaches.

Without the data nobody can say how many rows a condition lets through; what can be said is that some conditions let
through all of them, or are the same for every row: constants, a column compared with itself, a pattern that
matches everything, `a IS NULL OR a IS NOT NULL`, a subquery that asks nothing of the row, a condition on another
table only. `id > 0` is not among them: that takes the data (policies can ask for an estimate of rows).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from classifier.expressions import (
    Name,
    Tree,
    alias_of,
    canonical,
    canonical_opposite,
    has_constant,
    is_same_relation,
    only,
    operator_of,
    output_names,
    reduced,
    relation_of,
    strings,
    uncast,
)


class Reach(Enum):
    """Which rows of the target a condition lets through."""

    EVERY = "every"
    NONE = "none"
    SAME = "same"  # all or none, and only the server knows which
    SOME = "some"


# Every row of every table has these, and they are never null ("System Columns").
_SYSTEM_COLUMNS: Final = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})
_COMPARISONS: Final = frozenset({"=", "<>", "!=", "<", ">", "<=", ">="})


@dataclass(slots=True)
class Scope:
    """The target of a change and what else its conditions may name. `constants_matter` is set as soon as a
    constant took part in an answer: another constant might have made it another one."""

    name: str | None = None  # what the target's rows go by; None: any column counts as the target's
    relation: Name = ("", "")
    others: dict[str, Name | None] = field(default_factory=dict)  # the rest of the FROM list
    columns: set[str] = field(default_factory=set)  # output names that belong to the rest of the FROM list
    constants_matter: bool = False
    # by the identity of a node, which is kept so that no other node can take it
    judged: dict[int, tuple[Tree, Reach]] = field(default_factory=dict)


def scope_of(target: Tree, sources: Iterable[Tree] = ()) -> Scope:
    """The scope of UPDATE … FROM, DELETE … USING or MERGE … USING."""
    scope = Scope(alias_of(target), relation_of(target))
    pending = list(sources)
    while pending:
        kind, node = only(pending.pop())
        if kind == "JoinExpr":
            pending += [node.get("larg", {}), node.get("rarg", {})]
            continue
        if kind == "RangeVar":
            scope.others[alias_of(node)] = relation_of(node)
            continue
        alias = node.get("alias", {})
        scope.others[alias.get("aliasname", "")] = None
        named = strings(alias.get("colnames", []))
        scope.columns.update(named)
        if kind == "RangeSubselect" and not named:
            scope.columns.update(output_names(node.get("subquery", {}).get("SelectStmt", {})))
    return scope


def is_restricting(where: Tree | None, scope: Scope | None = None) -> bool:
    """Whether some row of the target could fail the condition because of what is in it."""
    if not where:
        return False
    return judge(where, scope if scope is not None else Scope()) in (Reach.SOME, Reach.NONE)


def judge(condition: Tree, scope: Scope) -> Reach:
    """Which rows a condition lets through."""
    known = scope.judged.get(id(condition))
    if known is None:
        known = scope.judged[id(condition)] = condition, _judge(condition, scope)
    return known[1]


def _judge(condition: Tree, scope: Scope) -> Reach:
    kind, node = only(condition)
    match kind:
        case "BoolExpr":
            return _boolean(node, scope)
        case "A_Const":
            return _constant(node, scope)
        case "A_Expr":
            reach = _comparison(node, scope)
        case "SubLink":
            reach = _subquery(node, scope)
        case "NullTest":
            reach = _null_test(node, scope)
        case "BooleanTest":
            reach = _boolean_test(node, scope)
        case "CaseExpr":
            reach = _case(node, scope)
        case "FuncCall":
            reach = _function(node, scope)
        case "CurrentOfExpr":
            return Reach.SOME
        case _:
            reach = None
    if reach is not None:
        return reach
    return Reach.SOME if reads_target(condition, scope) else Reach.SAME


def reads_target(tree: Any, scope: Scope) -> bool:
    """Whether a column that may be the target's takes part in an expression. A bare name in a subquery may be
    anyone's, and counts."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            column = node.get("ColumnRef")
            if column is not None and _is_targets(strings(column.get("fields", [])), column, scope):
                return True
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False


def _is_targets(names: list[str], column: Tree, scope: Scope) -> bool:
    if not names:
        return False
    if scope.name is None:
        return True
    if len(column.get("fields", [])) == 1:
        return names[0] == scope.name or (names[0] not in scope.others and names[0] not in scope.columns)
    qualifier = names[-1] if len(names) < len(column["fields"]) else names[-2]  # `t.*` has no name for the star
    return qualifier == scope.name


# boolean operators


def _boolean(node: Tree, scope: Scope) -> Reach:
    operator = node.get("boolop")
    if operator == "NOT_EXPR":
        kind, inner = only(node["args"][0])
        is_and = kind == "BoolExpr" and inner.get("boolop") == "AND_EXPR"
        if is_and and _hold_opposites(_flattened(inner, "AND_EXPR", scope), scope):
            return Reach.EVERY
        return _opposite(judge(node["args"][0], scope))
    found = Reach.EVERY
    if operator == "AND_EXPR":
        for item in node.get("args", []):
            reach = judge(item, scope)
            if reach in (Reach.SOME, Reach.NONE):
                return reach  # whatever the others say, it restricts: their constants do not matter
            if reach is Reach.SAME:
                found = reach
        return found
    alternatives = _flattened(node, "OR_EXPR", scope)
    reaches = {judge(item, scope) for item in alternatives}
    if Reach.EVERY in reaches or _hold_opposites(alternatives, scope):
        return Reach.EVERY
    return Reach.SAME if Reach.SAME in reaches else Reach.SOME if Reach.SOME in reaches else Reach.NONE


def _flattened(node: Tree, operator: str, scope: Scope) -> list[Tree]:
    """The arguments of nested ANDs or ORs in one list, `(x AND true)` and `NOT NOT x` as x."""
    found: list[Tree] = []
    pending = list(reversed(node.get("args", [])))
    while pending:
        item = pending.pop()
        kind, inner = only(item)
        if kind == "BoolExpr" and inner.get("boolop") == operator:
            pending += reversed(inner.get("args", []))
            continue
        found.append(_simplified(item, scope))
    return found


def _simplified(item: Tree, scope: Scope) -> Tree:
    kind, node = only(item)
    if kind != "BoolExpr":
        return item
    arguments = node.get("args", [])
    operator = node.get("boolop")
    if operator == "NOT_EXPR":
        inner_kind, inner = only(arguments[0])
        if inner_kind == "BoolExpr" and inner.get("boolop") == "NOT_EXPR":
            return _simplified(inner["args"][0], scope)
        return item
    neutral = (Reach.EVERY, Reach.SAME) if operator == "AND_EXPR" else (Reach.NONE,)
    left = [other for other in arguments if judge(other, scope) not in neutral]
    return _simplified(left[0], scope) if len(left) == 1 else item


def _opposite(reach: Reach) -> Reach:
    return {Reach.EVERY: Reach.NONE, Reach.NONE: Reach.EVERY}.get(reach, reach)


def _hold_opposites(alternatives: list[Tree], scope: Scope) -> bool:
    """Whether two of the alternatives are each other's opposite: `a OR NOT a`, `a = 1 OR a <> 1`."""
    if _find_opposites(alternatives, masked=False):
        scope.constants_matter |= has_constant(alternatives)
        return True
    # with other constants two of them might be
    scope.constants_matter |= _find_opposites(alternatives, masked=True)
    return False


def _find_opposites(alternatives: list[Tree], masked: bool) -> bool:
    said = {canonical(item, masked) for item in alternatives}
    return any(canonical_opposite(item, masked) in said for item in alternatives)


def _constant(node: Tree, scope: Scope) -> Reach:
    if "boolval" in node:
        scope.constants_matter = True
        return Reach.EVERY if node["boolval"].get("boolval") else Reach.NONE
    if node.get("isnull"):
        scope.constants_matter = True
        return Reach.NONE
    return Reach.SAME


def _boolean_test(node: Tree, scope: Scope) -> Reach | None:
    inner = judge(node.get("arg", {}), scope)
    match node.get("booltesttype"):
        case "IS_TRUE":
            return inner
        case "IS_FALSE" | "IS_NOT_TRUE":
            return _opposite(inner)
        case "IS_NOT_FALSE":
            return inner
        case "IS_NOT_UNKNOWN":
            return Reach.EVERY  # of a comparison: true for every row whose columns are known
    return None


def _null_test(node: Tree, scope: Scope) -> Reach | None:
    kind, argument = only(node.get("arg", {}))
    if kind == "ColumnRef":
        name = (strings(argument.get("fields", [])) or [""])[-1]
        never = name in _SYSTEM_COLUMNS
    else:
        never = kind == "BoolExpr" or (kind == "A_Expr" and operator_of(argument) in _COMPARISONS)
    if not never:
        return None
    return Reach.EVERY if node.get("nulltesttype") == "IS_NOT_NULL" else Reach.NONE


def _case(node: Tree, scope: Scope) -> Reach | None:
    results = [item.get("CaseWhen", {}).get("result", {}) for item in node.get("args", [])]
    reaches = {judge(item, scope) for item in [*results, node.get("defresult") or {}] if item}
    if node.get("defresult") and len(reaches) == 1:
        return reaches.pop()
    return None


def _function(node: Tree, scope: Scope) -> Reach | None:
    arguments = node.get("args", [])
    if strings(node.get("funcname", []))[-1:] == ["starts_with"] and len(arguments) == 2:
        return Reach.EVERY if _text(arguments[1], scope) == "" else None
    return None


# comparisons


def _comparison(node: Tree, scope: Scope) -> Reach | None:
    left, right = reduced(node.get("lexpr")), reduced(node.get("rexpr"))
    kind, operator = node.get("kind"), operator_of(node)
    if kind in ("AEXPR_LIKE", "AEXPR_ILIKE", "AEXPR_SIMILAR") or operator.lstrip("!").startswith(("~", "^@")):
        return Reach.EVERY if _matches_all(operator, right, scope) else None
    if kind in ("AEXPR_OP", "AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT"):
        if _same(left, right, scope) and reads_target(left, scope):
            return Reach.EVERY
        if operator == "=" and _is_self_join(left, right, scope):
            return Reach.EVERY
        return _constants_compared(operator, left, right, scope) if kind == "AEXPR_OP" else None
    if kind in ("AEXPR_IN", "AEXPR_BETWEEN", "AEXPR_BETWEEN_SYM", "AEXPR_OP_ANY"):
        return Reach.EVERY if _same_as_one(kind, left, right, scope) else None
    return None


def _same_as_one(kind: str, left: Tree, right: Tree, scope: Scope) -> bool:
    """`a IN (a, …)`, `a = ANY (ARRAY[a, …])`, `a = ANY (ARRAY(SELECT a FROM t))`, `a BETWEEN a AND a`."""
    link = right.get("SubLink", {})
    if link.get("subLinkType") == "ARRAY_SUBLINK":
        return _is_among_all(left, link.get("subselect", {}).get("SelectStmt", {}), scope)
    items = right.get("List", {}).get("items") or right.get("A_ArrayExpr", {}).get("elements") or []
    found = [_same(left, reduced(item), scope) for item in items]
    if kind.startswith("AEXPR_BETWEEN"):
        return bool(found) and all(found)
    return any(found)


def _constants_compared(operator: str, left: Tree, right: Tree, scope: Scope) -> Reach | None:
    """`1 = 0` lets no row through."""
    if "A_Const" not in left or "A_Const" not in right or operator not in ("=", "<>", "!="):
        return None
    scope.constants_matter = True
    kinds = [item["A_Const"].keys() - {"location"} for item in (left, right)]
    if kinds[0] != kinds[1] or "isnull" in kinds[0]:
        return Reach.SAME
    equal = canonical(left) == canonical(right)
    return Reach.EVERY if equal == (operator == "=") else Reach.NONE


def _matches_all(operator: str, pattern: Tree, scope: Scope) -> bool:
    call = pattern.get("FuncCall")
    if call is not None and strings(call.get("funcname", []))[-1:] == ["similar_to_escape"]:
        pattern = (call.get("args") or [{}])[0]
    value = _text(pattern, scope)
    if value is None or operator.startswith("!"):
        return False
    if operator == "^@":
        return value == ""
    return not value.strip("%") or value.strip("^$()") in ("", ".*", ".*?", ".", ".+")


def _is_self_join(left: Tree, right: Tree, scope: Scope) -> bool:
    """`t.id = u.id` where u is the same table as t: each row meets itself."""
    columns = [strings(side.get("ColumnRef", {}).get("fields", [])) for side in (left, right)]
    if any(len(names) < 2 for names in columns) or columns[0][-1] != columns[1][-1]:
        return False
    qualifiers = {names[-2] for names in columns}
    if scope.name is None or scope.name not in qualifiers or len(qualifiers) != 2:
        return False
    (other,) = qualifiers - {scope.name}
    relation = scope.others.get(other)
    return relation is not None and is_same_relation(relation, scope.relation)


def _text(item: Tree, scope: Scope) -> str | None:
    """The text of a string constant, noting that it mattered."""
    value = uncast(item).get("A_Const", {}).get("sval")
    if value is None:
        return None
    scope.constants_matter = True
    return str(value.get("sval", ""))


# subqueries


def _subquery(node: Tree, scope: Scope) -> Reach | None:
    query = node.get("subselect", {}).get("SelectStmt", {})
    if "larg" in query or "withClause" in query:
        return None
    kind = node.get("subLinkType")
    if kind == "EXISTS_SUBLINK":
        return _exists(query, scope)
    if kind == "EXPR_SUBLINK" and "fromClause" not in query and len(query.get("targetList", [])) == 1:
        return judge(query["targetList"][0].get("ResTarget", {}).get("val", {}), scope)
    if kind == "ANY_SUBLINK" and _is_among_all(node.get("testexpr", {}), query, scope):
        return Reach.EVERY
    return None


def _exists(query: Tree, scope: Scope) -> Reach:
    """A subquery that asks nothing of the outer row is the same for each of them."""
    if any(name in query for name in ("larg", "withClause", "limitCount", "limitOffset", "groupClause")):
        return Reach.SOME if reads_target(query, scope) else Reach.SAME
    conditions = [query[name] for name in ("whereClause", "havingClause") if query.get(name)]
    if "fromClause" not in query:
        return judge(conditions[0], scope) if conditions else Reach.EVERY
    pending = list(query["fromClause"])
    while pending:
        kind, node = only(pending.pop())
        if kind == "JoinExpr":
            pending += [node.get("larg", {}), node.get("rarg", {})]
            conditions += [node["quals"]] if node.get("quals") else []
        elif kind == "RangeSubselect":
            if _exists(node.get("subquery", {}).get("SelectStmt", {}), scope) is Reach.SOME:
                return Reach.SOME
        elif kind != "RangeVar" and reads_target(node, scope):  # a function of the outer row
            return Reach.SOME
    for item in conditions:
        inner = Scope()
        asks = judge(item, inner) is Reach.SOME and reads_target(item, scope)
        scope.constants_matter |= inner.constants_matter
        if asks:
            return Reach.SOME
    return Reach.SAME


def _is_among_all(tested: Tree, query: Tree, scope: Scope) -> bool:
    """`id IN (SELECT id FROM t)` of a change to t."""
    if scope.name is None or is_limited(query, scope):
        return False
    sources = query.get("fromClause", [])
    targets = query.get("targetList", [])
    if len(sources) != 1 or "RangeVar" not in sources[0] or len(targets) != 1:
        return False
    inner = strings(targets[0].get("ResTarget", {}).get("val", {}).get("ColumnRef", {}).get("fields", []))
    outer = strings(tested.get("ColumnRef", {}).get("fields", []))
    return (
        bool(outer)
        and outer[-1:] == inner[-1:]
        and is_same_relation(relation_of(sources[0]["RangeVar"]), scope.relation)
    )


def is_limited(query: Tree, scope: Scope) -> bool:
    """Whether a SELECT leaves rows of its only table out."""
    if any(name in query for name in ("limitCount", "limitOffset", "groupClause", "havingClause", "distinctClause")):
        return True
    where = query.get("whereClause")
    inner = Scope()
    limited = is_restricting(where, inner)
    scope.constants_matter |= inner.constants_matter
    return limited


def reads_whole_target(query: Tree, scope: Scope) -> bool:
    """Whether a SELECT reads every row of the scope's table and of nothing else."""
    sources = query.get("fromClause", [])
    if "larg" in query or len(sources) != 1 or "RangeVar" not in sources[0]:
        return False
    return is_same_relation(relation_of(sources[0]["RangeVar"]), scope.relation) and not is_limited(query, scope)


def _same(left: Tree, right: Tree, scope: Scope) -> bool:
    if not left or not right or left.keys() != right.keys():
        return False
    if _unqualified(left, scope, masked=True) != _unqualified(right, scope, masked=True):
        return False
    scope.constants_matter |= has_constant(left) or has_constant(right)
    return _unqualified(left, scope) == _unqualified(right, scope)


def _unqualified(item: Tree, scope: Scope, masked: bool = False) -> str:
    """Canonical, a column of the target without its qualifier: `id = customers.id`."""
    names = strings(item.get("ColumnRef", {}).get("fields", []))
    if len(names) == 2 and names[0] == scope.name:
        return canonical({"ColumnRef": {"fields": [{"String": {"sval": names[1]}}]}})
    return canonical(item, masked)
