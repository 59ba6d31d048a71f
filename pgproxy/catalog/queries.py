"""The statements the observer runs. They read PostgreSQL's own catalogs, which every role may, and no user's table.

All run under an empty search_path, so that names in printed definitions are qualified. Definitions are printed by
the server (`pg_get_…`), which takes a lock on what they mention; `$1` are relations somebody holds in ACCESS
EXCLUSIVE mode now, whose definitions are left out (`?`) instead of waited for. Objects below oid 16384 are initdb's own
("OID Assignment").
"""

from __future__ import annotations

from typing import Final

LOCKED: Final = """
SELECT coalesce(array_agg(DISTINCT relation), '{}') FROM pg_locks
WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
"""

# Beside users' functions: PostgreSQL's own that are written in SQL (a superuser can replace one and keep its oid),
# and those that users' aggregates, operators, casts, types and triggers call.
FUNCTIONS: Final = """
WITH used AS (
    SELECT unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn,
                        aggmfinalfn]::oid[]) AS oid FROM pg_aggregate WHERE aggfnoid >= 16384
    UNION SELECT oprcode FROM pg_operator o WHERE o.oid >= 16384
       OR EXISTS (SELECT FROM pg_operator u WHERE u.oid >= 16384 AND o.oid IN (u.oprcom, u.oprnegate))
    UNION SELECT castfunc FROM pg_cast WHERE oid >= 16384
    UNION SELECT tgfoid FROM pg_trigger WHERE NOT tgisinternal
)
SELECT p.oid, n.nspname, p.proname, p.proargtypes::oid[] AS arguments, p.pronargs, p.pronargdefaults,
       p.provariadic <> 0 AS is_variadic, p.prokind::text, l.lanname, p.provolatile::text, p.prosecdef,
       pg_get_userbyid(p.proowner)::text AS owner, x.extname,
       CASE WHEN p.prosqlbody IS NULL THEN p.prosrc
            WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                         AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::oid[])) THEN '?'
            ELSE pg_get_function_sqlbody(p.oid) END AS body,
       p.prosqlbody IS NOT NULL AS is_bound, p.proconfig,
       CASE WHEN l.lanname = 'plpgsql' THEN p.proargnames END AS names,
       CASE WHEN l.lanname = 'plpgsql' THEN p.proargmodes::text[] END AS modes,
       CASE WHEN l.lanname = 'plpgsql' THEN coalesce(p.proallargtypes, p.proargtypes::oid[]) END AS types,
       p.proretset, p.prorettype,
       CASE WHEN p.prokind = 'a' THEN (
           SELECT array_remove(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
                                     a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[], 0::oid)
           FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END AS calls,
       n.nspname <> 'pg_catalog' AND EXISTS (
           SELECT FROM pg_proc b WHERE b.proname = p.proname AND b.proargtypes = p.proargtypes
           AND b.pronamespace = 'pg_catalog'::regnamespace) AS is_shadowed
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
LEFT JOIN pg_depend e ON e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e'
     AND e.refclassid = 'pg_extension'::regclass
LEFT JOIN pg_extension x ON x.oid = e.refobjid
WHERE p.oid >= 16384 OR (l.lanname NOT IN ('internal', 'c') AND n.nspname <> 'information_schema')
   OR p.oid IN (SELECT oid FROM used)
ORDER BY p.oid
"""

# How PL/pgSQL sees a type: only that matters for reading a body.
NATURES: Final = """
SELECT t.oid, CASE WHEN t.typname IN ('trigger', 'event_trigger', 'void') THEN t.typname
                   WHEN t.typname = 'refcursor' THEN 'refcursor'
                   WHEN t.typtype = 'c' OR t.typname = 'record' THEN 'record'
                   WHEN t.typtype = 'd' AND b.typtype = 'c' THEN 'record' END::text AS nature
FROM pg_type t LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE t.typtype IN ('c', 'd', 'p') OR t.typname = 'refcursor'
"""

TYPES: Final = """
SELECT t.oid, n.nspname, t.typname, t.typtype::text,
       CASE WHEN t.typtype = 'd' THEN t.typbasetype
            WHEN t.typelem <> 0 AND t.typsubscript::text = 'array_subscript_handler' THEN t.typelem
            WHEN t.typtype = 'r' THEN r.rngsubtype ELSE 0 END AS base,
       CASE WHEN t.typtype = 'c' THEN ARRAY(
           SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
           AND atttypid >= 16384 ORDER BY attnum) END AS attributes,
       CASE WHEN t.typtype = 'd' THEN ARRAY(
           SELECT pg_get_expr(conbin, 0) FROM pg_constraint WHERE contypid = t.oid AND conbin IS NOT NULL ORDER BY oid)
           || CASE WHEN t.typdefaultbin IS NULL THEN '{}' ELSE ARRAY[pg_get_expr(t.typdefaultbin, 0)] END
       END AS checks,
       ARRAY(SELECT DISTINCT f FROM unnest(ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin,
            t.typmodout, t.typanalyze, t.typsubscript, r.rngcanonical, r.rngsubdiff]::oid[]) f
            WHERE f >= 16384 ORDER BY f) AS functions,
       x.extname
FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_class c ON c.oid = t.typrelid
LEFT JOIN pg_type i ON i.oid = t.typelem
LEFT JOIN pg_class ic ON ic.oid = i.typrelid
LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_depend e ON e.classid = 'pg_type'::regclass AND e.objid = t.oid AND e.deptype = 'e'
     AND e.refclassid = 'pg_extension'::regclass
LEFT JOIN pg_extension x ON x.oid = e.refobjid
WHERE t.oid >= 16384
  AND n.nspname !~ '^pg_(temp|toast)' AND n.nspname <> 'information_schema'
  AND coalesce(c.relkind, 'c') = 'c' AND coalesce(ic.relkind, 'c') = 'c'
ORDER BY t.oid
"""

CASTS: Final = """
SELECT castsource, casttarget, castfunc, castcontext::text FROM pg_cast
WHERE oid >= 16384 AND castfunc <> 0 ORDER BY oid
"""

OPERATORS: Final = """
SELECT n.nspname, o.oprname, o.oprleft, o.oprright,
       ARRAY(SELECT DISTINCT f FROM unnest(ARRAY[o.oprcode, c.oprcode, g.oprcode]::oid[]) f WHERE f <> 0 ORDER BY f)
           AS functions,
       n.nspname <> 'pg_catalog' AND EXISTS (
           SELECT FROM pg_operator b WHERE b.oprname = o.oprname AND b.oprleft = o.oprleft AND b.oprright = o.oprright
           AND b.oprnamespace = 'pg_catalog'::regnamespace) AS is_shadowed
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
LEFT JOIN pg_operator c ON c.oid = o.oprcom LEFT JOIN pg_operator g ON g.oid = o.oprnegate
WHERE o.oid >= 16384 ORDER BY o.oid
"""

RELATIONS: Final = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.reltype,
       ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum) AS columns,
       ARRAY(SELECT atttypid FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum) AS types,
       CASE WHEN c.relkind <> 'v' THEN ''
            WHEN c.oid = ANY ($1::oid[]) OR EXISTS (
                SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                WHERE w.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::oid[]))
                THEN '?'
            ELSE pg_get_viewdef(c.oid) END AS definition,
       f.fdwname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_foreign_table t ON t.ftrelid = c.oid
LEFT JOIN pg_foreign_server s ON s.oid = t.ftserver
LEFT JOIN pg_foreign_data_wrapper f ON f.oid = s.srvfdw
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_(temp|toast)' AND n.nspname <> 'information_schema'
ORDER BY c.oid
"""

# relation, when it is evaluated, text
EXPRESSIONS: Final = """
WITH found AS (
    SELECT adrelid AS relation, 'default' AS moment, adbin AS tree FROM pg_attrdef
    UNION ALL SELECT conrelid, 'check', conbin FROM pg_constraint WHERE conrelid <> 0 AND conbin IS NOT NULL
    UNION ALL SELECT indrelid, 'index', indexprs FROM pg_index WHERE indexprs IS NOT NULL
    UNION ALL SELECT indrelid, 'index', indpred FROM pg_index WHERE indpred IS NOT NULL
    UNION ALL SELECT partrelid, 'index', partexprs FROM pg_partitioned_table WHERE partexprs IS NOT NULL
    UNION ALL SELECT polrelid, 'read', polqual FROM pg_policy WHERE polqual IS NOT NULL
    UNION ALL SELECT polrelid, 'write', polwithcheck FROM pg_policy WHERE polwithcheck IS NOT NULL
)
SELECT relation, moment, CASE WHEN relation = ANY ($1::oid[]) THEN '?' ELSE pg_get_expr(tree, relation) END AS text
FROM found WHERE relation >= 16384 ORDER BY relation, moment, text
"""

TRIGGERS: Final = """
SELECT tgrelid, tgtype::int, tgfoid,
       CASE WHEN tgqual IS NULL THEN '' WHEN tgrelid = ANY ($1::oid[]) THEN '?' ELSE pg_get_triggerdef(oid) END
           AS condition
FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' ORDER BY tgrelid, tgname
"""

RULES: Final = """
SELECT w.ev_class, w.ev_type::text,
       CASE WHEN w.ev_class = ANY ($1::oid[]) OR EXISTS (
                SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY ($1::oid[])) THEN '?'
            ELSE pg_get_ruledef(w.oid) END AS definition
FROM pg_rewrite w
WHERE w.ev_class >= 16384 AND w.rulename <> '_RETURN' AND w.ev_enabled <> 'D'
ORDER BY w.ev_class, w.rulename
"""

REFERENCES: Final = """
SELECT confrelid, conrelid, confupdtype::text, confdeltype::text FROM pg_constraint
WHERE contype = 'f' ORDER BY confrelid, conrelid, conname
"""

CHILDREN: Final = "SELECT inhparent, inhrelid FROM pg_inherits ORDER BY inhparent, inhrelid"


def _part(table: str, where: str = "true") -> str:
    key = "tableoid" if table == "pg_inherits" else "oid"
    row = f"({key}::bigint << 32) | xmin::text::bigint"
    return (
        f"SELECT count(*) AS n, coalesce(sum(hashint8extended({row}, 0)::numeric), 0) AS h"  # noqa: S608 (ours)
        f" FROM {table} WHERE {where}"
    )


_NEW: Final = "oid >= 16384"


def _lasting(relation: str) -> str:
    """Temporary relations come and go all the time and are not in a snapshot."""
    return f"{relation} NOT IN (SELECT oid FROM pg_class WHERE relpersistence = 't')"  # noqa: S608 (ours)


# One number that changes with every committed change of what a snapshot holds: each row's oid and the transaction
# that wrote it, hashed and summed, so that order does not matter and nothing has to be sorted.
WATERMARK: Final = (
    "SELECT string_agg(n || ':' || h, ' ') FROM ("  # noqa: S608 (ours)
    + " UNION ALL ".join(
        [
            _part("pg_proc", f"{_NEW} OR prolang NOT IN (12, 13)"),
            _part("pg_class", f"{_NEW} AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f', 'c')"),
            _part("pg_type", f"{_NEW} AND typtype <> 'c' AND typelem = 0 OR {_NEW} AND typtype = 'd'"),
            _part("pg_operator", _NEW),
            _part("pg_cast", _NEW),
            _part("pg_trigger", f"NOT tgisinternal AND {_lasting('tgrelid')}"),
            _part("pg_rewrite", f"{_NEW} AND {_lasting('ev_class')}"),
            _part("pg_constraint", f"{_NEW} AND contype IN ('c', 'f') AND {_lasting('conrelid')}"),
            _part("pg_attrdef", _lasting("adrelid")),
            _part("pg_policy"),
            _part("pg_namespace", f"{_NEW} AND nspname !~ '^pg_(temp|toast)'"),
            _part("pg_inherits", _lasting("inhrelid")),
            _part("pg_extension"),
        ]
    )
    + ") parts"
)
