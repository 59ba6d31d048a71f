"""From a classification, an identity and the circumstances to what happens: forward, park or deny. Pure.

Owns: the rules of the policy file, the built-in default, and the order of strictness (deny > approve > allow). Must not
know: the session, the store, the clock (the time is one of the facts), the network.

* `decisions` has the values: who (`Identity`), the circumstances (`Facts`), whose consent is needed (`Requirement`),
  how much of a result may pass unasked (`Budget`), and the three answers (`Forward`, `Park`, `Deny`).
* `decide` gives the answer for one statement.

Invariants:

1. A decision depends on nothing but its arguments, so that a recorded statement can be judged again (`policy replay`).
2. What a rule needs to know and nobody can tell counts against the statement: a rule that parks or denies matches, one
   that allows does not.
3. A `Policy` is immutable; a reload makes a new one, and its version is on every record that it decided.
"""

from __future__ import annotations

from pgproxy.policy.decide import (
    BUILT_IN_RULE,
    BUILT_IN_VERSION,
    REPLICATION_START,
    Policy,
    PolicyInForce,
    decide,
    is_privileged,
    wants_estimate,
)
from pgproxy.policy.decisions import (
    Budget,
    Decision,
    Deny,
    Escalation,
    Facts,
    Forward,
    Identity,
    Mode,
    Park,
    Per,
    Replication,
    Requirement,
)

__all__ = [
    "BUILT_IN_RULE",
    "BUILT_IN_VERSION",
    "REPLICATION_START",
    "Budget",
    "Decision",
    "Deny",
    "Escalation",
    "Facts",
    "Forward",
    "Identity",
    "Mode",
    "Park",
    "Per",
    "Policy",
    "PolicyInForce",
    "Replication",
    "Requirement",
    "decide",
    "is_privileged",
    "wants_estimate",
]
