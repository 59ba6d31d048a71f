"""The values a decision is made from and made of. Frozen: they are shared between sessions and cached."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """`observe` classifies and audits; it never parks or denies."""

    ENFORCE = "enforce"
    OBSERVE = "observe"


class Replication(StrEnum):
    """What becomes of a replication connection: none of them, or those that a human approves."""

    DENY = "deny"
    APPROVE = "approve"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is at the other end, as far as authentication established it; `client_addr` is an address, or `local`."""

    agent: str
    owner: str | None
    db_user: str
    database: str
    client_addr: str = "local"


@dataclass(frozen=True, slots=True)
class Facts:
    """The circumstances of one statement. `now`: seconds since the epoch; `rows_estimate`: the planner's, None where
    nobody asked it or it could not tell. What an agent says about itself may be required, and authorises nothing."""

    now: float = 0.0
    application_name: str = ""
    reason: str | None = None
    ticket: str | None = None
    context: Any = None
    in_transaction: bool = False
    rows_estimate: float | None = None


@dataclass(frozen=True, slots=True)
class Requirement:
    """Approvals of `count` distinct people of any of these groups (none named: any reviewer), as `rule` asks."""

    rule: str
    groups: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True, slots=True)
class Escalation:
    """A request nobody decided for `after_s` seconds goes to these channels as well (`slack:#dba`)."""

    after_s: float
    notify: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Park:
    """Ask a human. `rule` names every rule that asks; all of `requirements` must be met. `channels`: where a decision
    may come from (`console`, `api`, `slack`, …), empty: from anywhere. `message` is shown to agent and reviewer."""

    rule: str
    timeout_s: float
    requirements: tuple[Requirement, ...] = (Requirement("built-in"),)
    channels: tuple[str, ...] = ()
    notify: tuple[str, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    message: str | None = None

    @property
    def required_approvals(self) -> int:
        """The least number of people that can meet all requirements."""
        return max(r.count for r in self.requirements)


class Per(StrEnum):
    """Over what a budget counts: one statement, one portal or cursor over all its Executes and FETCHes, one session, or
    one agent over the last sixty minutes, in all its sessions."""

    STATEMENT = "statement"
    PORTAL = "portal"
    SESSION = "session"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of results may pass unasked; the row (or byte of row data) that exceeds it parks, by `park`."""

    rule: str
    per: Per
    park: Park
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Let it pass. `observed`: it would have been parked or denied, had the mode been `enforce`."""

    rule: str
    observed: bool = False
    budgets: tuple[Budget, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse without asking. `message`: the rule's own words for the agent. `unsupported`: it is not offered here to
    anybody."""

    rule: str
    reason: str
    hint: str | None = None
    unsupported: bool = False
    message: str | None = None


Decision = Forward | Park | Deny
