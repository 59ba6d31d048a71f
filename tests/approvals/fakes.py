"""Stand-ins for the rest of the program, behind the API's ports."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from approvals.model import Requirement
from approvals.ports import Verdict


class FakeSessions:
    def __init__(self) -> None:
        self.live = ["s1"]

    async def list(self) -> list[dict[str, Any]]:
        return [{"id": session_id} for session_id in self.live]

    async def end(self, session_id: str) -> bool:
        return session_id in self.live


class FakeReadiness:
    def __init__(self) -> None:
        self.problems: list[str] = []

    async def remarks(self) -> list[str]:
        return ["no catalog"]

    async def check(self) -> list[str]:
        return self.problems


class FakeReloader:
    def __init__(self) -> None:
        self.asked_by: list[str] = []
        self.problems: list[str] = []

    async def reload(self, by: str) -> dict[str, Any]:
        self.asked_by.append(by)
        return {
            "reloaded": not self.problems,
            "changed": ["limits.parked"],
            "needs_restart": [],
            "problems": self.problems,
        }


class FakeServices:
    """Classifier, audit reader and metrics; remembers what it was asked."""

    def __init__(self) -> None:
        self.classified: list[str] = []
        self.searched: list[dict[str, Any]] = []
        self.refuse: str | None = None
        self.sessions = FakeSessions()
        self.readiness = FakeReadiness()
        self.reloader = FakeReloader()
        self.judge = FakeJudge()
        self.explainer = FakeExplainer()
        self.entries: list[dict[str, Any]] = []
        self.counts: list[tuple[datetime, str, int]] = []

    async def classify(self, sql: str, database: str | None = None) -> dict[str, Any]:
        if self.refuse is not None:
            raise ValueError(self.refuse)
        self.classified.append(sql)
        return {"privileged": False, "risk": "low", "fingerprint": "", "normalized": sql, "statements": []}

    async def search(self, **filters: Any) -> dict[str, Any]:
        if filters["cursor"] == "bad":
            raise ValueError("not a cursor")
        self.searched.append(filters)
        return {"items": self.entries, "next": None}

    async def count_by_class(self, since: datetime, step_s: float) -> list[tuple[datetime, str, int]]:
        return [(since + timedelta(seconds=step_s), class_, number) for _, class_, number in self.counts]

    def render(self) -> tuple[bytes, str]:
        return b"pgproxy_sessions_total 1\n", "text/plain; version=1.0.0"


def classified(class_: str, *relations: str, verb: str = "copy_to_stdout") -> dict[str, Any]:
    """A classification object of one action on the first of the relations."""
    return {
        "privileged": class_ not in ("read", "write"),
        "risk": "high",
        "fingerprint": f"f-{class_}",
        "normalized": "…",
        "statements": [
            {
                "kind": "CopyStmt",
                "tag": "COPY",
                "actions": [{"class": class_, "verb": verb, "object": relations[0], "detail": ""}],
                "relations": list(relations),
                "functions": [],
                "reasons": [],
            }
        ],
    }


class FakeJudge:
    """Answers what the test says; by default as policy says to a smaller export of the same relation."""

    def __init__(self) -> None:
        self.verdict = Verdict(
            "approve",
            classified("export", "customers"),
            "high",
            "exports",
            [Requirement("exports", ("dba",), 1)],
            policy_version="p2",
        )
        self.refuse: str | None = None
        self.asked: list[tuple[str, str]] = []

    def answers(self, **changes: Any) -> FakeJudge:
        self.verdict = replace(self.verdict, **changes)
        return self

    async def judge(self, sql: str, approval: dict[str, Any]) -> Verdict:
        self.asked.append((sql, approval["requester"]["agent"]))
        if self.refuse is not None:
            raise ValueError(self.refuse)
        return self.verdict


class FakeExplainer:
    """A policy of one rule; remembers whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str | None]]] = []
        self.refuse: str | None = None
        self.rules: list[dict[str, Any]] = [
            {
                "name": "exports",
                "decision": "approve",
                "match": {"classes": ["export"]},
                "asks": {"groups": ["dba"], "count": 2},
                "budgets": [],
            }
        ]

    async def describe(self) -> dict[str, Any]:
        return {
            "version": "p1",
            "mode": "enforce",
            "replication": "deny",
            "approval_timeout_s": 600.0,
            "rules": self.rules,
            "tags": {"pii": ["customers.email"]},
        }

    async def explain(self, sql: str, who: dict[str, str | None]) -> dict[str, Any]:
        if self.refuse is not None:
            raise ValueError(self.refuse)
        self.asked.append((sql, who))
        return {
            "policy_version": "p1",
            "risk": "high",
            "decision": {"decision": "approve", "rule": "exports", "message": None, "requirements": []},
            "actions": [
                {
                    "statement": 0,
                    "kind": "CopyStmt",
                    "class": "export",
                    "verb": "copy_to_stdout",
                    "object": "customers",
                    "tags": [],
                    "rule": "exports",
                    "decision": "approve",
                    "met": "yes",
                    "passed_over": [{"rule": "nights", "key": "hours", "met": "no", "effect": "none"}],
                }
            ],
        }
