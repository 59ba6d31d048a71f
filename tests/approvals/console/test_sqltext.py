"""The colours follow PostgreSQL's lexical rules, and every character of a text is on the page."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.console.sqltext import highlight, tokens, visible
from approvals.display import is_shown


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        # What the server runs although it looks commented out or quoted, and the other way round.
        ("/* a /* b */ DROP TABLE t */ SELECT 1", "SELECT 1"),
        ("-- a\nDROP TABLE t", "DROP TABLE t"),
        ("SELECT E'\\'' , DROP --'", "SELECT , DROP"),
        ("SELECT '\\' , DROP --'", "SELECT , DROP"),
        ("SELECT $a$ $b$ DROP $b$ $a$ , GRANT", "SELECT , GRANT"),
        ("SELECT a$b$ , DROP $b$ x $b$", "SELECT a$b$ , DROP"),
        ('SELECT "drop ""table" FROM x', "SELECT FROM x"),
        ("SELECT 'unfinished DROP", "SELECT"),
        ("/* unfinished DROP", ""),
        ("-- a\rDROP TABLE t", "DROP TABLE t"),
        ("SELECT $1 , $$DROP$$", "SELECT ,"),
    ],
)
def test_what_is_code_and_what_is_not(sql: str, code: str) -> None:
    seen = [text for kind, text in tokens(sql) if kind in ("keyword", "name", "number", "rest")]
    assert " ".join("".join(seen).split()) == code


@given(st.text(alphabet=st.sampled_from("ab'\"$\\/*-\n eE1.;\u202e\u0430é<&")))
def test_nothing_is_lost_or_hidden(text: str) -> None:
    assert "".join(part for _, part in tokens(text)) == text
    shown = html.unescape(re.sub(r"<[^>]*>", "", str(highlight(text))))
    assert shown == "".join(each if is_shown(each) or each == "\n" else f"⟦U+{ord(each):04X}⟧" for each in text)
    assert shown == html.unescape(re.sub(r"<[^>]*>", "", str(visible(text))))


@pytest.mark.parametrize("text", ["'" * 100_001, "/*" * 50_000, "E'\\" * 40_000, "$a" * 60_000, '"' * 99_999])
def test_hostile_texts_take_linear_time(text: str) -> None:
    assert sum(len(part) for _, part in tokens(text)) == len(text)


def test_letters_of_other_scripts_in_a_word() -> None:
    assert 'class="mixed" title="U+0430' in visible("c\u0430rol")
    assert 'class="far" title="U+0430' in visible("\u0430\u0431")
    assert 'class="far" title="U+00E9' in visible("café")
