"""What an agent says about itself inside its statements: `SET pgproxy.reason = '…'` and sqlcommenter comments.

Shown to reviewers and kept as evidence; nothing is ever authorised by it, so a plain reading is enough: what does not
look exactly like one of the two forms says nothing.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from pgproxy.session.ports import Requester

KEYS = frozenset({"reason", "ticket", "context", "wait"})
_MAX_CHARACTERS = 8192

_SET = re.compile(
    r"\s*SET\s+(?:SESSION\s+)?pgproxy\.(?P<key>[a-z_]+)\s*(?:=|\s+TO\s+)\s*'(?P<value>(?:[^']|'')*)'\s*;?\s*\Z",
    re.IGNORECASE,
)
# https://google.github.io/sqlcommenter/spec/: key='url-encoded value' pairs in one comment at the very end
_COMMENT = re.compile(r"/\*(?P<pairs>[^*]{1,4096})\*/\s*;?\s*\Z")
_PAIR = re.compile(r"\s*(?P<key>[^=',\s]{1,64})='(?P<value>(?:[^'\\]|\\.)*)'\s*(?:,|\Z)")


def said_by_set(text: str) -> tuple[str, str] | None:
    """Key and value when the text is one `SET pgproxy.key = 'value'`."""
    if len(text) > _MAX_CHARACTERS or "pgproxy" not in text.lower():
        return None
    match = _SET.match(text)
    if match is None or match["key"].lower() not in KEYS:
        return None
    return match["key"].lower(), match["value"].replace("''", "'")


def said_by_comment(text: str) -> dict[str, str]:
    """`reason` and `ticket` of a trailing sqlcommenter comment; empty when there is none, or when any part of it is
    not of that form."""
    tail = text[-_MAX_CHARACTERS:]
    start = tail.rfind("/*")
    match = _COMMENT.match(tail, start) if start >= 0 else None
    if match is None:
        return {}
    said: dict[str, str] = {}
    pairs, position = match["pairs"], 0
    while position < len(pairs):
        pair = _PAIR.match(pairs, position)
        if pair is None:
            return {}
        key = unquote(pair["key"])
        if key in ("reason", "ticket"):
            said[key] = unquote(pair["value"].replace("\\'", "'"))
        position = pair.end()
    return said


def told(requester: Requester, key: str, value: str) -> Requester:
    """The requester with what it now says; an empty text takes it back. Kept even if the SET is rolled back: it is
    what was said last."""
    match key:
        case "reason":
            return replace(requester, reason=value or None)
        case "ticket":
            return replace(requester, ticket=value or None)
        case _:
            return replace(requester, context=read_context(value))


def read_context(text: str | None) -> Any:
    """`pgproxy.context`, decoded when it is JSON."""
    if not text:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
