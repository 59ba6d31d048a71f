"""Nothing of an agent's words acts on the terminal, and nothing of them is missing unsaid."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgproxy import records
from pgproxy.audit.lines import escape, line

Statement = Callable[..., records.Entry]
LATER = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("select 'é 漢字 🐘'", "select 'é 漢字 🐘'"),
        ("a\nb\tc", "a␊b␉c"),
        ("\x1b[2J", "⟦U+001B⟧[2J"),
        ("a\u202eb", "a⟦U+202E⟧b"),
        ("a\u200bb\ufeff", "a⟦U+200B⟧b⟦U+FEFF⟧"),
        ("a\u2028b\x85\r", "a⟦U+2028⟧b⟦U+0085⟧⟦U+000D⟧"),
        ("\u00a0", "⟦U+00A0⟧"),
        ("\ud800", "⟦U+D800⟧"),
        ("\u3164x\ufe0f", "⟦U+3164⟧x⟦U+FE0F⟧"),
        ("⟦U+202E⟧␊", "⟦U+27E6⟧U+202E⟦U+27E7⟧⟦U+240A⟧"),
    ],
)
def test_what_is_not_plainly_visible_is_named(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_is_one_printable_line(text: str) -> None:
    shown = escape(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


def test_a_statement_is_one_line_and_whole(statement: Statement) -> None:
    sql = "select 1,\n" + "x" * 5000
    entry = statement(1, sql=sql, classes=("read", "export"), decision=records.Decision.APPROVED)
    entry["outcome"] = records.Outcome("SELECT 3", 3).to_dict()
    assert line(entry) == (
        "2026-03-01T12:00:00.000000Z  etl-bot  approved  read,export  SELECT 3 rows=3  select 1,␊" + "x" * 5000
    )


def test_short_says_how_much_is_missing(statement: Statement) -> None:
    assert line(statement(1, sql="x" * 200), short=True).endswith("x" * 120 + " ⟦80 more characters⟧")
    assert line(statement(1, sql="x" * 120), short=True).endswith("  " + "x" * 120)


def test_other_kinds_name_what_they_are(statement: Statement) -> None:
    late = records.outcome_entry(statement(4), time=LATER, outcome=records.Outcome(sqlstate="40001"))
    assert line(late).endswith("etl-bot  outcome allowed  read  40001  statement_id=st-4")
    config = records.config_entry(time=LATER, event="reload")
    assert line(config) == "2026-03-01T12:01:00.000000Z  -  config reload  -  -"


def test_every_field_is_escaped(statement: Statement) -> None:
    evil = "\x1b[31m"
    entry = statement(1, sql=evil, classes=(evil,))
    entry |= {"agent": evil, "time": evil, "decision": evil, "outcome": {"command_tag": evil, "rows": 1}}
    assert "\x1b" not in line(entry)
    assert line(entry).count("⟦U+001B⟧") == 6
