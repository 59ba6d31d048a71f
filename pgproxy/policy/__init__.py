"""From a classification, an identity and the circumstances to what happens: forward, park or deny. Pure.

Owns: the rules of the policy file, the built-in default, and the order of strictness (deny > approve > allow). Must not
know: the session, the store, the clock (the time is one of the facts), the network.

* `decisions` has the values: who (`Identity`), the circumstances (`Facts`), whose consent is needed (`Requirement`),
  how much of a result may pass unasked (`Budget`), and the three answers (`Forward`, `Park`, `Deny`).
* `reading` makes a document's data into `rules`, with `fields` for plain values, `patterns` of names, `hours`, and
  `conditions` in CEL, which `expressions` checks over the `facts` there are.
* `matching` says whether a rule is met (yes, no, perhaps), `decide` what all of them come to for one text, `explain`
  why.

Invariants:

1. A decision depends on nothing but its arguments, so that a recorded statement can be judged again (`policy replay`).
2. What a rule needs to know and nobody can tell counts against the statement: a rule that parks or denies matches, one
   that allows does not. `matching` has three answers for that, and a rule that allows must cover everything a
   statement touches, while for others anything of it is enough.
3. Adding a rule that denies never lets more pass.
4. Nothing a rule says can take long or fail when a statement meets it: what could is refused when the rule is read.
5. A `Policy` is immutable; a reload makes a new one, and its version is on every record that it decided.

Rejected: evaluating `when` without checking it first (the library finds a misspelt fact when a statement meets it), and
OPA's Rego (a second process, or a runtime of tens of megabytes, for what a table of rules says in a line).
"""

from __future__ import annotations

from pgproxy.policy.decide import REPLICATION_START, Policy, PolicyInForce, decide, is_privileged, wants_estimate
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
from pgproxy.policy.explain import explain
from pgproxy.policy.fields import RulesError
from pgproxy.policy.reading import read_rules
from pgproxy.policy.rules import BUILT_IN, BUILT_IN_RULE, BUILT_IN_VERSION, RuleSet

__all__ = [
    "BUILT_IN",
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
    "RuleSet",
    "RulesError",
    "decide",
    "explain",
    "is_privileged",
    "read_rules",
    "wants_estimate",
]
