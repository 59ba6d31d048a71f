"""Entries of the trail, as the tests of several modules need them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgproxy import records
from pgproxy.session.ports import Requester

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def make_requester(**changes: Any) -> Requester:
    facts: dict[str, Any] = {
        "agent": "etl-bot",
        "owner": "alice@example.com",
        "db_user": "app",
        "database": "shop",
        "client_addr": "10.1.2.3:40312",
        "application_name": "nightly",
        "session_id": "s-1",
        "reason": "nightly load",
        "ticket": "OPS-12",
    }
    return Requester(**{**facts, **changes})


def make_statement(number: int = 1, *, at_s: float = 0.0, **changes: Any) -> records.Entry:
    facts: dict[str, Any] = {
        "time": START + timedelta(seconds=at_s),
        "requester": make_requester(),
        "statement_id": f"st-{number}",
        "sql": f"select {number}",
        "sha256": "ab" * 32,
        "fingerprint": "f1",
        "classes": ("read",),
        "risk": "low",
        "decision": records.Decision.ALLOWED,
        "rule": "default",
        "policy_version": "1",
    }
    return records.statement_entry(**{**facts, **changes})


@pytest.fixture
def statement() -> Callable[..., records.Entry]:
    return make_statement


@pytest.fixture
def requester() -> Callable[..., Requester]:
    return make_requester
