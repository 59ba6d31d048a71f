"""Hostile text on a terminal: everything that is not plainly visible is made so, and nothing is left out.

What a reviewer reads decides what runs, so a statement must not be able to move the cursor, reorder itself ("Trojan
Source": bidirectional controls), hide characters of no width, or write lines that look like this program's
own.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter

# Letters, symbols and marks that show as nothing although their category is that of visible characters.
_INVISIBLE = frozenset(
    [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
)
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_OPEN, _CLOSE = "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}", "\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
MAX_NAMED = 20
MAX_COMPARED_LINES = 4000
"""Of both texts together: comparing takes the square of it."""


def is_shown(char: str) -> bool:
    """Whether a character shows as itself, and leaves its neighbours where they are."""
    if " " <= char <= "~":
        return True
    if char in (_OPEN, _CLOSE) or ord(char) in _INVISIBLE:
        return False
    category = unicodedata.category(char)
    return category not in _HIDDEN_CATEGORIES and category != "Zs"


def escape(text: str, *, multiline: bool = False) -> str:
    """The text with every hidden character as `⟦U+202E⟧`. The brackets themselves are escaped too, so what
    looks like an escape is one. Line ends stay line ends only with `multiline`; tabs become `⟦U+0009⟧`
    either way."""
    return "".join(
        char if is_shown(char) or (multiline and char == "\n") else f"{_OPEN}U+{ord(char):04X}{_CLOSE}" for char in text
    )


def block(text: str, prefix: str = "  | ") -> list[str]:
    """The whole text as lines, each with a prefix that no line of the text can do without."""
    return [prefix + line for line in escape(text, multiline=True).split("\n")]


def lookalikes(text: str) -> list[str]:
    """The letters, digits and marks beyond ASCII, by name: a Cyrillic letter may be told apart by nothing else."""
    counts = Counter(char for char in text if char > "~" and unicodedata.category(char)[0] in "LNM")
    named = [
        f"{escape(char)} {unicodedata.name(char, 'unnamed')} (U+{ord(char):04X}, {count}×)"  # noqa: RUF001
        for char, count in counts.most_common(MAX_NAMED)
    ]
    if len(counts) > MAX_NAMED:
        named.append(f"and {len(counts) - MAX_NAMED} other characters beyond ASCII")
    return named


def describe(approval: dict[str, object]) -> list[str]:
    """An approval object as lines for a person who is about to decide."""
    requester = _mapping(approval.get("requester"))
    statement = _mapping(approval.get("statement"))
    classification = _mapping(approval.get("classification"))
    lines = [
        f"approval {_one(approval.get('id'))}: {_one(approval.get('status'))}",
        f"agent     {_one(requester.get('agent'))}  (owner {_one(requester.get('owner'))})",
        f"as        {_one(requester.get('db_user'))} on database {_one(requester.get('database'))}",
        f"from      {_one(requester.get('client_addr'))}  {_one(requester.get('application_name'))}  "
        f"session {_one(requester.get('session_id'))}",
        f"reason    {_one(requester.get('reason'))}",
        f"ticket    {_one(requester.get('ticket'))}",
    ]
    if requester.get("context") is not None:
        lines.append(f"context   {_one(requester['context'])}")
    lines += [
        f"risk      {_one(approval.get('risk'))}",
        f"rule      {_one(approval.get('rule'))}, needs {_one(approval.get('required_approvals'))} approval(s)",
        *_requirements(approval),
        f"created   {_one(approval.get('created_at'))}",
        f"expires   {_one(approval.get('expires_at'))}",
        *_circumstances(approval),
        *difference(approval),
        "statement",
    ]
    sql = str(statement.get("sql", ""))
    lines += block(sql)
    lines.append(f"sha256    {_one(statement.get('sha256'))}")
    lines += [f"  beyond ASCII: {name}" for name in lookalikes(sql)]
    for number, parameter in enumerate(_sequence(statement.get("params")), start=1):
        fields = _mapping(parameter)
        value = fields.get("value")
        shown = ["  | NULL (no value)"] if value is None else block(str(value))
        lines += [f"parameter ${number} of type {_one(fields.get('type'))}", *shown]
    for classified in _sequence(classification.get("statements")):
        fields = _mapping(classified)
        for action in map(_mapping, _sequence(fields.get("actions"))):
            lines.append(
                f"does      {_one(action.get('class'))}: {_one(action.get('verb'))} {_one(action.get('object'))}"
            )
        lines += [f"because   {_one(reason)}" for reason in _sequence(fields.get("reasons"))]
    for vote in map(_mapping, _sequence(approval.get("decisions"))):
        lines.append(
            f"vote      {_one(vote.get('decision'))} by {_one(vote.get('reviewer'))} at {_one(vote.get('at'))}"
            f" by {_one(vote.get('via'))}{_validity(vote)}: {_one(vote.get('comment'))}"
        )
    for comment in map(_mapping, _sequence(approval.get("comments"))):
        lines.append(
            f"comment   {_one(comment.get('reviewer'))} at {_one(comment.get('at'))}: {_one(comment.get('text'))}"
        )
    outcome = approval.get("outcome")
    if outcome is not None:
        known = {key: value for key, value in _mapping(outcome).items() if value is not None}
        lines.append("outcome   " + ", ".join(f"{_one(key)} {_one(value)}" for key, value in known.items()))
    return lines


def _requirements(approval: dict[str, object]) -> list[str]:
    return [
        f"  {_one(each.get('rule'))}: {_one(each.get('approvals'))} of {_one(each.get('count'))} by "
        + (" or ".join(_one(group) for group in _sequence(each.get("groups"))) or "any reviewer")
        for each in map(_mapping, _sequence(approval.get("requirements")))
    ]


def _circumstances(approval: dict[str, object]) -> list[str]:
    """What changes how one decides, where it is there."""
    lines = []
    if approval.get("message") is not None:
        lines.append(f"policy    {_one(approval['message'])}")
    if channels := _sequence(approval.get("channels")):
        lines.append(f"decided   by {' or '.join(_one(channel) for channel in channels)} only")
    if approval.get("budget") is not None:
        lines.append(f"budget    already running: {_one(approval['budget'])}")
    if approval.get("wait") is False:
        lines.append("waits     no: the agent comes back for it")
    if approval.get("row_cap") is not None:
        lines.append(f"rows      at most {_one(approval['row_cap'])}")
    if approval.get("grant_id") is not None:
        lines.append(f"grant     let through by {_one(approval['grant_id'])}")
    return lines


def _validity(vote: dict[str, object]) -> str:
    if vote.get("voided"):
        return ", void: for an earlier text"
    return ", does not count: it does more than the agent's" if vote.get("counts") is False else ""


def difference(approval: dict[str, object]) -> list[str]:
    """What a reviewer changed, as a unified diff of both whole texts; nothing for an unchanged statement."""
    if approval.get("original") is None:
        return []
    head = f"modified  by {_one(approval.get('modified_by'))}"
    # Escaped before they are compared, so that texts which only look equal differ visibly.
    before = escape(str(_mapping(approval.get("original")).get("sql", "")), multiline=True).split("\n")
    after = escape(str(_mapping(approval.get("statement")).get("sql", "")), multiline=True).split("\n")
    if len(before) + len(after) > MAX_COMPARED_LINES:
        return [f"{head}; too long to be compared, so this is what the agent sent", *("  | " + line for line in before)]
    diff = difflib.unified_diff(before, after, "the agent's", "modified", lineterm="", n=MAX_COMPARED_LINES)
    return [head, *("  " + line for line in diff)]


def grant_summary(grant: dict[str, object]) -> str:
    """One line."""
    left, uses = grant.get("uses_left"), grant.get("uses")
    times = "any number" if uses is None else f"{_one(left)} of {_one(uses)}"
    cap = "" if grant.get("row_cap") is None else f"  rows {_one(grant['row_cap'])}"
    reviewers = ", ".join(_one(each) for each in _sequence(grant.get("reviewers")))
    ended = "" if grant.get("in_force") else "  (ended)"
    whose = f"{_one(grant.get('agent'))}@{_one(grant.get('database'))}"
    return (
        f"{_one(grant.get('id'))}  {_one(grant.get('scope')):<11}  {whose}"
        f"  until {_one(grant.get('expires_at'))}  {times}{cap}  by {reviewers}{ended}"
    )


def summary(approval: dict[str, object]) -> str:
    """One line; the statement's first line only, which it says."""
    requester = _mapping(approval.get("requester"))
    sql = str(_mapping(approval.get("statement")).get("sql", ""))
    first, *rest = sql.strip().split("\n")
    shown = escape(first[:80])
    more = " …" if rest or len(first) > 80 else ""
    return (
        f"{_one(approval.get('id'))}  {_one(approval.get('status')):<9}  {_one(approval.get('risk')):<8}  "
        f"{_one(requester.get('agent'))}@{_one(requester.get('database'))}  "
        f"expires {_one(approval.get('expires_at'))}  {shown}{more}"
    )


def _one(value: object) -> str:
    return "-" if value is None else escape(str(value))


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _sequence(value: object) -> list[object]:
    return value if isinstance(value, list) else []
