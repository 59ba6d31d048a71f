"""What a message says of a request, before it becomes Slack's or Teams' own form. Pure.

Everything that an agent wrote goes through `display.escape`, so that hidden characters show, and the channels put it
where no markup is read. What is not shown whole says so with its hash, and cannot be approved from there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from approvals.briefing import brief
from approvals.display import escape

_FIELD = 300
_MAX_PARAMS = 20
_BRIEF = 2000


@dataclass(frozen=True, slots=True)
class Content:
    """`sql` and `params` as far as shown; `cut` says what is missing, None when nothing is. `actions`: what can be
    done in this channel."""

    title: str
    fields: tuple[tuple[str, str], ...]
    sql: str
    params: tuple[str, ...]
    cut: str | None
    status: str
    actions: tuple[str, ...]
    link: str
    approval_id: str
    sha256: str
    original: str | None = None
    brief: tuple[str, ...] = ()


def content_of(approval: dict[str, Any], channel: str, link: str, *, limit: int, escalated: bool = False) -> Content:
    """A request for people in `channel`, its statement in at most `limit` characters."""
    requester, statement = approval["requester"], approval["statement"]
    whole = escape(statement["sql"], multiline=True)
    params, params_cut = _params(statement["params"], limit // 4)
    cut = []
    if len(whole) > limit:
        cut.append(f"only {limit} of the statement's {len(whole)} characters are shown")
    if params_cut:
        cut.append("not all parameters are shown")
    note = f"CUT: {' and '.join(cut)}. sha256 {statement['sha256']}; read it whole in the console." if cut else None
    pending = approval["status"] == "pending"
    channels = approval["channels"]
    actions: tuple[str, ...] = ()
    if pending and (not channels or channel in channels):
        # Nobody approves what they could not read; whether it is to be denied they may know all the same.
        actions = ("deny",) if cut else ("approve", "deny")
    title = f"{escape(str(approval['risk'])).upper()} risk: approval {'still ' if escalated else ''}wanted"
    if not pending:
        title = f"Approval {escape(approval['status'])}"
    return Content(
        title,
        tuple(_fields(approval, requester)),
        whole[:limit],
        params,
        note,
        _status(approval),
        actions,
        link,
        approval["id"],
        statement["sha256"],
        None if approval["original"] is None else _short(approval["original"]["sql"]),
        _brief(approval, min(limit, _BRIEF)),
    )


def _brief(approval: dict[str, Any], limit: int) -> tuple[str, ...]:
    """What was gathered about the request, as far as there is room: the console has the rest."""
    shown: list[str] = []
    lines = brief(approval)
    for line in lines:
        if sum(len(each) + 1 for each in shown) + len(line) > limit:
            return (*shown, f"({len(lines) - len(shown)} more lines in the console)")
        shown.append(line)
    return tuple(shown)


def _fields(approval: dict[str, Any], requester: dict[str, Any]) -> list[tuple[str, str]]:
    statements = approval["classification"].get("statements", [])
    classes = dict.fromkeys(action["class"] for each in statements for action in each["actions"])
    relations = dict.fromkeys(name for each in statements for name in each["relations"])
    found = [
        ("Agent", f"{_short(requester['agent'])} (owner {_short(requester['owner'])})"),
        ("As", f"{_short(requester['db_user'])} on database {_short(requester['database'])}"),
        ("From", f"{_short(requester['client_addr'])} {_short(requester['application_name'])}"),
        ("Classes", _short(", ".join(classes))),
        ("Relations", _short(", ".join(relations))),
        ("Risk", _short(approval["risk"])),
        ("Rule", _short(approval["rule"])),
        ("Needs", "; ".join(_requirement(each) for each in approval["requirements"])),
        ("Reason", _short(requester["reason"])),
        ("Ticket", _short(requester["ticket"])),
        ("Expires", _short(approval["expires_at"])),
        ("Id", approval["id"]),
    ]
    if approval["message"]:
        found.append(("Policy says", _short(approval["message"])))
    if approval["budget"]:
        found.append(("Budget", _short(json.dumps(approval["budget"]))))
    if approval["modified_by"]:
        found.append(("Modified by", _short(approval["modified_by"])))
    return found


def _requirement(requirement: dict[str, Any]) -> str:
    of = f" of {_short(', '.join(requirement['groups']))}" if requirement["groups"] else ""
    return f"{requirement['count']} approval(s){of}"


def _status(approval: dict[str, Any]) -> str:
    """One line: how it stands, and by whom."""
    parts = [f"Status: {approval['status']}"]
    for vote in approval["decisions"][-5:]:
        if vote["voided"]:
            continue
        comment = f" ({_short(vote['comment'])})" if vote["comment"] else ""
        parts.append(f"{vote['decision']} by {_short(vote['reviewer'])} via {vote['via']}{comment}")
    if approval["withdraw_reason"]:
        parts.append(_short(approval["withdraw_reason"]))
    return "; ".join(parts)


def _params(params: list[dict[str, Any]], limit: int) -> tuple[tuple[str, ...], bool]:
    shown: list[str] = []
    room = limit
    for number, param in enumerate(params, start=1):
        line = f"${number} {escape(str(param.get('type')))} = " + escape(
            json.dumps(param.get("value"), ensure_ascii=False)
        )
        if number > _MAX_PARAMS or len(line) > room:
            return tuple(shown), True
        room -= len(line)
        shown.append(line)
    return tuple(shown), False


def _short(value: Any) -> str:
    """A value that is no part of what is decided, in one line; the console has the whole of it."""
    if value is None or value == "":
        return "-"
    text = escape(str(value))
    return text if len(text) <= _FIELD else f"{text[:_FIELD]}… ({len(text)} characters)"
