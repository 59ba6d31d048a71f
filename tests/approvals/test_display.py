"""Hostile text on a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest

from approvals.display import block, describe, escape, lookalikes, summary

HOSTILE = "".join(map(chr, [0, 7, 8, 9, 13, 0x1B, 0x7F, 0x85, 0x9B, 0xA0, 0xAD, 0x61C, 0x115F, 0x180E]))
HOSTILE += "".join(map(chr, [0x200B, 0x200D, 0x200E, 0x202E, 0x2028, 0x2029, 0x2066, 0x2800, 0x3000, 0x3164, 0xFE0F]))
HOSTILE += "".join(map(chr, [0xFEFF, 0xD800, 0xE000, 0xFFFF, 0xE0041, 0xE0100]))


@pytest.mark.parametrize("char", HOSTILE)
def test_every_hidden_character_is_named(char: str) -> None:
    assert escape(f"a{char}b") == f"a\u27e6U+{ord(char):04X}\u27e7b"


def test_what_looks_like_an_escape_is_one() -> None:
    typed = "\u27e6U+202E\u27e7"
    assert escape(typed) != typed
    assert escape(typed) == "\u27e6U+27E6\u27e7U+202E\u27e6U+27E7\u27e7"


def test_plain_text_is_left_alone() -> None:
    text = "SELECT 'zoë', '日本' FROM \"t\" -- ~!@#$%^&*()"
    assert escape(text) == text


def test_no_line_of_a_statement_can_pass_for_ours() -> None:
    assert block("SELECT 1\nrule      none\r\n") == [
        "  | SELECT 1",
        "  | rule      none\u27e6U+000D\u27e7",
        "  | ",
    ]


def test_lookalikes_are_named() -> None:
    (line,) = lookalikes("SELECT * FROM p\u0430yments")
    assert "CYRILLIC SMALL LETTER A (U+0430" in line
    assert lookalikes("SELECT '€'") == []
    assert lookalikes("".join(map(chr, range(0x430, 0x450))))[-1] == "and 12 other characters beyond ASCII"


def hostile_approval() -> dict[str, object]:
    text = f"x\x1b[2J\n\u202e{HOSTILE}"
    return {
        "id": text,
        "status": text,
        "requester": dict.fromkeys(("agent", "owner", "db_user", "reason", "ticket", "application_name"), text)
        | {"context": {"k": text}},
        "statement": {"sql": text, "sha256": text, "params": [{"type": text, "value": text}]},
        "classification": {
            "statements": [{"actions": [{"class": text, "verb": text, "object": text}], "reasons": [text]}]
        },
        "decisions": [{"reviewer": text, "decision": text, "comment": text, "at": text}],
        "comments": [{"reviewer": text, "text": text, "at": text}],
        "outcome": {"command_tag": text, text: text},
        "risk": text,
        "rule": text,
    }


def test_no_field_brings_a_hidden_character_to_the_terminal() -> None:
    lines = [*describe(hostile_approval()), summary(hostile_approval())]
    for line in lines:
        assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert not [line for line in lines if re.match("\u202e", line)]


def test_nothing_of_a_long_statement_is_left_out() -> None:
    sql = "\n".join(f"SELECT {number}" for number in range(5000)) + "; DROP TABLE t"
    lines = describe({"statement": {"sql": sql}})
    assert "  | SELECT 4999; DROP TABLE t" in lines
    assert summary({"statement": {"sql": sql}}).endswith(" …")


def test_an_object_with_nothing_in_it_is_shown_too() -> None:
    assert describe({})
    assert summary({"decisions": None, "requester": "x"})
