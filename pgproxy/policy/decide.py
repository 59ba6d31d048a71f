"""The decision for one text: for each action of each statement the first rule that is met (and those before it that may
be), else the built-in default; of these the strictest, deny before approve before allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from classifier.model import UNPRIVILEGED, Action, ActionClass, Classification, Statement
from pgproxy.policy.decisions import (
    Budget,
    Decision,
    Deny,
    Escalation,
    Facts,
    Forward,
    Identity,
    Mode,
    Park,
    Replication,
    Requirement,
)
from pgproxy.policy.matching import Effect, Judged
from pgproxy.policy.rules import BUILT_IN, BUILT_IN_RULE, Outcome, Rule, RuleSet, built_in_budgets

# The kind of the one "statement" that a start-up packet asking for replication amounts to.
REPLICATION_START = "ReplicationStart"

# Of a start-up packet, where nothing but the identity is known yet.
UNKNOWN_FACTS = Facts()

# Classes whose statements may return rows (a write by RETURNING).
_WITH_ROWS: Final = frozenset({ActionClass.READ, ActionClass.WRITE})
# Statements whose result the planner can foretell.
_ESTIMABLE: Final = frozenset(
    {"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "DeclareCursorStmt"}
)
_SAY: Final = {
    "reason": "SET pgproxy.reason = '…', or -c pgproxy.reason=… in the connection's options",
    "ticket": "SET pgproxy.ticket = '…', or end the statement with /*ticket='…'*/",
    "context": "SET pgproxy.context = '{…}', or -c pgproxy.context=… in the connection's options",
}

_REMEMBERED: Final = 4_096
_REMEMBERED_STATEMENTS: Final = 8  # of a text; longer ones are rare, and large
_Known = dict[tuple[int, int], tuple[Decision, Classification, Identity]]


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides. Without rules, the built-in default."""

    mode: Mode = Mode.ENFORCE
    approval_timeout_s: float = 600.0
    replication: Replication = Replication.DENY
    rules: RuleSet = BUILT_IN
    _plain: Forward = field(init=False, repr=False, compare=False)
    _with_rows: Forward = field(init=False, repr=False, compare=False)
    _known: _Known = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {})
        object.__setattr__(self, "_plain", Forward(BUILT_IN_RULE))
        budgets = built_in_budgets(self.approval_timeout_s) if self.mode is Mode.ENFORCE else ()
        object.__setattr__(self, "_with_rows", Forward(BUILT_IN_RULE, budgets=budgets))

    @property
    def version(self) -> str:
        """It is on every record that this policy decided."""
        return self.rules.version

    def recall(self, classification: Classification, identity: Identity) -> Decision | None:
        """An earlier decision that depends on nothing else. The very same objects: comparing them takes longer than
        deciding."""
        found = self._known.get((id(classification), id(identity)))
        return found[0] if found is not None else None

    def remember(self, classification: Classification, identity: Identity, decision: Decision) -> None:
        """What `recall` will answer; the objects are kept, so that no others can take their ids."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        if len(classification.statements) <= _REMEMBERED_STATEMENTS:
            self._known[id(classification), id(identity)] = decision, classification, identity

    def built_in_forward(self, classification: Classification) -> Forward:
        """The default for what is not privileged."""
        has_rows = any(a.cls in _WITH_ROWS for s in classification.statements for a in s.actions)
        return self._with_rows if has_rows else self._plain


class PolicyInForce:
    """The policy of now: replaced as a whole, and taken up by each session between two statements."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy

    def replace(self, policy: Policy) -> None:
        self.current = policy


def is_privileged(classification: Classification) -> bool:
    """Privileged by class, whatever the classifier's own flag says: the stricter of the two counts."""
    return classification.privileged or _has_privileged_action(classification)


def _has_privileged_action(classification: Classification) -> bool:
    return any(a.cls not in UNPRIVILEGED for s in classification.statements for a in s.actions)


def decide(
    classification: Classification, identity: Identity, policy: Policy, facts: Facts = UNKNOWN_FACTS
) -> Decision:
    """The decision for one text of one identity.

    Nothing of an agent without an owner is ever parked, it is denied: nobody could be kept from approving their own
    request (the hint names the key to set). A rule that allows still lets such an agent pass: that is the operator's
    decision and asks nobody.
    """
    known = policy.recall(classification, identity)
    if known is not None:
        return known
    if not policy.rules.rules and not is_privileged(classification):
        decision: Decision = policy.built_in_forward(classification)
        used_facts = False
    else:
        decision, used_facts = _strict(classification, identity, policy, facts)
    if policy.mode is Mode.OBSERVE:
        decision = Forward(decision.rule, observed=not isinstance(decision, Forward))
    if not used_facts:
        policy.remember(classification, identity, decision)
    return decision


def wants_estimate(classification: Classification, identity: Identity, policy: Policy, facts: Facts) -> bool:
    """Whether the decision depends on `rows_estimate`, which the server's planner would have to be asked for."""
    if not policy.rules.asks_planner or facts.rows_estimate is not None or len(classification.statements) != 1:
        return False
    if classification.statements[0].kind not in _ESTIMABLE:
        return False
    judged = Judged(classification, identity, policy.rules, facts)
    return any(
        judged.needs_estimate(policy.rules.by_class[action.cls], statement, action)
        for statement, action in _actions(classification)
    )


def _strict(classification: Classification, identity: Identity, policy: Policy, facts: Facts) -> tuple[Decision, bool]:
    """The decision as `enforce` has it, and whether it depends on `facts`."""
    if policy.replication is Replication.DENY and any(s.kind == REPLICATION_START for s in classification.statements):
        denied = Deny(
            BUILT_IN_RULE,
            "a replication connection reads the whole server",
            "connect to the server itself for replication, or ask the operator to set replication: approve",
            unsupported=True,
        )
        return denied, False
    verdict = _Verdict(policy)
    judged = Judged(classification, identity, policy.rules, facts)
    for statement, action in _actions(classification):
        effect = Effect.PASSED
        for rule, effect, _, _ in judged.effects(policy.rules.by_class[action.cls], statement, action):
            if effect is not Effect.PASSED:
                verdict.add(rule, effect)
        if effect is not Effect.DECIDES:
            verdict.add_default(action.cls)
    if classification.privileged and not _has_privileged_action(classification):
        verdict.add_default(ActionClass.UNKNOWN)  # the classifier knows something that no class says
    return verdict.decision(identity, facts), judged.used_facts or verdict.uses_facts


def _actions(classification: Classification) -> Iterator[tuple[Statement, Action]]:
    """Each action once; one without any would have no rule, so a statement without actions has the one nobody knows."""
    for statement in classification.statements:
        if not statement.actions:
            yield statement, _NOTHING_KNOWN
        seen: set[tuple[ActionClass, str]] = set()
        for action in statement.actions:
            if (action.cls, action.verb) not in seen:
                seen.add((action.cls, action.verb))
                yield statement, action


_NOTHING_KNOWN: Final = Action(ActionClass.UNKNOWN, "not_understood")


class _Verdict:
    """Rules gathered from all actions, and what they come to together."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._by_outcome: dict[Outcome, dict[str, Rule | None]] = {outcome: {} for outcome in Outcome}
        self._requiring: dict[str, Rule] = {}
        self._budgets: dict[Budget, None] = {}
        self.uses_facts = False

    def add(self, rule: Rule, effect: Effect) -> None:
        self.uses_facts = self.uses_facts or rule.denies_in_transaction or bool(rule.requires)
        self._requiring[rule.name] = rule
        if rule.limits:
            self._budgets.update(dict.fromkeys(rule.budgets(self._policy.approval_timeout_s)))
        if effect is not Effect.RESTRICTS:
            self._by_outcome[rule.outcome][rule.name] = rule

    def add_default(self, cls: ActionClass) -> None:
        outcome = Outcome.ALLOW if cls in UNPRIVILEGED else Outcome.APPROVE
        self._by_outcome[outcome][BUILT_IN_RULE] = None
        if cls in _WITH_ROWS:
            self._budgets.update(dict.fromkeys(built_in_budgets(self._policy.approval_timeout_s)))

    def decision(self, identity: Identity, facts: Facts) -> Decision:
        denying = [rule for rule in self._by_outcome[Outcome.DENY].values() if rule is not None]
        if denying:
            said = _joined_messages(denying)
            return Deny(_names(denying), "a rule denies it", None, message=said)
        missing = _missing(self._requiring.values(), facts)
        if missing is not None:
            return missing
        if not self._by_outcome[Outcome.APPROVE]:
            names = ", ".join(self._by_outcome[Outcome.ALLOW]) or BUILT_IN_RULE
            return Forward(names, budgets=tuple(self._budgets))
        return self._parked(identity, facts)

    def _parked(self, identity: Identity, facts: Facts) -> Decision:
        asking = self._by_outcome[Outcome.APPROVE]
        names = ", ".join(asking)
        if facts.in_transaction:
            outside = [rule for rule in asking.values() if rule is not None and rule.denies_in_transaction]
            if outside:
                return Deny(
                    _names(outside),
                    "inside a transaction block it would hold locks while somebody decides",
                    "send it outside of a transaction block",
                    message=_joined_messages(outside),
                )
        if identity.owner is None:
            return Deny(
                names,
                f'agent "{identity.agent}" has no owner, so no one may approve for it',
                "name an owner for the agent under agents, or set auth.default_owner",
            )
        timeout_s = self._policy.approval_timeout_s
        default = Park(BUILT_IN_RULE, timeout_s, (Requirement(BUILT_IN_RULE),))
        return _together(names, [default if rule is None else rule.park(timeout_s) for rule in asking.values()])


def _together(names: str, parks: list[Park]) -> Decision:
    """All that several rules ask for; channels that no rule forbids."""
    if len(parks) == 1:
        return parks[0]
    limited = [park.channels for park in parks if park.channels]
    channels = tuple(c for c in limited[0] if all(c in other for other in limited)) if limited else ()
    if limited and not channels:
        return Deny(
            names,
            "the rules want it decided in different places, and no place satisfies all",
            "ask the operator; approvers.via of these rules have nothing in common",
        )
    escalations: dict[Escalation, None] = {e: None for park in parks for e in park.escalations}
    return Park(
        names,
        min(park.timeout_s for park in parks),
        tuple(requirement for park in parks for requirement in park.requirements),
        channels,
        tuple(dict.fromkeys(target for park in parks for target in park.notify)),
        tuple(sorted(escalations, key=lambda e: e.after_s)),
        "; ".join(dict.fromkeys(park.message for park in parks if park.message)) or None,
    )


def _missing(rules: Iterable[Rule], facts: Facts) -> Deny | None:
    """What an agent had to say and did not."""
    for rule in rules:
        for what in rule.requires:
            said = getattr(facts, what)
            if said is None or (isinstance(said, str) and not said.strip()):
                return Deny(rule.name, f"it needs a {what}", f"say it first: {_SAY[what]}", message=rule.message)
    return None


def _names(rules: list[Rule]) -> str:
    return ", ".join(rule.name for rule in rules)


def _joined_messages(rules: list[Rule]) -> str | None:
    return "; ".join(dict.fromkeys(rule.message for rule in rules if rule.message)) or None
