"""The decision for one statement.

This version knows the built-in policy only: privileged classes need one approval by any reviewer, everything else
is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

from classifier.model import UNPRIVILEGED, Classification
from pgproxy.policy.decisions import Decision, Deny, Facts, Forward, Identity, Mode, Park, Replication, Requirement

BUILT_IN_RULE = "built-in"
BUILT_IN_VERSION = "built-in-1"

# The kind of the one "statement" that a start-up packet asking for replication amounts to.
REPLICATION_START = "ReplicationStart"


# Of a start-up packet, where nothing but the identity is known yet.
UNKNOWN_FACTS = Facts()


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


def is_privileged(classification: Classification) -> bool:
    """Privileged by class, whatever the classifier's own flag says: the stricter of the two counts."""
    return classification.privileged or any(
        action.cls not in UNPRIVILEGED for statement in classification.statements for action in statement.actions
    )


def wants_estimate(classification: Classification, identity: Identity, policy: Policy) -> bool:
    """Whether a rule that may decide on this asks for the planner's estimate of rows."""
    return False


def decide(
    classification: Classification, identity: Identity, policy: Policy, facts: Facts = UNKNOWN_FACTS
) -> Decision:
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
    return Park(BUILT_IN_RULE, policy.approval_timeout_s, (Requirement(BUILT_IN_RULE),))
