"""Policies for tests of the session, each a function from a statement and its circumstances to a decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from classifier.model import Classification
from pgproxy import policy
from pgproxy.policy import Budget, Decision, Facts, Forward, Identity, Park, Per, Policy, is_privileged

Rule = Callable[[Classification, Identity, Facts], Decision]
PARK = Park("limited", 600.0)
_decide = policy.decide


@dataclass(frozen=True, slots=True)
class Ruled(Policy):
    """Decides by `rule`, where the built-in policy would let a statement pass; `always` decides on everything."""

    label: str = "test-1"
    rule: Rule | None = None
    always: Rule | None = None
    estimates: bool = False

    @property
    def version(self) -> str:
        return self.label


def _by_rule(classification: Classification, identity: Identity, by: Policy, facts: Facts) -> Decision:
    if isinstance(by, Ruled) and by.always is not None:
        return by.always(classification, identity, facts)
    if isinstance(by, Ruled) and by.rule is not None and not is_privileged(classification):
        return by.rule(classification, identity, facts)
    return _decide(classification, identity, by, facts)


def _estimates(_classification: Classification, _identity: Identity, by: Policy, facts: Facts) -> bool:
    return isinstance(by, Ruled) and by.estimates and facts.rows_estimate is None


@contextmanager
def ruled() -> Iterator[None]:
    """Rules are followed inside."""
    with mock.patch.object(policy, "decide", _by_rule), mock.patch.object(policy, "wants_estimate", _estimates):
        yield


def budgeted(*budgets: Budget, label: str = "test-1", **wanted: Any) -> Ruled:
    """What the built-in policy lets pass has these budgets."""
    forward = Forward("limited", budgets=budgets)
    return Ruled(label=label, rule=lambda _c, _i, _f: forward, **wanted)


def limited(
    rows: int | None = None, *, per: Per = Per.PORTAL, size: int | None = None, rule: str = "limited", **wanted: Any
) -> Ruled:
    return budgeted(Budget(rule, per, PARK, rows=rows, bytes=size), **wanted)
