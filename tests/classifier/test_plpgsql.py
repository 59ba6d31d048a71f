"""What is taken from libpg_query's reading of PL/pgSQL, and what it leaves out."""

from __future__ import annotations

import pytest

from classifier import plpgsql
from classifier.catalog import Function, Parameter


def function(body: str, *parameters: Parameter, returns: str = "void") -> Function:
    return Function(
        *(1, "public", "f", (), 0, 0, "f", "plpgsql", "v", False, "me", None, body, False, ()),
        parameters,
        returns,
        0,
        (),
        False,
    )


def read(body: str, *parameters: Parameter, returns: str = "void") -> plpgsql.Body:
    return plpgsql.read(function(body, *parameters, returns=returns), lambda schema, name: name == "row")


def test_queries_assignments_and_dynamic_ones() -> None:
    body = read(
        "DECLARE x int; BEGIN x := 1 + 2; PERFORM g(x); EXECUTE 'a' || x USING x; DELETE FROM t; END",
    )
    assert {q.text for q in body.queries} == {"x := 1 + 2", "SELECT g(x)", "x", "DELETE FROM t"}
    assert body.dynamic == ("'a' || x",)


@pytest.mark.parametrize("declared", ["r record := evil(1)", "r record DEFAULT evil(1)", "r s.row = evil(1)"])
def test_the_default_of_a_record_is_not_lost(declared: str) -> None:
    assert "evil(1)" in {q.text for q in read(f"DECLARE {declared}; BEGIN NULL; END").queries}


def test_a_default_keeps_its_strings() -> None:
    assert "evil('ab')" in {q.text for q in read("DECLARE r record := evil('ab'); BEGIN NULL; END").queries}


def test_the_types_of_declarations() -> None:
    body = read(
        'DECLARE a s.dom; b s.t%ROWTYPE; c t.x%TYPE; d CONSTANT dom := 1; e "Odd"; f s.row[]; BEGIN NULL; END',
    )
    assert set(body.types) >= {("s", "dom"), ("s", "t"), (None, "t"), (None, "dom"), (None, "Odd"), ("s", "row")}


def test_a_trigger_and_parameters() -> None:
    assert read("BEGIN NEW.x := lower(OLD.y); RETURN NEW; END", returns="trigger").queries
    body = read(
        'BEGIN "odd name".x := 1; y := 2; END',
        Parameter("i", "odd name", "record"),
        Parameter("o", "y", "text"),
        returns="text",
    )
    assert len(body.queries) == 2


@pytest.mark.parametrize(
    "body",
    [
        "nonsense",
        "BEGIN SELECT FROM WHERE; nonsense END",
        'DECLARE x "S"."t"; BEGIN NULL; END',
        "BEGIN x := 1; END",
    ],
)
def test_what_is_not_understood_is_said(body: str) -> None:
    with pytest.raises(plpgsql.NotUnderstood):
        for query in read(body).queries:
            plpgsql.parse(query)


def test_a_node_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plpgsql, "_NODES", plpgsql._NODES - {"stmt_perform"})
    with pytest.raises(plpgsql.NotUnderstood):
        read("BEGIN PERFORM 1; END")


def test_a_query_the_parser_does_not_hand_on(monkeypatch: pytest.MonkeyPatch) -> None:
    original = plpgsql._collect

    def losing(root: object, queries: list[plpgsql.Query], dynamic: list[str], cursors: set[str]) -> None:
        original(root, queries, dynamic, cursors)
        queries.clear()

    monkeypatch.setattr(plpgsql, "_collect", losing)
    for lost in ("PERFORM evil(1)", "DELETE FROM t", "IF evil(1) THEN NULL; END IF", "INSERT INTO t VALUES (1)"):
        with pytest.raises(plpgsql.NotUnderstood):
            read(f"BEGIN {lost}; END")
