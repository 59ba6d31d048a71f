"""What one database holds beside PostgreSQL's own objects, as values; and which of them a name may reach.

`CatalogSnapshot` is read by `pgproxy.catalog` and travels to the analysers as JSON (`encode`, `decode`; never
pickle). `Catalog` finds names in it as the server would, except that where types are not known here the server's
choice is not either: then all candidates are returned, and the worst of them counts.

What the server knows and a snapshot does not: which schemas of the search_path this user may use at all ("The
Schema Search Path": others are skipped), and what an open transaction of this session has changed. So an object
found in the path never hides one that stands behind it, and `Environment.catalog_changed` makes every function of
somebody's own unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from classifier.data import builtins
from classifier.model import ActionClass, Classification

FORMAT: Final = 1
VARIADIC: Final = 1 << 30  # as a function's `max_arguments`
_SYSTEM: Final = frozenset({"pg_catalog", "information_schema", "pg_toast"})
_TYPES: Final = frozenset(builtins.TYPES.split())


class Parameter(NamedTuple):
    """`mode` as in pg_proc.proargmodes; `type` is text, record, refcursor or the name of a user's type."""

    mode: str
    name: str
    type: str


class Function(NamedTuple):
    """One row of pg_proc. `body` is prosrc, or the SQL-standard body as the server prints it, whose names are then
    qualified (`is_bound`). `calls` are an aggregate's support functions, by oid."""

    oid: int
    schema: str
    name: str
    arguments: tuple[int, ...]
    min_arguments: int
    max_arguments: int
    kind: str  # f, p, a, w
    language: str
    volatility: str
    security_definer: bool
    owner: str
    extension: str | None
    body: str
    is_bound: bool
    settings: tuple[str, ...]  # "search_path=…"
    parameters: tuple[Parameter, ...]
    returns: str
    result: int
    calls: tuple[int, ...]
    is_shadowed: bool  # pg_catalog has a function of the same name and argument types

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


class Type(NamedTuple):
    """One row of pg_type. `functions`: input, output, receive, send, typmod, analyze, subscript, and a range's."""

    oid: int
    schema: str
    name: str
    kind: str  # b, c, d, e, r, m
    base: int  # of a domain, an array's element, a range's subtype
    attributes: tuple[int, ...]  # types of a composite's columns
    checks: tuple[str, ...]  # a domain's, and its default
    functions: tuple[int, ...]
    extension: str | None


class Cast(NamedTuple):
    source: int
    target: int
    function: int
    context: str  # i, a, e


class Operator(NamedTuple):
    """`functions`: its own, and those of its commutator and negator, by which the planner may replace it."""

    schema: str
    name: str
    left: int
    right: int
    functions: tuple[int, ...]
    is_shadowed: bool


class Trigger(NamedTuple):
    events: str  # letters of I U D T
    function: int
    condition: str  # the whole definition, where it has a WHEN
    is_row: bool


class Rule(NamedTuple):
    event: str  # S I U D
    definition: str


class Reference(NamedTuple):
    """A foreign key of another relation on this one; actions as in pg_constraint: a r c n d."""

    relation: int
    on_update: str
    on_delete: str


class Relation(NamedTuple):
    """One row of pg_class. `expressions`: (when, text) with when one of `default` (and generated), `check` (and
    index, partition key: all that a changed row is put through), `read`, `write` (row security)."""

    oid: int
    schema: str
    name: str
    kind: str  # r p v m f
    type: int
    columns: tuple[tuple[str, int], ...]
    definition: str  # a view's query
    expressions: tuple[tuple[str, str], ...]
    triggers: tuple[Trigger, ...]
    rules: tuple[Rule, ...]
    children: tuple[int, ...]  # partitions and inheriting tables
    references: tuple[Reference, ...]
    wrapper: str | None  # a foreign table's foreign-data wrapper

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


class CatalogSnapshot(NamedTuple):
    """One database at one moment. Equal databases give equal bytes."""

    database: str
    functions: tuple[Function, ...] = ()
    types: tuple[Type, ...] = ()
    casts: tuple[Cast, ...] = ()
    operators: tuple[Operator, ...] = ()
    relations: tuple[Relation, ...] = ()


# One row at a time: the encoder holds the interpreter for as long as one call lasts, and who encodes has other work.
_write: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(snapshot: CatalogSnapshot) -> bytes:
    """A snapshot as JSON."""
    parts = [_write(FORMAT), _write(snapshot.database)]
    parts.extend("[" + ",".join([_write(row) for row in rows]) + "]" for rows in snapshot[1:])
    return ("[" + ",".join(parts) + "]").encode("utf-8", "surrogatepass")


def decode(payload: bytes) -> CatalogSnapshot:
    """The inverse of `encode`. Raises `ValueError` for another format."""
    values = json.loads(payload.decode("utf-8", "surrogatepass"))
    if not isinstance(values, list) or len(values) != 7 or values[0] != FORMAT:
        raise ValueError("not a catalog snapshot of this version")
    _, database, functions, types, casts, operators, relations = values
    return CatalogSnapshot(
        database,
        tuple(map(_function, functions)),
        tuple(Type._make(map(_tuple, row)) for row in types),
        tuple(map(Cast._make, casts)),
        tuple(Operator._make(map(_tuple, row)) for row in operators),
        tuple(map(_relation, relations)),
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _function(row: list[Any]) -> Function:
    row[15] = [Parameter._make(item) for item in row[15]]
    return Function._make(map(_tuple, row))


def _relation(row: list[Any]) -> Relation:
    row[5] = map(tuple, row[5])
    row[7] = map(tuple, row[7])
    row[8] = map(Trigger._make, row[8])
    row[9] = map(Rule._make, row[9])
    row[11] = map(Reference._make, row[11])
    for position in (5, 7, 8, 9, 10, 11):
        row[position] = tuple(row[position])
    return Relation._make(row)


class Reach(NamedTuple):
    """The schemas unqualified names are looked for in; None: any. `system_first`: pg_catalog before them."""

    schemas: frozenset[str] | None
    system_first: bool

    def has(self, schema: str) -> bool:
        return self.schemas is None or schema in self.schemas or schema == "pg_catalog"


def reach(search_path: tuple[str, ...] | None) -> Reach:
    """pg_catalog is searched first unless the path names it; `$user` that is still in it may be any schema."""
    if search_path is None or "$user" in search_path:
        return Reach(None, search_path is not None and "pg_catalog" not in search_path[1:])
    return Reach(frozenset(search_path), "pg_catalog" not in search_path[1:])


class Catalog:
    """A snapshot with the look-ups that names need."""

    def __init__(self, snapshot: CatalogSnapshot) -> None:
        self.snapshot = snapshot
        self.function: dict[int, Function] = {item.oid: item for item in snapshot.functions}
        self.type: dict[int, Type] = {item.oid: item for item in snapshot.types}
        self.relation: dict[int, Relation] = {item.oid: item for item in snapshot.relations}
        self._functions = _by_name(snapshot.functions)
        self._types = _by_name(snapshot.types)
        self._operators = _by_name(snapshot.operators)
        self._relations = _by_name(snapshot.relations)
        self.row_types: dict[int, Relation] = {item.type: item for item in snapshot.relations}

    def functions(
        self, schema: str | None, name: str, arguments: int | None, search_path: tuple[str, ...] | None
    ) -> list[Function]:
        """Those a call may mean; `arguments` None: any number of them. Temporary schemas are never searched."""
        return [
            item
            for item in _callable(self._functions.get(name, ()), schema, search_path)
            if arguments is None or item.min_arguments <= arguments <= item.max_arguments
        ]

    def operators(self, schema: str | None, name: str, search_path: tuple[str, ...] | None) -> list[Operator]:
        """Those of a user's that an operator's name may mean."""
        return _callable(self._operators.get(name, ()), schema, search_path)

    def types(self, schema: str | None, name: str, search_path: tuple[str, ...] | None) -> list[Type]:
        """Those of a user's that a type's name may mean; temporary schemas come before all others."""
        if schema is None and name in _TYPES and reach(search_path).system_first:
            return [item for item in self._types.get(name, ()) if _is_temporary(item.schema)]
        return self._reached(self._types.get(name, ()), schema, search_path)

    def relations(self, schema: str | None, name: str, search_path: tuple[str, ...] | None) -> list[Relation]:
        """Those a relation's name may mean; temporary schemas come before all others."""
        return self._reached(self._relations.get(name, ()), schema, search_path)

    @staticmethod
    def _reached(items: Iterable[Any], schema: str | None, search_path: tuple[str, ...] | None) -> list[Any]:
        if schema is not None:
            return [item for item in items if _is_named(schema, item.schema)]
        where = reach(search_path)
        return [item for item in items if where.has(item.schema) or _is_temporary(item.schema)]


def _callable(items: Iterable[Any], schema: str | None, search_path: tuple[str, ...] | None) -> list[Any]:
    """Functions or operators a name may mean. Temporary schemas are searched for neither; pg_catalog's own hides
    one with the same argument types that stands behind it."""
    if schema is not None:
        return [item for item in items if _is_named(schema, item.schema)]
    where = reach(search_path)
    return [
        item
        for item in items
        if where.has(item.schema)
        and not _is_temporary(item.schema)
        and not (where.system_first and item.is_shadowed and item.schema != "pg_catalog")
    ]


def _by_name(items: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item)
    return found


def _is_temporary(schema: str) -> bool:
    return schema.startswith("pg_temp")


def _is_named(written: str, schema: str) -> bool:
    return written == schema or (written == "pg_temp" and _is_temporary(schema))


def settled_path(search_path: tuple[str, ...] | None, role: str | None) -> tuple[str, ...] | None:
    """A search_path with the role's name for `$user` where the role is known."""
    if search_path is None or role is None or "$user" not in search_path:
        return search_path
    return tuple(role if name == "$user" else name for name in search_path)


def split_path(value: str) -> tuple[str, ...] | None:
    """The schemas of a search_path as pg_proc.proconfig stores it; None when a quoted name does not end."""
    names = []
    rest = value.strip()
    while rest:
        if rest.startswith('"'):
            name = ""
            rest = rest[1:]
            while True:
                part, quote, rest = rest.partition('"')
                name += part
                if not quote:
                    return None
                if not rest.startswith('"'):
                    break
                name += '"'
                rest = rest[1:]
        else:
            name, comma, rest = rest.partition(",")
            name = name.strip().lower()
            rest = comma + rest
        if name:
            names.append(name)
        rest = rest.strip().removeprefix(",").strip()
    return tuple(names)


_CHANGING: Final = frozenset(
    {ActionClass.DDL, ActionClass.GRANT, ActionClass.ROLE, ActionClass.CODE, ActionClass.UNKNOWN}
)


def changes_catalog(classification: Classification) -> bool:
    """Whether a text may change what a snapshot holds; temporary relations cannot hide a function."""
    return any(
        action.cls in _CHANGING and not action.verb.startswith("temp_")
        for statement in classification.statements
        for action in statement.actions
    )
