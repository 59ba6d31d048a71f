from __future__ import annotations

import pytest

from classifier.model import UNPRIVILEGED, Action, ActionClass, Classification, Risk, Statement
from pgproxy.policy import (
    REPLICATION_START,
    Deny,
    Forward,
    Identity,
    Mode,
    Park,
    Policy,
    Replication,
    Requirement,
    decide,
    is_privileged,
)

OWNED = Identity("bot", "alice", "app", "shop")
ORPHAN = Identity("bot", None, "app", "shop")


def classification(*classes: ActionClass, flag: bool | None = None) -> Classification:
    privileged = any(c not in UNPRIVILEGED for c in classes) if flag is None else flag
    statements = tuple(Statement("X", "X", (Action(c, "verb"),)) for c in classes)
    return Classification(privileged, Risk.LOW, "fp", "x", statements)


@pytest.mark.parametrize("cls", ActionClass)
def test_every_class_but_the_four_is_parked(cls: ActionClass) -> None:
    expected = Forward if cls in UNPRIVILEGED else Park
    assert isinstance(decide(classification(cls), OWNED, Policy()), expected)


def test_the_strictest_statement_of_a_string_counts() -> None:
    mixed = classification(ActionClass.READ, ActionClass.DDL, ActionClass.READ)
    assert isinstance(decide(mixed, OWNED, Policy()), Park)


def test_the_stricter_of_flag_and_classes_counts() -> None:
    assert is_privileged(classification(ActionClass.READ, flag=True))
    assert is_privileged(classification(ActionClass.DDL, flag=False))


def test_without_an_owner_nobody_could_be_kept_from_approving_their_own() -> None:
    decision = decide(classification(ActionClass.DDL), ORPHAN, Policy())
    assert isinstance(decision, Deny) and decision.hint and "auth.default_owner" in decision.hint
    assert isinstance(decide(classification(ActionClass.READ), ORPHAN, Policy()), Forward)


@pytest.mark.parametrize("identity", [OWNED, ORPHAN])
def test_observe_forwards_everything_and_says_what_it_would_have_done(identity: Identity) -> None:
    policy = Policy(Mode.OBSERVE)
    assert decide(classification(ActionClass.DDL), identity, policy) == Forward("built-in", observed=True)
    assert decide(classification(ActionClass.READ), identity, policy) == Forward("built-in")


def test_a_park_carries_what_the_request_needs() -> None:
    decision = decide(classification(ActionClass.EXPORT), OWNED, Policy(approval_timeout_s=7.0))
    assert decision == Park("built-in", 7.0, (Requirement("built-in", (), 1),))


START = Classification(
    True, Risk.CRITICAL, "fp", "x", (Statement(REPLICATION_START, "X", (Action(ActionClass.REPLICATION, "start"),)),)
)


def test_a_replication_connection_is_not_offered_unless_the_operator_says_so() -> None:
    denied = decide(START, OWNED, Policy())
    assert isinstance(denied, Deny) and denied.unsupported and denied.hint and "replication: approve" in denied.hint
    approve = Policy(replication=Replication.APPROVE)
    assert isinstance(decide(START, OWNED, approve), Park)
    without_owner = decide(START, ORPHAN, approve)
    assert isinstance(without_owner, Deny) and not without_owner.unsupported
    assert decide(START, ORPHAN, Policy(Mode.OBSERVE)) == Forward("built-in", observed=True)


def test_statements_of_class_replication_are_parked_whatever_becomes_of_connections() -> None:
    for choice in Replication:
        policy = Policy(replication=choice)
        assert isinstance(decide(classification(ActionClass.REPLICATION), OWNED, policy), Park)
