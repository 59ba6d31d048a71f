"""The tables of builtin functions against a real server."""

from __future__ import annotations

import psycopg
import pytest

from classifier import ActionClass, classify, functions, settings
from classifier.data import builtins
from classifier.model import Environment


def names(text: str) -> set[str]:
    return set(text.split())


def test_allowed_names_are_volatile_builtins() -> None:
    assert names(builtins.VOLATILE) >= functions.HARMLESS


def test_no_name_is_both_harmless_and_dangerous() -> None:
    assert not [name for name in functions.HARMLESS if functions.dangerous(name) is not None]


def test_tables_are_those_of_a_real_server(server_dsn: str) -> None:
    with psycopg.connect(server_dsn) as connection:
        rows = connection.execute(
            "select proname, max(provolatile::text) from pg_proc p join pg_namespace n on n.oid = pronamespace"
            " where nspname in ('pg_catalog', 'information_schema') group by proname"
        ).fetchall()
        theirs = {name: volatility for name, volatility in rows}
    ours = {
        **dict.fromkeys(names(builtins.IMMUTABLE), "i"),
        **dict.fromkeys(names(builtins.STABLE), "s"),
        **dict.fromkeys(names(builtins.VOLATILE), "v"),
    }
    # minor versions may add a function; none may be less harmless than the table says
    order = "isv"
    assert {n for n, v in theirs.items() if n in ours and order.index(v) > order.index(ours[n])} == set()
    assert set(theirs) >= functions.HARMLESS


def test_settings_a_superuser_must_change_are_guards_or_named(server_dsn: str) -> None:
    with psycopg.connect(server_dsn) as connection:
        rows = connection.execute("select lower(name) from pg_settings where context = 'superuser'").fetchall()
    unguarded = {name for (name,) in rows if settings.judge(name, "x") is None}
    assert unguarded <= settings.HARMLESS_SUPERUSER


@pytest.mark.parametrize("name", sorted(functions.EXACT))
def test_a_dangerous_name_is_caught_in_any_schema(name: str) -> None:
    effect = functions.EXACT[name]
    for schema in (None, "pg_catalog", "extensions"):
        assert functions.resolve(schema, name, 1, ("pg_catalog", "public")) == effect


def test_somebodys_function_is_unknown_with_a_reason() -> None:
    found = classify("select frobnicate(1)")
    assert found.classes == ("read", "unknown")
    assert "frobnicate is not PostgreSQL's own function, and there is no catalog to ask" in found.reasons
    assert found.statements[0].settings == ("*",)


def test_a_search_path_that_hides_pg_catalog_makes_builtins_unknown() -> None:
    hidden = Environment(search_path=("evil", "pg_catalog"))
    assert "unknown" in classify("select now()", hidden).classes
    assert classify("select pg_catalog.now()", hidden).classes == ("read",)
    assert classify("select now()", Environment(search_path=("evil",))).classes == ("read",)


def test_ts_rewrite_runs_a_query_only_with_two_arguments() -> None:
    assert functions.resolve(None, "ts_rewrite", 3, None) is None
    effect = functions.resolve(None, "ts_rewrite", 2, None)
    assert effect is not None
    assert effect.cls == ActionClass.CODE


@pytest.mark.parametrize(
    "text",
    [
        "set search_path = evil, pg_catalog; select now()",
        "set search_path = evil, pg_catalog; begin; select now()",
        "begin; set local search_path to evil, pg_catalog; select now(); commit",
        "select set_config('search_path', 'evil, pg_catalog', false); select now()",
        "select set_config('search_path', $1, false); select now()",
        "set search_path = evil, pg_catalog; begin; set local search_path = app; rollback; select now()",
    ],
)
def test_a_search_path_holds_for_the_rest_of_its_text(text: str) -> None:
    """The server looks the names of each statement up when it comes to it; all were judged by the path of before."""
    assert "unknown" in classify(text, Environment(search_path=("public",))).classes


@pytest.mark.parametrize(
    "text",
    [
        "set search_path = app, public; select now()",
        "set search_path = pg_catalog, evil; select now()",
        "set search_path = 'evil, pg_catalog'; select now()",  # one name
        "set work_mem = '8MB'; select now()",
    ],
)
def test_a_search_path_that_hides_nothing_of_postgresql_is_no_matter(text: str) -> None:
    assert not classify(text, Environment(search_path=("public",))).privileged


@pytest.mark.parametrize(
    "text",
    ["set search_path = evil, pg_catalog; select pg_catalog.now()", "select now(); set search_path = evil, pg_catalog"],
)
def test_a_search_path_that_hides_builtins_is_asked_about_for_itself_alone(text: str) -> None:
    found = classify(text, Environment(search_path=("public",)))
    assert {"session"} <= set(found.classes) <= {"session", "read"}
