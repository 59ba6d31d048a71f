"""Writes `classifier/data/builtins.py` from the catalogs of real servers.

    python classifier/data/generate.py DSN [DSN …]

Name a server of every major version to be known (superuser: some settings are hidden from others). What they hold is
merged: a function counts as volatile when any version says so, a setting as reserved when any version does. Names that
only some versions have are listed with those versions, since on the others the same name can only be somebody's own
function. Names no server had stay unknown to the classifier, and unknown is privileged, so a table that is too short
stops too much and never too little.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

import asyncpg

FUNCTIONS = """
select p.proname as name, p.provolatile::text as volatility, n.nspname as schema
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname in ('pg_catalog', 'information_schema')
"""
SETTINGS = """
select pg_catalog.lower(name) as name, context from pg_catalog.pg_settings where position('.' in name) = 0
"""
RELATIONS = """
select c.relname as name from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pg_catalog' and c.relkind in ('r', 'v')
"""
TYPES = """
select t.typname as name from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where n.nspname = 'pg_catalog' and t.typrelid = 0
"""
RANK = {"i": 0, "s": 1, "v": 2}
OLDEST = 14
# PostgreSQL 14 ships in no package of the registries this project may use, so what 15 brought is written here
# from the release notes ("Release 15"): 14 is taken to have what 15 has, less these.
_NEW_IN_15 = """
regexp_count regexp_instr regexp_like regexp_substr has_parameter_privilege pg_settings_get_flags
pg_backup_start pg_backup_stop pg_ls_logicalsnapdir pg_ls_logicalmapdir pg_ls_replslotdir
pg_ident_file_mappings pg_database_collation_actual_version pg_stat_have_stats pg_stat_force_next_flush
pg_stat_get_recovery_prefetch pg_stat_get_subscription_stats pg_stat_reset_subscription_stats
pg_get_wal_resource_managers multirange_agg_transfn multirange_agg_finalfn to_timestamp_tz
pg_stat_get_replication_slot pg_stat_get_function_calls_total window_row_number_support
"""
NEW_IN_15 = frozenset(_NEW_IN_15.split())


def wrap(names: list[str]) -> str:
    lines, line = [], ""
    for name in sorted(names):
        if line and len(line) + 1 + len(name) > 108:
            lines.append(line)
            line = name
        else:
            line = f"{line} {name}" if line else name
    return "\n".join([*lines, line])


def block(variable: str, comment: str, names: list[str]) -> str:
    return f'# {comment}\n{variable} = """\n{wrap(names)}\n"""\n'


def partial(versions: dict[str, set[int]], all_versions: list[int]) -> dict[tuple[int, int], list[str]]:
    """Names that not all versions have, by the first and last version that has them (0: none before or after)."""
    ranges: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, found in versions.items():
        oldest = name not in NEW_IN_15 if min(found) == all_versions[0] == OLDEST + 1 else min(found) == all_versions[0]
        first = 0 if oldest else min(found)
        last = 0 if max(found) == all_versions[-1] else max(found)
        if first or last:
            ranges[first, last].append(name)
    return ranges


async def main(dsns: list[str]) -> None:
    functions: dict[str, str] = {}
    found: dict[str, set[int]] = defaultdict(set)
    settings: dict[str, str] = {}
    relations: set[str] = set()
    types: set[str] = set()
    versions: set[int] = set()
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        try:
            version = connection.get_server_version().major
            versions.add(version)
            for row in await connection.fetch(FUNCTIONS):
                found[row["name"]].add(version)
                if row["schema"] == "information_schema" and row["name"] in functions:
                    continue
                known = functions.get(row["name"], "i")
                functions[row["name"]] = max(known, row["volatility"], key=lambda v: RANK[v])
            for row in await connection.fetch(SETTINGS):
                if settings.get(row["name"], "user") == "user":
                    settings[row["name"]] = row["context"]
            relations.update(row["name"] for row in await connection.fetch(RELATIONS))
            types.update(row["name"] for row in await connection.fetch(TYPES))
        finally:
            await connection.close()
    all_versions = sorted(versions)
    parts = [
        '"""PostgreSQL\'s own functions and settings. Written by `generate.py`; do not edit.\n\n'
        "A name stands once, with the worst volatility any of its overloads has in any version.\n"
        '"""\n',
        f"VERSIONS = {tuple(all_versions)}\n",
    ]
    for variable, letter, comment in (
        ("IMMUTABLE", "i", "functions of which every overload is immutable"),
        ("STABLE", "s", "functions with a stable overload and no volatile one"),
        ("VOLATILE", "v", "functions with a volatile overload; harmless only where `functions.py` names them"),
    ):
        parts.append(block(variable, comment, [n for n, v in functions.items() if v == letter]))
    lines = ["# functions only some versions have: (first, last), 0 where there is no such bound", "PARTIAL = {"]
    for (first, last), names in sorted(partial(found, all_versions).items()):
        lines.append(f'    ({first}, {last}): """\n{wrap(names)}\n""",')
    parts.append("\n".join([*lines, "}\n"]))
    parts.append(
        block("USER_SETTINGS", "settings any user may change", [n for n, c in settings.items() if c == "user"])
    )
    parts.append(
        block(
            "OTHER_SETTINGS",
            "settings that take a superuser, a start-up packet or the server's files",
            [n for n, c in settings.items() if c != "user"],
        )
    )
    parts.append(block("RELATIONS", "tables and views of pg_catalog", sorted(relations)))
    parts.append(block("TYPES", "types of pg_catalog", sorted(types)))
    Path(__file__).with_name("builtins.py").write_text("\n".join(parts))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
