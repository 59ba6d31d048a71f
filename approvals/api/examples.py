"""What the OpenAPI document shows: one case, seen from every route."""

from __future__ import annotations

from typing import Any

APPROVAL_ID = "a1y8yjkm0xw3g5t2"
GRANT_ID = "g1y8yk0c6q1m9d4z"

CLASSIFICATION: dict[str, Any] = {
    "privileged": True,
    "risk": "high",
    "fingerprint": "9f2c5d1e7a3b8c40",
    "normalized": "COPY customers TO STDOUT",
    "statements": [
        {
            "kind": "CopyStmt",
            "tag": "COPY",
            "actions": [{"class": "export", "verb": "copy_to_stdout", "object": "customers", "detail": ""}],
            "relations": ["customers"],
            "functions": [],
            "reasons": ["COPY … TO STDOUT sends table rows to the client"],
        }
    ],
}

APPROVAL: dict[str, Any] = {
    "id": APPROVAL_ID,
    "status": "approved",
    "created_at": "2026-11-21T10:30:00.000000Z",
    "expires_at": "2026-11-21T10:40:00.000000Z",
    "requester": {
        "agent": "etl-bot",
        "owner": "alice@example.com",
        "db_user": "app",
        "database": "shop",
        "client_addr": "10.0.0.7:51234",
        "application_name": "psql",
        "session_id": "s1",
        "reason": "monthly export",
        "ticket": "OPS-12",
        "context": None,
    },
    "statement": {
        "sql": "COPY customers TO STDOUT",
        "sha256": "d2e5a4a4e2c2a9b6d5f0e6f2bb7c4d8f0a1b2c3d4e5f60718293a4b5c6d7e8f9",
        "params": [],
    },
    "classification": CLASSIFICATION,
    "risk": "high",
    "rule": "exports",
    "required_approvals": 1,
    "requirements": [{"rule": "exports", "groups": ["dba"], "count": 1, "approvals": 1}],
    "context": {"in_transaction": False, "protocol": "simple"},
    "decisions": [
        {
            "reviewer": "bob@example.com",
            "decision": "approve",
            "comment": "fine, once",
            "at": "2026-11-21T10:31:07.250000Z",
            "via": "api",
            "revision": 1,
            "voided": False,
            "counts": True,
            "grant": None,
        }
    ],
    "comments": [{"reviewer": "bob@example.com", "text": "for whom?", "at": "2026-11-21T10:30:40.000000Z"}],
    "outcome": None,
    "withdraw_reason": None,
    "revision": 1,
    "original": None,
    "modified_by": None,
    "wait": True,
    "channels": [],
    "notify": [],
    "escalations": [],
    "message": None,
    "policy_version": "7c1f0e2a",
    "budget": None,
    "row_cap": None,
    "grant_id": None,
    "made_grant_id": None,
    "grant_scopes": ["exact", "text"],
}

GRANT: dict[str, Any] = {
    "id": GRANT_ID,
    "in_force": True,
    "created_at": "2026-11-21T10:31:07.250000Z",
    "expires_at": "2026-11-21T10:46:07.250000Z",
    "agent": "etl-bot",
    "owner": "alice@example.com",
    "database": "shop",
    "db_user": "app",
    "environment": "5e1d",
    "scope": "text",
    "text_sha256": "d2e5a4a4e2c2a9b6d5f0e6f2bb7c4d8f0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "shape": None,
    "uses": 10,
    "uses_left": 9,
    "row_cap": 50000,
    "classes": ["export"],
    "relations": ["customers"],
    "risk": "high",
    "requirements": [{"rule": "exports", "groups": ["dba"], "count": 1}],
    "rule": "exports",
    "approval_id": APPROVAL_ID,
    "reviewers": ["bob@example.com"],
    "comment": "fine, once",
    "revoked_at": None,
    "revoked_by": None,
}

SESSION: dict[str, Any] = {"id": "s1", "agent": "etl-bot", "database": "shop", "state": "parked"}

AUDIT_ENTRY: dict[str, Any] = {
    "seq": 4711,
    "node": "n1",
    "time": "2026-11-21T10:31:07.300000Z",
    "kind": "statement",
    "agent": "etl-bot",
    "decision": "approved",
    "approval_id": APPROVAL_ID,
}

INDEX: dict[str, Any] = {
    "name": "pgproxy",
    "links": {
        "approvals": "/v1/approvals",
        "events": "/v1/approvals/events",
        "grants": "/v1/grants",
        "audit": "/v1/audit",
        "openapi": "/openapi.json",
        "health": "/healthz",
        "readiness": "/readyz",
        "metrics": "/metrics",
    },
}

EVENT: dict[str, Any] = {"id": "17", "event": "approval", "data": f'{{"id": "{APPROVAL_ID}", "status": "pending"}}'}

DECISIONS: Any = {
    "approve": {"value": {"decision": "approve", "comment": "fine, once"}},
    "read": {"value": {"decision": "approve", "sha256": APPROVAL["statement"]["sha256"]}},
    "deny": {"value": {"decision": "deny", "comment": "not before the audit"}},
    "grant": {
        "value": {
            "decision": "approve",
            "grant": {"scope": "text", "seconds": 900, "uses": 10, "row_cap": 50000},
        }
    },
    "modify": {"value": {"decision": "modify", "sql": "COPY (SELECT id FROM customers LIMIT 100) TO STDOUT"}},
}
COMMENT: Any = {"question": {"value": {"text": "for whom?"}}}
CLASSIFY: Any = {"export": {"value": {"sql": "COPY customers TO STDOUT", "database": "shop"}}}


RELOADED: dict[str, Any] = {
    "reloaded": True,
    "changed": ["agents", "limits.parked"],
    "needs_restart": ["workers"],
    "problems": [],
}

NOT_RELOADED: dict[str, Any] = {
    "reloaded": False,
    "changed": [],
    "needs_restart": [],
    "problems": ["pgproxy.yaml:3: limts: unknown key; did you mean 'limits'?"],
}

ME: dict[str, Any] = {
    "name": "bob@example.com",
    "groups": ["dba"],
    "roles": ["reviewer"],
    "machine": False,
    "via": "console",
    "auth_time": "2026-11-21T10:25:01.000000Z",
    "csrf_token": "3q2-7wEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWc",
}

LOGIN: dict[str, Any] = {
    "id": "l7rd0q2v9f5k3m1x",
    "name": "bob@example.com",
    "by": "oidc",
    "address": "10.0.0.7",
    "user_agent": "Mozilla/5.0",
    "created_at": "2026-11-21T10:25:01.000000Z",
    "last_seen_at": "2026-11-21T10:29:44.000000Z",
    "expires_at": "2026-11-22T10:25:01.000000Z",
}


def page(item: dict[str, Any]) -> dict[str, Any]:
    return {"items": [item], "next": None}
