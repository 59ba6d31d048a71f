"""A candidate policy over recorded traffic: what would start or stop being parked or denied. Pure.

The trail has the statement, who sent it and what became of it, but neither the catalog nor the planner's estimate, nor
whether a transaction was open. So a statement is classified anew without a catalog and then held to the classes that
were recorded; where the candidate's answer hangs on something the trail does not have, the change is marked uncertain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from classifier.model import UNPRIVILEGED, Action, ActionClass, Classification, Risk, Statement
from pgproxy.policy import Facts, Identity, Policy, explain

_RAN_UNASKED: Final = "allowed"
_ASKED: Final = frozenset({"approved", "expired", "withdrawn", "observed"})


@dataclass(slots=True)
class Change:
    """Statements of one shape for which the candidate decides otherwise. `before` and `after` are `allow`, `approve` or
    `deny`; `rule` is the candidate's."""

    fingerprint: str
    before: str
    after: str
    rule: str
    example: str
    count: int = 0
    uncertain: int = 0
    agents: dict[str, None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint,
            "before": self.before,
            "after": self.after,
            "rule": self.rule,
            "count": self.count,
            "uncertain": self.uncertain,
            "agents": list(self.agents),
            "example": self.example,
        }


class Replay:
    """Takes entries one by one; `changes` is what came of it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._changes: dict[tuple[str, str, str, str], Change] = {}
        self.statements = 0
        self.skipped = 0

    def add(self, entry: dict[str, Any], classification: Classification) -> None:
        """One entry of kind `statement`, with its text's classification."""
        before = before_of(entry)
        if before is None:
            self.skipped += 1
            return
        self.statements += 1
        found = explain(as_recorded(classification, entry), identity_of(entry), self._policy, facts_of(entry))
        after, rule = found["decision"]["decision"], found["decision"]["rule"]
        if after == before:
            return
        fingerprint = str(entry.get("fingerprint") or entry.get("sha256") or "")
        key = (fingerprint, before, after, rule)
        change = self._changes.get(key)
        if change is None:
            change = self._changes[key] = Change(*key, example=str(entry["sql"]))
        change.count += 1
        change.uncertain += any(
            met == "perhaps"
            for action in found["actions"]
            for met in (action["met"], *(rule["met"] for rule in action["passed_over"]))
        )
        change.agents[str(entry["agent"])] = None

    @property
    def changes(self) -> list[Change]:
        """The most frequent first."""
        return sorted(self._changes.values(), key=lambda c: (-c.count, c.fingerprint))

    def to_dict(self) -> dict[str, Any]:
        return {
            "policy_version": self._policy.version,
            "statements": self.statements,
            "skipped": self.skipped,
            "changed": sum(change.count for change in self.changes),
            "changes": [change.to_dict() for change in self.changes],
        }


def is_statement(entry: Any) -> bool:
    """Whether an entry can be replayed: one of kind `statement`, with its text."""
    return isinstance(entry, dict) and entry.get("kind") == "statement" and isinstance(entry.get("sql"), str)


def before_of(entry: dict[str, Any]) -> str | None:
    """What was decided, as a policy decides; None where no policy did (`blocked`)."""
    decision = entry.get("decision")
    if decision == _RAN_UNASKED:
        return "allow"
    if decision in _ASKED or (decision == "denied" and entry.get("approval_id")):
        return "approve"
    return "deny" if decision == "denied" else None


def identity_of(entry: dict[str, Any]) -> Identity:
    return Identity(
        str(entry.get("agent") or ""),
        entry.get("owner"),
        str(entry.get("db_user") or ""),
        str(entry.get("database") or ""),
        str(entry.get("client_addr") or "local"),
    )


def facts_of(entry: dict[str, Any]) -> Facts:
    return Facts(
        now=datetime.fromisoformat(str(entry["time"])).timestamp(),
        application_name=str(entry.get("application_name") or ""),
        reason=entry.get("reason"),
        ticket=entry.get("ticket"),
    )


def as_recorded(classification: Classification, entry: dict[str, Any]) -> Classification:
    """A classification without a catalog, held to the classes that were recorded with one."""
    recorded = [ActionClass(c) for c in entry.get("classes") or () if c in set(ActionClass)]
    if not recorded or set(recorded) == {a.cls for s in classification.statements for a in s.actions}:
        return classification
    statements: list[Statement] = []
    missing = dict.fromkeys(recorded)
    for statement in classification.statements:
        kept = tuple(action for action in statement.actions if action.cls in recorded)
        for action in kept:
            missing.pop(action.cls, None)
        statements.append(replace(statement, actions=kept))
    more = tuple(Action(cls, "recorded") for cls in missing)
    last = statements[-1] if statements else Statement("Recorded", "", ())
    statements[-1:] = [replace(last, actions=(*last.actions, *more))]
    risk = entry.get("risk")
    return replace(
        classification,
        privileged=any(cls not in UNPRIVILEGED for cls in recorded),
        risk=Risk(risk) if risk in set(Risk) else classification.risk,
        statements=tuple(s for s in statements if s.actions),
    )


def replay(entries: Iterable[tuple[dict[str, Any], Classification]], policy: Policy) -> dict[str, Any]:
    """All at once, as plain data."""
    running = Replay(policy)
    for entry, classification in entries:
        running.add(entry, classification)
    return running.to_dict()
