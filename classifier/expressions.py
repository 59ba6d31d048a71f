"""Raw expression trees, looked at as the text they were written as: names, constants, and whether two say the same."""

from __future__ import annotations

from typing import Any, Final

Tree = dict[str, Any]
Name = tuple[str, str]  # schema ("" where it was not said) and relation

_PLACES: Final = frozenset({"location", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end"})
_MIRRORED: Final = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_OPPOSITES: Final = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


def canonical(item: Any, masked: bool = False) -> str:
    """A text that is the same for expressions written the same, mirrored comparisons included; `masked` also for
    those that differ only in constants."""
    kind, node = only(item) if isinstance(item, dict) else ("", {})
    if kind == "A_Const" and masked:
        return "?"
    if kind == "A_Expr" and node.get("kind") == "AEXPR_OP":
        operator = operator_of(node).replace("!=", "<>")
        left, right = canonical(node.get("lexpr"), masked), canonical(node.get("rexpr"), masked)
        if operator in _MIRRORED and right < left:
            operator, left, right = _MIRRORED[operator], right, left
        return f"({left} {operator} {right})"
    if isinstance(item, dict):
        inside = ",".join(f"{k}:{canonical(v, masked)}" for k, v in sorted(item.items()) if k not in _PLACES)
        return f"{{{inside}}}"
    if isinstance(item, list):
        return f"[{','.join(canonical(v, masked) for v in item)}]"
    return repr(item)


def canonical_opposite(item: Tree, masked: bool) -> str:
    """The canonical text of what lets through just the rows the expression does not, nulls aside."""
    kind, node = only(item)
    if kind == "BoolExpr" and node.get("boolop") == "NOT_EXPR":
        return canonical(node["args"][0], masked)
    if kind == "NullTest":
        other = "IS_NULL" if node.get("nulltesttype") == "IS_NOT_NULL" else "IS_NOT_NULL"
        return canonical({kind: {**node, "nulltesttype": other}}, masked)
    operator = operator_of(node).replace("!=", "<>")
    if kind == "A_Expr" and node.get("kind") == "AEXPR_OP" and operator in _OPPOSITES:
        return canonical({kind: {**node, "name": [{"String": {"sval": _OPPOSITES[operator]}}]}}, masked)
    return canonical({"BoolExpr": {"boolop": "NOT_EXPR", "args": [item]}}, masked)


def has_constant(tree: Any) -> bool:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "A_Const" in node:
                return True
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False


def reduced(item: Any) -> Tree:
    """An expression without the subquery around it that does nothing: `(SELECT a)`."""
    expression: Tree = item if isinstance(item, dict) else {}
    link = expression.get("SubLink", {})
    query = link.get("subselect", {}).get("SelectStmt", {})
    if link.get("subLinkType") == "EXPR_SUBLINK" and query.keys() <= {"targetList", "limitOption", "op"}:
        targets = query.get("targetList", [])
        if len(targets) == 1:
            return reduced(targets[0].get("ResTarget", {}).get("val"))
    return expression


def uncast(item: Tree) -> Tree:
    while "TypeCast" in item:
        inner: Tree = item["TypeCast"].get("arg", {})
        item = inner
    return item


def operator_of(node: Tree) -> str:
    names = node.get("name", [])
    return str(names[-1].get("String", {}).get("sval", "")) if isinstance(names, list) and names else ""


def only(item: Any) -> tuple[str, Tree]:
    if not isinstance(item, dict) or len(item) != 1:
        return "", item if isinstance(item, dict) else {}
    ((kind, node),) = item.items()
    return kind, node if isinstance(node, dict) else item


def strings(items: list[Tree]) -> list[str]:
    return [str(item["String"].get("sval", "")) for item in items if "String" in item]


def alias_of(range_var: Tree) -> str:
    return str(range_var.get("alias", {}).get("aliasname") or range_var.get("relname", ""))


def relation_of(range_var: Tree) -> Name:
    return str(range_var.get("schemaname", "")), str(range_var.get("relname", ""))


def is_same_relation(left: Name, right: Name) -> bool:
    """One name said with its schema and one without may be the same relation."""
    return left[1] == right[1] and (left[0] == right[0] or not left[0] or not right[0])


def output_names(query: Tree) -> list[str]:
    """The names of a subquery's columns as far as its target list says them."""
    while "larg" in query:
        query = query["larg"]
    names = []
    for item in query.get("targetList", []):
        target = item.get("ResTarget", {})
        last = strings(target.get("val", {}).get("ColumnRef", {}).get("fields", []))
        names.append(target.get("name") or (last[-1] if last else ""))
    return names
