"""Entries have every field of the contract, and only facts that belong to their kind."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pgproxy import records
from pgproxy.session.ports import Requester

# fmt: off
CONTRACT_FIELDS = [
    "seq", "node", "time", "kind", "statement_id", "session_id", "agent", "owner", "db_user", "database",
    "client_addr", "application_name", "reason", "ticket", "sql", "params", "sha256", "fingerprint",
    "classes", "risk", "decision", "approval_id", "reviewers", "rule", "policy_version", "outcome",
    "prev_hash", "hash",
]
# fmt: on
NOW = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)


def test_every_kind_has_every_field(
    statement: Callable[..., records.Entry], requester: Callable[..., Requester]
) -> None:
    made = statement()
    entries = [
        made,
        records.outcome_entry(made, time=NOW, outcome=None),
        records.session_start_entry(time=NOW, requester=requester()),
        records.session_end_entry(time=NOW, requester=requester(), detail="closed"),
        records.approval_entry(time=NOW, approval_id="a1", event="approved", requester=requester()),
        records.config_entry(time=NOW, event="start", policy_version="2"),
    ]
    assert [entry["kind"] for entry in entries] == list(records.Kind)
    for entry in entries:
        assert list(entry)[: len(CONTRACT_FIELDS)] == CONTRACT_FIELDS
        assert (entry["prev_hash"], entry["hash"]) == (None, None)


def test_a_statement_names_its_principal(statement: Callable[..., records.Entry]) -> None:
    entry = statement(decision=records.Decision.APPROVED, approval_id="a1", reviewers=("bob",))
    assert (entry["agent"], entry["owner"], entry["ticket"]) == ("etl-bot", "alice@example.com", "OPS-12")
    assert (entry["decision"], entry["approval_id"], entry["reviewers"]) == ("approved", "a1", ["bob"])


def test_an_outcome_names_its_principal_but_does_not_repeat_the_text(
    statement: Callable[..., records.Entry],
) -> None:
    made = statement(7, params=[{"type": "text", "value": "x"}])
    outcome = records.Outcome("SELECT 3", 3, 120, 1.5, None, records.TransactionFate.COMMITTED)
    entry = records.outcome_entry(made, time=NOW, outcome=outcome)
    assert (entry["statement_id"], entry["agent"], entry["decision"]) == ("st-7", "etl-bot", "allowed")
    assert (entry["sql"], entry["params"]) == (None, None)
    assert entry["outcome"] == {
        "command_tag": "SELECT 3",
        "rows": 3,
        "bytes": 120,
        "duration_ms": 1.5,
        "sqlstate": None,
        "transaction": "committed",
    }
    assert made["sql"] == "select 7"


def test_entries_share_no_lists(requester: Callable[..., Requester]) -> None:
    first, second = (records.session_start_entry(time=NOW, requester=requester()) for _ in range(2))
    first["reviewers"].append("bob")
    assert second["reviewers"] == []


def test_times_are_utc_with_microseconds() -> None:
    assert records.rfc3339(NOW) == "2026-03-01T12:00:00.000005Z"
    assert records.rfc3339(NOW.astimezone(timezone(timedelta(hours=2)))) == "2026-03-01T12:00:00.000005Z"
    with pytest.raises(ValueError, match="time zone"):
        records.rfc3339(NOW.replace(tzinfo=None))
