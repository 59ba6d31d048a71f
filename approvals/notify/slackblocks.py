"""A request as Slack's Block Kit. Pure.

What an agent wrote stands in the text elements of `rich_text` blocks only, where Slack reads no markup: no mention, no
link, no end of a code block. `mrkdwn` is not used; the one text that Slack does read, the notification's, is escaped.
"""

from __future__ import annotations

import json
from typing import Any

from approvals.display import escape
from approvals.notify.content import Content

SQL_LIMIT = 8000
"""Characters of a statement. Slack refuses messages that get too long, and says no exact limit for all blocks."""

_CHUNK = 2800
_HEADER = 150
CALLBACK = "pgproxy_decision"


def escape_mrkdwn(text: str) -> str:
    """For the only places where Slack reads markup: its control characters as entities ("Formatting text for app
    surfaces"), and nothing that begins formatting."""
    safe = escape(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return safe.translate({ord(char): f"{char}\N{ZERO WIDTH SPACE}" for char in "`*_~@"})


def message(content: Content) -> dict[str, Any]:
    """The arguments of chat.postMessage and chat.update, without where to."""
    agent = next((value for name, value in content.fields if name == "Agent"), "")
    return {
        "text": escape_mrkdwn(f"{content.title}: {agent}, {content.approval_id}"),
        "blocks": blocks(content),
    }


def blocks(content: Content) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(content.title[:_HEADER])},
        _rich([_section([element for name, value in content.fields for element in _field(name, value)])]),
        _code(content.sql),
    ]
    if content.params:
        found.append(_rich([_section([_text("Parameters", bold=True)]), _preformatted("\n".join(content.params))]))
    if content.original is not None:
        found.append(
            _rich([_section([_text("The agent's own statement was", bold=True)]), _preformatted(content.original)])
        )
    if content.brief:
        found.append(_rich([_preformatted("\n".join(content.brief))]))
    closing = [_text(f"sha256 {content.sha256}\n"), _text(content.status)]
    if content.cut is not None:
        closing.insert(0, _text(f"{content.cut}\n", bold=True))
    found.append(_rich([_section(closing)]))
    found.append({"type": "actions", "block_id": "pgproxy", "elements": _buttons(content)})
    return found


def _buttons(content: Content) -> list[dict[str, Any]]:
    value = json.dumps({"id": content.approval_id, "sha256": content.sha256})
    names = {"approve": ("Approve", "primary"), "deny": ("Deny", "danger")}
    found: list[dict[str, Any]] = []
    for action in content.actions:
        label, style = names[action]
        confirm = {
            "title": _plain(f"{label} this statement?"),
            "text": _plain(f"{content.approval_id}, sha256 {content.sha256[:16]}…"),
            "confirm": _plain(label),
            "deny": _plain("Back"),
        }
        found.append(_button(action, label, value) | {"style": style, "confirm": confirm})
    if content.actions:
        found.append(_button("comment", "Decide with a comment…", value))
    return [*found, _button("open", "Open console", None) | {"url": content.link}]


def modal(content: Content, metadata: dict[str, str]) -> dict[str, Any]:
    """The view in which somebody decides with a comment."""
    options = [{"text": _plain(action.capitalize()), "value": action} for action in content.actions]
    return {
        "type": "modal",
        "callback_id": CALLBACK,
        "private_metadata": json.dumps(metadata),
        "title": _plain("Decide"),
        "submit": _plain("Send"),
        "close": _plain("Back"),
        "blocks": [
            _rich([_section([_text(f"{content.approval_id}\nsha256 {content.sha256}")])]),
            _code(content.sql[:_CHUNK]),
            *_modal_note(content),
            {
                "type": "input",
                "block_id": "decision",
                "label": _plain("Decision"),
                "element": {"type": "radio_buttons", "action_id": "choice", "options": options},
            },
            {
                "type": "input",
                "block_id": "comment",
                "optional": True,
                "label": _plain("Comment"),
                "element": {
                    "type": "plain_text_input",
                    "action_id": "text",
                    "multiline": True,
                    "max_length": 2000,
                },
            },
        ],
    }


def _modal_note(content: Content) -> list[dict[str, Any]]:
    if content.cut is not None:
        return [_rich([_section([_text(content.cut, bold=True)])])]
    if len(content.sql) > _CHUNK:
        return [_rich([_section([_text("This is the beginning: the message has the whole text.", bold=True)])])]
    return []


def _button(action: str, label: str, value: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "button", "action_id": action, "text": _plain(label)}
    return found if value is None else found | {"value": value}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _text(text: str, *, bold: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "text", "text": text or " "}
    return found | {"style": {"bold": True}} if bold else found


def _field(name: str, value: str) -> list[dict[str, Any]]:
    return [_text(f"{name}: ", bold=True), _text(f"{value}\n")]


def _section(elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "rich_text_section", "elements": elements}


def _preformatted(text: str) -> dict[str, Any]:
    return {"type": "rich_text_preformatted", "elements": [_text(text)]}


def _code(sql: str) -> dict[str, Any]:
    """One code block after the other: pieces of what is one text."""
    pieces = [sql[start : start + _CHUNK] for start in range(0, len(sql), _CHUNK)] or [" "]
    return _rich([_preformatted(piece) for piece in pieces])


def _rich(elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "rich_text", "elements": elements}
