"""Values of an approval, and its status machine as one table."""

from __future__ import annotations

import enum
import secrets
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


class Status(enum.StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"
    EXECUTING = "executing"
    EXECUTED = "executed"
    FAILED = "failed"
    UNKNOWN = "unknown"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.APPROVED, Status.DENIED, Status.EXPIRED, Status.WITHDRAWN}),
    Status.APPROVED: frozenset({Status.EXECUTING, Status.EXPIRED, Status.WITHDRAWN}),
    Status.EXECUTING: frozenset({Status.EXECUTED, Status.FAILED, Status.UNKNOWN}),
    Status.DENIED: frozenset(),
    Status.EXPIRED: frozenset(),
    Status.WITHDRAWN: frozenset(),
    Status.EXECUTED: frozenset(),
    Status.FAILED: frozenset(),
    Status.UNKNOWN: frozenset(),
}
"""Every step there is. The compare-and-set statements take their `WHERE status` from here."""


def sources(target: Status) -> list[str]:
    """The statuses a request may come from to reach `target`, as the store's text values."""
    return [status.value for status, targets in TRANSITIONS.items() if target in targets]


REQUESTER_KEYS = (
    "agent",
    "owner",
    "db_user",
    "database",
    "client_addr",
    "application_name",
    "session_id",
    "reason",
    "ticket",
    "context",
)
"""The `requester` object of the public contract."""

OUTCOME_KEYS = ("command_tag", "rows", "bytes", "sqlstate", "started_at", "finished_at")
"""The `outcome` object of the public contract."""


RISKS = ("low", "medium", "high", "critical")
"""From least to most."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Approvals of `count` distinct people of any of these groups (none named: any reviewer), as `rule` asks."""

    rule: str
    groups: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class GrantKey:
    """What a grant may be keyed by, beside the agent, its owner, the database and the database user. `shape` is None
    where a statement's meaning depends on its constants, `transaction` outside of one."""

    text_sha256: str
    environment: str
    shape: str | None = None
    transaction: str | None = None


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A statement that waits. `requester` is the contract's object; `sha256` is over the statement's raw
    bytes (hex); `binding` is a digest of everything the approval holds for, which the claim compares
    again.

    Without `wait` the request outlives its session and is claimed by `retry_binding`, the binding without the
    session. `grant_key` None: no grant may stand in for a decision, and none can be given on this request.
    `budget` is set for a result that ran into one.
    """

    requester: dict[str, Any]
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
    grant_key: GrantKey | None = None
    channels: Sequence[str] = ()
    notify: Sequence[str] = ()
    escalations: Sequence[dict[str, Any]] = ()
    message: str | None = None
    budget: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """`status` is `pending`, or what a grant or the earlier decision on a request that does not wait has settled."""

    id: str
    expires_at: datetime
    status: str = Status.PENDING.value


@dataclass(frozen=True, slots=True)
class Resolved:
    """How a request left `pending`. For a denial the reviewer who denied and their comment; `reviewers` is
    everyone who voted on what is there now, in order. `sql` is set where a reviewer changed the statement: what was
    approved is that text, and the claim's sha256 is over its UTF-8 bytes. `row_cap`: no more rows than that."""

    id: str
    status: str
    reviewer: str | None = None
    comment: str | None = None
    reviewers: tuple[str, ...] = ()
    sql: str | None = None
    modified_by: str | None = None
    row_cap: int | None = None


@dataclass(frozen=True, slots=True)
class Reviewer:
    """An authenticated person (or machine) of the API. `aliases`: the same person's other names (an e-mail address, an
    OIDC subject, a chat user id), which count only against them: who is the requester by any of their names decides
    nothing."""

    name: str
    groups: frozenset[str]
    roles: frozenset[str]
    machine: bool = False
    aliases: frozenset[str] = frozenset()


# Crockford's alphabet: no i, l, o, u, so an id survives being read aloud; ASCII order is value order.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH = 1_735_689_600  # 2025-01-01, in seconds
_TICKS_PER_SECOND = 16
_TIME_DIGITS = 7  # 2^35 sixteenths of a second: 68 years
_RANDOM_DIGITS = 8  # 40 bits, within one sixteenth of a second
ID_LENGTH = 1 + _TIME_DIGITS + _RANDOM_DIGITS


def new_id(letter: str = "a") -> str:
    """A new approval id: `a` (a grant's: `g`), time, randomness; 16 characters that sort by creation and cannot be
    guessed.

    Made by the caller rather than the store, so that a request whose insertion was not confirmed can still
    be named and withdrawn. Its time is this machine's and serves sorting only.
    """
    ticks = int((time.time() - _EPOCH) * _TICKS_PER_SECOND)
    return letter + _base32(ticks, _TIME_DIGITS) + _base32(secrets.randbits(5 * _RANDOM_DIGITS), _RANDOM_DIGITS)


def is_id(text: str, letter: str = "a") -> bool:
    """Whether this has the shape of such an id; anything else cannot exist and need not be looked up."""
    return len(text) == ID_LENGTH and text[0] == letter and all(digit in _ALPHABET for digit in text[1:])


def _base32(value: int, digits: int) -> str:
    return "".join(_ALPHABET[value >> (5 * place) & 31] for place in reversed(range(digits)))


def person_key(name: str) -> str:
    """The same key for the same person however the name is spelled: Unicode compatibility form, case
    folded, trimmed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def least_people(requirements: Sequence[Requirement]) -> int:
    """The least number of people that can meet all requirements; the contract's `required_approvals`."""
    return max((requirement.count for requirement in requirements), default=1)


def rfc3339(moment: datetime) -> str:
    """UTC with microseconds, as everywhere in the public contract."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
