"""The table of what builtins do, against the catalog of a real server."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from classifier.data import builtins, dangers
from classifier.model import UNPRIVILEGED

EXACT = {name for *_, names in dangers.DANGEROUS for name in names.split() if not name.endswith("*")}
PREFIXES = tuple(name[:-1] for *_, names in dangers.DANGEROUS for name in names.split() if name.endswith("*"))
CONSIDERED = {
    name
    for table in (dangers.HARMLESS, dangers.REVIEWED, dangers.SERVER_ONLY, dangers.BY_ARGUMENT)
    for name in table.split()
}


def is_considered(name: str) -> bool:
    return name in CONSIDERED or name in EXACT or name.startswith(PREFIXES)


@pytest.fixture(scope="module")
def connection(server_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(server_dsn) as made:
        yield made


def names(connection: psycopg.Connection, query: str) -> set[str]:
    return {name for (name,) in connection.execute(query).fetchall()}  # type: ignore[call-overload]  # built here


def test_every_volatile_function_of_the_server_is_considered(connection: psycopg.Connection) -> None:
    volatile = names(connection, "select proname from pg_proc where provolatile = 'v' and pronamespace = 11")
    assert len(volatile) > 200
    assert {name for name in volatile if not is_considered(name)} == set()


def test_every_volatile_function_of_the_other_versions_is_considered() -> None:
    assert {name for name in builtins.VOLATILE.split() if not is_considered(name)} == set()


def test_every_function_the_server_keeps_from_public_is_considered(connection: psycopg.Connection) -> None:
    kept = names(connection, "select proname from pg_proc where proacl is not null and pronamespace = 11")
    assert len(kept) > 40
    assert {name for name in kept if not is_considered(name)} == set()


def test_every_function_that_runs_query_text_is_considered(connection: psycopg.Connection) -> None:
    by_argument = names(
        connection,
        "select proname from pg_proc where pronamespace = 11"
        " and proargnames[1:pronargs] && '{query,sqlquery,tbl,tablename,schema,cursor,filename}'",
    )
    assert by_argument >= {"query_to_xml", "table_to_xml", "schema_to_xml", "cursor_to_xml"}
    assert {name for name in by_argument if not is_considered(name)} == set()


def test_no_operator_cast_or_type_reaches_a_volatile_function(connection: psycopg.Connection) -> None:
    # so that builtin operators, casts and literals need no table of their own
    reached = names(
        connection,
        """
        select proname from pg_proc where provolatile = 'v' and oid in (
            select oprcode from pg_operator union select castfunc from pg_cast
            union select unnest(array[typinput, typoutput, typreceive, typsend, typmodin, typmodout]) from pg_type)
        """,
    )
    assert reached == set()


def test_views_over_files_are_those_the_classifier_knows(connection: psycopg.Connection) -> None:
    views = names(
        connection,
        r"""
        select relname from pg_class where relkind = 'v'
        and pg_get_viewdef(oid) ~ '(pg_read|pg_ls_|pg_stat_file|pg_hba_file|pg_ident_file|pg_show_all_file)\w*\('
        """,
    )
    assert views == {"pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings"}


def test_no_name_stands_in_two_tables() -> None:
    assert not {name for name in CONSIDERED if name in EXACT or name.startswith(PREFIXES)}


def test_a_name_is_dangerous_for_one_reason() -> None:
    every = [name for *_, names in dangers.DANGEROUS for name in names.split()]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("entry", dangers.DANGEROUS, ids=lambda entry: str(entry[1]))
def test_every_danger_has_a_privileged_class_and_one_sentence(entry: tuple[str, str, str, str]) -> None:
    cls, verb, sentence, members = entry
    assert cls not in UNPRIVILEGED
    assert verb == verb.lower().replace(" ", "_")
    assert sentence[0].islower()
    assert "." not in sentence
    assert members.split()


def test_harmless_names_exist_in_some_version() -> None:
    assert set(dangers.HARMLESS.split()) <= set(builtins.VOLATILE.split())


def test_partial_names_are_names_and_bounds_are_versions() -> None:
    every = set(f"{builtins.IMMUTABLE}{builtins.STABLE}{builtins.VOLATILE}".split())
    for (first, last), members in builtins.PARTIAL.items():
        assert first or last
        assert first == 0 or 15 <= first <= 18
        assert last == 0 or 14 <= last <= 17
        assert set(members.split()) <= every


def test_functions_new_in_the_servers_version_are_marked(connection: psycopg.Connection) -> None:
    version = connection.info.server_version // 10000
    theirs = names(
        connection, "select proname from pg_proc where pronamespace in (11, 'information_schema'::regnamespace)"
    )
    ours = set(f"{builtins.IMMUTABLE}{builtins.STABLE}{builtins.VOLATILE}".split())
    for (first, last), members in builtins.PARTIAL.items():
        if (first and version < first) or (last and version > last):
            ours -= set(members.split())
    assert ours - theirs == set()
