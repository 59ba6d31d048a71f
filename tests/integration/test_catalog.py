"""Functions and views of users, judged by what they do, through the running proxy."""

from __future__ import annotations

import pytest

from tests.integration.system import System, eventually

FUNCTIONS = """
create or replace function harmless(a int) returns int language sql immutable as 'select a + 1';
create or replace function counts(a int) returns bigint language plpgsql as
    $$ begin return (select count(*) from orders where id > a); end $$;
create or replace function hides_ddl(a int) returns int language plpgsql as
    $$ begin create table hidden_in_a_function (a int); return 1; end $$;
create or replace function hides_dynamic(a text) returns int language plpgsql as
    $$ begin execute a; return 1; end $$;
create or replace view innocent as select hides_ddl(1) as a;
create table if not exists watched (a int);
create or replace function on_watched() returns trigger language plpgsql as
    $$ begin create table hidden_in_a_function (a int); return new; end $$;
create or replace trigger watching before insert on watched for each row execute function on_watched();
create schema if not exists planted;
create or replace function planted.lower(a text) returns text language plpgsql as
    $$ begin create table hidden_in_a_function (a int); return a; end $$;
"""


@pytest.fixture(scope="module")
def functions(system: System) -> System:
    system.direct(FUNCTIONS)
    eventually(lambda: passes(system, "select harmless(1)"), "the catalog has been read again")
    return system


def passes(system: System, statement: str, *settings: str) -> bool:
    """Whether it ran unasked; a statement that parks is cancelled by ending its session."""
    psql = system.start_psql("-At", *(part for s in settings for part in ("-c", s)), "-c", statement)

    def over_or_parked() -> str | None:
        if psql.poll() is not None:
            return "over"
        parked = [a for a in system.reviewer.approvals(status="pending") if a["statement"]["sql"] == statement]
        return "parked" if parked else None

    found = eventually(over_or_parked, f"{statement} ends or parks")
    if found == "parked":
        psql.kill()
        eventually(lambda: not system.reviewer.approvals(status="pending"), "it is withdrawn")
    _, err = psql.communicate(timeout=30)
    if found == "over":
        assert psql.returncode == 0, err
    return found == "over"


@pytest.mark.parametrize(
    "statement", ["select harmless(1)", "select counts(3)", "select lower('A')", "select * from order_totals limit 1"]
)
def test_what_harms_nothing_passes(functions: System, statement: str) -> None:
    assert passes(functions, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "select hides_ddl(1)",
        "select hides_dynamic('drop table orders')",
        "select * from innocent",
        "select planted.lower('A')",
        "insert into watched values (1)",
        "begin; declare c cursor for select hides_ddl(1); fetch c; commit",
        "select never_heard_of(1)",
    ],
)
def test_what_hides_something_parks(functions: System, statement: str) -> None:
    assert not passes(functions, statement)


def test_a_builtin_shadowed_by_search_path_is_not_the_builtin(functions: System) -> None:
    assert not passes(functions, "set search_path = planted, pg_catalog, public")
    # In a way that nobody can tell from the text, so that it passes.
    path = "select set_config('search_path', concat('planted, pg_', 'catalog, public'), false)"
    assert not passes(functions, "select lower('A')", path)
    assert functions.direct("select to_regclass('hidden_in_a_function') is null") == "t"


def test_a_function_replaced_around_the_proxy_is_noticed(functions: System) -> None:
    functions.direct("create or replace function turns(a int) returns int language sql immutable as 'select a'")
    eventually(lambda: passes(functions, "select turns(1)"), "the new function is known")
    functions.direct(
        "create or replace function turns(a int) returns int language plpgsql as "
        "$$ begin execute 'drop table if exists not_there'; return 1; end $$"  # it may run before that is known
    )
    eventually(lambda: not passes(functions, "select turns(1)"), "the harmful function is known")


def test_a_function_made_through_the_proxy_is_known_at_once(functions: System) -> None:
    made = "create or replace function just_made(a int) returns int language sql immutable as 'select a'"
    psql = functions.start_psql("-At", "-c", made, "-c", "select just_made(7)")
    functions.reviewer.approve("just_made")
    out, err = psql.communicate(timeout=30)
    assert out == "CREATE FUNCTION\n7\n", err
