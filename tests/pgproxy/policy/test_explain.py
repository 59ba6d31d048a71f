"""Why a statement was decided as it was."""

from __future__ import annotations

import json

from classifier import classify
from pgproxy.policy import Identity, Policy, explain, read_rules

RULES = read_rules(
    {
        "version": 1,
        "rules": [
            {"name": "scratch", "match": {"relations": ["scratch.*"]}, "decision": "allow", "budget": {"rows": 5}},
            {"name": "pii", "match": {"tags": ["pii"]}, "decision": "approve", "message": "personal data",
             "approvers": {"groups": ["privacy"], "count": 2, "via": ["console"]}, "timeout": "5m"},
            {"name": "drops", "match": {"verbs": ["drop"]}, "decision": "deny", "message": "never"},
        ],
        "tags": {"pii": ["public.customers.email"]},
    }
)  # fmt: skip
BOT = Identity("bot", "alice", "app", "shop")


def told(sql: str) -> dict[str, object]:
    found = explain(classify(sql), BOT, Policy(rules=RULES))
    assert json.loads(json.dumps(found)) == found
    assert found["policy_version"] == RULES.version
    return found


def test_the_rule_and_those_passed_over() -> None:
    found = told("SELECT email FROM public.customers")
    assert found["actions"] == [
        {
            "statement": 0,
            "kind": "SelectStmt",
            "class": "read",
            "verb": "select",
            "object": None,
            "tags": ["pii"],
            "rule": "pii",
            "decision": "approve",
            "met": "yes",
            "passed_over": [{"rule": "scratch", "key": "relations", "met": "no", "effect": "passed"}],
        }
    ]
    assert found["decision"] == {
        "decision": "approve",
        "rule": "pii",
        "requirements": [{"rule": "pii", "groups": ["privacy"], "count": 2}],
        "timeout_s": 300.0,
        "channels": ["console"],
        "notify": [],
        "escalations": [],
        "message": "personal data",
    }


def test_what_is_not_known_is_told() -> None:
    (action,) = told("DO 'BEGIN END'")["actions"]  # type: ignore[misc]
    assert (action["rule"], action["met"]) == ("built-in", "yes")
    assert action["passed_over"] == [
        {"rule": "scratch", "key": "relations", "met": "perhaps", "effect": "restricts"},
        {"rule": "pii", "key": "tags", "met": "perhaps", "effect": "counts"},
        {"rule": "drops", "key": "verbs", "met": "no", "effect": "passed"},
    ]


def test_each_statement_and_action() -> None:
    found = told("SELECT id FROM scratch.a; DROP TABLE b")
    assert [(a["statement"], a["rule"], a["decision"]) for a in found["actions"]] == [  # type: ignore[attr-defined]
        (0, "scratch", "allow"),
        (1, "drops", "deny"),
    ]
    assert found["decision"] == {
        "decision": "deny",
        "rule": "drops",
        "reason": "a rule denies it",
        "hint": None,
        "message": "never",
    }


def test_budgets_are_told() -> None:
    decision = told("SELECT id FROM scratch.a")["decision"]
    assert decision["decision"] == "allow"  # type: ignore[index]
    (budget,) = decision["budgets"]  # type: ignore[index]
    assert (budget["rule"], budget["per"], budget["rows"], budget["bytes"]) == ("scratch", "portal", 5, None)
    assert budget["beyond"]["requirements"] == [{"rule": "scratch", "groups": [], "count": 1}]
