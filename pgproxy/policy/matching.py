"""Whether a rule is met, and what follows. Three answers, for not everything about a statement is known.

Where a rule may be met, so may those behind it: both count. So what a rule asks for or denies applies unless the answer
is NO; what it allows only if it is YES, but its restrictions, budgets and what must have been said, unless it is NO. An
agent that hides what a statement touches never gets a milder decision by it.

For the same reason "these relations" means any of them where a rule parks or denies, and all of them where it allows:
otherwise `DROP TABLE scratch.a, billing.b` would pass as a statement about `scratch.*`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from enum import Enum, IntEnum
from typing import Any, Final

from classifier.model import Action, Classification, Risk, Statement
from pgproxy.policy.decisions import Facts, Identity
from pgproxy.policy.facts import OF_FACTS, Touches, value_of
from pgproxy.policy.patterns import ColumnPattern, Path, RelationPattern
from pgproxy.policy.rules import LOCAL, Match, Outcome, Rule, RuleSet

_RISKS: Final = tuple(Risk)


class Answer(IntEnum):
    """Whether a rule is met."""

    NO = 0
    MAYBE = 1
    YES = 2


class Effect(Enum):
    """What follows of an answer for one rule. The rules behind it do not count once one DECIDES."""

    PASSED = "passed"
    RESTRICTS = "restricts"  # it may allow: its budgets and `require` apply, and no more
    COUNTS = "counts"  # it may ask: it does
    DECIDES = "decides"


NO, MAYBE, YES = Answer.NO, Answer.MAYBE, Answer.YES
_MET: Final = (YES, "")


class Judged:
    """One text of one identity under one set of rules. What is asked more than once is computed once."""

    def __init__(self, classification: Classification, identity: Identity, rules: RuleSet, facts: Facts) -> None:
        self.classification = classification
        self.identity = identity
        self.facts = facts
        self.used_facts = False  # whether the answers so far depend on `facts`
        self._rules = rules
        self._settled: dict[str, tuple[Answer, str]] = {}  # by rule, what does not depend on statement or action
        self._conditions: dict[str, bool | None] = {}
        self._tags: dict[int, frozenset[str]] = {}
        self._touches: Touches | None = None

    def effects(
        self, rules: Iterable[Rule], statement: Statement, action: Action
    ) -> Iterator[tuple[Rule, Effect, Answer, str]]:
        """Rules in their order, up to the one that decides; with the key that kept an answer from being YES."""
        for rule in rules:
            answer, key = self.answer(rule, statement, action)
            effect = _effect(rule, answer)
            yield rule, effect, answer, key
            if effect is Effect.DECIDES:
                return

    def answer(
        self, rule: Rule, statement: Statement, action: Action, *, with_condition: bool = True
    ) -> tuple[Answer, str]:
        """The answer, and the key that kept it from being YES."""
        match = rule.match
        if match.classes and action.cls not in match.classes:
            return NO, "classes"
        if match.verbs and not any(p.matches(action.verb) for p in match.verbs):
            return NO, "verbs"
        worst = _MET
        if match.has_circumstances:
            settled = self._settled.get(rule.name)
            if settled is None:
                settled = self._settled[rule.name] = self._circumstances(match)
            if settled[0] is NO:
                return settled
            worst = settled
        for key in match.touched:
            answer = self._touched(key, match, statement, rule.outcome is Outcome.ALLOW)
            if answer is NO:
                return NO, key
            if answer < worst[0]:
                worst = answer, key
        if rule.when is not None and with_condition:
            held = self.condition(rule)
            if held is False:
                return NO, "when"
            if held is None and worst[0] is YES:
                worst = MAYBE, "when"
        return worst

    def needs_estimate(self, rules: Iterable[Rule], statement: Statement, action: Action) -> bool:
        """Whether a rule that counts asks for the planner's estimate."""
        for rule in rules:
            asks = rule.when is not None and "rows_estimate" in rule.when.facts
            answer, _ = self.answer(rule, statement, action, with_condition=not asks)
            if asks and answer is not NO:
                return True
            if _effect(rule, answer) is Effect.DECIDES:
                return False
        return False

    def condition(self, rule: Rule) -> bool | None:
        """A rule's own condition."""
        assert rule.when is not None
        if rule.name not in self._conditions:
            zone = rule.match.hours[0].zone if rule.match.hours else "UTC"

            self.used_facts = self.used_facts or not rule.when.facts.isdisjoint(OF_FACTS)

            def value(name: str) -> Any:
                return value_of(name, self.classification, self.identity, self.facts, self.touches(), zone)

            self._conditions[rule.name] = rule.when.evaluate(value)
        return self._conditions[rule.name]

    def _circumstances(self, match: Match) -> tuple[Answer, str]:
        """What is the same for every action of the text."""
        who = self.identity
        if match.agents and not any(p.matches(who.agent) for p in match.agents):
            return NO, "agents"
        if match.owners and (who.owner is None or not any(p.matches(who.owner) for p in match.owners)):
            return NO, "owners"
        if match.databases and not any(p.matches(who.database) for p in match.databases):
            return NO, "databases"
        if match.min_risk is not None and _RISKS.index(self.classification.risk) < _RISKS.index(match.min_risk):
            return NO, "min_risk"
        answers = []
        if match.networks:
            answers.append((_network(match, who.client_addr), "networks"))
        if match.hours:
            self.used_facts = True
            answers.append((_hours(match, self.facts.now), "hours"))
        return min(answers, default=_MET, key=lambda found: found[0])

    def _touched(self, key: str, match: Match, statement: Statement, needs_all: bool) -> Answer:
        if key == "relations":
            names, is_certain = _relations(statement)
            return _named(match.relations, names, statement.search_path, is_certain, needs_all)
        if key == "functions":
            names, is_certain = statement.functions, statement.relations_known
            return _named(match.functions, names, None, is_certain, needs_all)
        return self._tags_of(match, statement, needs_all)

    def _tags_of(self, match: Match, statement: Statement, needs_all: bool) -> Answer:
        found = self.tags(statement)
        if not statement.relations_known:
            return MAYBE
        if match.tags.isdisjoint(found):
            return NO
        if not needs_all:
            return YES
        # As with relations: what a rule allows must be all that the statement touches.
        return YES if found <= match.tags and self._is_certain(statement) else MAYBE

    def _is_certain(self, statement: Statement) -> bool:
        """Whether it is known which relations the tagged ones among those named are."""
        if statement.reaches is not None:
            return True
        path = statement.search_path
        patterns = [column.relation for _, columns in self._rules.tags for column in columns]
        return all(
            p.surely_matches(name, path) or not p.may_match(name, path)
            for name in statement.relations
            for p in patterns
        )

    def tags(self, statement: Statement) -> frozenset[str]:
        """The tags a statement may touch, as far as its relations are known."""
        found = self._tags.get(id(statement))
        if found is None:
            names, _ = _relations(statement)
            found = frozenset(tag for tag, columns in self._rules.tags if _touches(columns, names, statement))
            self._tags[id(statement)] = found
        return found

    def touches(self) -> Touches:
        """What the whole text touches, for conditions."""
        if self._touches is None:
            statements = self.classification.statements
            is_known = all(s.relations_known for s in statements)
            reaches = [s.reaches for s in statements]
            tags = sorted({tag for s in statements for tag in self.tags(s)})
            self._touches = Touches(
                _joined(s.relations for s in statements) if is_known else None,
                _joined(r for r in reaches if r is not None) if None not in reaches else None,
                _joined(s.column_names for s in statements) if is_known else None,
                _joined(s.functions for s in statements) if is_known else None,
                tags if is_known else None,
            )
        return self._touches


def _effect(rule: Rule, answer: Answer) -> Effect:
    if answer is NO:
        return Effect.PASSED
    if answer is YES or rule.outcome is Outcome.DENY:
        return Effect.DECIDES
    if rule.outcome is Outcome.APPROVE:
        return Effect.COUNTS
    return Effect.RESTRICTS if rule.limits or rule.requires else Effect.PASSED


def _relations(statement: Statement) -> tuple[tuple[str, ...], bool]:
    """The relations of a statement, and whether they are all of them."""
    if statement.reaches is not None:
        return statement.reaches, True
    return statement.relations, statement.relations_known


def _named(
    patterns: tuple[RelationPattern, ...], names: Iterable[str], path: Path, is_certain: bool, needs_all: bool
) -> Answer:
    may = sure = False
    are_all = True
    for name in names:
        this_is_sure = any(p.surely_matches(name, path) for p in patterns)
        sure = sure or this_is_sure
        may = may or this_is_sure or any(p.may_match(name, path) for p in patterns)
        are_all = are_all and this_is_sure
    if not may:
        return NO if is_certain else MAYBE
    if needs_all:
        return YES if is_certain and are_all else MAYBE
    return YES if sure else MAYBE


def _touches(columns: tuple[ColumnPattern, ...], names: tuple[str, ...], statement: Statement) -> bool:
    """Whether a statement may touch one of these columns: its relation is touched, and the column is named, or whole
    rows may be meant."""
    whole = statement.whole_rows
    for column in columns:
        for name in names:
            if column.relation.may_match(name, statement.search_path) and (
                name in whole or "*" in whole or column.has_column(statement.column_names)
            ):
                return True
    return False


def _network(match: Match, client_addr: str) -> Answer:
    if client_addr == LOCAL:
        return YES if LOCAL in match.networks else NO
    try:
        address = ipaddress.ip_address(client_addr)
    except ValueError:
        return MAYBE
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return YES if any(not isinstance(n, str) and address in n for n in match.networks) else NO


def _hours(match: Match, now: float) -> Answer:
    try:
        return YES if any(hours.has(now) for hours in match.hours) else NO
    except (ValueError, OverflowError, OSError):
        return MAYBE


def _joined(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(item for items in lists for item in items))
