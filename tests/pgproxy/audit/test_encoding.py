"""Any text survives, reversibly, and an entry comes back as it went in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgproxy import records
from pgproxy.audit import encoding


def row_of(entry: records.Entry) -> encoding.Row:
    return encoding.encode(entry, entry_id=encoding.new_entry_id(), node="n1")


def unescape(text: str) -> str:
    return re.sub(r"\\(\\|u([0-9a-f]{4}))", lambda found: chr(int(found[2], 16)) if found[2] else "\\", text)


def blank(**changes: Any) -> records.Entry:
    entry: records.Entry = dict.fromkeys(records.FIELDS)
    entry |= {"time": "2026-03-01T12:00:00.000005Z", "kind": "statement", "classes": ["read"], **changes}
    return entry


def test_an_entry_comes_back_as_it_went_in(statement: Callable[..., records.Entry]) -> None:
    entry = statement(params=[{"type": "int4", "value": None}], classes=("read", "write"))
    row = row_of(entry)
    assert row.classes == "read,write"
    assert row.size_bytes >= len(row.body)
    back = encoding.decode(json.loads(row.body), seq=7, node="n1", sql=row.sql)
    assert back == {**entry, "seq": 7, "node": "n1"}
    assert list(back) == list(records.FIELDS)


def test_the_body_does_not_hold_the_statement_twice(statement: Callable[..., records.Entry]) -> None:
    assert "needle" not in row_of(statement(sql="needle")).body


any_text = st.text(st.characters(exclude_categories=()), max_size=40)


@given(any_text, any_text)
def test_any_text_can_be_stored_and_read_back(sql: str, value: str) -> None:
    row = row_of(blank(sql=sql, params=[{"type": "text", "value": value}]))
    for text in (row.sql or "", row.body):
        assert "\x00" not in text
        text.encode()  # no lone surrogate
    body = json.loads(row.body)
    stored = body["params"][0]["value"]
    assert "\x00" not in stored
    escaped = body.get("escaped", [])
    assert (unescape(row.sql or "") if "sql" in escaped else row.sql) == sql
    assert (unescape(stored) if "params" in escaped else stored) == value


def test_ordinary_text_is_not_escaped() -> None:
    row = row_of(blank(sql=r"select '\x00 \ud800 é'", reason="\\u0000"))
    assert row.sql == r"select '\x00 \ud800 é'"
    assert "escaped" not in json.loads(row.body)


def test_entry_ids_are_version_7_and_grow() -> None:
    ids = [encoding.new_entry_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {entry_id.version for entry_id in ids} == {7}
    assert {entry_id.variant for entry_id in ids} == {"specified in RFC 4122"}
    times = [entry_id.int >> 80 for entry_id in ids]
    assert times == sorted(times)


def test_absent_fields_are_null_and_lists_are_lists() -> None:
    row = row_of({"kind": "session_start", "time": "2026-03-01T12:00:00.000005Z", "detail": "x"})
    back = encoding.decode(json.loads(row.body), seq=1, node="n1", sql=row.sql)
    assert list(back) == [*records.FIELDS, "detail"]
    assert (back["agent"], back["sql"], back["classes"], back["reviewers"]) == (None, None, [], [])
