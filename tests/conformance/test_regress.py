"""The comparison with the server's own words can fail, and says of what."""

from __future__ import annotations

from tests.conformance.oracle import Seen, statement_of
from tests.conformance.regress import Report, compare, verdict


def seen(*own: tuple[str, str], inside: tuple[tuple[str, str], ...] = ()) -> Seen:
    return Seen(texts=1, own=set(own), inside=set(inside))


def report_of(text: str, facts: Seen, ddl: set[str] | None = None, pretend: str | None = None) -> Report:
    return compare({text: facts}, ddl or set(), set(), {text: verdict(pretend or text)})


def test_a_definition_classified_as_a_read_is_a_miss() -> None:
    text = "DROP TABLE t"
    assert not report_of(text, seen(("DDL", "DROP TABLE"))).misses
    assert report_of(text, seen(("DDL", "DROP TABLE")), pretend="SELECT 1").misses
    assert report_of(text, seen(), ddl={text}, pretend="SELECT 1").misses
    assert report_of(text, seen(("ROLE", "GRANT")), pretend="SELECT 1").misses


def test_what_happens_only_inside_is_told_apart() -> None:
    report = report_of("INSERT INTO t VALUES (1)", seen(("WRITE", "INSERT"), inside=(("DDL", "CREATE TABLE"),)))
    assert not report.misses
    assert report.inside == [("CREATE TABLE", "INSERT INTO t VALUES (1)")]


def test_a_stopped_read_is_a_false_stop_unless_there_is_an_excuse() -> None:
    read = seen(("READ", "SELECT"))
    assert report_of("SELECT 1", read, pretend="DROP TABLE t").stops
    assert report_of("SELECT 1", read, pretend="LOCK t").stops
    assert not report_of("SELECT frobnicate()", read).stops
    assert report_of("SELECT frobnicate()", read).excused
    assert report_of("SELECT 1", read).plain == 1
    assert not report_of("DELETE FROM t", seen(("WRITE", "DELETE"))).stops


def test_texts_are_taken_from_simple_and_extended_queries() -> None:
    assert statement_of("statement: SELECT 1") == "SELECT 1"
    assert statement_of("execute <unnamed>: SELECT ': '") == "SELECT ': '"
    assert statement_of("duration: 5 ms") is None
