"""The walk through a whole parse tree, under the allow-list of `nodes.py`.

Effects count wherever they stand, so nothing here looks at roots: every node is visited, every statement node
found on the way adds the class `statements.py` gives it, and `effects.py` adds what a node's content means. What
the allow-list does not know makes the statement `unknown`, which is privileged.

The walk keeps its own stack: a tree's depth is the client's choice, Python's recursion limit is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Protocol

from classifier import functions, relations
from classifier.functions import Effect
from classifier.model import SHADOWING_PATH, Action, ActionClass, Classification, Environment, Statement
from classifier.nodes import NODES
from classifier.risk import assess, is_privileged
from classifier.statements import ALSO, STATEMENTS
from classifier.touched import EVERY, Touched, qualified, written

Tree = dict[str, Any]
Names = frozenset[str]
# Called on a node before its children; returns the fields whose children it has dealt with itself.
Handler = Callable[["Walk", Tree], "tuple[str, ...] | None"]

# Nodes without children, of which nothing but their value is of interest.
_LEAVES: Final = frozenset({"String", "Integer", "Float", "Boolean", "BitString", "A_Star", "ParamRef"})
_NOTHING: Final[Names] = frozenset()


class Node(NamedTuple):
    """Something of the catalog that a statement sets off: calling a function, reading or changing a relation,
    making a value of a type. `path` is the search_path a body's names are looked for in."""

    kind: str  # function, read, write, type
    oid: int
    event: str
    path: tuple[str, ...] | None


class Consequences(NamedTuple):
    """What nodes of the catalog do, and all that these set off in turn."""

    actions: Iterable[Action]
    settings: Iterable[str]
    relations: Iterable[str] = ()  # full names of those read or written


class Knowledge(Protocol):
    """The catalog, as a walk asks it (`bodies.py`)."""

    def look(self, walk: Walk, kind: str, tree: Tree) -> None:
        """Notes what a node's names reach."""
        ...

    def call(self, walk: Walk, schema: str | None, name: str, arguments: int | None) -> None:
        """Notes what a call reaches, PostgreSQL's own functions included."""
        ...

    def consequences(self, nodes: Iterable[Node]) -> Consequences:
        """All that these nodes do, directly or not."""
        ...

    def columns(self, relation: str, search_path: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """A relation's columns, by its name as a text writes it; None where it is not known or not certain."""
        ...

    def full_names(self, schema: str | None, name: str, search_path: tuple[str, ...] | None) -> tuple[str, ...]:
        """The relations that a name may mean, with their schemas."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings(Environment):
    """An environment with the catalog its version names. `run_path`: where the bodies of what is called look for
    names, which in a view's or an expression's text, whose own names are bound, is not where these are looked for."""

    knowledge: Knowledge | None = field(default=None, compare=False)
    run_path: tuple[str, ...] | None = None


def surroundings(environment: Environment, knowledge: Knowledge | None, **changes: Any) -> Surroundings:
    """An environment with a catalog; `changes` are fields of it."""
    values = {item.name: getattr(environment, item.name) for item in fields(Environment)}
    values["run_path"] = environment.search_path
    return Surroundings(**values | changes, knowledge=knowledge)


class Walk:
    """What one statement's tree adds up to. `handlers` is given and not imported, for the two need each other."""

    def __init__(
        self,
        handlers: dict[str, Handler],
        environment: Environment,
        prepared: dict[str, Statement],
    ) -> None:
        self.handlers = handlers
        self.environment = environment
        self.knowledge: Knowledge | None = None
        self.run_path: tuple[str, ...] | None = None
        if isinstance(environment, Surroundings):
            self.knowledge = environment.knowledge
            self.run_path = environment.run_path
        self.nodes: dict[Node, None] = {}
        self.last_statement = ""  # the kind of the one most lately met
        self.prepared_here = prepared  # by earlier statements of the same text
        self.actions: dict[Action, None] = {}
        self.relations: dict[str, None] = {}
        self.functions: dict[str, None] = {}
        self.reasons: dict[str, None] = {}
        self.settings: dict[str, None] = {}
        self.new_path: tuple[str, ...] | None = None  # what a SET search_path sets, where it says so
        self.executes: dict[str, None] = {}
        self.prepares: str | None = None
        self.prepared: Statement | None = None
        self.deallocates: str | None = None
        self.cursor: str | None = None
        self.cursor_holds = False
        self.tag = ""
        self._visited = 0
        self.constants_matter = False
        # last names of column references, for the relations that hold secrets
        self.columns: set[str] = set()
        self.has_star = False
        self.reads_naturally = False
        self.touched = Touched()
        self.secrets_read: dict[str, set[str]] = {}  # relation -> the names its rows go by
        # common table expressions visible at the node being looked at
        self.visible: Names = _NOTHING
        self._stack: list[tuple[str, Tree, Names]] = []

    def run(self, kind: str, tree: Tree) -> None:
        """Visits a statement and everything in it."""
        meaning = STATEMENTS.get(kind)
        if meaning is None:
            self.unknown(f"{kind} is not a statement this classifier knows")
            return
        self.tag = meaning.tag
        self.visit(kind, tree, _NOTHING)
        self.judge_secrets()

    def visit(self, kind: str, tree: Tree, visible: Names) -> None:
        """Visits one node and all below it."""
        base = len(self._stack)
        stack = self._stack
        stack.append((kind, tree, visible))
        while len(stack) > base:
            kind, tree, visible = stack.pop()
            fields = NODES.get(kind)
            if fields is None:
                self.unknown(f"{kind} is not a node this classifier knows")
                continue
            self.visible = visible
            self._visited += 1
            meaning = STATEMENTS.get(kind)
            if meaning is not None:
                self.last_statement = kind
                self.touched.statement(kind, tree)
                self._statement(kind, tree)
            if self.knowledge is not None:
                self.knowledge.look(self, kind, tree)
            handler = self.handlers.get(kind)
            done: tuple[str, ...] | None = None
            if handler is not None:
                done = handler(self, tree)
            children: list[tuple[str, Tree, Names]] = []
            if meaning is not None and "withClause" in tree:
                visible = self._with(tree["withClause"], visible, children)
                done = (*done, "withClause") if done else ("withClause",)
            for name, value in tree.items():
                if name == "location" or (done is not None and name in done):
                    continue
                field = fields.get(name)
                if field is None:
                    self.unknown(f"{kind}.{name} is not a field this classifier knows")
                elif field.kind == "nodes":
                    for item in value if isinstance(value, list) else (value,):
                        if not item:
                            continue  # a list's NULL
                        if len(item) != 1:
                            self.unknown(f"{kind}.{name} has a shape this classifier does not know")
                            continue
                        ((child, subtree),) = item.items()
                        if child not in _LEAVES:
                            children.append((child, subtree, visible))
                elif field.kind == "bare":
                    children.append((field.type, value, visible))
                elif field.kind == "enum":
                    if value not in field.values:
                        self.unknown(f"{kind}.{name} has a value this classifier does not know")
                elif isinstance(value, (dict, list)):
                    self.unknown(f"{kind}.{name} has a shape this classifier does not know")
            children.reverse()
            stack.extend(children)

    def _with(self, clause: Tree, visible: Names, children: list[tuple[str, Tree, Names]]) -> Names:
        """Queues a WITH clause's queries and returns the names visible in the statement it belongs to.

        A query sees the names before it; under RECURSIVE all of them and its own ("WITH Queries").
        """
        queries = clause.get("ctes", [])
        everything = visible | {item["CommonTableExpr"].get("ctename", "") for item in queries}
        if clause.keys() - {"ctes", "recursive", "location"}:
            self.unknown("the WITH clause has a field this classifier does not know")
        so_far = visible
        for item in queries:
            query = item["CommonTableExpr"]
            children.append(("CommonTableExpr", query, everything if clause.get("recursive") else so_far))
            so_far = so_far | {query.get("ctename", "")}
        return everything

    def _statement(self, kind: str, tree: Tree) -> None:
        meaning = STATEMENTS[kind]
        if meaning.cls is None or kind in self.handlers:
            return  # its handler knows better
        self.add(meaning.cls, meaning.verb, None, meaning.detail)

    # what handlers add

    def add(self, cls: ActionClass, verb: str, object_: str | None = None, detail: str = "") -> None:
        """Notes an effect; a detail becomes a reason as well."""
        self.actions[Action(cls, verb, object_, detail)] = None
        if detail:
            self.reasons[f"{object_}: {detail}" if object_ else detail] = None

    def set_tag(self, tag: str) -> None:
        """Names the command, if it is the statement itself that is being looked at and not a part of it."""
        if self._visited == 1:
            self.tag = tag

    def names_cursor(self, tree: Tree) -> None:
        """Notes the cursor that the statement itself, not a part of it, is about."""
        if self._visited == 1:
            self.cursor = str(tree.get("portalname", ""))

    def effect(self, effect: Effect | None, object_: str | None = None) -> None:
        """Notes what a table of effects said, if it said anything."""
        if effect is None or (effect.verb == "unknown_operator" and self.knowledge is not None):
            return  # with a catalog, `look` has judged the operator
        self.add(effect.cls, effect.verb, object_, effect.detail)
        if effect.cls in (ActionClass.UNKNOWN, ActionClass.CODE):
            self.settings["*"] = None  # what cannot be read may change any of them

    def unknown(self, reason: str) -> None:
        self.add(ActionClass.UNKNOWN, "not_understood", None, reason)
        self.settings["*"] = None

    def also(self, kind: str, object_: str | None) -> None:
        """Adds the second class a statement always carries, if it has one."""
        extra = ALSO.get(kind)
        if extra is not None:
            self.add(extra[0], extra[1], object_, extra[2])

    def merge(self, statement: Statement) -> None:
        """Adds what another statement would do: the one prepared, the one executed."""
        self.actions.update(dict.fromkeys(statement.actions))
        self.relations.update(dict.fromkeys(statement.relations))
        self.functions.update(dict.fromkeys(statement.functions))
        self.reasons.update(dict.fromkeys(statement.reasons))
        self.executes.update(dict.fromkeys(statement.executes))
        self.touched.inner.append(statement)
        self.touched.names.update(dict.fromkeys(statement.column_names))

    def statement(self, kind: str) -> Statement:
        """The statement walked, as a value, with what the catalog's objects in it set off."""
        self.settle()
        prepared = None
        if self.prepared is not None:
            actions = self.prepared.actions
            prepared = Classification(is_privileged(actions), assess(actions), "", "", (self.prepared,))
        known, reaches, whole_rows = self._touches()
        return Statement(
            relations_known=known,
            reaches=reaches,
            column_names=tuple(self.touched.names),
            whole_rows=whole_rows,
            kind=kind,
            tag=self.tag,
            actions=tuple(self.actions),
            relations=tuple(self.relations),
            functions=tuple(self.functions),
            reasons=tuple(self.reasons),
            prepares=self.prepares,
            prepared=prepared,
            executes=tuple(self.executes),
            deallocates=self.deallocates,
            settings=tuple(n for n in self.settings if n in ("*", SHADOWING_PATH) or "*" not in self.settings),
            cursor=self.cursor,
            cursor_holds=self.cursor_holds,
        )

    def _touches(self) -> tuple[bool, tuple[str, ...] | None, tuple[str, ...]]:
        """Whether all relations named are known, all that are reached by full name, and whole rows of which."""
        touched, inner = self.touched, self.touched.inner
        rows = touched.whole_rows(self.knowledge, self.environment.search_path)
        if not touched.is_known(self.actions) or not all(item.relations_known for item in inner):
            return False, None, (EVERY,)
        whole = dict.fromkeys((*rows, *(name for item in inner for name in item.whole_rows)))
        by_catalog = self.knowledge is not None and not self.environment.catalog_changed
        if not by_catalog or not all(touched.full.values()) or any(item.reaches is None for item in inner):
            return True, None, tuple(whole)
        named = [full for name in touched.rows for full in touched.full[name]]
        inside = [full for item in inner for full in item.reaches or ()]
        # A view's columns have names of their own: of what stands behind it any column may be meant.
        whole = dict.fromkeys(full for name in rows for full in touched.full[name]) | touched.reached
        whole |= dict.fromkeys(name for item in inner for name in item.whole_rows)
        return True, tuple(dict.fromkeys((*named, *touched.reached, *inside))), tuple(whole)

    def settle(self) -> None:
        """Adds what the catalog's objects met so far do."""
        if self.knowledge is None or not self.nodes:
            return
        found = self.knowledge.consequences(self.nodes)
        self.nodes = {}
        for action in found.actions:
            self.actions[action] = None
            if action.detail:
                self.reasons[action.detail] = None
        self.settings.update(dict.fromkeys(found.settings))
        self.touched.reached.update(dict.fromkeys(found.relations))

    def relation(self, range_var: Tree) -> str:
        """Notes a relation whatever its name hides; returns the name as written."""
        name = written(range_var)
        self.relations[name] = None
        self.touched.relation(name, range_var)
        if self.knowledge is not None and name not in self.touched.full:
            schema, relname = range_var.get("schemaname"), range_var.get("relname", "")
            self.touched.full[name] = self.knowledge.full_names(schema, relname, self.environment.search_path)
        return name

    def target(self, range_var: Tree) -> str:
        """Notes a relation that is written to, which no common table expression can be."""
        name = self.relation(range_var)
        effect = relations.writing(range_var.get("schemaname"), range_var.get("relname", ""))
        self.effect(effect, name)
        if effect is not None:
            self.settings["*"] = None
        return name

    def call(self, names: list[Tree], arguments: int) -> None:
        """Notes a function call by name."""
        parts = strings(names)
        if not parts:
            self.unknown("a function call has no name")
            return
        schema = parts[-2] if len(parts) > 1 else None
        self.functions[qualified(schema, parts[-1])] = None
        if self.knowledge is not None:
            self.knowledge.call(self, schema, parts[-1], arguments)
            return
        effect = functions.resolve(
            schema, parts[-1], arguments, self.environment.search_path, self.environment.server_version
        )
        self.effect(effect, parts[-1] if effect is not None and effect.cls != ActionClass.UNKNOWN else None)

    def judge_secrets(self) -> None:
        """Notes columns that hold secrets, once the whole tree has been seen."""
        for name, aliases in self.secrets_read.items():
            secret = relations.SECRET_COLUMNS[name]
            if (
                self.has_star
                or self.reads_naturally
                or secret in self.columns
                or not aliases
                or aliases & self.columns  # a whole row
            ):
                self.add(ActionClass.EXPORT, "read_secret", name, f"may read {secret}, which holds secrets")


def strings(items: list[Tree]) -> list[str]:
    """The values of a list of String nodes, others left out."""
    return [item["String"].get("sval", "") for item in items if "String" in item]
