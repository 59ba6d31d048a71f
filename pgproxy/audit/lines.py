"""An entry as one line for a person at a terminal, with nothing in it that the terminal would act on.

Statements, names and reasons are an agent's words. Escape sequences could rewrite what is on the screen,
bidirectional controls could reorder it ("Trojan Source"), a line end could make up an entry that never was. So
whatever is not plainly visible is shown as `⟦U+202E⟧`; line ends and tabs, being frequent, as `␊` and `␉`.
The signs used for that are escaped themselves, so that what looks like an escape is one.
"""

from __future__ import annotations

import unicodedata
from typing import Any

_SHOWN_AS = {"\n": "\N{SYMBOL FOR LINE FEED}", "\t": "\N{SYMBOL FOR HORIZONTAL TABULATION}"}
_OPEN, _CLOSE = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}", "\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
_OURS = frozenset([*_SHOWN_AS.values(), _OPEN, _CLOSE])
# Visible by category, invisible on the screen: fillers, blank Braille, variation selectors, the grapheme joiner.
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
SHORT_CHARACTERS = 120


def escape(text: str) -> str:
    """On one line, every character visible or named."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in _SHOWN_AS:
        return _SHOWN_AS[character]
    # isprintable: not Other (controls, formats, surrogates, private, unassigned) nor Separator but the space
    if character.isprintable() and character not in _OURS and not _is_blank(character):
        return character
    return f"{_OPEN}U+{ord(character):04X}{_CLOSE}"


def _is_blank(character: str) -> bool:
    return character in _BLANK_LETTERS or "VARIATION SELECTOR" in unicodedata.name(character, "")


def line(entry: dict[str, Any], *, short: bool = False) -> str:
    """Time, agent, decision (or what else it is), classes, result, and the statement or what was said."""
    parts = [
        _text(entry.get("time")),
        _text(entry.get("agent")),
        _what(entry),
        escape(",".join(map(str, entry.get("classes") or ()))) or "-",
        _result(entry),
        _said(entry, short),
    ]
    return "  ".join(part for part in parts if part)


def _what(entry: dict[str, Any]) -> str:
    if entry.get("kind") == "statement":
        return _text(entry.get("decision"))
    words = [entry.get("kind"), entry.get("event"), entry.get("decision")]
    return escape(" ".join(str(word) for word in words if word))


def _result(entry: dict[str, Any]) -> str:
    outcome = entry.get("outcome")
    if not isinstance(outcome, dict):
        return "-"
    words = [outcome.get("command_tag"), outcome.get("sqlstate"), outcome.get("transaction")]
    if outcome.get("rows") is not None:
        words.insert(1, f"rows={outcome['rows']}")
    return escape(" ".join(str(word) for word in words if word)) or "-"


def _said(entry: dict[str, Any], short: bool) -> str:
    sql = entry.get("sql")
    if sql is None:
        named = ("statement_id", "approval_id", "session_id")
        return next((f"{name}={escape(str(entry[name]))}" for name in named if entry.get(name)), "")
    shown = escape(str(sql)[:SHORT_CHARACTERS] if short else str(sql))
    left_out = len(str(sql)) - SHORT_CHARACTERS
    return f"{shown} {_OPEN}{left_out} more characters{_CLOSE}" if short and left_out > 0 else shown


def _text(value: Any) -> str:
    return "-" if value is None or value == "" else escape(str(value))
