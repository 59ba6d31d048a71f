"""What the objects of a catalog do when a statement sets them off: functions by their bodies, relations by their
views, triggers, rules, policies, expressions and foreign keys, types by their domains' checks and casts.

Each such object is a `Node`. What it does itself and which nodes that sets off is found out once and kept
(`_direct`); a statement's consequences are the union over all nodes it reaches, so that recursion between
functions needs no special care and costs nothing twice.

What is not understood is `unknown`; dynamic SQL, languages without an analyser here and C code that belongs to no
known extension are `code`. Reading a body never executes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from classifier import extensions, functions, lexer, names, plpgsql, settings
from classifier.account import UNREADABLE, Account, Direct, constant, read_sql, visit_query
from classifier.catalog import Catalog, Function, Relation, Type, split_path
from classifier.functions import Effect
from classifier.model import Action, ActionClass, Environment
from classifier.touched import qualified
from classifier.walk import Consequences, Handler, Node, Tree, Walk, surroundings

Path = tuple[str, ...] | None
MAX_NODES: Final = 1_000  # one statement may reach; beyond it nobody could say what it does anyway
MAX_ACTIONS: Final = 100
MAX_WAY: Final = 4  # steps a reason names
_KEPT: Final = 20_000
_FIRST_USER_OID: Final = 16384  # "OID Assignment": below are the objects initdb makes


class Bodies(names.Names):
    """The knowledge of one snapshot (`walk.Knowledge`). Not thread-safe, for it remembers."""

    def __init__(self, catalog: Catalog, handlers: dict[str, Handler]) -> None:
        super().__init__(catalog)
        self._handlers = handlers
        self._found: dict[Node, Direct] = {}
        self._known: dict[frozenset[Node], Consequences] = {}
        self._under_way: set[Node] = set()

    def consequences(self, nodes: Iterable[Node]) -> Consequences:
        """All that these nodes do, directly or not."""
        start = frozenset(nodes)
        known = self._known.get(start)
        if known is None:
            known = self._gather(start)
            if "search_path" in known.settings and any(node.path is not None for node in start):
                # a body that changes it changes what the bodies behind it mean
                known = self._gather(frozenset(node._replace(path=None) for node in start))
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[start] = known
        return known

    def _gather(self, start: frozenset[Node]) -> Consequences:
        actions: dict[Action, None] = {}
        changed: dict[str, None] = {}
        relations: dict[str, None] = {}
        seen: dict[Node, Node | None] = dict.fromkeys(start)
        pending = sorted(start, key=repr, reverse=True)
        while pending:
            at = pending.pop()
            found = self._direct(at)
            actions.update(dict.fromkeys(self._with_way(item, at, seen) for item in found.actions))
            changed.update(dict.fromkeys(found.settings))
            for node in found.nodes:
                if node.kind in ("read", "write"):
                    relation = self.catalog.relation[node.oid]
                    relations[qualified(relation.schema, relation.name)] = None
                if node not in seen:
                    seen[node] = at
                    pending.append(node)
            if len(seen) > MAX_NODES:
                actions[_unknown("sets off more functions, triggers and rules than can be followed")] = None
                changed["*"] = None
                break
        ordered = sorted(actions, key=lambda item: _WEIGHT.get(item.cls, 0))
        return Consequences(tuple(ordered[:MAX_ACTIONS]), tuple(changed), tuple(relations))

    def _with_way(self, action: Action, node: Node, parents: dict[Node, Node | None]) -> Action:
        """An action that says how the statement gets to it, where that takes more than a step."""
        way: list[str] = []
        parent = parents.get(node)
        while parent is not None and len(way) < MAX_WAY:
            way.append(self._title(parent))
            parent = parents.get(parent)
        if not way or not action.detail:
            return action
        steps = ", ".join(dict.fromkeys(reversed(way)))
        return replace(action, detail=f"{action.detail} (reached through {steps})")

    def _title(self, node: Node) -> str:
        if node.kind == "function":
            found = self.catalog.function.get(node.oid)
            return f"function {found.full_name}" if found else "a function"
        if node.kind == "type":
            type_ = self.catalog.type[node.oid]
            return f"type {type_.schema}.{type_.name}"
        relation = self.catalog.relation[node.oid]
        return f"{_word(relation)} {relation.full_name}"

    def _direct(self, node: Node) -> Direct:
        found = self._found.get(node)
        if found is not None:
            return found
        if node in self._under_way:  # only PREPARE in a body gets here
            return Direct((_unknown("prepares a statement that sets itself off"),), (), ("*",))
        self._under_way.add(node)
        try:
            found = self._judge(node)
        finally:
            self._under_way.discard(node)
        if len(self._found) >= _KEPT:
            self._found.clear()
        self._found[node] = found
        return found

    def _judge(self, node: Node) -> Direct:
        if node.kind == "function":
            return self._do_function(self.catalog.function.get(node.oid), node.path)
        if node.kind == "type":
            return self._do_type(self.catalog.type[node.oid], node)
        relation = self.catalog.relation[node.oid]
        return self._do_read(relation, node) if node.kind == "read" else self._do_write(relation, node)

    # functions

    def _do_function(self, function: Function | None, path: Path) -> Direct:
        if function is None:
            return Direct((_unknown("uses a function that the catalog snapshot does not hold"),), (), ("*",))
        origin = f"function {function.full_name}"
        account = Account(origin, function.full_name)
        if function.kind == "a":
            account.nodes.extend(Node("function", oid, "", path) for oid in function.calls)
            return account.direct()
        if function.security_definer:
            account.note(ActionClass.READ, "security_definer", f"runs with the rights of {function.owner}")
            if path is not None and "$user" in path:
                path = None
        for setting in function.settings:
            name, _, value = setting.partition("=")
            if name == "search_path":
                path = split_path(value)
            else:
                account.effect(settings.judge(name.lower(), value))
        for oid in (*function.arguments, function.result):
            if oid in self.catalog.type:
                account.nodes.append(Node("type", oid, "make", path))
        match function.language:
            case "internal" | "c":
                account.effect(_native(function))
            case "sql":
                self._sql(function, path, account)
            case "plpgsql":
                self._plpgsql(function, path, account)
            case language:
                account.note(ActionClass.CODE, "foreign_language", f"is written in {language}")
        return account.direct()

    def _sql(self, function: Function, path: Path, account: Account) -> None:
        if function.body == UNREADABLE:
            account.unknown("has a body the server did not print in time")
            return
        if function.is_bound:
            # its names were bound when it was made; the server prints them qualified
            text = f"CREATE FUNCTION f() RETURNS int {function.body}"
            tree = self._only(text, "CreateFunctionStmt", account)
            if tree is not None:
                self._visit_all(tree.get("sql_body", {}), (), path, account)
            return
        self._text(function.body, path, account)

    def _text(self, sql: str, path: Path, account: Account) -> None:
        """SQL that is parsed when it runs."""
        parsed = read_sql(sql, account)
        if parsed is None:
            return

        def visit(walk: Walk) -> None:
            for item in parsed:
                walk.run(item.kind, item.tree)

        self._walked(visit, path, path, account)

    def _plpgsql(self, function: Function, path: Path, account: Account) -> None:
        try:
            body = plpgsql.read(function, self._is_row)
            trees = [plpgsql.parse(query) for query in body.queries]
            sources = [plpgsql.parse(plpgsql.Query(plpgsql.EXPRESSION, text)) for text in body.dynamic]
        except (plpgsql.NotUnderstood, lexer.TooHostile, lexer.LexicalError) as error:
            account.unknown(f"has a body that cannot be read: {error}")
            return

        def visit(walk: Walk) -> None:
            for kind, tree in (*trees, *sources):
                visit_query(walk, kind, tree)

        self._walked(visit, path, path, account)
        for _, tree in sources:
            text = constant(tree)
            if text is None:
                account.note(ActionClass.CODE, "dynamic_sql", "executes SQL that it puts together when it runs")
            else:
                self._text(text, path, account)
        for schema, name in body.types:
            made = [item.oid for item in self.catalog.types(schema, name, path)]
            for relation in self.catalog.relations(schema, name, path):
                made.extend(oid for _, oid in relation.columns if oid in self.catalog.type)
            account.nodes.extend(Node("type", oid, "make", path) for oid in made)

    def _is_row(self, schema: str | None, name: str) -> bool:
        kinds = [item.kind for item in self.catalog.types(schema, name, None)]
        return "c" in kinds or bool(self.catalog.relations(schema, name, None))

    # relations

    def _do_read(self, relation: Relation, node: Node) -> Direct:
        account = Account(f"{_word(relation)} {relation.full_name}", relation.full_name)
        if relation.kind == "v":
            self._query(relation.definition, node.path, account)
        self._wrapper(relation, account)
        for when, text in relation.expressions:
            if when == "read":
                self._expression(text, node.path, account)
        account.nodes.extend(Node("read", oid, "", node.path) for oid in relation.children)
        account.nodes.extend(Node("function", oid, "", node.path) for oid in self.casts.get(relation.type, ()))
        account.nodes.extend(
            Node("type", oid, "read", node.path) for _, oid in relation.columns if oid in self.catalog.type
        )
        return account.direct()

    def _do_write(self, relation: Relation, node: Node) -> Direct:
        event, path = node.event, node.path
        account = Account(f"{_word(relation)} {relation.full_name}", relation.full_name)
        self._wrapper(relation, account)
        for trigger in relation.triggers:
            if event in trigger.events:
                account.nodes.append(Node("function", trigger.function, "", path))
                if trigger.condition:
                    tree = self._only(trigger.condition, "CreateTrigStmt", account)
                    if tree is not None:
                        self._visit_all(tree.get("whenClause", {}), (), path, account)
        for rule in relation.rules:
            if rule.event == event:
                tree = self._only(rule.definition, "RuleStmt", account)
                if tree is not None:
                    self._visit_all([tree.get("whereClause"), *tree.get("actions", [])], (), path, account)
        wanted = _EXPRESSIONS[event]
        for when, text in relation.expressions:
            if when in wanted:
                self._expression(text, path, account)
        if event in "IU":
            account.nodes.extend(
                Node("type", oid, "make", path) for _, oid in relation.columns if oid in self.catalog.type
            )
        if relation.kind == "v" and event in "IUD":
            # an automatically updatable view hands the change to the relation it reads
            for base in self._bases(relation.definition, account):
                account.nodes.append(Node("write", base, event, path))
        # an UPDATE may move a row from one partition to another: there it is a DELETE and an INSERT
        events = "UID" if event == "U" and relation.kind == "p" else event
        account.nodes.extend(Node("write", oid, one, path) for oid in relation.children for one in events)
        for reference in relation.references:
            for other in _CASCADES.get(event + (reference.on_delete if event == "D" else reference.on_update), ""):
                account.nodes.append(Node("write", reference.relation, other, path))
            if event == "T":
                account.nodes.append(Node("write", reference.relation, "T", path))
        return account.direct()

    def _wrapper(self, relation: Relation, account: Account) -> None:
        if relation.kind != "f" or relation.wrapper in extensions.REMOTE_WRAPPERS:
            return
        if relation.wrapper == "file_fdw":
            account.note(ActionClass.FILE, "read_server_file", "reaches a file or program of the server")
        else:
            account.unknown(f"is a foreign table of {relation.wrapper}, which this classifier does not know")

    def _bases(self, definition: str, account: Account) -> list[int]:
        found: list[int] = []

        def visit(walk: Walk) -> None:
            for item in read_sql(definition, account) or []:
                walk.run(item.kind, item.tree)
            found.extend(node.oid for node in walk.nodes if node.kind == "read")

        self._walked(visit, (), (), Account("", ""))
        return found

    # types

    def _do_type(self, type_: Type, node: Node) -> Direct:
        account = Account(f"type {type_.schema}.{type_.name}", f"{type_.schema}.{type_.name}")
        if node.event == "make":
            for text in type_.checks:
                self._expression(text, node.path, account)
        account.nodes.extend(Node("function", oid, "", node.path) for oid in type_.functions)
        account.nodes.extend(Node("function", oid, "", node.path) for oid in self.casts.get(type_.oid, ()))
        for oid in (type_.base, *type_.attributes):
            if oid in self.catalog.type:
                account.nodes.append(Node("type", oid, node.event, node.path))
        return account.direct()

    # texts of the catalog, whose names are qualified

    def _query(self, text: str, path: Path, account: Account) -> None:
        parsed = read_sql(text, account)
        if parsed is not None:
            self._visit_all([{item.kind: item.tree} for item in parsed], (), path, account)

    def _expression(self, text: str, path: Path, account: Account) -> None:
        if text == UNREADABLE:
            account.unknown("has an expression the server did not print in time")
        else:
            self._query(f"SELECT {text}", path, account)

    def _only(self, text: str, kind: str, account: Account) -> Tree | None:
        parsed = read_sql(text, account)
        if parsed is None:
            return None
        if len(parsed) != 1 or parsed[0].kind != kind:
            account.unknown("has a definition of a shape that is not known")
            return None
        return parsed[0].tree

    def _visit_all(self, items: Any, path: Path, run_path: Path, account: Account) -> None:
        def visit(walk: Walk) -> None:
            for item in items if isinstance(items, list) else [items]:
                for kind, tree in (item or {}).items():
                    walk.visit(kind, tree, frozenset())

        self._walked(visit, path, run_path, account)

    def _walked(self, visit: Callable[[Walk], None], path: Path, run_path: Path, account: Account) -> None:
        walk = self._walk(visit, path, run_path)
        if "search_path" in walk.settings and run_path is not None:
            # what stands behind the change is looked for elsewhere
            walk = self._walk(visit, path if path == () else None, None)
        account.walk(walk)

    def _walk(self, visit: Callable[[Walk], None], path: Path, run_path: Path) -> Walk:
        environment = surroundings(Environment(search_path=path), self, run_path=run_path)
        walk = Walk(self._handlers, environment, {})
        visit(walk)
        walk.judge_secrets()
        return walk


# what must not be cut off comes first
_WEIGHT: Final = {
    ActionClass.READ: 2,
    ActionClass.WRITE: 2,
    ActionClass.IMPORT: 2,
    ActionClass.TRANSACTION: 2,
    ActionClass.UNKNOWN: 1,
}
_EXPRESSIONS: Final = {
    "I": frozenset({"default", "check", "index", "read", "write"}),
    "U": frozenset({"default", "check", "index", "read", "write"}),
    "D": frozenset({"read"}),
    "T": frozenset[str](),
    "A": frozenset({"index"}),
}
# foreign keys: what happens to the referencing rows, by event and action (pg_constraint.confdeltype)
_CASCADES: Final = {"Dc": "D", "Dn": "U", "Dd": "U", "Uc": "U", "Un": "U", "Ud": "U"}


def _unknown(detail: str) -> Action:
    return Action(ActionClass.UNKNOWN, "not_understood", None, detail)


def _native(function: Function) -> Effect | None:
    """What C code does, which can be told by its name only."""
    if function.oid < _FIRST_USER_OID:
        return functions.resolve("pg_catalog", function.name, len(function.arguments), None)
    effect = functions.dangerous(function.name)
    if effect is not None:
        return effect
    if function.language == "internal":
        if functions.is_builtin(function.body):
            return functions.resolve("pg_catalog", function.body, len(function.arguments), None)
    elif function.extension is not None:
        return extensions.judge(function.extension, function.name, function.volatility)
    return Effect(ActionClass.CODE, "native_code", "it is C code that belongs to no extension")


def _word(relation: Relation) -> str:
    return {"v": "view", "m": "materialized view", "f": "foreign table"}.get(relation.kind, "table")
