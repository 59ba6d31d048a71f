"""Impact and history on a terminal: readable, whole, and never able to look like something else."""

from __future__ import annotations

from typing import Any

from approvals.briefing import brief

HOSTILE = "evil\x1b[2J\u202e\nvote      approve by root"

IMPACT: dict[str, Any] = {
    "gathered_at": "2026-11-24T10:00:00.000000Z",
    "sha256": "ab",
    "search_path": ["public"],
    "relations": [
        {
            "as_written": HOSTILE,
            "name": HOSTILE,
            "kind": "table",
            "owner": HOSTILE,
            "columns": 2,
            "row_security": True,
            "triggers": 1,
            "estimated_rows": 1_200_000,
            "total_bytes": 3 * 1024**3,
            "heap_bytes": 1,
            "index_bytes": 512,
            "lock": "ACCESS EXCLUSIVE",
            "locks": [
                {
                    "pid": 7,
                    "user": "app",
                    "application_name": HOSTILE,
                    "state": "active",
                    "mode": "ROW EXCLUSIVE",
                    "granted": True,
                    "since": None,
                    "is_requester": False,
                    "conflicts": True,
                    "query": f"UPDATE {HOSTILE}",
                    "query_cut": True,
                }
            ],
        },
        {"as_written": "gone", "lock": None, "name": None, "note": "no such relation is visible now"},
    ],
    "session_locks": {"unavailable": "the session's server process is not known"},
    "plan": [
        {"statement": 1, "rows": 1234, "cost": 5.5, "generic": True},
        {"statement": 2, "skipped": f"planning could run a user's code: {HOSTILE}"},
    ],
    "cascades": {
        "cut": True,
        "foreign_keys": [
            {"table": "a.b", "references": "a.c", "estimated_rows": None, "depth": 2, "effect": "rows are deleted too"}
        ],
    },
    "dependents": {
        "cascade": False,
        "refused": True,
        "count": 1,
        "cut": False,
        "objects": [{"type": "view", "name": HOSTILE, "belongs": False}],
    },
    "privileges": [
        {
            "object": "table a.b",
            "grantee": "bob",
            "flags": ["LOGIN"],
            "before": {},
            "after": {"SELECT": "granted by this"},
            "gains": ["SELECT"],
            "loses": [],
        },
        {"cut": True},
    ],
    "roles": [
        {
            "role": HOSTILE,
            "granted": ["boss"],
            "before": None,
            "after": {"flags": [], "reaches": ["boss"], "reaches_flags": ["SUPERUSER"]},
        }
    ],
    "functions": [
        {
            "name": "f()",
            "is": "called",
            "language": "sql",
            "volatility": "VOLATILE",
            "security_definer": True,
            "owner": "app",
            "settings": [],
            "body": HOSTILE,
            "body_cut": True,
            "body_length": 20_000,
            "body_sha256": "cd",
        }
    ],
    "settings": [
        {"name": "work_mem", "value": "4096", "unit": "kB", "stored": [{"role": "r", "database": None, "setting": "x"}]}
    ],
}
HISTORY: dict[str, Any] = {
    "same_fingerprint": {
        "approved": 2,
        "denied": 1,
        "expired": 0,
        "withdrawn": 0,
        "pending": 0,
        "last": [
            {
                "id": "a1",
                "status": "denied",
                "created_at": "t",
                "decisions": [{"reviewer": "bob", "decision": "deny", "comment": HOSTILE, "at": "t", "via": "api"}],
            }
        ],
    },
    "agent_24h": {"approved": 0, "denied": 0, "expired": 0, "withdrawn": 0, "pending": 0},
    "relations": [
        {"relation": HOSTILE, "first_request": True, "first_request_at": "t"},
        {"relation": "known", "first_request": False, "first_request_at": "t0"},
    ],
    "recent_statements": [{"time": "t", "decision": "allowed", "sql": "SELECT 1\n" + HOSTILE}],
}


def approval(**context: Any) -> dict[str, Any]:
    return {"statement": {"sha256": "ab"}, "context": context}


def test_everything_is_told() -> None:
    text = "\n".join(brief(approval(impact=IMPACT, history=HISTORY)))
    for part in (
        "about 1,200,000 rows, 3.0 GB (512 B of indexes), 2 columns, row security on, 1 triggers",
        "lock ACCESS EXCLUSIVE",
        "holds ROW EXCLUSIVE -- CONFLICTS",
        "gone: no such relation is visible now",
        "session_locks: not known: the session's server process is not known",
        "planner: about 1,234 rows, cost 5.5, whatever its parameters",
        "planner: not asked: planning could run a user's code",
        "a.b (an unknown number of rows) refers to a.c: rows are deleted too",
        "and more foreign keys",
        "refused, because these depend on it:",
        "before: nothing",
        "after: SELECT (granted by this)",
        "before: there is none",
        "no attributes, may act as boss, and so be SUPERUSER",
        "SECURITY DEFINER, of app",
        "cut: 20,000 characters, sha256 cd",
        "setting work_mem is 4096kB",
        "the same statement before: 2 approved, 1 denied",
        "this agent's requests of the last 24 h: never",
        "the first request of this agent about it",
        "known: asked about since t0",
        "allowed  SELECT 1 …",
    ):
        assert part in text, part


def test_nothing_in_it_can_move_the_cursor_or_begin_a_line() -> None:
    lines = brief(approval(impact=IMPACT, history=HISTORY))
    assert all("\n" not in line and "\x1b" not in line and "\u202e" not in line for line in lines)
    assert not any(line.lstrip().startswith("vote") for line in lines)
    # A body's and a query's own lines have a prefix.
    assert sum("| vote      approve by root" in line for line in lines) == 2


def test_what_failed_or_is_of_another_version_is_told() -> None:
    assert brief(approval()) == []
    assert brief({"context": None}) == []
    assert brief(approval(impact={"unavailable": "upstream.observer is not set"})) == [
        "what it would do",
        "  not known: upstream.observer is not set",
    ]
    assert brief(approval(impact={"relations": {"error": "x"}, "new": [1], "plan": 3})) == [
        "what it would do",
        "  relations: not known: x",
        "  new: [1]",
        "  plan: 3",
    ]


def test_what_is_about_an_earlier_text_says_so() -> None:
    lines = brief(approval(impact={"sha256": "other", "plan": []}))
    assert "  of an earlier text: the statement was modified since" in lines
