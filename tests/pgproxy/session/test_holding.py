"""A result that runs into a budget: what the client, the server, the store and the trail see of it."""

from __future__ import annotations

import pytest

from pgproxy.policy import Budget, Deny, Forward, Mode, Park, Per, PolicyInForce, Requirement
from pgproxy.protocol import frontend, tags
from pgproxy.session import effects, events
from pgproxy.session.context import Limits
from pgproxy.session.hourly import HourlyUse
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    BOUND,
    CLOSED,
    COPY_DONE,
    COPY_IN,
    DESCRIBED,
    PARSED,
    SUSPENDED,
    Playbook,
    answers,
    complete,
    copy_data,
    error,
    fields,
    opened,
    ready,
    resolved,
    row,
    sends,
    to_client,
    to_server,
)
from tests.pgproxy.session.rules import PARK, Ruled, budgeted, limited

SELECT = frontend.query(b"SELECT 1")
BATCH = frontend.parse(b"", b"SELECT 1") + frontend.bind(b"", b"") + frontend.execute(b"")
COPY_OUT = b"H\0\0\0\x07\0\0\0"


def held(play: Playbook | None = None, rows: int = 2) -> Playbook:
    """Of three rows the third is one too many."""
    play = play or Playbook(policy=limited(rows))
    play.allowed(SELECT) >> answers(DESCRIBED, row(), row(), row(b"3"))
    return play << to_client(DESCRIBED, row(), row()) << effects.OpenApproval


def parked(play: Playbook | None = None) -> Playbook:
    play = held(play) >> opened() << effects.ToClient
    assert play.state is GateState.HELD_PARKED
    return play


def refused(play: Playbook, status: str = "denied") -> Playbook:
    return play >> resolved(status, comment="no dumps") << effects.StopServer


def outcome(play: Playbook) -> dict[str, object]:
    return next(e for e in reversed(play.trail) if e["kind"] == "outcome")


def goes_on(play: Playbook) -> None:
    assert play.state is GateState.OPEN
    play.allowed(SELECT) >> answers(DESCRIBED, row(), complete("SELECT 1"), ready())
    play << to_client(DESCRIBED, row(), complete("SELECT 1"), ready())


def test_the_request_tells_the_budget_and_the_notice_too() -> None:
    play = held()
    assert isinstance(play.last, effects.OpenApproval)
    request = play.last.request
    assert request.budget == {
        "rule": "limited", "per": "portal", "rows": 2, "bytes": None, "passed_rows": 2, "passed_bytes": 24,
    }  # fmt: skip
    assert request.sql == "SELECT 1" and request.wait and request.rule == PARK.rule
    assert not play.session.wants_server_data and play.session.wants_client_data
    play >> opened() << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    notice = fields(play.last.data)
    assert notice["M"] == "pgproxy: waiting for approval a1" and notice["C"] == "01000"
    assert "2 rows a portal, 2 rows sent" in notice["D"]


def test_approved_the_rest_of_the_portal_passes_in_order() -> None:
    play = parked()
    said = b"N\0\0\0\x05\0"
    play >> answers(row(b"4"), said) << None
    play >> resolved("approved") << effects.ClaimApproval >> events.ClaimAnswered(True)
    play << to_client(row(b"3"), row(b"4"), said)
    assert play.session.wants_server_data
    play >> answers(*[row()] * 100, complete("SELECT 104"), ready())
    play << effects.FinishApproval << to_client(*[row()] * 100, complete("SELECT 104"), ready())
    told = outcome(play)
    assert told["decision"] == "approved" and told["approval_id"] == "a1" and told["reviewers"] == ["bob"]
    goes_on(play)


@pytest.mark.parametrize(
    ("status", "sqlstate", "message"),
    [
        ("denied", "42501", "pgproxy: denied by bob"),
        ("expired", "57014", "pgproxy: approval a1 expired"),
        ("withdrawn", "57014", "pgproxy: approval a1 was withdrawn"),
    ],
)
def test_refused_the_servers_error_is_exchanged(status: str, sqlstate: str, message: str) -> None:
    play = refused(parked(), status)
    play >> answers(row(), row()) << None
    play >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    said = fields(play.last.data)
    assert (said["C"], said["M"]) == (sqlstate, message) and play.last.data.endswith(ready())
    told = outcome(play)
    assert told["decision"] == status and told["approval_id"] == "a1"
    assert told["outcome"]["rows"] == 2 and told["outcome"]["sqlstate"] == sqlstate  # type: ignore[index]
    play >> sends(SELECT) << None  # not before the CancelRequest can hit nothing else
    play >> events.ServerCancelled() << effects.Record >> events.Recorded(True) << to_server(SELECT)


@pytest.mark.parametrize("status", [tags.IDLE, tags.IN_TRANSACTION])
def test_when_the_server_was_faster_a_substitute_fails(status: int) -> None:
    play = refused(parked())
    play >> answers(complete("SELECT 3"), ready(status)) << None
    play >> events.ServerCancelled() << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_query(play.last.data).decode()
    assert name.startswith("pgproxy_denied_")
    after = tags.IDLE if status == tags.IDLE else tags.FAILED_TRANSACTION
    play >> answers(error("42601", f'syntax error at or near "{name}"'), ready(after)) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert fields(play.last.data)["M"] == "pgproxy: denied by bob" and play.last.data.endswith(ready(after))
    assert outcome(play)["outcome"]["rows"] == 2  # type: ignore[index]
    assert play.state is GateState.OPEN


def test_a_late_cancel_that_hits_the_substitute_is_the_same() -> None:
    play = refused(parked()) >> answers(complete("SELECT 3"), ready()) << None
    play >> events.ServerCancelled() << effects.ToServer >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "42501"
    goes_on(play)


def extended(sync: bytes) -> Playbook:
    play = Playbook(policy=limited(1))
    play >> sends(BATCH, sync) << to_server(BATCH[: BATCH.index(b"B\0")]) << effects.Record >> events.Recorded(True)
    play << to_server(frontend.bind(b"", b"")) << to_server(frontend.execute(b""))
    if sync:
        play << to_server(sync)
    play >> answers(PARSED, BOUND, row(), row(b"2")) << to_client(PARSED, BOUND, row()) << effects.OpenApproval
    return play >> opened() << effects.ToClient


def test_extended_the_rest_of_the_batch_is_skipped_by_the_server() -> None:
    play = refused(extended(b""))
    play >> sends(frontend.parse(b"", b"SELECT 2"), frontend.bind(b"", b""), frontend.execute(b"")) << None
    play >> answers(error("57014")) << effects.ToClient >> events.ServerCancelled() << None
    play >> sends(frontend.SYNC) << to_server(frontend.SYNC) >> answers(ready()) << to_client(ready())


def test_extended_without_a_sync_and_already_complete() -> None:
    """Nothing more would come of itself: a Parse that fails makes the server skip."""
    play = refused(extended(b"")) >> events.ServerCancelled() << to_server(frontend.FLUSH)
    play >> answers(complete("SELECT 2")) << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_parse(play.last.data).name.decode()
    play >> answers(error("42601", name)) << effects.ToClient
    play >> sends(frontend.close(tags.PORTAL, b""), frontend.SYNC) << to_server(frontend.SYNC)
    play >> answers(ready()) << to_client(ready())


def test_extended_complete_with_its_sync() -> None:
    play = refused(extended(frontend.SYNC)) >> answers(SUSPENDED, ready(tags.IN_TRANSACTION)) << None
    play >> events.ServerCancelled() << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_query(play.last.data).decode()
    play >> answers(error("42601", name), ready(tags.FAILED_TRANSACTION)) << effects.ToClient
    assert play.state is GateState.OPEN and play.session.transaction_status == "E"


def test_what_runs_waits_behind_a_counted_result_and_what_runs_nothing_does_not() -> None:
    play = Playbook(policy=limited(5))
    play >> sends(BATCH) << effects.ToServer << effects.Record >> events.Recorded(True)
    play << effects.ToServer << to_server(frontend.execute(b""))
    closes = frontend.close(tags.PORTAL, b"")
    play >> sends(closes) << to_server(closes)
    play >> sends(frontend.execute(b"", 1)) << to_server(frontend.FLUSH) >> sends(frontend.SYNC) << None
    play >> answers(PARSED, BOUND, row(), complete("SELECT 1"), CLOSED)
    play << effects.ToClient << to_server(frontend.execute(b"", 1)) << to_server(frontend.SYNC)


def test_a_budget_of_bytes_cuts_before_the_row_that_is_too_large() -> None:
    play = Playbook(policy=limited(size=40))
    play.allowed(SELECT)
    large = row(b"x" * 1000)
    play >> answers(DESCRIBED, row(), large[:10]) << to_client(DESCRIBED, row()) << effects.OpenApproval
    play >> answers(large[10:], row()) << None >> opened() << effects.ToClient
    play >> resolved("approved") << effects.ClaimApproval >> events.ClaimAnswered(True) << to_client(large, row())


def test_a_row_that_began_within_the_budget_is_sent_whole() -> None:
    play = Playbook(policy=limited(1))
    play.allowed(SELECT)
    large = row(b"x" * 100)
    play >> answers(DESCRIBED, large[:10]) << to_client(DESCRIBED, large[:10])
    play >> answers(large[10:], row()) << to_client(large[10:]) << effects.OpenApproval


def test_copy_out_is_counted_and_ended_alike() -> None:
    rule = Ruled(always=lambda _c, _i, _f: Forward("limited", budgets=(Budget("limited", Per.PORTAL, PARK, rows=1),)))
    play = Playbook(policy=rule).allowed(frontend.query(b"COPY t TO STDOUT"))
    play >> answers(COPY_OUT, copy_data(b"1\n"), copy_data(b"2\n"))
    play << to_client(COPY_OUT, copy_data(b"1\n")) << effects.OpenApproval >> opened() << effects.ToClient
    refused(play) >> answers(copy_data(b"3\n"), COPY_DONE, complete("COPY 3"), ready()) << None
    play >> events.ServerCancelled() << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_query(play.last.data).decode()
    play >> answers(error("42601", name), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "42501"


def test_a_copy_in_that_the_string_still_reaches_is_failed() -> None:
    play = Playbook(policy=limited(1)).allowed(frontend.query(b"SELECT 1;COPY t FROM STDIN"))
    play >> answers(DESCRIBED, row(), row()) << effects.ToClient << effects.OpenApproval
    play >> opened() << effects.ToClient
    refused(play) >> answers(complete("SELECT 2"), COPY_IN) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and play.last.data[:1] == b"f"
    play >> events.ServerCancelled() << None >> answers(error("57014"), ready()) << effects.ToClient
    goes_on_after = play.state
    assert goes_on_after is GateState.OPEN


def test_the_row_cap_of_an_approval_asks_again() -> None:
    play = parked() >> resolved("approved", row_cap=4) << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << to_client(row(b"3"))
    play >> answers(row(b"4"), row(b"5")) << to_client(row(b"4")) << effects.OpenApproval
    play >> opened("a2") << effects.ToClient >> resolved("denied", "a2") << effects.StopServer
    play >> events.ServerCancelled() << None
    play >> answers(error("57014"), ready()) << effects.FinishApproval << effects.ToClient
    told = outcome(play)
    assert (told["decision"], told["approval_id"]) == ("denied", "a2")
    assert told["outcome"]["rows"] == 4  # type: ignore[index]


def test_the_clients_cancel_withdraws_and_ends_it() -> None:
    play = parked() >> events.CancelRequested() << effects.WithdrawApproval("a1", "cancelled by the client")
    play << effects.StopServer >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert fields(play.last.data)["M"] == "canceling statement due to user request"
    assert outcome(play)["decision"] == "withdrawn"


@pytest.mark.parametrize("goodbye", [events.ClientClosed(), sends(frontend.TERMINATE), events.EndRequested("ended")])
def test_whoever_leaves_takes_the_request_along(goodbye: events.Event) -> None:
    play = parked() >> goodbye
    assert {effects.WithdrawApproval, effects.CancelServer, effects.Close} <= {type(e) for e in play.left}
    assert play.state is GateState.CLOSED
    assert outcome(play)["decision"] == "withdrawn"


def test_the_server_goes_while_a_result_is_held() -> None:
    play = parked() >> events.ServerClosed() << effects.WithdrawApproval << effects.ToClient << effects.Close
    assert outcome(play)["outcome"]["sqlstate"] == "08006"  # type: ignore[index]


def test_the_store_is_away() -> None:
    play = held() >> events.ApprovalOpened(None) << effects.StopServer
    play >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "58000"
    assert outcome(play)["decision"] == "blocked"


def test_the_backlog_is_bounded() -> None:
    play = parked(Playbook(policy=limited(2), limits=Limits(parked_backlog_bytes=500)))
    play >> sends(frontend.query(b"SELECT " + b"1" * 600)) << effects.WithdrawApproval << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "54000"


def test_returning_at_once_and_coming_back() -> None:
    play = held(Playbook(policy=limited(2), wait=False))
    assert isinstance(play.last, effects.OpenApproval)
    first = play.last.request
    assert not first.wait
    play >> opened() << effects.StopServer >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    said = fields(play.last.data)
    assert said["M"] == "pgproxy: approval a1 required" and "2 rows sent" in said["D"]
    assert "run the same statement again" in said["H"]
    again = held(Playbook(policy=limited(2), wait=False))
    assert isinstance(again.last, effects.OpenApproval)
    second = again.last.request
    assert second.retry_binding == first.retry_binding != ""
    again >> opened(status="approved") << None >> resolved("approved")
    again << effects.ClaimApproval("a1", first.retry_binding, first.sha256)
    again >> events.ClaimAnswered(True) << to_client(row(b"3"))


def test_the_policy_of_now_may_deny_the_rest() -> None:
    play = parked()
    play.context.policies = PolicyInForce(Ruled(rule=lambda _c, _i, _f: Deny("late", "not any more", message="closed")))
    play >> resolved("approved") << effects.WithdrawApproval << effects.StopServer
    play >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and "closed" in fields(play.last.data)["D"]


def test_the_policy_of_now_may_ask_for_more() -> None:
    more = Park("limited", 600.0, (Requirement("limited", ("dba",), 2),))
    play = parked()
    play.context.policies = PolicyInForce(budgeted(Budget("limited", Per.PORTAL, more, rows=2)))
    play >> resolved("approved") << effects.WithdrawApproval << effects.StopServer
    play >> answers(error("57014"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and "policy changed" in fields(play.last.data)["M"]


def test_observing_counts_nothing() -> None:
    play = Playbook(policy=limited(1, mode=Mode.OBSERVE)).allowed(SELECT)
    play >> answers(DESCRIBED, row(), row(), complete("SELECT 2"), ready()) << effects.ToClient << None


@pytest.mark.parametrize("per", [Per.SESSION, Per.HOUR])
def test_wider_budgets_count_over_statements(per: Per) -> None:
    hourly = HourlyUse()
    play = Playbook(policy=limited(5, per=per), hourly=hourly)
    result = (DESCRIBED, row(), row(), complete("SELECT 2"), ready())
    for _ in range(2):
        play.allowed(SELECT) >> answers(*result) << to_client(*result)
    if per is Per.HOUR:  # another session of the agent
        play = Playbook(policy=limited(5, per=per), hourly=hourly)
    play.allowed(SELECT) >> answers(*result) << to_client(DESCRIBED, row()) << effects.OpenApproval
    play >> opened() << effects.ToClient >> resolved("approved") << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << effects.FinishApproval
    play << to_client(row(), complete("SELECT 2"), ready())
    if per is Per.HOUR:  # what was approved does not count
        assert hourly.used("bot", "limited", play.now) == (5, 60)


def test_a_portal_is_counted_over_all_its_executes() -> None:
    play = Playbook(policy=limited(3))
    bind = frontend.bind(b"p", b"")
    play >> sends(frontend.parse(b"", b"SELECT 1"), bind, frontend.execute(b"p", 2), frontend.SYNC)
    play << effects.ToServer << effects.Record >> events.Recorded(True) << to_server(bind)
    play << to_server(frontend.execute(b"p", 2)) << to_server(frontend.SYNC)
    play >> answers(PARSED, BOUND, row(), row(), SUSPENDED, ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(frontend.execute(b"p", 2), frontend.SYNC) << effects.ToServer << effects.ToServer
    play >> answers(row(), row()) << to_client(row()) << effects.OpenApproval
