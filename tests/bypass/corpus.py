"""Reads the corpora: `== head` opens an entry, the lines up to the next head are the statement."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def entries(name: str) -> list[tuple[str, str]]:
    """Head and statement of every entry."""
    found: list[tuple[str, list[str]]] = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            found.append((line[3:].strip(), []))
        elif found:
            found[-1][1].append(line)
        else:
            assert not line or line.startswith("#"), f"{name}: text before the first entry"
    return [(head, "\n".join(lines).strip("\n")) for head, lines in found]


def must_park() -> list[tuple[tuple[str, ...], str, str]]:
    """Expected classes, story and statement."""
    rows = []
    for head, sql in entries("must_park.txt"):
        classes, _, story = head.partition(" | ")
        rows.append((tuple(c.strip() for c in classes.split(",")), story, sql))
    return rows


def must_not_park() -> list[tuple[str, str]]:
    """Story and statement, both the written and the recorded ones."""
    return entries("must_not_park.txt") + entries("must_not_park_recorded.txt")
