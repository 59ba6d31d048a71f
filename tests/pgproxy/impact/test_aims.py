"""What a text names, and which part of it EXPLAIN may be given."""

from __future__ import annotations

import pytest

from pgproxy.impact import aims
from pgproxy.impact.aims import Name, Unreadable


@pytest.mark.parametrize(
    ("sql", "plannable"),
    [
        ("SELECT 1 -- ; DROP TABLE a", "SELECT 1"),
        ("COPY (SELECT ')' FROM a WHERE (b)) TO STDOUT (FORMAT csv)", "SELECT ')' FROM a WHERE (b)"),
        ("COPY (SELECT " + "(" * 90 + "1" + ")" * 90 + ") TO STDOUT", "SELECT " + "(" * 90 + "1" + ")" * 90),
        ("COPY a TO STDOUT", None),
        ("EXPLAIN (ANALYZE, FORMAT json) DELETE FROM a", "DELETE FROM a"),
        ("EXPLAIN ANALYZE VERBOSE (SELECT 1)", "(SELECT 1)"),
        ("EXPLAIN EXECUTE p", None),
        ("DECLARE c CURSOR FOR SELECT 1", "DECLARE c CURSOR FOR SELECT 1"),
        ("PREPARE p AS SELECT 1", None),
        ("DROP TABLE a", None),
    ],
)
def test_what_can_be_planned(sql: str, plannable: str | None) -> None:
    (aim,) = aims.read(sql)
    assert aim.plannable == plannable


def test_names_are_the_grammars() -> None:
    (aim,) = aims.read(
        'WITH c AS (SELECT 1) SELECT f(x), u.g, A.h(1)::"T" FROM c, "A.b"."C", b AS u'
        " WHERE x OPERATOR(s.===) $2 FOR UPDATE OF u"
    )
    assert aim.relations == (Name(None, "c"), Name("A.b", "C"), Name(None, "b"))
    assert aim.common == {"c"}
    assert set(aim.functions) == {Name(None, "f"), Name("a", "h")}
    assert aim.types == (Name(None, "T"),)
    assert (aim.operators, aim.fields, aim.parameters) == ({"==="}, {"g"}, 2)
    assert aim.relations[1].text == '"A.b"."C"'


def test_what_a_prepared_name_stands_for_is_read_instead() -> None:
    (aim,) = aims.read("EXECUTE p(1)", {"p": "DELETE FROM a WHERE b = $1", "q": "SELECT 1"})
    assert (aim.kind, aim.relations, aim.parameters) == ("DeleteStmt", (Name(None, "a"),), 1)
    (unknown,) = aims.read("EXECUTE r", {"p": "SELECT 1"})
    assert unknown.kind == "ExecuteStmt"


@pytest.mark.parametrize("sql", ["\ud800", "SELECT 'a", "SELEC", "SELECT " + "(" * 5000, "SELECT '" + "x" * 9000 + "'"])
def test_what_cannot_be_read_is_said(sql: str) -> None:
    with pytest.raises(Unreadable):
        aims.read(sql)
