"""What the trail says about an approval's events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from approvals.outbox import EventRow
from pgproxy.app.control import entry_of
from tests.approvals.conftest import REQUEST


def event(kind: str, detail: dict[str, Any], **changes: Any) -> EventRow:
    values: dict[str, Any] = {
        "seq": 1,
        "approval_id": "a00000000000000a",
        "kind": kind,
        "status": "pending",
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "detail": detail,
        "node": "n1",
        "instance": "w1",
        "requester": REQUEST.requester,
        "sql": "SELECT 1",
        "sha256": "cd" * 32,
        "params": [],
        "classification": REQUEST.classification,
        "risk": "high",
        "rule": "exports",
        "reviewers": ("bob",),
        "wait_s": None,
        "policy_version": "p2",
    }
    return EventRow(**(values | changes))


def test_a_modified_statement_is_evidence_with_its_text_and_author() -> None:
    entry = entry_of(event("modify", {"reviewer": "bob"}, revision=2))
    assert (entry["event"], entry["sql"], entry["sha256"]) == ("modified", "SELECT 1", "cd" * 32)
    assert entry["detail"] == {"reviewer": "bob", "revision": 2}
    assert (entry["policy_version"], entry["classes"], entry["decision"]) == ("p2", ["export"], None)


@pytest.mark.parametrize("what", ["made", "used", "revoked"])
def test_a_grants_events_name_it(what: str) -> None:
    detail = {"event": what, "grant_id": "g1", "scope": "text", "by": "carol"}
    entry = entry_of(event("grant", detail))
    assert (entry["event"], entry["detail"], entry["sql"]) == (f"grant_{what}", detail, None)


def test_a_vote_tells_the_grant_it_agreed_to_and_a_plain_one_has_no_detail() -> None:
    vote = {"reviewer": "bob", "decision": "approve", "comment": "ok", "via": "api", "grant": None}
    entry = entry_of(event("vote", vote))
    assert (entry["event"], entry["comment"], entry["via"], "detail" in entry) == ("vote", "ok", "api", False)
    assert entry_of(event("vote", vote | {"grant": {"scope": "text"}}))["detail"] == {"grant": {"scope": "text"}}


def test_a_status_is_the_event_and_a_decision_where_it_is_one() -> None:
    entry = entry_of(event("status", {}, status="approved"))
    assert (entry["event"], entry["decision"], entry["reviewers"]) == ("approved", "approved", ["bob"])
    assert entry_of(event("status", {}, status="executing"))["decision"] is None
