"""Whether a WHERE clause restricts the rows a change reaches."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]


def is_restricting(where: Tree | None) -> bool:
    """Whether some row could fail the condition because of what is in it.

    Without the data nobody can say more; what can be said is that a condition on constants alone, a column
    compared with itself, a pattern that matches everything, or one of these under OR, lets every row through.
    """
    if not where:
        return False
    pending: list[Tree] = [where]
    while pending:
        item = pending.pop()
        kind, node = _only(item)
        if kind == "BoolExpr" and node.get("boolop") == "OR_EXPR":
            # every alternative must restrict
            if not all(is_restricting(other) for other in node.get("args", [])):
                continue
            return True
        if kind == "BoolExpr":
            pending.extend(node.get("args", []))
            continue
        if kind in ("A_Const", "ParamRef"):
            continue
        if kind == "A_Expr" and _compares_with_itself(node):
            continue
        if kind == "A_Expr" and _is_match(node) and _matches_all(node):
            continue
        if kind == "CurrentOfExpr" or reads_column(item):
            return True
    return False


def has_pattern(tree: Any) -> bool:
    """Whether a pattern takes part, so that the answer depends on a constant."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if _is_match(node):
                return True
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False


def reads_column(tree: Any) -> bool:
    """Whether a named column takes part in an expression."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            column = node.get("ColumnRef")
            if column is not None and any("String" in item for item in column.get("fields", [])):
                return True
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return False


def _is_match(node: Tree) -> bool:
    if node.get("kind") in ("AEXPR_LIKE", "AEXPR_ILIKE", "AEXPR_SIMILAR"):
        return True
    return node.get("kind") == "AEXPR_OP" and _operator(node).lstrip("!").startswith("~")


def _operator(node: Tree) -> str:
    names = node.get("name", [])
    return str(names[-1].get("String", {}).get("sval", "")) if names else ""


def _only(item: Tree) -> tuple[str, Tree]:
    if len(item) != 1:
        return "", item
    ((kind, node),) = item.items()
    return kind, node if isinstance(node, dict) else item


def _matches_all(node: Tree) -> bool:
    value = _bare(node.get("rexpr")).get("A_Const", {}).get("sval", {}).get("sval")
    if value is None or _operator(node).startswith("!"):
        return False
    return not value.strip("%") or value.strip("^$()") in ("", ".*", ".")


def _compares_with_itself(node: Tree) -> bool:
    left = _bare(node.get("lexpr")).get("ColumnRef")
    right = _bare(node.get("rexpr")).get("ColumnRef")
    return left is not None and right is not None and left.get("fields") == right.get("fields")


def _bare(item: Any) -> Tree:
    return item if isinstance(item, dict) else {}
