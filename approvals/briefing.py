"""`context.impact` and `context.history` as lines for a person who is about to decide.

Names, bodies and settings come from the database and are as hostile as a statement: everything is escaped. A section
of a shape that is not known is printed whole rather than left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from approvals.display import block, escape

_UNITS = ("B", "kB", "MB", "GB", "TB")


def brief(approval: dict[str, Any]) -> list[str]:
    """Nothing where nothing was gathered yet."""
    context = approval.get("context")
    if not isinstance(context, dict):
        return []
    lines: list[str] = []
    for key, name in (("impact", "what it would do"), ("history", "what was before")):
        part = context.get(key)
        if isinstance(part, dict):
            lines.append(name + (f" (looked at {_text(part['gathered_at'])})" if "gathered_at" in part else ""))
            lines += _stale(approval, part)
            for section, value in part.items():
                if section not in ("gathered_at", "sha256", "search_path"):
                    lines += _section(section, value)
    return lines


def _stale(approval: dict[str, Any], part: dict[str, Any]) -> list[str]:
    now = approval.get("statement", {}).get("sha256")
    if "sha256" in part and part["sha256"] != now:
        return ["  of an earlier text: the statement was modified since"]
    return []


def _section(section: str, value: Any) -> list[str]:
    if section in ("error", "unavailable"):
        return [f"  not known: {_text(value)}"]
    if isinstance(value, dict) and value.keys() & {"error", "unavailable"}:
        return [f"  {_text(section)}: not known: {_text(value.get('error') or value.get('unavailable'))}"]
    handler = _SECTIONS.get(section)
    if handler is not None:
        try:
            return [f"  {line}" for line in handler(value)]
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # of another version of pgproxy
    return [f"  {_text(section)}: {_text(json.dumps(value))}"]


def _text(value: Any) -> str:
    return "-" if value is None else escape(str(value))


def _count(value: Any) -> str:
    return "an unknown number of" if value is None else f"about {int(value):,}"


def _size(value: Any) -> str:
    number, unit = float(value), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"


def _relations(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        if "relation" in each:  # of the history
            lines += _touched([each])
            continue
        if each["name"] is None:
            lines.append(f"{_text(each['as_written'])}: {_text(each.get('note'))}")
            continue
        facts = [_text(each["kind"]), f"of {_text(each['owner'])}"]
        if each["kind"] not in ("view", "composite type"):
            facts.append(f"{_count(each['estimated_rows'])} rows")
        if "total_bytes" in each:
            facts.append(f"{_size(each['total_bytes'])} ({_size(each['index_bytes'])} of indexes)")
        elif "size" in each:
            facts.append(f"size not known: {_text(each['size'].get('error'))}")
        facts.append(f"{each['columns']} columns")
        if each.get("partitions"):
            facts.append(f"{each['partitions']} partitions")
        if each["row_security"]:
            facts.append("row security on")
        if each["triggers"]:
            facts.append(f"{each['triggers']} triggers")
        lines.append(f"{_text(each['name'])}: {', '.join(facts)}")
        if each.get("note"):
            lines.append(f"  {_text(each['note'])}")
        lines.append(f"  lock {_text(each['lock'] or each.get('lock_note'))}")
        for lock in each["locks"]:
            who = f"{_text(lock['pid'])} {_text(lock['user'])} {_text(lock['application_name'])}".strip()
            verb = "holds" if lock["granted"] else "waits for"
            since = f" since {_text(lock['since'])}" if lock["since"] else ""
            conflict = " -- this session itself" if lock["is_requester"] else " -- CONFLICTS" * bool(lock["conflicts"])
            lines.append(f"  {who} ({_text(lock['state'])}) {verb} {_text(lock['mode'])}{since}{conflict}")
            if lock.get("query"):
                lines += block(str(lock["query"]), "    | ")
                lines += ["    (cut)"] * bool(lock.get("query_cut"))
        lines += ["  and more locks"] * bool(each.get("locks_cut"))
    return lines


def _session_locks(value: dict[str, Any]) -> list[str]:
    held = [f"{_text(each['mode'])} on {_text(each['relation'])}" for each in value["held"]]
    return [f"while it waits its session holds: {'; '.join(held) or 'no table lock'}"] + ["and more"] * bool(
        value.get("cut")
    )


def _plan(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        if "skipped" in each or "error" in each:
            lines.append(f"planner: not asked: {_text(each.get('skipped') or each.get('error'))}")
        else:
            generic = ", whatever its parameters" * bool(each.get("generic"))
            lines.append(f"planner: about {int(each['rows']):,} rows, cost {_text(each['cost'])}{generic}")
    return lines


def _cascades(value: dict[str, Any]) -> list[str]:
    lines = [
        f"{'  ' * (each['depth'] - 1)}{_text(each['table'])} ({_count(each['estimated_rows'])} rows) refers to "
        f"{_text(each['references'])}: {_text(each['effect'])}"
        for each in value["foreign_keys"]
    ]
    return lines + ["and more foreign keys"] * bool(value.get("cut"))


def _dependents(value: dict[str, Any]) -> list[str]:
    if not value["objects"]:
        return ["nothing depends on it"]
    head = "refused, because these depend on it:" if value["refused"] else f"{value['count']} objects go with it:"
    lines = [f"  {_text(each['type'])} {_text(each['name'])}" for each in value["objects"]]
    return [head, *lines] + ["  and more"] * bool(value.get("cut"))


def _privileges(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        if "grantee" not in each:
            lines.append("and more")
            continue
        flags = f" [{_text(' '.join(each['flags']))}]" if each.get("flags") else ""
        lines.append(f"{_text(each['grantee'])}{flags} on {_text(each['object'])}")
        if "error" in each:
            lines.append(f"  {_text(each['error'])}")
            continue
        for when in ("before", "after"):
            held = ", ".join(f"{_text(name)} ({_text(how)})" for name, how in each[when].items())
            lines.append(f"  {when}: {held or 'nothing'}")
        if each.get("of_columns"):
            lines.append(f"  of columns: {_text(json.dumps(each['of_columns']))}")
        if each.get("note"):
            lines.append(f"  {_text(each['note'])}")
    return lines


def _roles(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        change = next(
            (f" {verb} {_text(', '.join(each[verb]))}" for verb in ("granted", "revoked") if verb in each), ""
        )
        lines.append(f"role {_text(each['role'])}{change}")
        for when in ("before", "after"):
            if when in each:
                lines.append(f"  {when}: {_role(each[when])}")
        lines += [f"  {_text(each[key])}" for key in ("error", "note") if key in each]
    return lines


def _role(state: dict[str, Any] | None) -> str:
    if state is None:
        return "there is none"
    parts = [_text(" ".join(state["flags"]) or "no attributes")]
    if state["reaches"]:
        parts.append(f"may act as {_text(', '.join(state['reaches']))}")
    if state.get("reaches_flags"):
        parts.append(f"and so be {_text(' '.join(state['reaches_flags']))}")
    return ", ".join(parts)


def _functions(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        if "name" not in each:
            lines.append("and more functions")
            continue
        definer = ", SECURITY DEFINER" * bool(each["security_definer"])
        lines.append(
            f"function {_text(each['name'])} ({_text(each['is'])}): {_text(each['language'])}, "
            f"{_text(each['volatility'])}{definer}, of {_text(each['owner'])}"
        )
        lines += [f"  {_text(each[key])}" for key in ("error",) if key in each]
        lines += block(str(each["body"]), "  | ")
        if each.get("body_cut"):
            lines.append(f"  cut: {each['body_length']:,} characters, sha256 {_text(each['body_sha256'])}")
    return lines


def _settings(value: list[dict[str, Any]]) -> list[str]:
    lines = []
    for each in value:
        if "name" not in each:
            lines.append("and more")
            continue
        now = f" is {_text(each['value'])}{_text(each['unit'] or '')}" if "value" in each else ""
        note = f" ({_text(each['note'])})" if each.get("note") else ""
        lines.append(f"setting {_text(each['name'])}{now}{note}")
        for stored in each["stored"]:
            lines.append(
                f"  stored for role {_text(stored['role'])} in database {_text(stored['database'])}: "
                f"{_text(stored['setting'])}"
            )
    return lines


def _same(value: dict[str, Any]) -> list[str]:
    lines = [f"the same statement before: {_counts(value)}"]
    for each in value["last"]:
        lines.append(f"  {_text(each['created_at'])} {_text(each['id'])} {_text(each['status'])}")
        for vote in each["decisions"]:
            lines.append(
                f"    {_text(vote['decision'])} by {_text(vote['reviewer'])} at {_text(vote['at'])}: "
                f"{_text(vote['comment'])}"
            )
    return lines


def _counts(value: dict[str, Any]) -> str:
    statuses = ("approved", "denied", "expired", "withdrawn", "pending")
    counts = ", ".join(f"{value[status]} {status}" for status in statuses if value.get(status))
    newest = f" (of the newest {value['newest_only']})" if "newest_only" in value else ""
    return (counts or "never") + newest


def _day(value: dict[str, Any]) -> list[str]:
    return [f"this agent's requests of the last 24 h: {_counts(value)}"]


def _touched(value: list[dict[str, Any]]) -> list[str]:
    return [
        f"{_text(each['relation'])}: "
        + (
            "the first request of this agent about it"
            if each["first_request"]
            else f"asked about since {_text(each['first_request_at'])}"
        )
        for each in value
    ]


def _recent(value: list[dict[str, Any]]) -> list[str]:
    lines = ["the agent's last statements:" if value else "no earlier statement of this agent in the last days"]
    for each in value:
        first, *rest = str(each["sql"]).strip().split("\n")
        more = " …" * bool(rest or len(first) > 100 or each.get("sql_cut"))
        lines.append(f"  {_text(each['time'])} {_text(each['decision'])}  {escape(first[:100])}{more}")
    return lines


_SECTIONS: dict[str, Callable[[Any], list[str]]] = {
    "relations": _relations,
    "session_locks": _session_locks,
    "plan": _plan,
    "cascades": _cascades,
    "dependents": _dependents,
    "privileges": _privileges,
    "roles": _roles,
    "functions": _functions,
    "settings": _settings,
    "same_fingerprint": _same,
    "agent_24h": _day,
    "recent_statements": _recent,
}
