"""A request as an Adaptive Card. Pure.

TextBlocks read a subset of Markdown, so what an agent wrote stands in TextRuns, which do not ("RichTextBlock").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from approvals.notify.content import Content

SQL_LIMIT = 6000
"""Characters of a statement, where they fit into the message's bytes."""

MAX_BYTES = 26_000
"""Teams takes 28 KB a message ("Limits and specifications")."""

_LIMITS = (SQL_LIMIT, 3000, 1000, 250, 50)

CONTENT_TYPE = "application/vnd.microsoft.card.adaptive"
VERB = "pgproxy.decide"


def card(content: Content, *, deciding: bool) -> dict[str, Any]:
    """`deciding`: with buttons, where a bot answers them; the link to the console is always there."""
    body: list[dict[str, Any]] = [
        _rich([_run(content.title, weight="Bolder", size="Large")]),
        *(_rich([_run(f"{name}: ", weight="Bolder"), _run(value)]) for name, value in content.fields),
        _code(content.sql),
    ]
    if content.params:
        body += [_rich([_run("Parameters", weight="Bolder")]), _code("\n".join(content.params))]
    if content.original is not None:
        body += [_rich([_run("The agent's own statement was", weight="Bolder")]), _code(content.original)]
    if content.brief:
        body.append(_code("\n".join(content.brief)))
    if content.cut is not None:
        body.append(_rich([_run(content.cut, weight="Bolder")]))
    body += [_rich([_run(f"sha256 {content.sha256}")]), _rich([_run(content.status)])]
    actions: list[dict[str, Any]] = []
    if deciding and content.actions:
        body.append({"type": "Input.Text", "id": "comment", "label": "Comment", "isMultiline": True, "maxLength": 2000})
        for action in content.actions:
            data = {"id": content.approval_id, "sha256": content.sha256, "decision": action}
            style = "positive" if action == "approve" else "destructive"
            actions.append(
                {"type": "Action.Execute", "title": action.capitalize(), "verb": VERB, "data": data, "style": style}
            )
    actions.append({"type": "Action.OpenUrl", "title": "Open console", "url": content.link})
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "actions": actions,
        "msteams": {"width": "Full"},
    }


def fitting(content_within: Callable[[int], Content], *, deciding: bool) -> dict[str, Any]:
    """The card with as much of the statement as Teams takes; what is missing then, it says."""
    for limit in _LIMITS:
        found = card(content_within(limit), deciding=deciding)
        if len(encode(attachment(found))) <= MAX_BYTES:
            break
    return found


def encode(document: dict[str, Any]) -> bytes:
    """UTF-8, for bytes count. Texts that came through `display.escape` have no lone surrogates."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def attachment(found: dict[str, Any]) -> dict[str, Any]:
    """A message that is one card."""
    return {"type": "message", "attachments": [{"contentType": CONTENT_TYPE, "contentUrl": None, "content": found}]}


def _code(text: str) -> dict[str, Any]:
    return _rich([_run(text or " ", fontType="Monospace")])


def _rich(inlines: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": inlines}


def _run(text: str, **style: str) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **style}
