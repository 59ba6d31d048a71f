"""What a modification changed, line by line."""

from __future__ import annotations

from approvals.console.differences import rows, unified
from approvals.display import MAX_COMPARED_LINES


def test_both_forms_of_a_difference() -> None:
    found = rows("a\nb\nc\nd", "a\nB\nX\nc")
    assert found is not None
    assert [(row.kind, row.left_number, row.left, row.right_number, row.right) for row in found] == [
        ("same", 1, "a", 1, "a"),
        ("changed", 2, "b", 2, "B"),
        ("added", None, None, 3, "X"),
        ("same", 3, "c", 4, "c"),
        ("removed", 4, "d", None, None),
    ]
    lines = unified(found)
    assert lines == [(" ", "a"), ("-", "b"), ("+", "B"), ("+", "X"), (" ", "c"), ("-", "d")]
    assert [text for sign, text in lines if sign != "+"] == ["a", "b", "c", "d"]
    assert [text for sign, text in lines if sign != "-"] == ["a", "B", "X", "c"]


def test_what_is_too_long_is_not_compared() -> None:
    assert rows("a\n" * MAX_COMPARED_LINES, "b") is None
