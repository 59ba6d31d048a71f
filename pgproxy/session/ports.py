"""What the data plane needs of the rest, as Protocols and plain values; `pgproxy.app` fills them.

The session itself only emits effects and takes events; `pgproxy.net` performs the effects through these ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from classifier.model import Classification, Environment
from pgproxy.policy import Escalation, Requirement


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, from where and why; the `requester` object of the public contract."""

    agent: str
    owner: str | None
    db_user: str
    database: str
    client_addr: str
    application_name: str
    session_id: str
    reason: str | None = None
    ticket: str | None = None
    context: Any = None


@dataclass(frozen=True, slots=True)
class GrantKey:
    """What a grant may be keyed by beside agent, database and database user: `text_sha256` of the statement's raw
    bytes, `shape`, a fingerprint that stands for the statement only where neither its class nor its objects depend on
    its constants (None elsewhere), `environment`, a digest of role and search_path, and `transaction`, which names
    the transaction block of this session that is open (None outside of one)."""

    text_sha256: str
    shape: str | None
    environment: str
    transaction: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A parked statement. `sha256` is over the statement's raw bytes as the client sent them (hex);
    `params` are `{"type": name or oid, "value": text or None}` in order; `binding` is a digest of everything the
    approval is bound to (statement bytes, parameter types and values, session, role, search_path) that the claim
    compares again. With `wait` the session waits and the request dies with it; without (`pgproxy.wait=return`) the
    request outlives it, and `retry_binding`, the binding without the session, finds it again. `budget` is set for a
    result that ran into one: `{"rule", "per", "rows", "bytes", "passed_rows", "passed_bytes"}`."""

    requester: Requester
    sql: str
    sha256: str
    params: Sequence[dict[str, Any]]
    classification: dict[str, Any]
    risk: str
    rule: str
    requirements: Sequence[Requirement]
    timeout_s: float
    binding: str
    context: dict[str, Any] = field(default_factory=dict)
    policy_version: str = ""
    wait: bool = True
    retry_binding: str = ""
    grant_key: GrantKey | None = None  # None: no grant may stand in for a decision
    channels: Sequence[str] = ()
    notify: Sequence[str] = ()
    escalations: Sequence[Escalation] = ()
    message: str | None = None
    budget: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class OpenedApproval:
    """`status`: `pending`; or at once what a grant, or the earlier decision on a `wait=return` request, has settled,
    and then `ApprovalGateway.wait` answers without waiting."""

    id: str
    expires_at: datetime
    status: str = "pending"


@dataclass(frozen=True, slots=True)
class ResolvedApproval:
    """How a request left `pending`: status `approved`, `denied`, `expired` or `withdrawn`; for a denial the last
    decision's reviewer and comment; `reviewers` everyone who decided. `sql` is set when a reviewer changed the
    statement: what was approved is that text. `row_cap`: no more rows than that."""

    id: str
    status: str
    reviewer: str | None = None
    comment: str | None = None
    reviewers: tuple[str, ...] = ()
    sql: str | None = None
    modified_by: str | None = None
    row_cap: int | None = None


class ApprovalGateway(Protocol):
    """The approvals store as one worker sees it. Every call raises `StoreUnavailable` when it cannot answer."""

    async def open(self, request: ApprovalRequest) -> OpenedApproval:
        """Raises `TooManyOpen` as well."""
        ...

    async def wait(self, approval_id: str) -> ResolvedApproval:
        """Returns when the request is no longer pending; survives a dropped store connection."""
        ...

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        """approved → executing, if not expired and the binding is the same (for a request that does not wait, the
        retry_binding) and `sha256`, of the raw bytes about to be sent, is that of what was voted on (of a modified
        statement in UTF-8); true for exactly one caller once."""
        ...

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        """pending|approved → withdrawn; false when it was too late."""
        ...

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        """executing → executed|failed|unknown, with the contract's `outcome` object."""
        ...


class AuditWriter(Protocol):
    """Where evidence goes. `append` returns once the entry is safe; raises `AuditUnavailable` when it cannot be."""

    async def append(self, entry: dict[str, Any]) -> None: ...


class Analyzer(Protocol):
    """Classification with its caches. `lookup` never blocks (exact text, then normalised); `analyze` may take
    milliseconds in another process and never raises for a bad text: the answer is then class `unknown`."""

    def lookup(self, text: str, environment: Environment) -> Classification | None: ...
    async def analyze(self, text: str, environment: Environment) -> Classification: ...


class Estimator(Protocol):
    """The planner's opinion of a text, without running any of it."""

    async def estimate(self, database: str, text: str, parameters: int, search_path: Sequence[str]) -> float | None:
        """Rows, about; None where it cannot be told in the time there is. Never raises."""
        ...


class StoreUnavailable(Exception):
    """The approval store did not answer; nothing was decided."""


class TooManyOpen(Exception):
    """The agent has too many open requests in the whole store; nothing was opened. `limit` is the configuration's
    key."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


class AuditUnavailable(Exception):
    """The audit trail did not take the entry; the statement must not go on."""
