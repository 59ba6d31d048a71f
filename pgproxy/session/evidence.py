"""What the session knows, as entries of the trail (`pgproxy.records` has their shape)."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from classifier.model import Classification
from pgproxy import records
from pgproxy.records import Decision, Entry, Outcome, TransactionFate
from pgproxy.session.ports import Requester
from pgproxy.session.runs import StatementRun
from pgproxy.session.units import Unit


def moment(now: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(now, UTC)


def timestamp(now: float) -> str:
    """RFC 3339 in UTC with microseconds; `now` in seconds since the epoch."""
    return records.rfc3339(moment(now))


def digest(sql: bytes) -> str:
    """SHA-256 over the statement's bytes as the client sent them, in hex."""
    return hashlib.sha256(sql).hexdigest()


def statement_entry(
    unit: Unit, classification: Classification, requester: Requester, policy_version: str, now: float
) -> Entry:
    """The record of a decision, made before the statement's bytes go."""
    entry = records.statement_entry(
        time=moment(now),
        requester=requester,
        statement_id=unit.statement_id,
        sql=unit.text,
        sha256=digest(unit.sql),
        params=unit.parameters,
        fingerprint=classification.fingerprint,
        classes=classification.classes,
        risk=str(classification.risk),
        decision=Decision(unit.decision),
        rule=unit.rule,
        policy_version=policy_version,
        approval_id=unit.approval_id,
        reviewers=unit.reviewers,
    )
    if unit.modified is not None:
        entry["modified_sql"] = unit.modified.text
        entry["modified_sha256"] = digest(unit.modified.sql)
        entry["modified_by"] = unit.modified.by
    return entry


def failed_parse_entry(
    run: StatementRun, requester: Requester, codec: str | None, policy_version: str, now: float
) -> Entry:
    """A Parse that the server rejected: nothing executed, and it is evidence all the same."""
    sql = run.unrecorded_sql or b""
    return records.statement_entry(
        time=moment(now),
        requester=requester,
        statement_id=run.statement_id,
        sql=sql.decode(codec or "latin-1", "backslashreplace"),
        sha256=digest(sql),
        fingerprint=run.classification.fingerprint,
        classes=run.classification.classes,
        risk=str(run.classification.risk),
        decision=Decision.ALLOWED,
        rule=None,
        policy_version=policy_version,
    )


def outcome_entry(run: StatementRun, requester: Requester, transaction: str | None, now: float) -> Entry:
    """How a statement ended."""
    about = {
        **records.principal(requester),
        "statement_id": run.statement_id,
        "fingerprint": run.classification.fingerprint,
        "classes": list(run.classification.classes),
        "risk": str(run.classification.risk),
        "decision": run.decision,
        "approval_id": run.approval_id,
        "reviewers": list(run.reviewers),
    }
    duration_s = None if run.finished_at is None else run.finished_at - run.started_at
    outcome = Outcome(
        command_tag=run.command_tag,
        rows=run.rows if run.stopped_rows is None else run.stopped_rows,
        bytes=run.data_bytes,
        duration_ms=None if duration_s is None else round(duration_s * 1000, 3),
        sqlstate=run.sqlstate,
        transaction=None if transaction is None else TransactionFate(transaction),
    )
    entry = records.outcome_entry(about, time=moment(now), outcome=outcome)
    if run.digest is not None:
        entry["params"] = run.digest.described()
    return entry


def session_entry(kind: str, requester: Requester, now: float, detail: str | None = None) -> Entry:
    """`session_start` or `session_end`; `detail` says how it ended."""
    if kind == "session_start":
        return records.session_start_entry(time=moment(now), requester=requester)
    return records.session_end_entry(time=moment(now), requester=requester, detail=detail)
