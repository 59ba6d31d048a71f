"""What a session asks of the outside, performed strictly in order by the relay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from classifier.model import Environment
from pgproxy.session.ports import ApprovalRequest


@dataclass(frozen=True, slots=True)
class ToServer:
    """Write to the server. `received_at`: when the statement in it arrived, for the overhead metric; None when the
    bytes carry none, or when it waited for a human."""

    data: bytes
    received_at: float | None = None


@dataclass(frozen=True, slots=True)
class ToClient:
    """Write to the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Analyse:
    """Classify a text no cache knows; answered by `events.Analysed`."""

    text: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class Estimate:
    """Ask the planner how many rows a text would give; answered by `events.Estimated`. `parameters`: how many it has,
    whose values are not told."""

    text: str
    parameters: int
    search_path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Put an entry into the audit trail before going on; answered by `events.Recorded`."""

    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RecordSoon:
    """Put an entry into the audit trail; nobody waits for it, and it may not be lost either."""

    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenApproval:
    """Park: ask for a human; answered by `events.ApprovalOpened`, later by `events.ApprovalResolved`."""

    request: ApprovalRequest


@dataclass(frozen=True, slots=True)
class ClaimApproval:
    """Spend the approval, immediately before the bytes go; answered by `events.ClaimAnswered`. `sha256`: of the
    statement that goes."""

    id: str
    binding: str
    sha256: str


@dataclass(frozen=True, slots=True)
class WithdrawApproval:
    """The one who asked is gone, cancelled, or can no longer be answered."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FinishApproval:
    """How the approved statement ended: status executed, failed or unknown."""

    id: str
    status: str
    outcome: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CancelServer:
    """Send the server a CancelRequest for its connection."""


@dataclass(frozen=True, slots=True)
class StopServer:
    """The same, and tell when it is certain that it can hit nothing sent later; answered by `events.ServerCancelled`,
    whether the server took it or not."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close both connections, after everything written so far has gone out."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision was made; for counters and the log. `decision` is the audit entry's."""

    classes: tuple[str, ...]
    decision: str
    fingerprint: str
    approval_id: str | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """The session began (or ceased) to wait for a human; for counters and the log."""

    waiting: bool
    approval_id: str | None


@dataclass(frozen=True, slots=True)
class CatalogChanged:
    """A statement that may have made, changed or dropped objects of the database has completed."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that passed from the server to the client."""

    count: int


Effect = (
    ToServer
    | ToClient
    | Analyse
    | Estimate
    | Record
    | RecordSoon
    | OpenApproval
    | ClaimApproval
    | WithdrawApproval
    | FinishApproval
    | CancelServer
    | StopServer
    | Close
    | Decided
    | Parked
    | CatalogChanged
    | Rows
)
