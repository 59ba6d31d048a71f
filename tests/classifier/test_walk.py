"""Fail closed: whatever one of the parts does not understand makes the statement unknown, at run time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from classifier import Classification, classify, grammar, lexer, meaning, nodes
from classifier.meaning import Reading


def is_unknown(found: Classification) -> bool:
    return found.privileged and "unknown" in found.classes and found.statements[0].settings == ("*",)


@pytest.mark.parametrize(
    ("sql", "node"),
    [
        ("select case when a then 1 end from t", "CaseWhen"),
        ("with x as materialized (select 1) select 1", "CommonTableExpr"),
        ("select 1 from t order by a", "SortBy"),
        ("select $1::int", "TypeCast"),
        ("fetch 1 from c", "FetchStmt"),
    ],
)
def test_a_node_not_listed(monkeypatch: pytest.MonkeyPatch, sql: str, node: str) -> None:
    assert not classify(sql).privileged
    monkeypatch.delitem(nodes.NODES, node)
    found = classify(sql)
    assert is_unknown(found)
    assert f"{node} is not a node this classifier knows" in found.reasons


@pytest.mark.parametrize(
    ("sql", "node", "field"),
    [
        ("select a from t limit 1", "SelectStmt", "limitCount"),
        ("insert into t values (1) returning *", "InsertStmt", "returningClause"),
        ("select * from t as x", "RangeVar", "alias"),
        ("select count(distinct a) from t", "FuncCall", "agg_distinct"),
        ("begin read only", "TransactionStmt", "options"),
    ],
)
def test_a_field_not_listed(monkeypatch: pytest.MonkeyPatch, sql: str, node: str, field: str) -> None:
    assert not classify(sql).privileged
    monkeypatch.delitem(nodes.NODES[node], field)
    found = classify(sql)
    assert is_unknown(found)
    assert f"{node}.{field} is not a field this classifier knows" in found.reasons


def test_a_value_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    field = nodes.NODES["JoinExpr"]["jointype"]
    monkeypatch.setitem(nodes.NODES["JoinExpr"], "jointype", field._replace(values=field.values - {"JOIN_FULL"}))
    assert not classify("select 1 from a left join b using (c)").privileged
    assert is_unknown(classify("select 1 from a full join b using (c)"))


def test_a_statement_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from classifier import walk

    monkeypatch.delitem(walk.STATEMENTS, "FetchStmt")
    assert is_unknown(classify("fetch 1 from c"))


@pytest.mark.parametrize("shape", [[], {}, {"A": {}, "B": {}}, {"Nonsense": {}}])
def test_a_tree_of_another_shape(monkeypatch: pytest.MonkeyPatch, shape: Any) -> None:
    def parse(text: bytes) -> list[grammar.Parsed]:
        tree = {"targetList": [{"ResTarget": {"val": shape, "name": shape}}]}
        return [grammar.Parsed("SelectStmt", tree, 0, len(text))]

    monkeypatch.setattr(grammar, "parse", parse)
    assert is_unknown(classify("select 1"))


@pytest.mark.parametrize("change", [{"start": 1}, {"end": 7}])
def test_boundaries_the_two_do_not_agree_on(monkeypatch: pytest.MonkeyPatch, change: dict[str, int]) -> None:
    original = grammar.parse
    monkeypatch.setattr(grammar, "parse", lambda text: [replace(original(text)[0], **change)])
    assert is_unknown(classify("select 1"))


def test_a_statement_only_one_of_the_two_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    original = grammar.parse
    monkeypatch.setattr(grammar, "parse", lambda text: original(text)[:1])
    assert is_unknown(classify("select 1; select 2"))


def test_an_effect_only_sqlglot_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "read", lambda sql: Reading((), True, False))
    assert is_unknown(classify("select 1"))
    assert is_unknown(classify("update t set a = 1 where b = 2"))
    monkeypatch.setattr(meaning, "read", lambda sql: Reading((), False, True))
    assert is_unknown(classify("select 1"))
    assert classify("update t set a = 1 where b = 2").classes == ("write",)


def test_sqlglots_failure_is_no_disagreement_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meaning, "read", lambda sql: None)
    found = classify("select * from t")
    assert not found.privileged
    assert found.statements[0].relations == ("t",)
    assert found.reasons == ("relations are the grammar's alone: sqlglot does not read this statement",)


@pytest.mark.parametrize("error", [TypeError, AttributeError, RecursionError, ValueError, KeyError])
def test_sqlglots_own_bugs_are_its_own(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def parse(*_: object, **__: object) -> None:
        raise error("secret")

    monkeypatch.setattr(meaning.sqlglot, "parse", parse)
    assert not classify("select * from t").privileged


def test_sqlglot_never_sees_the_clients_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def read(sql: str) -> None:
        seen.append(sql)

    monkeypatch.setattr(meaning, "read", read)
    classify("SELECT  $1::int,$2::int, pg_read_file('x') --$1::int,$")
    assert seen == ["SELECT $1::int, $2::int, pg_read_file('x')"]


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, AssertionError])
def test_any_failure_is_unknown_and_quotes_nothing(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def scan(text: bytes) -> lexer.Scan:
        raise error("hunter2")

    monkeypatch.setattr(lexer, "scan", scan)
    found = classify("select 'hunter2'")
    assert is_unknown(found)
    assert "hunter2" not in repr(found)


def test_unreadable_trees_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(raw: bytes) -> object:
        raise RecursionError

    monkeypatch.setattr(grammar.json, "loads", loads)
    assert is_unknown(classify("select 1"))
