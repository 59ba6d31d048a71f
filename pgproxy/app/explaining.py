"""The policy in force as people read it: its rules as plain data, and what it would say to a statement and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from pgproxy.app.judging import ApiClassifier
from pgproxy.policy import Facts, Identity, Policy
from pgproxy.policy.explain import explain
from pgproxy.policy.hours import Hours
from pgproxy.policy.rules import Rule

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DERIVED = frozenset({"has_circumstances", "touched"})


class ApiExplainer:
    """`approvals.ports.PolicyExplainer`."""

    def __init__(self, classifier: ApiClassifier, policy: Callable[[], Policy]) -> None:
        self._classifier = classifier
        self._policy = policy

    async def describe(self) -> dict[str, Any]:
        policy = self._policy()
        return {
            "version": policy.version,
            "mode": str(policy.mode),
            "replication": str(policy.replication),
            "approval_timeout_s": policy.approval_timeout_s,
            "rules": [_rule(rule) for rule in policy.rules.rules],
            "tags": {name: [column.text for column in columns] for name, columns in policy.rules.tags},
        }

    async def explain(self, sql: str, who: dict[str, str | None]) -> dict[str, Any]:
        database = who.get("database") or ""
        environment = self._classifier.environment(database)
        classification = await self._classifier.classification(sql, environment)
        if classification.syntax_error is not None:
            raise ValueError(f"not a statement: {classification.syntax_error}")
        agent = who.get("agent") or ""
        identity = Identity(
            agent=agent,
            owner=who.get("owner"),
            db_user=who.get("db_user") or agent,
            database=database,
            client_addr=who.get("client_addr") or "local",
        )
        facts = Facts(now=time.time(), reason=who.get("reason"), ticket=who.get("ticket"))
        found = explain(classification, identity, self._policy(), facts)
        return {**found, "risk": str(classification.risk)}


def _rule(rule: Rule) -> dict[str, Any]:
    """What is said of it; what is not said is not there."""
    described = {key: value for key, value in plain(rule).items() if key not in ("name", "match", "outcome", "limits")}
    if rule.count == 1:
        described.pop("count", None)
    return {
        "name": rule.name,
        "decision": str(rule.outcome),
        "match": {key: value for key, value in plain(rule.match).items() if key not in _DERIVED},
        "asks": described,
        "budgets": [plain(limit) for limit in rule.limits],
    }


def plain(value: Any) -> Any:
    """A value of the policy as plain data; of documents only what is said."""
    match value:
        case Enum():
            return str(value.value)
        case Hours():
            days = ", ".join(_DAYS[day] for day in sorted(value.days))
            return f"{days} {_clock(value.start)}–{_clock(value.end)} {value.zone}"  # noqa: RUF001
        case frozenset() | set():
            return sorted(str(plain(each)) for each in value)
        case tuple() | list():
            return [plain(each) for each in value]
        case None | bool() | int() | float() | str():
            return value
    if is_dataclass(value):
        if hasattr(value, "text"):
            return str(value.text)  # a pattern, or a condition, as written
        found = {each.name: plain(getattr(value, each.name)) for each in fields(value) if each.name[0] != "_"}
        return {key: said for key, said in found.items() if said not in (None, "", [], False)}
    return str(value)


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
