"""Every cell of the table: brought about, and what the session does then."""

from __future__ import annotations

from typing import Any

import pytest

from pgproxy.protocol import frontend
from pgproxy.session import effects, events
from pgproxy.session.machine import Session
from pgproxy.session.states import TABLE, GateState
from tests.pgproxy.session.playbook import (
    DESCRIBED,
    Cache,
    Playbook,
    answers,
    opened,
    ready,
    resolved,
    row,
    sends,
    to_client,
    to_server,
)
from tests.pgproxy.session.rules import Ruled, limited
from tests.pgproxy.session.stub_classifier import classify

DROP = frontend.query(b"DROP t")
SELECT = frontend.query(b"SELECT 1")


def in_state(state: GateState) -> Playbook:
    """A session that has come into this state the ordinary way."""
    rules = Ruled(estimates=True) if state is GateState.ESTIMATING else limited(1)
    play = Playbook(cache=Cache(empty=state is GateState.ANALYSING), policy=rules)
    match state:
        case GateState.OPEN:
            pass
        case GateState.ANALYSING:
            play >> sends(SELECT) << effects.Analyse
        case GateState.ESTIMATING:
            play >> sends(SELECT) << effects.Estimate
        case GateState.SETTLING:
            play.allowed(SELECT)
            play >> sends(DROP) << None
        case GateState.PROBING:
            play >> sends(frontend.query(b"SELCT")) << effects.ToServer
        case GateState.RECORDING:
            play >> sends(SELECT) << effects.Record
        case GateState.OPENING:
            play >> sends(DROP) << effects.OpenApproval
        case GateState.PARKED:
            play.parks(DROP)
        case GateState.CLAIMING:
            play.parks(DROP) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
        case GateState.COMPARING:
            parse, bind = frontend.parse(b"", b"DROP t"), frontend.bind(b"", b"")
            play >> sends(parse, bind) << effects.OpenApproval >> opened() << effects.ToClient
            play >> resolved("approved", sql="DROP u", modified_by="bob") << effects.ToServer
        case GateState.HELD_OPENING:
            overruns(play)
        case GateState.HELD_PARKED:
            overruns(play) >> opened() << effects.ToClient
        case GateState.HELD_CLAIMING:
            overruns(play) >> opened() << effects.ToClient >> resolved("approved") << effects.ClaimApproval
        case GateState.STOPPING:
            overruns(play) >> opened() << effects.ToClient >> resolved("denied") << effects.StopServer
        case GateState.LEAVING:
            play.allowed(SELECT) >> sends(frontend.TERMINATE) << to_server(frontend.TERMINATE)
        case GateState.CLOSED:
            play >> sends(frontend.TERMINATE) << to_server(frontend.TERMINATE) << effects.Close
    assert play.state is state
    return play


def overruns(play: Playbook) -> Playbook:
    """A result runs into its budget."""
    play.allowed(SELECT) >> answers(DESCRIBED, row(), row()) << to_client(DESCRIBED, row()) << effects.OpenApproval
    return play


EVENTS: dict[type, Any] = {
    events.ReplicationRequested: events.ReplicationRequested(ready()),
    events.FrontendData: sends(SELECT),
    events.BackendData: answers(b"N\x00\x00\x00\x05\x00"),
    events.ClientClosed: events.ClientClosed(),
    events.ServerClosed: events.ServerClosed(),
    events.CancelRequested: events.CancelRequested(),
    events.EndRequested: events.EndRequested("ended"),
    events.DrainRequested: events.DrainRequested("drained"),
    events.Analysed: events.Analysed(classify("SELECT 1")),
    events.Recorded: events.Recorded(True),
    events.ApprovalOpened: opened(),
    events.ApprovalResolved: resolved("approved", id="of another time"),
    events.ClaimAnswered: events.ClaimAnswered(True),
    events.Estimated: events.Estimated(5.0),
    events.ServerCancelled: events.ServerCancelled(),
}
PARKED = (GateState.PARKED, GateState.HELD_PARKED)
HELD = (GateState.HELD_OPENING, GateState.HELD_PARKED, GateState.HELD_CLAIMING)
CELLS = [(state, event) for state in GateState for event in EVENTS]


def test_every_state_and_every_event_is_in_the_table() -> None:
    assert set(TABLE) == set(GateState)
    assert {event for cells in TABLE.values() for event in cells} == set(EVENTS)


def test_every_handler_exists() -> None:
    for cells in TABLE.values():
        for name in cells.values():
            assert name == "ignore" or callable(getattr(Session, name))


@pytest.mark.parametrize(("state", "event"), CELLS, ids=[f"{s.name}-{e.__name__}" for s, e in CELLS])
def test_cell(state: GateState, event: type) -> None:
    play = in_state(state)
    handler = TABLE[state].get(event)
    if handler is None:
        with pytest.raises(AssertionError, match="cannot happen"):
            play.session.handle(EVENTS[event], 1.0)
        return
    play.context.replication = "true" if event is events.ReplicationRequested else None
    produced = play.session.handle(EVENTS[event], 1.0)
    if handler == "ignore":
        assert not produced
        assert play.state is state
        return
    kinds = {type(e) for e in produced}
    match event:
        case events.ServerClosed | events.EndRequested:
            assert play.state is GateState.CLOSED
            assert effects.Close in kinds
            # (COMPARING: approved, and not spent.)
            assert (effects.WithdrawApproval in kinds) == (state in (*PARKED, GateState.COMPARING))
        case events.DrainRequested:
            asked = (GateState.OPENING, GateState.PARKED, GateState.HELD_OPENING, GateState.HELD_PARKED)
            at_once = state in (GateState.OPEN, *asked)
            assert (play.state is GateState.CLOSED) == (effects.Close in kinds) == at_once
            assert (effects.WithdrawApproval in kinds) == (state in PARKED)
        case events.ClientClosed if state in (GateState.OPEN, *PARKED, GateState.LEAVING):
            assert play.state is GateState.CLOSED
        case events.ClientClosed | events.FrontendData:
            assert effects.Close not in kinds  # the step that is under way sees it
        case events.CancelRequested:
            at_server = state in (GateState.OPEN, GateState.SETTLING, GateState.PROBING, GateState.LEAVING)
            assert (effects.CancelServer in kinds) == at_server
            assert (effects.WithdrawApproval in kinds) == (state in PARKED)
            assert (effects.StopServer in kinds) == (state is GateState.HELD_PARKED)
        case events.ServerCancelled:
            assert play.state is GateState.STOPPING and not produced  # the server has yet to answer
        case events.BackendData if state in HELD:
            assert not produced  # it waits behind what is held
        case events.BackendData:
            assert produced == [effects.ToClient(EVENTS[event].data)]
        case events.ReplicationRequested:
            assert play.state is GateState.RECORDING and effects.ToClient not in kinds
        case events.ApprovalResolved:
            assert play.state in PARKED and not produced  # another request's


def test_late_answers_leave_nothing_behind() -> None:
    play = in_state(GateState.OPENING)
    play >> events.ClientClosed() << None
    play >> events.ServerClosed() << effects.ToClient << effects.Close
    play >> opened() << effects.WithdrawApproval("a1", "the session ended")
    assert play.trail[-1]["decision"] == "withdrawn" and play.trail[-1]["approval_id"] == "a1"
    play = in_state(GateState.CLAIMING)
    play >> events.ServerClosed() << effects.ToClient << effects.Close
    play >> events.ClaimAnswered(True) << effects.FinishApproval("a1", "failed", {"sqlstate": "08006"})
    play = in_state(GateState.RECORDING)
    play >> events.ServerClosed() << effects.ToClient << effects.Close >> events.Recorded(True) << None


def test_an_error_of_the_server_in_the_middle_of_leaving_still_arrives() -> None:
    play = in_state(GateState.LEAVING)
    play >> answers(ready()) << effects.ToClient << effects.Close
    assert play.state is GateState.CLOSED
