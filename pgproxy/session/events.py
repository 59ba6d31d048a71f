"""What can happen to a session."""

from __future__ import annotations

from dataclasses import dataclass

from classifier.model import Classification
from pgproxy.errors import ProxyError
from pgproxy.session.ports import OpenedApproval, ResolvedApproval


@dataclass(frozen=True, slots=True)
class ReplicationRequested:
    """The start-up packet asked for replication, and the server is ready: `ready` is its ReadyForQuery, which the
    client has not got. Comes before anything else, if it comes."""

    ready: bytes


@dataclass(frozen=True, slots=True)
class FrontendData:
    """Bytes arrived from the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class BackendData:
    """Bytes arrived from the server."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The client sends no more. `lost`: nor can anything be told to it any more; else it may still read, as a client
    does that only closed its sending half. Comes once each way, or once for both."""

    lost: bool = True


@dataclass(frozen=True, slots=True)
class ServerClosed:
    """The server's connection ended."""


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A CancelRequest with this session's key arrived on another connection."""


@dataclass(frozen=True, slots=True)
class EndRequested:
    """An administrator, or pgproxy's own shutdown, ends the session; `reason` is for the client, who is told
    `error` where it is another than 57P01."""

    reason: str
    error: ProxyError | None = None


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The session is to end as soon as that costs nobody anything: at once outside a transaction, and where it waits
    for a human (who could answer for longer than anybody waits here), else when its transaction ends; `reason` is
    for the client. `EndRequested` follows when that takes too long."""

    reason: str


@dataclass(frozen=True, slots=True)
class Analysed:
    """The answer to `effects.Analyse`."""

    classification: Classification


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer to `effects.Record`: whether the audit trail holds the entry."""

    ok: bool


@dataclass(frozen=True, slots=True)
class ApprovalOpened:
    """The answer to `effects.OpenApproval`; None when the store did not answer or was not asked."""

    opened: OpenedApproval | None
    limit: str | None = None  # the configuration's key of the limit that was reached


@dataclass(frozen=True, slots=True)
class ApprovalResolved:
    """The parked request is no longer pending."""

    resolved: ResolvedApproval


@dataclass(frozen=True, slots=True)
class ClaimAnswered:
    """The answer to `effects.ClaimApproval`; None when the store did not answer."""

    ok: bool | None


@dataclass(frozen=True, slots=True)
class Estimated:
    """The answer to `effects.Estimate`; None when the planner was not asked, or could not tell."""

    rows: float | None


@dataclass(frozen=True, slots=True)
class ServerCancelled:
    """The answer to `effects.StopServer`: the connection that carried the CancelRequest has ended."""


Event = (
    ReplicationRequested
    | FrontendData
    | BackendData
    | ClientClosed
    | ServerClosed
    | CancelRequested
    | EndRequested
    | DrainRequested
    | Analysed
    | Recorded
    | ApprovalOpened
    | ApprovalResolved
    | ClaimAnswered
    | Estimated
    | ServerCancelled
)
