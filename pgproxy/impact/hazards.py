"""Whether planning a statement could run a user's code.

The planner calls functions: IMMUTABLE ones with constant arguments, STABLE ones to estimate with, the operators of
what it compares, the input functions of types, and what the definitions of the relations bring along (views, defaults,
checks, expression indexes, policies). The name of every object that could matter is looked for in every schema, so
that no search_path hides one; what PostgreSQL's own catalogs and well-known extensions hold is trusted to compute,
except for the functions that run a query they are given. A doubt is a reason not to plan.

It is a look before, and somebody could make a function in between: what then runs does so in a read-only transaction
of a role that may connect and read, within the statement's time limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from classifier import extensions
from pgproxy.impact.aims import Aim

if TYPE_CHECKING:
    from pgproxy.impact.connection import Connection

# What a classification may say of a statement that is planned: anything else is more than its own query.
PLANNABLE_VERBS: Final = frozenset(
    {"select", "insert", "update", "delete", "merge", "update_all", "delete_all", "merge_all", "upsert_all"}
    | {"copy_to_stdout", "copy_to_file", "copy_to_program", "create_table_as", "temp_create_table_as"}
    | {"create_materialized_view", "temp_create_materialized_view", "select_into", "temp_select_into"}
    | {"explain", "execute", "prepare", "declare_cursor"}
)
# Builtins that are not VOLATILE and run a query they are given or made of a name ("Mapping Tables to XML").
_RUN_QUERIES: Final = "^(table|query|cursor|schema|database)_to_xml"
# Operators that other words of the grammar stand for (IN, BETWEEN, USING, DISTINCT, LIKE, ORDER BY).
_IMPLIED: Final = frozenset({"=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~"})

# Everything below the relations: views' tables, partitions; and what belongs to each and is planned with it.
_BELOW: Final = """
WITH RECURSIVE below (oid) AS (
    SELECT unnest($1::bigint[])::oid
    UNION SELECT x.oid FROM below, LATERAL (
        SELECT d.refobjid AS oid FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass
               AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass WHERE w.ev_class = below.oid
        UNION ALL SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = below.oid) x
), part (classid, objid, expression) AS (
    SELECT 'pg_rewrite'::regclass, w.oid, w.ev_action::text || w.ev_qual::text
    FROM below JOIN pg_rewrite w ON w.ev_class = below.oid
    UNION ALL SELECT 'pg_attrdef'::regclass, a.oid, a.adbin::text FROM below JOIN pg_attrdef a ON a.adrelid = below.oid
    UNION ALL SELECT 'pg_constraint'::regclass, c.oid, coalesce(c.conbin::text, '')
    FROM below JOIN pg_constraint c ON c.conrelid = below.oid
    UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, coalesce(i.indexprs::text, '') || coalesce(i.indpred::text, '')
    FROM below JOIN pg_index i ON i.indrelid = below.oid
    UNION ALL SELECT 'pg_policy'::regclass, p.oid, coalesce(p.polqual::text, '') || coalesce(p.polwithcheck::text, '')
    FROM below JOIN pg_policy p ON p.polrelid = below.oid
    UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid, coalesce(s.stxexprs::text, '')
    FROM below JOIN pg_statistic_ext s ON s.stxrelid = below.oid
    UNION ALL SELECT 'pg_class'::regclass, t.partrelid, coalesce(t.partexprs::text, '')
    FROM below JOIN pg_partitioned_table t ON t.partrelid = below.oid
), reached (classid, objid) AS (
    SELECT DISTINCT d.refclassid, d.refobjid FROM part
    JOIN pg_depend d ON d.classid = part.classid AND d.objid = part.objid WHERE d.refobjid >= 16384
), used (oid) AS (
    SELECT a.atttypid FROM below JOIN pg_attribute a ON a.attrelid = below.oid WHERE a.atttypid >= 16384
    UNION SELECT objid FROM reached WHERE classid = 'pg_type'::regclass
    UNION SELECT t.oid FROM pg_type t WHERE t.oid >= 16384 AND t.typname = ANY ($2::text[])
    UNION SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
    FROM used JOIN pg_type t ON t.oid = used.oid
    WHERE t.typtype = 'd' OR t.typelem <> 0 AND t.typsubscript::text = 'array_subscript_handler'
)
"""
# Objects of users that planning may meet, each with the function that stands for its code.
_MET: Final = f"""{_BELOW}, met (how, name, classid, objid, code) AS (
    SELECT 'it may call', oid::regprocedure::text, 'pg_proc'::regclass, oid, oid
    FROM pg_proc WHERE oid >= 16384 AND proname = ANY ($3::text[])
    UNION ALL SELECT 'it may use the operator', o.oid::regoperator::text, 'pg_operator'::regclass, o.oid, o.oprcode
    FROM pg_operator o WHERE o.oid >= 16384 AND o.oprname = ANY ($4::text[])
    UNION ALL SELECT 'it may use the cast', castsource::regtype || ' AS ' || casttarget::regtype, 'pg_cast'::regclass,
                     oid, castfunc::oid FROM pg_cast WHERE oid >= 16384 AND castfunc <> 0
    UNION ALL SELECT 'a relation is defined by', objid::regprocedure::text, classid::regclass, objid, objid
    FROM reached WHERE classid = 'pg_proc'::regclass
    UNION ALL SELECT 'a relation is defined by the operator', objid::regoperator::text, classid::regclass, objid,
                     oprcode FROM reached JOIN pg_operator o ON o.oid = objid WHERE classid = 'pg_operator'::regclass
    UNION ALL SELECT 'a relation is indexed by the operator class', c.opcname::text, classid::regclass, objid,
                     (SELECT min(amproc::oid) FROM pg_amproc WHERE amprocfamily = c.opcfamily)
    FROM reached JOIN pg_opclass c ON c.oid = objid WHERE classid = 'pg_opclass'::regclass
    UNION ALL SELECT 'it makes values of the type', t.oid::regtype::text, 'pg_type'::regclass, t.oid, t.typinput::oid
    FROM used JOIN pg_type t ON t.oid = used.oid
    WHERE t.oid >= 16384 AND t.typtype <> 'e'
      AND NOT (t.typelem <> 0 AND t.typsubscript::text = 'array_subscript_handler')
      AND NOT (t.typtype = 'd' AND NOT EXISTS (
          SELECT FROM pg_constraint c JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
          AND d.refobjid >= 16384 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
          WHERE c.contypid = t.oid))
)
SELECT met.how, met.name, p.proname::text AS function, p.provolatile::text AS volatility, l.lanname::text AS language,
       x.extname::text AS extension
FROM met LEFT JOIN pg_proc p ON p.oid = met.code LEFT JOIN pg_language l ON l.oid = p.prolang
LEFT JOIN pg_depend e ON e.classid = met.classid AND e.objid = met.objid AND e.deptype = 'e'
     AND e.refclassid = 'pg_extension'::regclass
LEFT JOIN pg_extension x ON x.oid = e.refobjid LIMIT {{limit}}
"""  # noqa: S608 (ours)
_OTHER: Final = f"""{_BELOW}
SELECT 'planning may ask the server of the foreign table ' || c.oid::regclass::text AS reason
FROM below JOIN pg_class c ON c.oid = below.oid WHERE c.relkind = 'f'
UNION ALL SELECT 'a definition it plans with runs a query inside a function' FROM part
WHERE expression ~ (SELECT ':funcid (' || string_agg(oid::text, '|') || ') ' FROM pg_proc
                    WHERE oid < 16384 AND proname ~ $3)
LIMIT 1"""  # noqa: S608 (ours)
_BUILTIN: Final = "SELECT proname::text FROM pg_proc WHERE proname = ANY ($1::text[]) AND proname ~ $2 LIMIT 1"
_LIMIT: Final = 2000


async def reason_not_to_plan(
    connection: Connection, aim: Aim, classified: dict[str, Any] | None, oids: Sequence[int]
) -> str | None:
    """Why the statement is not planned here; None where nothing of a user's can run. `classified` is what the
    classification says of this statement, `oids` every relation it could mean, whatever the search_path."""
    if classified is None:
        return "its classification does not tell the statements apart"
    more = [action["verb"] for action in classified.get("actions", []) if action["verb"] not in PLANNABLE_VERBS]
    if more:
        return f"it does more than a query of its own ({more[0]})"
    names = sorted({*(name.name for name in aim.functions), *aim.fields, *(name.name for name in aim.types)})
    builtin = await connection.fetchval(_BUILTIN, names, _RUN_QUERIES)
    if builtin is not None:
        return f"planning could run the query given to {builtin}"
    types = [name.name for name in aim.types]
    rows = await connection.fetch(
        _MET.format(limit=_LIMIT + 1), list(oids), types, names, sorted(aim.operators | _IMPLIED)
    )
    for row in rows:
        if not _is_trusted(row):
            return f"planning could run a user's code: {row['how']} {row['name']}"
    if len(rows) > _LIMIT:
        return "planning could run any of too many functions"
    other: str | None = await connection.fetchval(_OTHER, list(oids), types, _RUN_QUERIES)
    return other


def _is_trusted(row: Any) -> bool:
    """What belongs to an extension that is known only to compute, and is C code or PostgreSQL's own."""
    if row["extension"] is None or row["language"] not in ("c", "internal"):
        return False
    return extensions.judge(row["extension"], row["function"], row["volatility"]) is None
