"""The gate's states and, in one table, what each event means in each of them.

An event that a state's row does not name is a bug of the shell or of this session: the session closes both sides.
`Session` has one method a handler name; tests walk the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from pgproxy.session import events


class GateState(Enum):
    """What the gate waits for before it may judge or forward the next message of the client."""

    OPEN = "the client's next message"
    ANALYSING = "a classification no cache knew"
    ESTIMATING = "the planner's estimate, which a rule asks for"
    SETTLING = "the replies to everything sent before"
    PROBING = "the server's word on a text our grammar rejects"
    RECORDING = "the audit trail to hold the decision"
    OPENING = "the store to take the request for approval"
    PARKED = "a human"
    CLAIMING = "the store to hand out the approval, once"
    COMPARING = "the server's word on a statement that a reviewer changed"
    HELD_OPENING = "the store to take the request for the rest of a result"
    HELD_PARKED = "a human, while the rest of a result is held"
    HELD_CLAIMING = "the store to hand out the approval of the rest of a result"
    STOPPING = "the server to end a result that was refused in mid-stream"
    LEAVING = "the server to answer what it was sent, the client having said goodbye"
    CLOSED = "nothing any more"


_ALWAYS: dict[type, str] = {
    events.FrontendData: "on_frontend_data",
    events.BackendData: "on_backend_data",
    events.ClientClosed: "on_client_closed",
    events.ServerClosed: "on_server_closed",
    events.CancelRequested: "on_cancel_requested",
    events.EndRequested: "on_end_requested",
    events.DrainRequested: "on_drain_requested",
}

# An approval that answers after its session has ended must not stay behind, nor may it run anything.
_LATE: dict[type, str] = {
    events.ApprovalOpened: "on_opened_too_late",
    events.ClaimAnswered: "on_claimed_too_late",
    events.ApprovalResolved: "ignore",
    events.Recorded: "ignore",
    events.Analysed: "ignore",
    events.Estimated: "ignore",
    events.ServerCancelled: "ignore",
}

# A result is held in mid-stream: what the server sends waits, and so does what the client sends.
_HELD: dict[type, str] = {
    **_ALWAYS,
    events.BackendData: "on_held_data",
    events.CancelRequested: "on_cancel_while_held",
    events.ApprovalResolved: "ignore",
}

TABLE: Mapping[GateState, Mapping[type, str]] = MappingProxyType(
    {
        GateState.OPEN: {
            **_ALWAYS,
            events.ReplicationRequested: "on_replication_requested",
            events.ApprovalResolved: "ignore",
        },
        GateState.ANALYSING: {
            **_ALWAYS,
            events.Analysed: "on_analysed",
            events.ApprovalResolved: "ignore",
        },
        GateState.ESTIMATING: {
            **_ALWAYS,
            events.Estimated: "on_estimated",
            events.ApprovalResolved: "ignore",
        },
        GateState.SETTLING: {**_ALWAYS, events.ApprovalResolved: "ignore"},
        GateState.PROBING: {**_ALWAYS, events.ApprovalResolved: "ignore"},
        GateState.RECORDING: {
            **_ALWAYS,
            events.Recorded: "on_recorded",
            events.ApprovalResolved: "ignore",
        },
        GateState.OPENING: {
            **_ALWAYS,
            events.ApprovalOpened: "on_approval_opened",
            events.ApprovalResolved: "ignore",
        },
        GateState.PARKED: {**_ALWAYS, events.ApprovalResolved: "on_approval_resolved"},
        GateState.CLAIMING: {
            **_ALWAYS,
            events.ClaimAnswered: "on_claim_answered",
            events.ApprovalResolved: "ignore",
        },
        GateState.COMPARING: {**_ALWAYS, events.ApprovalResolved: "ignore"},
        GateState.HELD_OPENING: {**_HELD, events.ApprovalOpened: "on_rest_opened"},
        GateState.HELD_PARKED: {**_HELD, events.ApprovalResolved: "on_rest_resolved"},
        GateState.HELD_CLAIMING: {**_HELD, events.ClaimAnswered: "on_rest_claimed"},
        GateState.STOPPING: {
            **_ALWAYS,
            events.BackendData: "on_refused_data",
            events.CancelRequested: "ignore",
            events.ServerCancelled: "on_server_cancelled",
            events.ApprovalResolved: "ignore",
        },
        GateState.LEAVING: {
            **_ALWAYS,
            events.FrontendData: "ignore",
            events.DrainRequested: "ignore",
            events.ApprovalResolved: "ignore",
        },
        GateState.CLOSED: {**dict.fromkeys(_ALWAYS, "ignore"), **_LATE},
    }
)
