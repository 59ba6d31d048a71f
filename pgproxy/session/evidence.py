"""Audit entries as the session knows them; `audit` completes them with node, sequence and hash."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from classifier.model import Classification
from pgproxy.session.ports import Requester
from pgproxy.session.runs import StatementRun
from pgproxy.session.units import Unit


def timestamp(now: float) -> str:
    """RFC 3339 in UTC with microseconds; `now` in seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def digest(sql: bytes) -> str:
    """SHA-256 over the statement's bytes as the client sent them, in hex."""
    return hashlib.sha256(sql).hexdigest()


def who(requester: Requester) -> dict[str, Any]:
    """The columns of an entry that say who."""
    return {
        "session_id": requester.session_id,
        "agent": requester.agent,
        "owner": requester.owner,
        "db_user": requester.db_user,
        "database": requester.database,
        "client_addr": requester.client_addr,
        "application_name": requester.application_name,
        "reason": requester.reason,
        "ticket": requester.ticket,
    }


def statement_entry(
    unit: Unit, classification: Classification, requester: Requester, policy_version: str, now: float
) -> dict[str, Any]:
    """The record of a decision, made before the statement's bytes go."""
    return {
        "kind": "statement",
        "time": timestamp(now),
        "statement_id": unit.statement_id,
        **who(requester),
        "sql": unit.text,
        "params": unit.parameters,
        "sha256": digest(unit.sql),
        "fingerprint": classification.fingerprint,
        "classes": list(classification.classes),
        "risk": str(classification.risk),
        "decision": unit.decision,
        "approval_id": unit.approval_id,
        "reviewers": list(unit.reviewers),
        "rule": unit.rule,
        "policy_version": policy_version,
    }


def outcome_entry(run: StatementRun, requester: Requester, transaction: str | None, now: float) -> dict[str, Any]:
    """How a statement ended."""
    return {
        "kind": "outcome",
        "time": timestamp(now),
        "statement_id": run.statement_id,
        **who(requester),
        "fingerprint": run.classification.fingerprint,
        "classes": list(run.classification.classes),
        "approval_id": run.approval_id,
        "outcome": run.outcome(transaction),
    }


def session_entry(kind: str, requester: Requester, now: float, detail: str | None = None) -> dict[str, Any]:
    """`session_start` or `session_end`; `detail` says how it ended."""
    entry = {"kind": kind, "time": timestamp(now), **who(requester)}
    if detail is not None:
        entry["detail"] = detail
    return entry


def failed_parse_entry(
    run: StatementRun, requester: Requester, codec: str | None, policy_version: str, now: float
) -> dict[str, Any]:
    """A Parse that the server rejected: nothing executed, and it is evidence all the same."""
    sql = run.unrecorded_sql or b""
    return {
        "kind": "statement",
        "time": timestamp(now),
        "statement_id": run.statement_id,
        **who(requester),
        "sql": sql.decode(codec or "latin-1", "backslashreplace"),
        "params": [],
        "sha256": digest(sql),
        "fingerprint": run.classification.fingerprint,
        "classes": list(run.classification.classes),
        "risk": str(run.classification.risk),
        "decision": "allowed",
        "approval_id": None,
        "reviewers": [],
        "rule": None,
        "policy_version": policy_version,
    }
