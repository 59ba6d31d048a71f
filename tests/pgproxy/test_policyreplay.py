"""A candidate policy over what was recorded."""

from __future__ import annotations

from typing import Any

import pytest

from classifier import classify
from pgproxy.policy import Policy, read_rules
from pgproxy.policyreplay import Replay, as_recorded, before_of, is_statement

RULES = read_rules(
    {
        "version": 1,
        "rules": [
            {"name": "hr", "match": {"relations": ["hr.*"]}, "decision": "deny"},
            {"name": "scratch", "match": {"relations": ["scratch.*"]}, "decision": "allow"},
            {"name": "night", "match": {"classes": ["write"], "hours": "22:00-06:00 UTC"}, "decision": "approve"},
        ],
    }
)


def entry(sql: str, decision: str = "allowed", **more: Any) -> dict[str, Any]:
    found = classify(sql)
    return {
        "kind": "statement",
        "time": "2026-01-02T12:00:00.000000Z",
        "sql": sql,
        "agent": "bot",
        "owner": "alice",
        "db_user": "app",
        "database": "shop",
        "client_addr": "10.0.0.1",
        "application_name": "",
        "reason": None,
        "ticket": None,
        "fingerprint": found.fingerprint,
        "classes": list(found.classes),
        "risk": str(found.risk),
        "decision": decision,
        "approval_id": None,
        **more,
    }


def played(*entries: dict[str, Any]) -> Replay:
    running = Replay(Policy(rules=RULES))
    for item in entries:
        running.add(item, classify(item["sql"]))
    return running


def test_what_would_start_and_stop() -> None:
    running = played(
        entry("SELECT id FROM hr.a WHERE id = 1"),
        entry("SELECT id FROM hr.a WHERE id = 2", agent="other"),
        entry("DROP TABLE scratch.a", "approved", approval_id="x"),
        entry("DROP TABLE public.a", "denied", approval_id="x"),
        entry("UPDATE public.a SET b = 1 WHERE c = 2"),
        entry("UPDATE public.a SET b = 1 WHERE c = 3", time="2026-01-02T23:00:00.000000Z"),
        entry("SELECT id FROM public.a"),
        entry("SELECT 1", "blocked"),
    )
    assert (running.statements, running.skipped) == (7, 1)
    assert [(c.before, c.after, c.rule, c.count, list(c.agents)) for c in running.changes] == [
        ("allow", "deny", "hr", 2, ["bot", "other"]),
        *sorted(
            [
                ("approve", "allow", "scratch", 1, ["bot"]),
                ("allow", "approve", "night", 1, ["bot"]),
            ],
            key=lambda c: next(x.fingerprint for x in running.changes if x.rule == c[2]),
        ),
    ]
    assert running.changes[0].example == "SELECT id FROM hr.a WHERE id = 1"
    assert running.to_dict()["changed"] == 4 and running.to_dict()["policy_version"] == RULES.version


@pytest.mark.parametrize(
    ("decision", "approval", "before"),
    [
        ("allowed", None, "allow"),
        ("observed", None, "approve"),
        ("approved", "x", "approve"),
        ("denied", "x", "approve"),
        ("denied", None, "deny"),
        ("expired", "x", "approve"),
        ("withdrawn", "x", "approve"),
        ("blocked", None, None),
    ],
)
def test_what_was_decided(decision: str, approval: str | None, before: str | None) -> None:
    assert before_of(entry("SELECT 1", decision, approval_id=approval)) == before


def test_what_the_catalog_knew_then_holds() -> None:
    """Without a catalog this is unknown; the trail says that it only read."""
    recorded = entry("SELECT own_function()") | {"classes": ["read"], "risk": "low"}
    found = as_recorded(classify(recorded["sql"]), recorded)
    assert (found.classes, found.privileged, str(found.risk)) == (("read",), False, "low")
    (change,) = played(recorded).changes  # what the function reads is not known now
    assert (change.after, change.rule, change.uncertain) == ("deny", "hr", 1)


def test_a_class_that_only_the_catalog_saw_holds_too() -> None:
    recorded = entry("INSERT INTO public.a (b) VALUES (1)") | {"classes": ["write", "ddl"], "risk": "high"}
    found = as_recorded(classify(recorded["sql"]), recorded)
    assert (found.classes, found.privileged) == (("write", "ddl"), True)
    (change,) = played(recorded).changes
    assert (change.before, change.after, change.rule) == ("allow", "approve", "built-in")


@pytest.mark.parametrize("item", [None, 5, {}, {"kind": "outcome", "sql": "x"}, {"kind": "statement", "sql": None}])
def test_what_is_no_statement(item: Any) -> None:
    assert not is_statement(item)
