"""The rules of one policy file as `decide` uses them: read, checked, frozen.

`reading` makes them out of a document, `matching` says which of them a statement meets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from classifier.model import ActionClass, Risk
from pgproxy.policy.conditions import Condition
from pgproxy.policy.decisions import Budget, Escalation, Park, Per, Requirement
from pgproxy.policy.hours import Hours
from pgproxy.policy.patterns import ColumnPattern, Pattern, RelationPattern

BUILT_IN_RULE: Final = "built-in"
BUILT_IN_VERSION: Final = "built-in-1"
BUILT_IN_PORTAL_ROWS: Final = 10_000
BUILT_IN_HOUR_ROWS: Final = 100_000
LOCAL: Final = "local"  # among networks: a Unix socket


class Outcome(StrEnum):
    """What a rule says."""

    ALLOW = "allow"
    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule is about. An empty field means any; `agents` to `functions` have alternatives, and all fields must
    fit. `networks` may hold `local`."""

    classes: frozenset[ActionClass] = frozenset()
    agents: tuple[Pattern, ...] = ()
    owners: tuple[Pattern, ...] = ()
    databases: tuple[Pattern, ...] = ()
    relations: tuple[RelationPattern, ...] = ()
    tags: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network | str, ...] = ()
    hours: tuple[Hours, ...] = ()
    min_risk: Risk | None = None
    verbs: tuple[Pattern, ...] = ()
    functions: tuple[RelationPattern, ...] = ()
    # Which fields say something: of who and when, the same for the whole text, and of what a statement touches.
    has_circumstances: bool = field(init=False, repr=False, compare=False)
    touched: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        circumstances = (self.agents, self.owners, self.databases, self.networks, self.hours, self.min_risk)
        object.__setattr__(self, "has_circumstances", any(circumstances))
        touched = tuple(key for key in ("relations", "functions", "tags") if getattr(self, key))
        object.__setattr__(self, "touched", touched)

    @property
    def is_by_class_alone(self) -> bool:
        return not (self.has_circumstances or self.touched or self.verbs)


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget of a rule, as written: see `decisions.Budget`."""

    per: Per
    rows: int | None
    bytes: int | None
    groups: tuple[str, ...] = ()
    count: int = 1
    channels: tuple[str, ...] = ()
    timeout_s: float | None = None
    has_approvers: bool = False  # its own, not the rule's


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. What is asked of approvers (`groups` to `escalations`) is for `approve`, and beyond a budget."""

    name: str
    match: Match
    outcome: Outcome
    when: Condition | None = None
    groups: tuple[str, ...] = ()
    count: int = 1
    channels: tuple[str, ...] = ()
    timeout_s: float | None = None
    denies_in_transaction: bool = False
    requires: tuple[str, ...] = ()
    message: str | None = None
    notify: tuple[str, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    limits: tuple[Limit, ...] = ()

    def park(self, default_timeout_s: float) -> Park:
        """What this rule asks for."""
        return Park(
            self.name,
            default_timeout_s if self.timeout_s is None else self.timeout_s,
            (Requirement(self.name, self.groups, self.count),),
            self.channels,
            self.notify,
            self.escalations,
            self.message,
        )

    def asks(self) -> list[tuple[Requirement, tuple[str | int, ...]]]:
        """All it may ask approvers for, each with the place it is written at below the rule."""
        asked: list[tuple[Requirement, tuple[str | int, ...]]] = []
        if self.outcome is Outcome.APPROVE:
            asked.append((Requirement(self.name, self.groups, self.count), ()))
        for limit in self.limits:
            requirement = Requirement(self.name, limit.groups, limit.count)
            asked.append((requirement, ("budget",) if limit.has_approvers else ()))
        return asked

    def budgets(self, default_timeout_s: float) -> tuple[Budget, ...]:
        """How much of a result this rule lets pass, and what it asks for beyond."""
        found = []
        for limit in self.limits:
            timeout_s = self.timeout_s if limit.timeout_s is None else limit.timeout_s
            park = Park(
                self.name,
                default_timeout_s if timeout_s is None else timeout_s,
                (Requirement(self.name, limit.groups, limit.count),),
                limit.channels,
                self.notify,
                self.escalations,
                self.message,
            )
            found.append(Budget(self.name, limit.per, park, limit.rows, limit.bytes))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of a file in their order, what its tags stand for, and the version that names them."""

    rules: tuple[Rule, ...] = ()
    tags: tuple[tuple[str, tuple[ColumnPattern, ...]], ...] = ()
    version: str = BUILT_IN_VERSION
    by_class: dict[ActionClass, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)
    asks_planner: bool = field(init=False, repr=False, compare=False)  # some rule depends on `rows_estimate`

    def __post_init__(self) -> None:
        asks = any(rule.when is not None and "rows_estimate" in rule.when.facts for rule in self.rules)
        object.__setattr__(self, "asks_planner", asks)
        by_class = {
            cls: tuple(rule for rule in self.rules if not rule.match.classes or cls in rule.match.classes)
            for cls in ActionClass
        }
        object.__setattr__(self, "by_class", by_class)


BUILT_IN: Final = RuleSet()


def built_in_budgets(timeout_s: float) -> tuple[Budget, ...]:
    """So that slices with LIMIT and OFFSET do not add up to a dump."""
    park = Park(BUILT_IN_RULE, timeout_s, (Requirement(BUILT_IN_RULE),))
    return (
        Budget(BUILT_IN_RULE, Per.PORTAL, park, rows=BUILT_IN_PORTAL_ROWS),
        Budget(BUILT_IN_RULE, Per.HOUR, park, rows=BUILT_IN_HOUR_ROWS),
    )
