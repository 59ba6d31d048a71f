"""Why a text was decided as it was, as plain data: for `pgproxy policy explain` and the console."""

from __future__ import annotations

from typing import Any, assert_never

from classifier.model import UNPRIVILEGED, Classification
from pgproxy.policy.decide import UNKNOWN_FACTS, Policy, decide
from pgproxy.policy.decisions import Budget, Decision, Deny, Facts, Forward, Identity, Park
from pgproxy.policy.matching import Answer, Effect, Judged
from pgproxy.policy.rules import BUILT_IN_RULE


def explain(
    classification: Classification, identity: Identity, policy: Policy, facts: Facts = UNKNOWN_FACTS
) -> dict[str, Any]:
    """`decision` (see `describe`), and for each action of each statement the rule that decided it, its `decision`, the
    tags its statement may touch, and `passed_over`: the rules before it, each with the key it failed at. `met` is
    `yes`, or `perhaps` where that could not be known; `effect` says what then counted against the statement all the
    same: `restricts` (budgets and `require` of a rule that allows) or `counts` (a rule that asks)."""
    judged = Judged(classification, identity, policy.rules, facts)
    actions = []
    for number, statement in enumerate(classification.statements):
        for action in statement.actions:
            passed_over = []
            decided = {
                "rule": BUILT_IN_RULE,
                "decision": "allow" if action.cls in UNPRIVILEGED else "approve",
                "met": "yes",
            }
            for rule, effect, answer, key in judged.effects(policy.rules.rules, statement, action):
                met = {Answer.YES: "yes", Answer.MAYBE: "perhaps", Answer.NO: "no"}[answer]
                if effect is Effect.DECIDES:
                    decided = {"rule": rule.name, "decision": str(rule.outcome), "met": met}
                    if key:
                        decided["unknown"] = key
                else:
                    passed_over.append({"rule": rule.name, "key": key, "met": met, "effect": effect.value})
            actions.append(
                {
                    "statement": number,
                    "kind": statement.kind,
                    "class": str(action.cls),
                    "verb": action.verb,
                    "object": action.object,
                    "tags": sorted(judged.tags(statement)),
                    **decided,
                    "passed_over": passed_over,
                }
            )
    return {
        "policy_version": policy.version,
        "decision": describe(decide(classification, identity, policy, facts)),
        "actions": actions,
    }


def describe(decision: Decision) -> dict[str, Any]:
    """A decision as plain data; `decision` is `allow`, `approve` or `deny`."""
    match decision:
        case Forward(rule=rule, observed=observed, budgets=budgets):
            return {
                "decision": "allow",
                "rule": rule,
                "observed": observed,
                "budgets": [_budget(budget) for budget in budgets],
            }
        case Park():
            return {"decision": "approve", "rule": decision.rule, **_park(decision)}
        case Deny(rule=rule, reason=reason, hint=hint, message=message):
            return {"decision": "deny", "rule": rule, "reason": reason, "hint": hint, "message": message}
        case _:
            assert_never(decision)


def _park(park: Park) -> dict[str, Any]:
    return {
        "requirements": [{"rule": r.rule, "groups": list(r.groups), "count": r.count} for r in park.requirements],
        "timeout_s": park.timeout_s,
        "channels": list(park.channels),
        "notify": list(park.notify),
        "escalations": [{"after_s": e.after_s, "notify": list(e.notify)} for e in park.escalations],
        "message": park.message,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "rule": budget.rule,
        "per": str(budget.per),
        "rows": budget.rows,
        "bytes": budget.bytes,
        "beyond": _park(budget.park),
    }
