"""What a reviewer changed, line by line, as rows for a table: both sides with their line numbers."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from approvals.display import MAX_COMPARED_LINES


@dataclass(frozen=True, slots=True)
class Row:
    """`kind`: `same`, `removed`, `added`, or `changed` where both sides stand beside each other."""

    kind: str
    left_number: int | None
    left: str | None
    right_number: int | None
    right: str | None


def rows(before: str, after: str) -> list[Row] | None:
    """None for texts too long to be compared: it takes the square of their lines."""
    left, right = before.split("\n"), after.split("\n")
    if len(left) + len(right) > MAX_COMPARED_LINES:
        return None
    found: list[Row] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for offset in range(max(i2 - i1, j2 - j1)):
            i, j = i1 + offset, j1 + offset
            has_left, has_right = i < i2, j < j2
            kind = "same" if tag == "equal" else "changed" if has_left and has_right else ""
            found.append(
                Row(
                    kind or ("removed" if has_left else "added"),
                    i + 1 if has_left else None,
                    left[i] if has_left else None,
                    j + 1 if has_right else None,
                    right[j] if has_right else None,
                )
            )
    return found


def unified(found: list[Row]) -> list[tuple[str, str]]:
    """The same as lines with their sign: of a changed block first what went, then what came."""
    lines: list[tuple[str, str]] = []
    came: list[tuple[str, str]] = []
    for row in found:
        if row.kind == "same":
            lines += [*came, (" ", row.left or "")]
            came = []
            continue
        if row.left is not None:
            lines.append(("-", row.left))
        if row.right is not None:
            came.append(("+", row.right))
    return lines + came
