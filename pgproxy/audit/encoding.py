"""An audit entry as a row of `audit.entries`: columns for the filters, the rest as jsonb.

PostgreSQL text holds neither NUL nor half a surrogate pair (which is how Python shows bytes that were no
UTF-8), and jsonb refuses both ("JSON Types"). Evidence must not be lost to that, nor look like something
else. So a string holding them is stored escaped, reversibly: `\\` becomes `\\\\`, and such a character
becomes `\\u` and four hex digits; the entry's field `escaped` then names the top-level fields where that was
done, and is absent otherwise.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from os import urandom
from typing import Any, NamedTuple
from uuid import UUID

from pgproxy.records import FIELDS, Entry

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TO_ESCAPE = re.compile(r"[\x00\ud800-\udfff\\]")
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Row(NamedTuple):
    """In the order of the insert's parameters."""

    entry_id: UUID
    node: str
    time: datetime
    kind: str
    statement_id: str | None
    session_id: str | None
    agent: str | None
    decision: str | None
    classes: str  # comma-separated: names of a closed set
    sql: str | None
    size_bytes: int
    body: str


def new_entry_id() -> UUID:
    """Time-ordered (as UUID version 7), so that its index grows at one end."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(urandom(10))
    return UUID(int=number & ~(0xF << 76) & ~(0x3 << 62) | 7 << 76 | 2 << 62)


def encode(entry: Entry, *, entry_id: UUID, node: str) -> Row:
    """`time` and `kind` must be there, other fields may be absent (null then); any text is fine.

    Raises ValueError or TypeError for what is no JSON (a bug of the caller).
    """
    sql: str | None = entry.get("sql")
    body = _body(entry)
    if not (_is_storable(sql) and _is_storable(body) and "\\u0000" not in body):
        entry = _escaped(entry)
        sql = entry.get("sql")
        body = _body(entry)
    return Row(
        entry_id,
        node,
        datetime.fromisoformat(entry["time"]),
        entry["kind"],
        entry.get("statement_id"),
        entry.get("session_id"),
        entry.get("agent"),
        entry.get("decision"),
        ",".join(entry.get("classes") or ()),
        sql,
        len(body) + (len(sql) if sql is not None else 0),
        body,
    )


def decode(body: dict[str, Any], *, seq: int, node: str, sql: str | None) -> Entry:
    """The entry as readers get it, in the contract's order (jsonb keeps none)."""
    entry = {**dict.fromkeys(FIELDS), **body, "seq": seq, "node": node, "sql": sql}
    entry["classes"] = entry["classes"] or []
    entry["reviewers"] = entry["reviewers"] or []
    return entry


def _body(entry: Entry) -> str:
    return _dumps({**entry, "sql": None, "seq": None, "node": None})


def _is_storable(text: str | None) -> bool:
    return text is None or ("\x00" not in text and (text.isascii() or _UNSTORABLE.search(text) is None))


def _escaped(entry: Entry) -> Entry:
    escaped: list[str] = []
    result: Entry = {}
    for name, value in entry.items():
        if _holds_unstorable(value):
            escaped.append(name)
            value = _escape(value)
        result[name] = value
    if escaped:
        result["escaped"] = escaped
    return result


def _holds_unstorable(value: Any) -> bool:
    match value:
        case str():
            return _UNSTORABLE.search(value) is not None
        case dict():
            return any(_holds_unstorable(k) or _holds_unstorable(v) for k, v in value.items())
        case list() | tuple():
            return any(map(_holds_unstorable, value))
        case _:
            return False


def _escape(value: Any) -> Any:
    match value:
        case str():
            return _TO_ESCAPE.sub(lambda found: "\\\\" if found[0] == "\\" else f"\\u{ord(found[0]):04x}", value)
        case dict():
            return {_escape(k): _escape(v) for k, v in value.items()}
        case list() | tuple():
            return [_escape(item) for item in value]
        case _:
            return value
