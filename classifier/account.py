"""What one object of a catalog does, put together, and the reading of the SQL texts it holds."""

from __future__ import annotations

from typing import NamedTuple

from classifier import grammar, lexer
from classifier.functions import Effect
from classifier.grammar import Tree
from classifier.model import Action, ActionClass
from classifier.walk import Node, Walk

UNREADABLE = "?"  # a definition the server would not print in time


class Direct(NamedTuple):
    """What a node does itself, and which nodes that sets off."""

    actions: tuple[Action, ...] = ()
    nodes: tuple[Node, ...] = ()
    settings: tuple[str, ...] = ()


class Account:
    """What one node does, put together; each sentence begins with what the node is."""

    def __init__(self, origin: str, name: str) -> None:
        self._origin = origin
        self._name = name
        self._actions: dict[Action, None] = {}
        self._settings: dict[str, None] = {}
        self.nodes: list[Node] = []

    def note(self, cls: ActionClass, verb: str, detail: str, name: str | None = None) -> None:
        self._actions[Action(cls, verb, name or self._name, f"{self._origin} {detail}")] = None
        if cls in (ActionClass.UNKNOWN, ActionClass.CODE):
            self._settings["*"] = None

    def unknown(self, detail: str) -> None:
        self.note(ActionClass.UNKNOWN, "not_understood", detail)

    def effect(self, effect: Effect | None) -> None:
        if effect is not None:
            self.note(effect.cls, effect.verb, f"({effect.detail})" if effect.detail else "")

    def walk(self, walk: Walk) -> None:
        for action in walk.actions:
            if action.cls == ActionClass.READ and action.verb != "security_definer":
                continue
            if action.detail:
                subject = f"{action.object}: " if action.object else ""
                detail = f"does more than read: {subject}{action.detail}"
                self.note(action.cls, action.verb, detail, action.object)
            else:
                self._actions[action] = None
        for name in walk.executes:
            self.unknown(f"executes the prepared statement {name}")
        self.nodes.extend(walk.nodes)
        self._settings.update(dict.fromkeys(walk.settings))

    def direct(self) -> Direct:
        return Direct(tuple(self._actions), tuple(dict.fromkeys(self.nodes)), tuple(self._settings))


def read_sql(sql: str, account: Account) -> list[grammar.Parsed] | None:
    """A text's statements; None, and the account says so, where it cannot be read."""
    if sql == UNREADABLE:
        account.unknown("has a definition the server did not print in time")
        return None
    try:
        scan = lexer.scan(sql.encode())
        parsed = grammar.parse(scan.blanked)
    except (lexer.TooHostile, lexer.LexicalError, grammar.Rejected, grammar.Unparsable, UnicodeError) as error:
        account.unknown(f"has SQL in it that cannot be read ({type(error).__name__})")
        return None
    if [(s.start, s.end) for s in scan.spans] != [(p.start, p.end) for p in parsed]:
        account.unknown("has SQL in it whose boundaries are not certain")
        return None
    return parsed


def visit_query(walk: Walk, kind: str, tree: Tree) -> None:
    """One query of PL/pgSQL; an assignment is the node around what is assigned."""
    if kind != "PLAssignStmt":
        walk.run(kind, tree)
        return
    if tree.keys() - {"name", "nnames", "indirection", "val", "location"}:
        walk.unknown("an assignment has a field this classifier does not know")
    for item in tree.get("indirection", []):
        for child, below in item.items():
            if child != "String":
                walk.visit(child, below, frozenset())
    walk.visit("SelectStmt", tree.get("val", {}), frozenset())


def constant(tree: Tree) -> str | None:
    """The text a dynamic statement's expression is, where it is a constant."""
    targets = tree.get("targetList", [])
    if len(targets) != 1 or tree.keys() - {"targetList", "limitOption", "op"}:
        return None
    value = targets[0].get("ResTarget", {}).get("val", {}).get("A_Const", {}).get("sval")
    return None if value is None else str(value.get("sval", ""))
