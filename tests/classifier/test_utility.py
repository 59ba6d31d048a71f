"""Utility statements: what their content adds to their kind."""

from __future__ import annotations

import pytest

from classifier import classify


def found(sql: str) -> set[tuple[str, str]]:
    return {(str(a.cls), a.verb) for s in classify(sql).statements for a in s.actions}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("COPY t TO STDOUT", {("export", "copy_to_stdout")}),
        ("COPY t FROM PROGRAM 'x'", {("file", "copy_from_program"), ("import", "copy_from_program")}),
        ("ALTER ROLE a RENAME TO b", {("role", "alter_role")}),
        ("ALTER TABLE a RENAME TO b", {("ddl", "rename")}),
        ("ALTER TABLE t OWNER TO x", {("ddl", "alter_table"), ("grant", "change_owner")}),
        (
            "ALTER FOREIGN TABLE t OPTIONS (SET filename 'x')",
            {("ddl", "alter_foreign_table"), ("file", "alter_foreign_table")},
        ),
        ("ALTER FOREIGN TABLE t OPTIONS (DROP header)", {("ddl", "alter_foreign_table")}),
        ("VACUUM (FULL false) t", {("read", "vacuum")}),
        ("VACUUM (FULL 1) t", {("maintenance", "vacuum_full")}),
        ("DISCARD ALL", {("read", "discard")}),
        ("COMMIT PREPARED 'x'", {("transaction", "commit_prepared")}),
        ("REASSIGN OWNED BY a TO b", {("grant", "reassign_owned")}),
        ("DROP TABLE pg_temp.a", {("ddl", "temp_drop")}),
    ],
)
def test_actions_of(sql: str, expected: set[tuple[str, str]]) -> None:
    assert found(sql) == expected


@pytest.mark.parametrize(
    ("sql", "cursor", "holds"),
    [
        ("DECLARE c CURSOR FOR SELECT 1", "c", False),
        ('DECLARE "C d" BINARY SCROLL CURSOR WITH HOLD FOR SELECT 1', "C d", True),
        ("FETCH 5 FROM C", "c", False),
        ("MOVE ALL c", "c", False),
        ("CLOSE c", "c", False),
        ("CLOSE ALL", "", False),
        ("EXPLAIN DECLARE c CURSOR FOR SELECT 1", None, False),  # makes no cursor
        ("SELECT 1", None, False),
    ],
)
def test_the_cursor_a_statement_is_about(sql: str, cursor: str | None, holds: bool) -> None:
    (statement,) = classify(sql).statements
    assert (statement.cursor, statement.cursor_holds) == (cursor, holds)
    assert "cursor" not in str(classify(sql).to_dict()["statements"][0].keys())
