"""Reads one database's catalog into a snapshot, in one read-only transaction: all of one moment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from classifier.catalog import (
    VARIADIC,
    Cast,
    CatalogSnapshot,
    Function,
    Operator,
    Parameter,
    Reference,
    Relation,
    Rule,
    Trigger,
    Type,
)
from pgproxy.catalog import queries

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

# Without a call, a cast to somebody's type or a qualified operator an expression can do nothing.
_OF_INTEREST: Final = re.compile(r'[\w"]\s*\(|::\s*("|\w+\.)|OPERATOR\(|^\?$')
_NEXT_VALUE: Final = re.compile(r"nextval\('[^']*'::regclass\)")
# pg_trigger.tgtype
_EVENTS: Final = ((4, "I"), (8, "D"), (16, "U"), (32, "T"))
_ROW: Final = 1
# pg_rewrite.ev_type
_RULES: Final = {"1": "S", "2": "U", "3": "I", "4": "D"}


class Rows(NamedTuple):
    """One database's rows as the server gave them."""

    database: str
    natures: list[Any]
    functions: list[Any]
    types: list[Any]
    casts: list[Any]
    operators: list[Any]
    relations: list[Any]
    expressions: list[Any]
    triggers: list[Any]
    rules: list[Any]
    references: list[Any]
    children: list[Any]
    is_complete: bool  # whether every definition could be printed


async def fetch(connection: Connection) -> Rows:
    """What a snapshot is made of. Putting it together takes long, and belongs in a thread."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        locked: list[int] = await connection.fetchval(queries.LOCKED)
        return Rows(
            await connection.fetchval("SELECT current_database()::text"),
            await connection.fetch(queries.NATURES),
            await connection.fetch(queries.FUNCTIONS, locked),
            await connection.fetch(queries.TYPES),
            await connection.fetch(queries.CASTS),
            await connection.fetch(queries.OPERATORS),
            await connection.fetch(queries.RELATIONS, locked),
            await connection.fetch(queries.EXPRESSIONS, locked),
            await connection.fetch(queries.TRIGGERS, locked),
            await connection.fetch(queries.RULES, locked),
            await connection.fetch(queries.REFERENCES),
            await connection.fetch(queries.CHILDREN),
            not locked,
        )


def build(rows: Rows) -> CatalogSnapshot:
    """The snapshot."""
    natures = {row["oid"]: row["nature"] for row in rows.natures if row["nature"]}
    return CatalogSnapshot(
        rows.database,
        tuple(_function(row, natures) for row in rows.functions),
        tuple(map(_type, rows.types)),
        tuple(Cast(*row) for row in rows.casts),
        tuple(Operator(row[0], row[1], row[2], row[3], tuple(row[4]), row[5]) for row in rows.operators),
        _relations(rows),
    )


def _function(row: Any, natures: dict[int, str]) -> Function:
    is_variadic, kind = row["is_variadic"], row["prokind"]
    most, least = row["pronargs"], row["pronargs"] - row["pronargdefaults"]
    if is_variadic:
        most, least = VARIADIC, max(0, least - 1)
    if kind in ("a", "p"):  # WITHIN GROUP and OUT parameters count differently
        most, least = VARIADIC, 0
    result = natures.get(row["prorettype"], "text")
    return Function(
        row["oid"],
        row["nspname"],
        row["proname"],
        tuple(row["arguments"]),
        least,
        most,
        kind,
        row["lanname"],
        row["provolatile"],
        row["prosecdef"],
        row["owner"],
        row["extname"],
        row["body"] or "",
        row["is_bound"],
        tuple(row["proconfig"] or ()),
        _parameters(row, natures),
        f"SETOF {result}" if row["proretset"] else result,
        row["prorettype"],
        tuple(row["calls"] or ()),
        row["is_shadowed"],
    )


def _parameters(row: Any, natures: dict[int, str]) -> tuple[Parameter, ...]:
    types = row["types"] or ()
    modes = row["modes"] or ["i"] * len(types)
    names = row["names"] or [""] * len(types)
    return tuple(
        Parameter(mode, name or "", natures.get(type_, "text"))
        for mode, name, type_ in zip(modes, names, types, strict=True)
    )


def _type(row: Any) -> Type:
    return Type(
        row["oid"],
        row["nspname"],
        row["typname"],
        row["typtype"],
        row["base"],
        tuple(row["attributes"] or ()),
        tuple(row["checks"] or ()),
        tuple(row["functions"]),
        row["extname"],
    )


def _relations(rows: Rows) -> tuple[Relation, ...]:
    expressions: dict[int, list[tuple[str, str]]] = {}
    for relation, moment, text in rows.expressions:
        if _OF_INTEREST.search(text) and not _NEXT_VALUE.fullmatch(text):
            expressions.setdefault(relation, []).append((moment, text))
    triggers: dict[int, list[Trigger]] = {}
    for relation, bits, function, condition in rows.triggers:
        events = "".join(letter for bit, letter in _EVENTS if bits & bit)
        triggers.setdefault(relation, []).append(Trigger(events, function, condition, bool(bits & _ROW)))
    rules: dict[int, list[Rule]] = {}
    for relation, event, definition in rows.rules:
        rules.setdefault(relation, []).append(Rule(_RULES.get(event, "?"), definition))
    references: dict[int, list[Reference]] = {}
    for relation, other, on_update, on_delete in rows.references:
        references.setdefault(relation, []).append(Reference(other, on_update, on_delete))
    children: dict[int, list[int]] = {}
    for parent, child in rows.children:
        children.setdefault(parent, []).append(child)
    present = {row["oid"] for row in rows.relations}
    return tuple(
        Relation(
            row["oid"],
            row["nspname"],
            row["relname"],
            row["relkind"],
            row["reltype"],
            tuple(zip(row["columns"], row["types"], strict=True)),
            row["definition"],
            tuple(expressions.get(row["oid"], ())),
            tuple(triggers.get(row["oid"], ())),
            tuple(rules.get(row["oid"], ())),
            tuple(child for child in children.get(row["oid"], ()) if child in present),
            tuple(item for item in references.get(row["oid"], ()) if item.relation in present),
            row["fdwname"],
        )
        for row in rows.relations
    )
