"""The corpora against a real server: what the classifier calls a syntax error the server refuses as one, and the
other way about. A statement is only parsed (extended protocol, "Parse"), never executed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from classifier import classify
from pgproxy.embedded import EmbeddedServer
from tests.bypass.corpus import must_not_park, must_park

SYNTAX = {"42601", "22P02", "42939", "0A000"}


@pytest.fixture(scope="module")
def connection(embedded_server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(embedded_server.dsn, autocommit=True) as made:
        yield made


def parsed_alone(connection: psycopg.Connection, sql: str) -> tuple[str | None, bool]:
    """SQLSTATE of the server's answer to Parse, and whether it points at a position in the text."""
    result = connection.pgconn.prepare(b"", sql.encode())
    state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
    position = result.error_field(psycopg.pq.DiagnosticField.STATEMENT_POSITION)
    return (state.decode() if state else None), position is not None


@pytest.mark.parametrize(("story", "sql"), [*((s, q) for _, s, q in must_park()), *must_not_park()])
def test_server_and_grammar_agree_what_is_a_statement(connection: psycopg.Connection, story: str, sql: str) -> None:
    found = classify(sql)
    state, has_position = parsed_alone(connection, sql)
    if len(found.statements) > 1:
        assert state == "42601"  # cannot insert multiple commands into a prepared statement
        assert not has_position
    elif found.syntax_error is not None:
        assert state in SYNTAX, (state, story)
    else:
        assert state != "42601" or not has_position, story


def test_the_server_really_parsed(connection: psycopg.Connection) -> None:
    # else the test above would prove nothing
    assert parsed_alone(connection, "SELECT 1") == (None, False)
    assert parsed_alone(connection, "SELECT FROM WHERE") == ("42601", True)
    assert parsed_alone(connection, "SELECT * FROM no_such_table") == ("42P01", True)


def test_most_of_what_clients_really_send_names_what_the_server_has(connection: psycopg.Connection) -> None:
    recorded = [sql for story, sql in must_not_park() if story.startswith(("psql", "pg_dump", "JDBC", "DBeaver"))]
    states = [parsed_alone(connection, sql)[0] for sql in recorded]
    assert states.count(None) > 0.6 * len(states)
