"""From a classification and an identity to what happens: forward, park or deny. Pure.

This version knows the built-in policy only: privileged classes need one approval by any reviewer, everything else
is allowed. The shape is that of the policy file (the strictest outcome wins: deny > approve > allow), so that rules
slot in without the session noticing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from classifier.model import UNPRIVILEGED, Classification

BUILT_IN_RULE = "built-in"
BUILT_IN_VERSION = "built-in-1"

# The kind of the one "statement" that a start-up packet asking for replication amounts to.
REPLICATION_START = "ReplicationStart"


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
    """Who is at the other end, as far as authentication established it."""

    agent: str
    owner: str | None
    db_user: str
    database: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides. `version` is on every record that it decided."""

    mode: Mode = Mode.ENFORCE
    approval_timeout_s: float = 600.0
    version: str = BUILT_IN_VERSION
    replication: Replication = Replication.DENY


class PolicyInForce:
    """The policy of now: replaced as a whole, and taken up by each session between two statements."""

    def __init__(self, policy: Policy) -> None:
        self.current = policy

    def replace(self, policy: Policy) -> None:
        self.current = policy


@dataclass(frozen=True, slots=True)
class Forward:
    """Let it pass. `observed`: it would have been parked or denied, had the mode been `enforce`."""

    rule: str
    observed: bool = False


@dataclass(frozen=True, slots=True)
class Park:
    """Ask a human; `groups` empty means any reviewer."""

    rule: str
    timeout_s: float
    required_approvals: int = 1
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse without asking. `unsupported`: it is not offered here to anybody."""

    rule: str
    reason: str
    hint: str | None = None
    unsupported: bool = False


Decision = Forward | Park | Deny


def is_privileged(classification: Classification) -> bool:
    """Privileged by class, whatever the classifier's own flag says: the stricter of the two counts."""
    return classification.privileged or any(
        action.cls not in UNPRIVILEGED for statement in classification.statements for action in statement.actions
    )


def decide(classification: Classification, identity: Identity, policy: Policy) -> Decision:
    """The decision for one statement of one identity.

    A privileged statement of an agent without an owner is denied: nobody could be kept from approving their own
    request (the hint names the key to set).
    """
    if not is_privileged(classification):
        return Forward(BUILT_IN_RULE)
    if policy.mode is Mode.OBSERVE:
        return Forward(BUILT_IN_RULE, observed=True)
    if policy.replication is Replication.DENY and any(s.kind == REPLICATION_START for s in classification.statements):
        return Deny(
            BUILT_IN_RULE,
            "a replication connection reads the whole server",
            "connect to the server itself for replication, or ask the operator to set replication: approve",
            unsupported=True,
        )
    if identity.owner is None:
        return Deny(
            BUILT_IN_RULE,
            f'agent "{identity.agent}" has no owner, so no one may approve for it',
            "name an owner for the agent under agents, or set auth.default_owner",
        )
    return Park(BUILT_IN_RULE, policy.approval_timeout_s)
