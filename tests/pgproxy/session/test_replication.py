"""The start-up of a replication connection as one judged unit, and what its approval covers."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.policy import Mode, Policy, Replication
from pgproxy.protocol import frontend, tags
from pgproxy.protocol.body import message
from pgproxy.session import effects, events
from pgproxy.session.replication import command, is_command, start_up
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    COPY_DONE,
    Playbook,
    answers,
    complete,
    copy_data,
    error,
    fields,
    opened,
    ready,
    resolved,
    sends,
    to_client,
    to_server,
)

READY = ready()
REQUESTED = events.ReplicationRequested(READY)
IDENTIFY = frontend.query(b"IDENTIFY_SYSTEM")
COPY_BOTH = message(tags.COPY_BOTH_RESPONSE, b"\x00\x00\x00")


def session(kind: str = "database", *, park: bool = True, **wanted: Any) -> Playbook:
    play = Playbook(**wanted)
    play.context.replication = kind
    play.context.policy = Policy(
        wanted.get("mode", Mode.ENFORCE), replication=Replication.APPROVE if park else Replication.DENY
    )
    return play


def parked(kind: str = "database") -> Playbook:
    play = session(kind) >> REQUESTED << effects.OpenApproval >> opened() << effects.ToClient
    assert play.state is GateState.PARKED
    return play


def admitted(kind: str = "database") -> Playbook:
    play = parked(kind) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    return play >> events.ClaimAnswered(True) << to_client(READY)


def ends_with(play: Playbook, sqlstate: str) -> dict[str, str]:
    """The client is told why, the server goodbye, and both connections end."""
    play << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    told = fields(play.last.data)
    assert (told["V"], told["C"]) == ("FATAL", sqlstate)
    play << to_server(frontend.TERMINATE) << effects.Close << None
    assert play.state is GateState.CLOSED
    return told


def test_the_default_is_refusal_with_a_hint_and_a_record() -> None:
    play = session(park=False) >> REQUESTED << effects.Record
    assert (play.recorded["decision"], play.recorded["classes"]) == ("denied", ["replication"])
    assert play.recorded["sql"] == "START-UP WITH replication=database"
    play >> events.Recorded(True)
    assert "replication: approve" in ends_with(play, "0A000")["H"]
    assert play.trail[-1]["outcome"]["sqlstate"] == "0A000"


def test_an_agent_without_an_owner_is_denied_as_everywhere() -> None:
    play = session(owner=None) >> REQUESTED << effects.Record >> events.Recorded(True)
    assert "owner" in ends_with(play, "42501")["D"]


def test_what_a_reviewer_sees() -> None:
    play = session("true") >> REQUESTED << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval)
    request = play.last.request
    assert request.sql == "START-UP WITH replication=true"
    assert request.classification["statements"][0]["actions"][0]["class"] == "replication"
    assert request.context["protocol"] == "start-up"
    assert request.risk == "critical"


def test_only_the_approval_gives_the_client_its_ready_for_query() -> None:
    play = parked()
    assert isinstance(play.last, effects.ToClient)
    told = fields(play.last.data)
    assert told["C"] == "01000" and told["M"] == "pgproxy: waiting for approval a1"
    play >> resolved("approved") << effects.Record
    assert (play.recorded["decision"], play.recorded["approval_id"]) == ("approved", "a1")
    play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True) << to_client(READY) << None


@pytest.mark.parametrize(("status", "sqlstate"), [("denied", "42501"), ("expired", "57014"), ("withdrawn", "57014")])
def test_anything_else_ends_the_connection(status: str, sqlstate: str) -> None:
    play = parked() >> resolved(status) << effects.Record >> events.Recorded(True)
    ends_with(play, sqlstate)


def test_an_approval_that_cannot_be_claimed_ends_it_too() -> None:
    for answer, sqlstate in ((False, "57014"), (None, "58000")):
        play = parked() >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
        ends_with(play >> events.ClaimAnswered(answer), sqlstate)


def test_without_store_or_trail_nobody_gets_in() -> None:
    play = session() >> REQUESTED << effects.OpenApproval >> events.ApprovalOpened(None) << effects.Record
    ends_with(play >> events.Recorded(True), "58000")
    play = session(mode=Mode.OBSERVE) >> REQUESTED << effects.Record
    ends_with(play >> events.Recorded(False), "58030")
    play = parked() >> resolved("approved") << effects.Record >> events.Recorded(False)
    play << effects.WithdrawApproval("a1", "the audit trail is not available")
    ends_with(play, "58030")


def test_a_client_that_leaves_or_cancels_withdraws() -> None:
    for event in (events.ClientClosed(), sends(frontend.TERMINATE)):
        play = parked() >> event << effects.WithdrawApproval("a1", "the client is gone")
        play << to_server(frontend.TERMINATE) << effects.Close << None
        assert play.trail[0]["decision"] == "withdrawn"
    play = parked() >> events.CancelRequested() << effects.WithdrawApproval("a1", "cancelled by the client")
    ends_with(play << effects.Record >> events.Recorded(True), "57014")


def test_a_client_that_leaves_before_the_claim_does_not_get_in() -> None:
    play = parked() >> resolved("approved") << effects.Record >> events.ClientClosed() << None
    play >> events.Recorded(True) << effects.WithdrawApproval << to_server(frontend.TERMINATE) << effects.Close << None


def test_what_the_client_sends_ahead_waits_unjudged_and_unsent() -> None:
    play = parked() >> sends(IDENTIFY, frontend.query(b"SELECT 1")) << None
    play >> resolved("denied") << effects.Record >> events.Recorded(True)
    ends_with(play, "42501")


def test_the_server_may_end_a_parked_start_up() -> None:
    play = parked() >> answers(error("57P01", "shutting down", "FATAL")) << effects.ToClient
    play << effects.WithdrawApproval << effects.Close >> events.ServerClosed() << None


def test_observe_lets_everything_pass_and_records_it() -> None:
    play = session("true", mode=Mode.OBSERVE) >> REQUESTED << effects.Record
    assert play.recorded["decision"] == "observed"
    play >> events.Recorded(True) << to_client(READY) << None
    play >> sends(IDENTIFY) << effects.Record
    assert (play.recorded["decision"], play.recorded["classes"]) == ("observed", ["replication"])
    play >> events.Recorded(True) << to_server(IDENTIFY)


def test_commands_pass_under_the_approval_each_with_its_entry() -> None:
    play = admitted() >> sends(IDENTIFY) << effects.Record
    assert play.recorded["sql"] == "IDENTIFY_SYSTEM" and play.recorded["classes"] == ["replication"]
    assert (play.recorded["decision"], play.recorded["approval_id"]) == ("approved", "a1")
    assert play.recorded["reviewers"] == ["bob"]
    reply = answers(complete("IDENTIFY_SYSTEM"), READY)
    play >> events.Recorded(True) << to_server(IDENTIFY) >> reply << effects.ToClient << None
    finished = [e for e in play.aside if isinstance(e, effects.FinishApproval)]
    assert not finished, "the approval is the connection's"
    play >> sends(frontend.TERMINATE) << to_server(frontend.TERMINATE)
    play << effects.FinishApproval
    assert isinstance(play.last, effects.FinishApproval)
    assert (play.last.id, play.last.status) == ("a1", "executed")
    play << effects.Close << None


def test_a_command_whose_record_fails_is_refused_in_words_a_walsender_understands() -> None:
    play = admitted("true") >> sends(IDENTIFY) << effects.Record >> events.Recorded(False) << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    sent = frontend.read_query(play.last.data)
    assert sent.startswith(b"SHOW pgproxy_denied_")
    name = sent.decode().removeprefix("SHOW ")
    play >> answers(error("42704", f'unrecognized configuration parameter "{name}"'), READY) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert fields(play.last.data)["C"] == "58030"


def test_a_command_of_a_client_that_is_gone_does_not_run() -> None:
    play = admitted() >> sends(frontend.query(b"DROP_REPLICATION_SLOT s"), frontend.TERMINATE) << effects.Record
    play >> events.Recorded(True) << to_server(frontend.TERMINATE) << effects.FinishApproval << effects.Close << None


def test_sql_in_the_connection_is_judged_as_everywhere() -> None:
    play = admitted()
    play.allowed(frontend.query(b"SELECT 1")) >> answers(complete("SELECT 1"), READY) << effects.ToClient
    play.parks(frontend.query(b"DROP t"), "a2") >> resolved("denied", "a2") << effects.Record
    play >> events.Recorded(True) << effects.ToServer << None


def test_streaming_both_ways() -> None:
    start = frontend.query(b"START_REPLICATION 0/0")
    play = admitted("true").allowed(start)
    play >> answers(COPY_BOTH, copy_data(b"wal")) << to_client(COPY_BOTH, copy_data(b"wal"))
    play >> sends(copy_data(b"status")) << to_server(copy_data(b"status"))
    play >> answers(copy_data(b"more")) << to_client(copy_data(b"more"))
    play >> sends(COPY_DONE) << to_server(COPY_DONE)
    play >> sends(IDENTIFY) << None  # waits for the end of the stream
    end = (COPY_DONE, complete("START_STREAMING"), READY)
    play >> answers(*end) << to_client(*end) << effects.Record >> events.Recorded(True) << to_server(IDENTIFY)
    outcome = next(e for e in play.trail if e["kind"] == "outcome")["outcome"]
    assert outcome["command_tag"] == "START_STREAMING"
    assert outcome["bytes"] == len(copy_data(b"wal") + copy_data(b"more"))


def test_the_server_may_end_the_stream_first() -> None:
    play = admitted().allowed(frontend.query(b"START_REPLICATION SLOT s LOGICAL 0/0"))
    play >> answers(COPY_BOTH, COPY_DONE) << to_client(COPY_BOTH, COPY_DONE)
    play >> sends(copy_data(b"late"), COPY_DONE) << to_server(copy_data(b"late")) << to_server(COPY_DONE)
    play >> answers(complete("START_STREAMING"), READY) << effects.ToClient << None
    assert play.state is GateState.OPEN


def test_a_query_in_the_middle_of_a_stream_is_a_violation() -> None:
    play = admitted().allowed(frontend.query(b"START_REPLICATION 0/0")) >> answers(COPY_BOTH) << effects.ToClient
    play >> sends(IDENTIFY) << effects.ToClient << to_server(frontend.TERMINATE)
    assert play.state is GateState.CLOSED


@pytest.mark.parametrize(
    "text",
    [
        b"IDENTIFY_SYSTEM",
        b" \n\tIDENTIFY_SYSTEM ;",
        b"READ_REPLICATION_SLOT s",
        b"BASE_BACKUP (LABEL 'x', PROGRESS)",
        b"BASE_BACKUP(LABEL 'x')",
        b"BASE_BACKUP ( LABEL 'pg_basebackup base backup',  TARGET 'client',  MANIFEST 'yes')",
        b"CREATE_REPLICATION_SLOT \"s\" LOGICAL test_decoding (SNAPSHOT 'nothing')",
        b"ALTER_REPLICATION_SLOT s (FAILOVER true)",
        b"DROP_REPLICATION_SLOT s WAIT",
        b"START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1')",
        b"TIMELINE_HISTORY 2",
        b"UPLOAD_MANIFEST",
        b"SHOW wal_segment_size",
    ],
)
def test_replication_commands(text: bytes) -> None:
    found = command(text)
    assert found is not None and is_command(found) and found.classes == ("replication",) and found.privileged


@pytest.mark.parametrize(
    ("text", "also"),
    [
        (b"BASE_BACKUP (TARGET 'server', TARGET_DETAIL '/var/lib')", "file"),
        (b"BASE_BACKUP (target 'server')", "file"),
        (b"BASE_BACKUP (\"target\" 'blackhole')", "file"),
        (b"BASE_BACKUP (TARGET 'client''s')", "file"),
        (b"BASE_BACKUP (TARGET 'client', TARGET_DETAIL 'x')", "file"),
        (b'CREATE_REPLICATION_SLOT s LOGICAL "/tmp/evil"', "code"),
    ],
)
def test_a_command_that_does_more_is_asked_for_by_itself(text: bytes, also: str) -> None:
    found = command(text)
    assert found is not None and found.classes == ("replication", also) and not is_command(found)
    play = admitted().parks(frontend.query(text), "a2")
    assert play.state is GateState.PARKED


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SELECT 1",
        b"identify_system",
        b"/* */ IDENTIFY_SYSTEM",
        b"-- x\nIDENTIFY_SYSTEM",
        b"IDENTIFY_SYSTEM; DROP TABLE t",
        b"SHOW x; DROP TABLE t",
        b"SHOW x;DROP TABLE t;",
        b"SHOWER x",
        b"SHOW\xa0x",
        b"SHOW/**/x",
        b'"SHOW" x',
        b"BASE_BACKUP_X",
        b"COPY t TO STDOUT",
        b"\x00IDENTIFY_SYSTEM",
    ],
)
def test_everything_else_is_sql(text: bytes) -> None:
    assert command(text) is None


def test_a_start_up_is_no_command() -> None:
    assert not is_command(start_up("true")[1])
