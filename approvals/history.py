"""What an agent has done before: the value of a request's `context.history`. To be read; nothing is decided by it.

"First time" is told of requests for approval alone. Which relations every statement of an agent touched is in no
index (the trail keeps texts, not relations), so the store keeps the first request an agent made about each relation
(`approvals.touches`), by its resolved name where that is known and as written where not. A relation that an agent only
ever read unasked, and one asked about before this table was there, are new here once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals.documents import storable
from approvals.errors import StoreUnavailable
from approvals.model import rfc3339
from approvals.reading import history as earlier_requests
from approvals.requests import relations_of
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.ports import AuditReader
    from approvals.store import Pool

LAST = 5
RECENT = 20
RECENT_DAYS = 7
COUNTED = 1000
MAX_RELATIONS = 50
MAX_SQL = 500
AUDIT_S = 3.0
_APPROVED = ("approved", "executing", "executed", "failed", "unknown")

_SAME = """
SELECT status, count(*) AS n FROM (
    SELECT status FROM approvals.requests
    WHERE agent = $1 AND fingerprint = $2 AND id <> $3 AND created_at <= (
        SELECT created_at FROM approvals.requests WHERE id = $3)
    ORDER BY created_at DESC, id DESC LIMIT $4) AS earlier
GROUP BY status
"""
_DAY = """
SELECT status, count(*) AS n FROM (
    SELECT status FROM approvals.requests
    WHERE agent = $1 AND id <> $2 AND created_at > clock_timestamp() - interval '24 hours'
    ORDER BY created_at DESC, id DESC LIMIT $3) AS lately
GROUP BY status
"""
# Whichever of two requests is looked at first, the earlier one stays the first. In the order of the key, so that two
# that name the same relations wait for each other and never both.
_TOUCH = """
INSERT INTO approvals.touches AS known (agent, database, relation, first_at, approval_id)
SELECT $1, $2, named.relation, requests.created_at, requests.id
FROM unnest($3::text[]) AS named (relation), approvals.requests WHERE requests.id = $4 ORDER BY named.relation
ON CONFLICT (agent, database, relation) DO UPDATE SET first_at = excluded.first_at, approval_id = excluded.approval_id
WHERE (excluded.first_at, excluded.approval_id) < (known.first_at, known.approval_id)
"""
_TOUCHED = """
SELECT relation, first_at, approval_id FROM approvals.touches
WHERE agent = $1 AND database = $2 AND relation = ANY ($3::text[]) ORDER BY relation
"""


async def gather(
    pool: Pool, approval: dict[str, Any], audit: AuditReader, impact: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The history of a request's agent.

    Raises:
        StoreUnavailable
    """
    requester = approval["requester"]
    agent = storable(str(requester["agent"]))
    fingerprint = approval["classification"].get("fingerprint")
    named = relations(approval, impact)
    async with store_connection(pool) as connection:
        same = await connection.fetch(_SAME, agent, storable(str(fingerprint)), approval["id"], COUNTED)
        last = await earlier_requests(connection, approval["id"], limit=LAST)
        day = await connection.fetch(_DAY, agent, approval["id"], COUNTED)
        key = (agent, storable(str(requester["database"])), named)
        if named:
            await connection.execute(_TOUCH, *key, approval["id"])
        touched = await connection.fetch(_TOUCHED, *key)
    return {
        "same_fingerprint": _counts(same) | {"last": [_brief(each) for each in last]},
        "agent_24h": _counts(day),
        "relations": [
            {
                "relation": row["relation"],
                "first_request": row["approval_id"] == approval["id"],
                "first_request_at": rfc3339(row["first_at"]),
            }
            for row in touched
        ],
        "recent_statements": await _recent(audit, approval),
    }


def relations(approval: dict[str, Any], impact: dict[str, Any] | None) -> list[str]:
    """Those a request is about: as the server resolved them, else as they were written."""
    described = (impact or {}).get("relations")
    if isinstance(described, list):
        names = [str(each.get("name") or each.get("as_written")) for each in described]
    else:
        names = relations_of(approval["classification"])
    return sorted({storable(name) for name in names})[:MAX_RELATIONS]


def _counts(rows: Sequence[Any]) -> dict[str, Any]:
    """By how they ended. Beyond `COUNTED` requests only the newest are counted, and it says so."""
    by_status = {row["status"]: row["n"] for row in rows}
    counted = sum(by_status.values())
    counts: dict[str, Any] = {
        "approved": sum(by_status.get(status, 0) for status in _APPROVED),
        **{status: by_status.get(status, 0) for status in ("denied", "expired", "withdrawn", "pending")},
    }
    return counts | ({"newest_only": COUNTED} if counted >= COUNTED else {})


def _brief(earlier: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": earlier["id"],
        "status": earlier["status"],
        "created_at": earlier["created_at"],
        "database": earlier["requester"]["database"],
        "sha256": earlier["statement"]["sha256"],
        "decisions": [
            {key: vote[key] for key in ("reviewer", "decision", "comment", "at", "via")}
            for vote in earlier["decisions"]
            if not vote["voided"]
        ],
    }


async def _recent(audit: AuditReader, approval: dict[str, Any]) -> list[dict[str, Any]] | dict[str, Any]:
    """The agent's last statements of any session, this one left out."""
    try:
        async with asyncio.timeout(AUDIT_S):
            page = await audit.search(
                since=datetime.now(UTC) - timedelta(days=RECENT_DAYS),
                until=None,
                agent=str(approval["requester"]["agent"]),
                class_=None,
                decision=None,
                q=None,
                limit=RECENT * 4,  # outcomes and events of approvals are among them
                cursor=None,
            )
    except StoreUnavailable:
        raise
    except Exception as error:
        # Whatever stands behind the port; its message may quote a filter or a text.
        return {"error": f"the audit trail did not answer ({type(error).__name__})"}
    own = (approval.get("context") or {}).get("statement_id")
    statements = [
        entry for entry in page["items"] if entry.get("kind") == "statement" and entry.get("statement_id") != own
    ]
    return [_statement(entry) for entry in statements[:RECENT]]


def _statement(entry: dict[str, Any]) -> dict[str, Any]:
    sql = str(entry.get("sql") or "")
    shown = {key: entry.get(key) for key in ("time", "session_id", "database", "classes", "risk", "decision")}
    shown["sql"] = sql[:MAX_SQL]
    if len(sql) > MAX_SQL:
        digest = hashlib.sha256(sql.encode("utf-8", "surrogatepass")).hexdigest()
        shown |= {"sql_cut": True, "sql_length": len(sql), "sql_sha256": digest}
    return shown
