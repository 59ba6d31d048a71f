"""The document of a policy file to its rules.

Everything that could not work is refused, since whoever wrote it believes that it protects them: unknown keys, words
that mean nothing, keys without effect on a rule of this kind, rules that no statement would ever get to.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from classifier.model import ActionClass, Risk
from pgproxy.policy.conditions import Condition
from pgproxy.policy.decisions import Escalation, Per
from pgproxy.policy.fields import Fields, Finding, RulesError
from pgproxy.policy.hours import Hours
from pgproxy.policy.patterns import ColumnPattern, Pattern, RelationPattern
from pgproxy.policy.rules import BUILT_IN_RULE, LOCAL, Limit, Match, Outcome, Rule, RuleSet
from pgproxy.policy.words import ExpressionError, did_you_mean

CHANNELS: Final = ("api", "console", "terminal", "slack", "teams")
SAYINGS: Final = ("reason", "ticket", "context")
_DOCUMENT: Final = ("version", "name", "rules", "tags")
_MATCH: Final = tuple(item.name for item in fields(Match) if item.init)
_BUDGET: Final = ("rows", "bytes", "per", "approvers", "timeout")
_APPROVERS: Final = ("groups", "count", "via")
_ESCALATE: Final = ("after", "notify")
_RULE: Final = (
    *("name", "match", "when", "decision", "approvers", "timeout", "in_transaction", "require", "message", "budget"),
    *("notify", "escalate"),
)
_ROWLESS: Final = frozenset({ActionClass.TRANSACTION})
_NAME: Final = re.compile(r"[^\W_][\w .:-]{0,62}")
_TARGET: Final = re.compile(r"[a-z][a-z0-9_-]*(:[^\s,].*)?")


def read_rules(document: Any) -> RuleSet:
    """The rules of a document. Raises `RulesError` with everything wrong."""
    findings: list[Finding] = []
    top = Fields(document, (), findings, _DOCUMENT)
    if "version" not in top:
        top.note(("version",), "is required: version: 1")
    elif top.raw("version") != 1 or isinstance(top.raw("version"), bool):
        top.note(("version",), "must be 1, the only version there is")
    name = top.text("name", limit=63)
    if name is not None and not _NAME.fullmatch(name):
        top.note(("name",), "must begin with a letter or digit and hold letters, digits, spaces and . : _ - only")
    tags = _tags(top)
    if top.raw("rules") is not None and not isinstance(top.raw("rules"), list):
        top.note(("rules",), "must be a list of rules")
        raise RulesError(findings)
    rules = [_rule(item, tuple(tag for tag, _ in tags)) for item in top.sections("rules", _RULE)]
    _check_order(top, rules)
    if findings:
        raise RulesError(findings)
    kept = tuple(rule for rule in rules if rule is not None)
    return RuleSet(kept, tags, _version(name, kept, tags))


def _tags(top: Fields) -> tuple[tuple[str, tuple[ColumnPattern, ...]], ...]:
    value = top.raw("tags")
    if value is None:
        return ()
    if not isinstance(value, dict):
        top.note(("tags",), "must be a mapping of tags to columns")
        return ()
    below = Fields(value, ("tags",), top.findings, value)
    found = []
    for tag in value:
        if not _NAME.fullmatch(str(tag)):
            below.note((tag,), "a tag is letters, digits, spaces and . : _ -")
        columns = tuple(below.parsed(tag, ColumnPattern))
        if not columns and not below.texts(tag):
            below.note((tag,), "stands for no column")
        found.append((str(tag), columns))
    return tuple(found)


def _rule(item: Fields, tags: tuple[str, ...]) -> Rule | None:
    if not item.is_mapping:
        return None
    before = len(item.findings)
    name = item.text("name", required=True, limit=63)
    if name is not None and not _NAME.fullmatch(name):
        item.note(("name",), "must begin with a letter or digit and hold letters, digits, spaces and . : _ - only")
    if name is not None and name.lower() == BUILT_IN_RULE:
        item.note(("name",), "is what the default is called")
    decision = item.word("decision", [str(o) for o in Outcome], required=True)
    match = _match(item, tags)
    when = _condition(item)
    limits = _limits(item)
    _check_effect(item, decision, bool(limits), match)
    groups, count, channels = _approvers(item)
    timeout_s = item.duration("timeout")
    rule = Rule(
        name=name or "",
        match=match,
        outcome=Outcome(decision or "deny"),
        when=when,
        groups=groups,
        count=count,
        channels=channels,
        timeout_s=timeout_s,
        denies_in_transaction=item.word("in_transaction", ("park", "deny")) == "deny",
        requires=tuple(dict.fromkeys(item.words("require", SAYINGS))),
        message=item.text("message"),
        notify=_targets(item, "notify"),
        escalations=_escalations(item, timeout_s),
        limits=limits,
    )
    return rule if len(item.findings) == before else None


def _match(item: Fields, tags: tuple[str, ...]) -> Match:
    match = item.section("match", _MATCH)
    if match is None:
        return Match()
    classes = match.words("classes", [str(c) for c in ActionClass])
    risk = match.word("min_risk", [str(r) for r in Risk])
    used = []
    for place, tag in match.texts("tags"):
        if tag in tags:
            used.append(tag)
        else:
            known = did_you_mean(tag, tags) if tags else "there are none below tags:"
            match.note(place, f"there is no tag {tag!r}; {known}")
    return Match(
        classes=frozenset(ActionClass(c) for c in classes),
        agents=tuple(match.parsed("agents", Pattern)),
        owners=tuple(match.parsed("owners", Pattern)),
        databases=tuple(match.parsed("databases", Pattern)),
        relations=tuple(match.parsed("relations", RelationPattern)),
        tags=frozenset(used),
        networks=tuple(match.parsed("networks", _network)),
        hours=tuple(match.parsed("hours", Hours.parse)),
        min_risk=None if risk is None else Risk(risk),
        verbs=tuple(match.parsed("verbs", Pattern)),
        functions=tuple(match.parsed("functions", RelationPattern)),
    )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | str:
    if text == LOCAL:
        return LOCAL
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            whole = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"has bits beyond its prefix; did you mean {str(whole)!r}?") from None
        raise ValueError("is neither an address, a network (10.0.0.0/8) nor `local` (Unix sockets)") from None


def _condition(item: Fields) -> Condition | None:
    text = item.text("when", limit=2_000)
    if text is None:
        return None
    try:
        return Condition(text)
    except ExpressionError as error:
        item.note(("when",), str(error))
        return None


def _approvers(item: Fields) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    below = item.section("approvers", _APPROVERS)
    if below is None:
        return (), 1, ()
    groups = tuple(dict.fromkeys(group for _, group in below.texts("groups")))
    channels = tuple(dict.fromkeys(below.words("via", CHANNELS)))
    return groups, below.number("count", 1, 100) or 1, channels


def _limits(item: Fields) -> tuple[Limit, ...]:
    found = []
    for budget in item.sections("budget", _BUDGET):
        per = budget.word("per", [str(p) for p in Per])
        rows, size = budget.number("rows", 0, 2**60), budget.size("bytes")
        if budget.is_mapping and "rows" not in budget and "bytes" not in budget:
            budget.note((), "needs rows or bytes")
        of = budget if "approvers" in budget else item
        groups, count, channels = _approvers(of)
        timeout_s = budget.duration("timeout")
        found.append(Limit(Per(per or "portal"), rows, size, groups, count, channels, timeout_s, of is budget))
    return tuple(found)


def _escalations(item: Fields, timeout_s: float | None) -> tuple[Escalation, ...]:
    found = []
    for step in item.sections("escalate", _ESCALATE):
        after = step.duration("after")
        targets = _targets(step, "notify")
        for key in _ESCALATE:
            if key not in step and step.is_mapping:
                step.note((key,), "is required")
        found.append(Escalation(after or 1.0, targets))
    if timeout_s is not None and any(e.after_s >= timeout_s for e in found):
        item.note(("escalate",), "comes when the request has expired (timeout)")
    return tuple(sorted(found, key=lambda e: e.after_s))


def _targets(item: Fields, key: str) -> tuple[str, ...]:
    found = []
    for place, target in item.texts(key):
        if _TARGET.fullmatch(target):
            found.append(target)
        else:
            item.note(place, f"{target!r} must be a notifier and where to, such as slack:#dba")
    return tuple(dict.fromkeys(found))


def _check_effect(item: Fields, decision: str | None, has_limits: bool, match: Match) -> None:
    """Keys that a rule of this kind has no use for."""
    asks = decision == "approve" or (decision == "allow" and has_limits)
    if decision is None:
        return
    if decision != "allow" and "budget" in item:
        item.note(("budget",), f"is for rules that allow; this one says {decision}")
    for key in ("approvers", "timeout", "notify", "escalate"):
        if key in item and not asks:
            item.note((key,), f"has no effect: a rule that says {decision}, without a budget, asks nobody")
    if "in_transaction" in item and decision != "approve":
        item.note(("in_transaction",), f"has no effect: a rule that says {decision} does not park")
    if "require" in item and decision == "deny":
        item.note(("require",), "has no effect on a rule that denies")
    if "message" in item and decision == "allow" and not (has_limits or "require" in item):
        item.note(("message",), "would be shown to nobody: this rule allows, without a budget or require")
    if has_limits and match.classes and match.classes <= _ROWLESS:
        item.note(("budget",), "has no effect: the classes it matches return no rows")


def _check_order(top: Fields, rules: list[Rule | None]) -> None:
    """Names must tell rules apart, and every rule must be one that some statement gets to."""
    seen: dict[str, int] = {}
    taken: dict[ActionClass, str] = {}
    for index, rule in enumerate(rules):
        if rule is None:
            continue
        if seen.setdefault(rule.name, index) != index:
            top.note(("rules", index, "name"), f"rule {rule.name!r} appears twice")
        classes = rule.match.classes or frozenset(ActionClass)
        if classes <= taken.keys():
            by = ", ".join(sorted({repr(taken[c]) for c in classes}))
            top.note(("rules", index), f"is never reached: {by} before it takes all its classes")
        if rule.match.is_by_class_alone and rule.when is None:
            for cls in classes:
                taken.setdefault(cls, rule.name)


def _version(name: str | None, rules: tuple[Rule, ...], tags: tuple[Any, ...]) -> str:
    """Equal for documents that mean the same, however they are laid out."""
    text = json.dumps([_plain(rules), _plain(sorted(tags))], sort_keys=True, ensure_ascii=True)
    digest = hashlib.sha256(text.encode("ascii")).hexdigest()[:12]
    return f"{name} {digest}" if name else digest


def _plain(value: Any) -> Any:
    """A value by its meaning, as plain data: patterns as they were read, and sets, in which order means nothing,
    sorted."""
    if isinstance(value, Enum) or value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, (RelationPattern, ColumnPattern)):
        return value.canonical
    if isinstance(value, (Pattern, Condition)):
        return value.text
    if isinstance(value, Match):
        return {name: sorted((_plain(v) for v in _items(getattr(value, name))), key=repr) for name in _MATCH}
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.init}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(_plain(item) for item in value)
    return str(value)  # a network


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, frozenset)) else () if value is None else (value,)
