"""Which functions of well-known extensions only compute or read. Their code is C: there is no body to look at.

Considered one by one from the extensions' own pages in the manual ("Additional Supplied Modules and Extensions")
or their documentation. An extension not named here is unknown; so is a function an extension's entry leaves out
(`tablefunc`'s crosstab and `xml2`'s xpath_table run a query they are given as text). SQL and PL/pgSQL functions of
extensions are judged by their bodies like any other, so that nobody gains by adding one to an extension.
"""

from __future__ import annotations

from typing import Final

from classifier.functions import Effect
from classifier.model import ActionClass

# Every C function of these computes, or reads what the caller may read anyway.
_HARMLESS_NAMES: Final = """
autoinc bloom btree_gin btree_gist citext cube dict_int earthdistance fuzzystrmatch hstore insert_username
intagg intarray isn ltree moddatetime pg_trgm pgcrypto pgrowlocks pgstattuple pg_freespacemap seg sslinfo
tsm_system_rows tsm_system_time unaccent uuid-ossp vector h3 rum prefix ip4r semver hll tdigest pg_uuidv7
"""
_HARMLESS: Final = frozenset(_HARMLESS_NAMES.split())
# Of these, those that do not change the database's or the server's state: immutable and stable ones.
_COMPUTING: Final = frozenset({"postgis", "postgis_topology", "postgis_sfcgal", "pgrouting", "address_standardizer"})
_NAMED: Final[dict[str, frozenset[str]]] = {
    "tablefunc": frozenset({"normal_rand"}),
    "pg_stat_statements": frozenset({"pg_stat_statements", "pg_stat_statements_info"}),
    "pg_buffercache": frozenset({"pg_buffercache_pages", "pg_buffercache_summary", "pg_buffercache_usage_counts"}),
    "pg_visibility": frozenset({"pg_visibility", "pg_visibility_map", "pg_visibility_map_summary"}),
    "dict_xsyn": frozenset({"dxsyn_lexize"}),
    "postgres_fdw": frozenset({"postgres_fdw_get_connections"}),
}
# Foreign tables whose rows come from another database server; the others reach files, programs or who knows what.
REMOTE_WRAPPERS: Final = frozenset({"postgres_fdw", "mysql_fdw", "oracle_fdw", "tds_fdw", "mongo_fdw", "redis_fdw"})


def judge(extension: str, name: str, volatility: str) -> Effect | None:
    """What calling an extension's C function does beyond reading; None where it does nothing more."""
    if extension in _HARMLESS or name in _NAMED.get(extension, ()):
        return None
    if extension in _COMPUTING and volatility in "is":
        return None
    return Effect(
        ActionClass.UNKNOWN,
        "unknown_extension_function",
        f"it is C code of the extension {extension}, of which this classifier does not know it to be harmless",
    )
