"""What a classification says, beyond its class: the corpora in tests/bypass are for that."""

from __future__ import annotations

import pytest

from classifier import ActionClass, Classification, Environment, Risk, classify


def only(sql: str) -> Classification:
    found = classify(sql)
    assert len(found.statements) == 1
    return found


def test_the_public_object_of_the_contract() -> None:
    found = only("COPY users TO STDOUT").to_dict()
    fingerprint = found.pop("fingerprint")
    assert len(fingerprint) == 16
    assert found == {
        "privileged": True,
        "risk": "high",
        "normalized": "COPY users TO STDOUT",
        "statements": [
            {
                "kind": "CopyStmt",
                "tag": "COPY",
                "actions": [
                    {
                        "class": "export",
                        "verb": "copy_to_stdout",
                        "object": "users",
                        "detail": "COPY … TO STDOUT sends table rows to the client",
                    }
                ],
                "relations": ["users"],
                "functions": [],
                "reasons": ["users: COPY … TO STDOUT sends table rows to the client"],
            }
        ],
    }


@pytest.mark.parametrize("sql", ["", ";", " ; ;\n", "-- nothing", "/* nothing */", "/* a */; -- b"])
def test_nothing_is_unprivileged(sql: str) -> None:
    found = classify(sql)
    assert found.statements == ()
    assert not found.privileged


@pytest.mark.parametrize(
    ("sql", "relations"),
    [
        ("select * from a.b, c", ("a.b", "c")),
        ("with t as (select * from t) select * from t", ("t",)),
        ("with t as (select 1) select * from t", ()),
        ("with t as (select 1), u as (select * from t) select * from u", ()),
        ("with u as (select * from t), t as (select 1) select * from u", ("t",)),
        ("with recursive t as (select * from t) select * from t", ()),
        ("with t as (select 1) select * from public.t", ("public.t",)),
        ("with t as (select 1) select 1 union select 1 from t", ()),
        ("with t as (select 1) select (with u as (select * from v) select 1 from u, t)", ("v",)),
        ("select * from u where exists (with t as (select 1) select * from t) and a in (select a from t)", None),
        ("with t as (select 1) insert into t select * from t", ("t",)),
        ("insert into a select * from b", ("a", "b")),
        ("update a set x = b.y from b where a.i = (select max(i) from c)", ("a", "b", "c")),
        ("merge into a using b on a.i = b.i when matched then do nothing", ("a", "b")),
        ('select * from "A b"."C"', ("A b.C",)),
        ("copy a from stdin", ("a",)),
        ("drop table a, b.c", ("a", "b.c")),
    ],
)
def test_relations_are_those_of_the_database(sql: str, relations: tuple[str, ...] | None) -> None:
    found = only(sql).statements[0].relations
    if relations is None:
        assert set(found) == {"u", "t"}
    else:
        assert set(found) == set(relations)


@pytest.mark.parametrize(
    ("sql", "settings"),
    [
        ("set search_path = a", ("search_path",)),
        ("SET LOCAL Work_Mem = 1", ("work_mem",)),
        ("reset search_path", ("search_path",)),
        ("reset all", ("*",)),
        ("discard all", ("*",)),
        ("select set_config('Search_Path', $1, false)", ("search_path", "search_path?")),
        ("select set_config('search_path', 'a, pg_catalog', false)", ("search_path", "search_path?")),
        ("select set_config('search_path', 'pg_catalog, a', false)", ("search_path",)),
        ("set search_path = a, pg_catalog", ("search_path", "search_path?")),
        ("select set_config($1, 'a', false)", ("*", "search_path?")),
        ("update pg_settings set setting = 'a' where name = 'b'", ("*",)),
        ("do $$begin end$$", ("*",)),
        ("call p()", ("*",)),
        ("select somebodys(1)", ("*",)),
        ("select now()", ()),
        ("set time zone 'utc'", ("timezone",)),
        ("set names 'utf8'", ("client_encoding",)),
        ("not sql", ("*",)),
    ],
)
def test_settings_a_statement_may_change(sql: str, settings: tuple[str, ...]) -> None:
    assert only(sql).statements[0].settings == settings


def test_prepare_carries_what_executing_means() -> None:
    statement = only("prepare p as delete from t").statements[0]
    assert statement.prepares == "p"
    assert statement.prepared is not None
    assert statement.prepared.privileged
    assert statement.prepared.classes == ("bulk_write",)


def test_execute_of_a_name_from_elsewhere_is_left_to_the_session() -> None:
    found = only("execute p(1)")
    assert not found.privileged
    assert found.statements[0].executes == ("p",)


def test_execute_of_a_name_prepared_here_has_its_effects() -> None:
    found = classify("prepare p as select pg_read_file('x'); execute p")
    assert found.statements[1].executes == ()
    assert "file" in {str(a.cls) for a in found.statements[1].actions}


def test_a_name_given_up_here_is_left_to_the_session_again() -> None:
    found = classify("prepare p as select 1; deallocate p; execute p")
    assert found.statements[1].deallocates == "p"
    assert found.statements[2].executes == ("p",)
    assert classify("prepare p as select 1; deallocate all; execute p").statements[2].executes == ("p",)
    assert classify("prepare p as select 1; discard all; execute p").statements[2].executes == ("p",)
    assert classify("deallocate all").statements[0].deallocates == ""
    assert classify("discard all").statements[0].deallocates == ""


def test_explain_and_create_table_as_execute_too() -> None:
    assert only("explain analyze execute p").statements[0].executes == ("p",)
    assert only("create temp table t as execute p").statements[0].executes == ("p",)


@pytest.mark.parametrize(
    "sql",
    [
        "alter role a password 'hunter2'",
        "create user mapping for a server s options (password 'hunter2')",
        "alter user mapping for a server s options (set password $$hunter2$$)",
        "create subscription s connection 'host=x password=hunter2' publication p",
        "alter system set x = 'hunter2'",
        "create server s foreign data wrapper f options (password E'hunter2')",
        "select dblink('password=hunter2', U&'hunter2')",
        "comment on table t is 'hunter2'",
        "do $body$ hunter2 $body$",
        "create function f() returns int language sql as 'hunter2'",
        "set my.password = 'hunter2'",
        "notify a, 'hunter2'",
        "alter role a password 'hunter2",
        "alter role a passwort 'hunter2'",
    ],
)
def test_secrets_are_nowhere_in_the_answer(sql: str) -> None:
    found = classify(sql)
    assert "hunter2" not in repr(found)


def test_a_syntax_error_says_so_in_postgresqls_words() -> None:
    found = classify("selec 1")
    assert found.privileged
    assert found.classes == ("unknown",)
    assert found.statements[0].kind == "SyntaxError"
    assert found.syntax_error == 'syntax error at or near "selec"'
    assert "syntax_error" not in found.to_dict()
    assert classify("select 1").syntax_error is None
    assert classify("select 1\0").syntax_error is None


@pytest.mark.parametrize("sql", ["select '\\'", "select E'\\n'"])
def test_backslashes_are_unknown_without_standard_conforming_strings(sql: str) -> None:
    assert not classify(sql).privileged
    found = classify(sql, Environment(standard_conforming_strings=False))
    assert found.classes == ("unknown",)


def test_bytes_and_text_are_the_same() -> None:
    assert classify(b"select 'x' from t") == classify("select 'x' from t")


@pytest.mark.parametrize("sql", ["select '\ud800'", b"select '\xff'"])
def test_what_is_not_utf8_is_unknown(sql: str | bytes) -> None:
    assert classify(sql).classes == ("unknown",)


def test_temporary_objects_have_a_verb_of_their_own() -> None:
    for sql in (
        "create temp table t (a int)",
        "create table pg_temp.t (a int)",
        "select 1 as a into temp t",
        "create temporary table t as select 1",
        "create temp view t as select 1",
        "create temp sequence t",
    ):
        ddl = [a for a in only(sql).statements[0].actions if a.cls == ActionClass.DDL]
        assert ddl, sql
        assert all(a.verb.startswith("temp_") for a in ddl), sql
    assert only("create table t (a int)").statements[0].actions[0].verb == "create_table"


@pytest.mark.parametrize(
    ("sql", "risk"),
    [
        ("select 1", Risk.LOW),
        ("create index on t (a)", Risk.MEDIUM),
        ("drop table t", Risk.HIGH),
        ("set role x", Risk.CRITICAL),
        ("select 1; select pg_read_file('x')", Risk.CRITICAL),
    ],
)
def test_risk_is_the_worst_of_it(sql: str, risk: Risk) -> None:
    assert classify(sql).risk == risk


@pytest.mark.parametrize(
    "sql",
    [
        "select a from t where b = 5 and c like 'x%'",
        "insert into t values (1, 'a')",
        "update t set a = 1 where b = 2",
        "delete from t",
        "select pg_read_file('x')",
    ],
)
def test_queries_are_mostly_free_of_constants(sql: str) -> None:
    assert classify(sql).constant_free


@pytest.mark.parametrize(
    "sql",
    [
        "select set_config('jit', 'off', false)",
        "set role x",
        "set row_security = on",
        "delete from t where a like 'x'",
        "update t set a = 1 where b ~ 'x'",
        "copy t from 'x'",
        "prepare p as select 1",
        "do 'x'",
        "explain select 1",
        "selec 1",
    ],
)
def test_what_could_hang_on_a_constant_says_so(sql: str) -> None:
    assert not classify(sql).constant_free


def test_tags_are_the_servers() -> None:
    tags = {
        "drop materialized view m": "DROP MATERIALIZED VIEW",
        "alter index i rename to j": "ALTER INDEX",
        "alter view v owner to o": "ALTER VIEW",
        "revoke select on t from u": "REVOKE",
        "start transaction": "START TRANSACTION",
        "rollback to s": "ROLLBACK",
        "analyze t": "ANALYZE",
        "reset all": "RESET",
        "create aggregate a (int) (sfunc = f, stype = int)": "CREATE AGGREGATE",
        "create schema s grant select on t to u": "CREATE SCHEMA",
    }
    assert {sql: only(sql).statements[0].tag for sql in tags} == tags


def test_system_catalogs_are_not_written() -> None:
    for table in ("pg_class", "pg_catalog.pg_proc", "information_schema.sql_features", "pg_toast.pg_toast_1"):
        assert "unknown" in classify(f"update {table} set a = 1 where b = 2").classes, table
    assert classify("update public.pg_class_copy set a = 1 where b = 2").classes == ("write",)
