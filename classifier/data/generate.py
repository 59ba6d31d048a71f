"""Writes `classifier/data/builtins.py` from the catalogs of real servers.

    python classifier/data/generate.py DSN [DSN …]

Several servers may be named: what they hold is merged, a function counting as volatile when any version
says so and a setting as reserved to superusers likewise. Names no server had stay unknown to the classifier,
and unknown is privileged, so a table that is too short stops too much and never too little.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncpg

FUNCTIONS = """
select p.proname as name, p.prokind::text as kind, p.provolatile::text as volatility, n.nspname as schema
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


async def main(dsns: list[str]) -> None:
    versions: set[int] = set()
    functions: dict[str, str] = {}
    settings: dict[str, str] = {}
    relations: set[str] = set()
    types: set[str] = set()
    for dsn in dsns:
        connection = await asyncpg.connect(dsn)
        try:
            versions.add(connection.get_server_version().major)
            for row in await connection.fetch(FUNCTIONS):
                if row["schema"] == "information_schema" and row["name"] in functions:
                    continue
                known = functions.get(row["name"], "i")
                functions[row["name"]] = max(known, row["volatility"], key=lambda v: RANK[v])
            for row in await connection.fetch(SETTINGS):
                if settings.get(row["name"]) != "superuser":
                    settings[row["name"]] = row["context"]
            relations.update(row["name"] for row in await connection.fetch(RELATIONS))
            types.update(row["name"] for row in await connection.fetch(TYPES))
        finally:
            await connection.close()
    parts = [
        '"""PostgreSQL\'s own functions and settings. Written by `generate.py`; do not edit.\n\n'
        "A name stands once, with the worst volatility any of its overloads has.\n"
        '"""\n',
        f"VERSIONS = {tuple(sorted(versions))}\n",
    ]
    for variable, letter, comment in (
        ("IMMUTABLE", "i", "functions of which every overload is immutable"),
        ("STABLE", "s", "functions with a stable overload and no volatile one"),
        (
            "VOLATILE",
            "v",
            "functions with a volatile overload; harmless only where `functions.py` names them",
        ),
    ):
        parts.append(block(variable, comment, [n for n, v in functions.items() if v == letter]))
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
    text = "\n".join(parts)
    Path(__file__).with_name("builtins.py").write_text(text)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
