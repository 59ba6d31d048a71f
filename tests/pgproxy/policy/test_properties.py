"""Over any rules and any statement: a decision is made, and denying more never lets more pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from classifier import classify, unknown
from classifier.model import UNPRIVILEGED, ActionClass
from pgproxy.policy import (
    Deny,
    Facts,
    Forward,
    Identity,
    Mode,
    Park,
    Policy,
    decide,
    explain,
    is_privileged,
    read_rules,
    wants_estimate,
)
from pgproxy.policy.conditions import Condition

Condition("has(request.owner)")  # imports the library, which takes longer than a test may

TEXTS = [
    *("SELECT 1", "SELECT * FROM customers", "SELECT id FROM public.customers", "DROP TABLE scratch.a, billing.b"),
    *("COPY billing.a TO STDOUT", "DO 'BEGIN END'", "GRANT x TO y", "BEGIN", "CREATE TEMP TABLE t ()", "nonsense", ""),
    *("UPDATE scratch.a SET b = 1 WHERE c = 2", "CREATE TABLE scratch.a (); SELECT 1", "SELECT pg_read_file('x')"),
]
CLASSIFICATIONS = [*(classify(text) for text in TEXTS), unknown("x"), replace(unknown("x"), statements=())]

matches = st.fixed_dictionaries(
    {},
    optional={
        "classes": st.lists(st.sampled_from([str(c) for c in ActionClass]), min_size=1, max_size=4),
        "agents": st.sampled_from([["bot"], ["b*"], ["x"]]),
        "owners": st.sampled_from([["alice"], ["*"]]),
        "relations": st.sampled_from([["scratch.*"], ["billing.*", "customers"], ["*"], ["public.customers"]]),
        "tags": st.just(["pii"]),
        "networks": st.sampled_from([["10.0.0.0/8"], ["local"]]),
        "hours": st.sampled_from(["08:00-18:00 UTC", "Sat 22:00-02:00 Asia/Tokyo"]),
        "min_risk": st.sampled_from(["low", "medium", "critical"]),
        "verbs": st.sampled_from([["temp_*"], ["drop"]]),
        "functions": st.just(["pg_read_file"]),
    },
)
conditions = st.none() | st.sampled_from(
    ["request.rows_estimate > 10", "request.agent == 'bot'", "has(request.reason)", "'pii' in request.tags"]
)


@st.composite
def rules(draw: Any, decision: str | None = None) -> dict[str, Any]:
    decided = decision or draw(st.sampled_from(["allow", "approve", "deny"]))
    found: dict[str, Any] = {"match": draw(matches), "decision": decided}
    when = draw(conditions)
    if when is not None:
        found["when"] = when
    if decided == "approve":
        found["approvers"] = {"via": draw(st.sampled_from([["console"], ["slack"], ["console", "slack"]]))}
        found["in_transaction"] = draw(st.sampled_from(["park", "deny"]))
    has_rows = set(found["match"].get("classes", ("read",))) != {"transaction"}
    if decided == "allow" and has_rows and draw(st.booleans()):
        found["budget"] = {"rows": draw(st.integers(0, 5))}
    if decided != "deny" and draw(st.booleans()):
        found["require"] = ["reason"]
    return found


identities = st.builds(
    Identity,
    st.sampled_from(["bot", "x"]),
    st.sampled_from([None, "alice"]),
    st.just("app"),
    st.just("shop"),
    st.sampled_from(["local", "10.1.1.1", "?"]),
)
facts = st.builds(
    Facts,
    now=st.floats(0, 4e9) | st.just(float("inf")),
    reason=st.sampled_from([None, "x", ""]),
    context=st.sampled_from([None, {"a": 1}]),
    in_transaction=st.booleans(),
    rows_estimate=st.sampled_from([None, 1.0, 1e9]),
)


def policy(listed: list[dict[str, Any]], mode: Mode = Mode.ENFORCE) -> Policy:
    """Rules that a later one's place would make unreachable are not these tests' business: each gets a verb too."""
    named = [{**rule, "name": f"r{i}", "match": {"verbs": ["*"], **rule["match"]}} for i, rule in enumerate(listed)]
    return Policy(mode, rules=read_rules({"version": 1, "rules": named, "tags": {"pii": ["public.customers.*"]}}))


STRICTNESS = {Forward: 0, Park: 1, Deny: 2}
cases = st.sampled_from(CLASSIFICATIONS)


@given(st.lists(rules(), max_size=5), cases, identities, facts)
def test_every_statement_is_decided_and_explained(
    listed: list[dict[str, Any]], classification: Any, identity: Identity, circumstances: Facts
) -> None:
    p = policy(listed)
    decision = decide(classification, identity, p, circumstances)
    assert decision == decide(classification, identity, p, circumstances)
    assert wants_estimate(classification, identity, p, circumstances) in (True, False)
    found = explain(classification, identity, p, circumstances)
    assert found["decision"]["decision"] == {Forward: "allow", Park: "approve", Deny: "deny"}[type(decision)]
    if isinstance(decision, Forward) and is_privileged(classification) and classification.statements:
        allowing = {a["rule"] for a in found["actions"] if ActionClass(a["class"]) not in UNPRIVILEGED}
        assert allowing and "built-in" not in allowing


@given(st.lists(rules(), max_size=4), rules("deny"), st.integers(0, 4), cases, identities, facts)
def test_a_rule_more_that_denies_never_lets_more_pass(
    listed: list[dict[str, Any]],
    denying: dict[str, Any],
    place: int,
    classification: Any,
    identity: Identity,
    circumstances: Facts,
) -> None:
    before = decide(classification, identity, policy(listed), circumstances)
    after = decide(classification, identity, policy([*listed[:place], denying, *listed[place:]]), circumstances)
    assert STRICTNESS[type(after)] >= STRICTNESS[type(before)]


@given(st.lists(rules(), max_size=4), cases, identities, facts)
def test_knowing_less_never_lets_more_pass(
    listed: list[dict[str, Any]], classification: Any, identity: Identity, circumstances: Facts
) -> None:
    """An agent that hides what a statement touches gets no milder decision by it."""
    p = policy(listed)
    hidden = replace(
        classification,
        statements=tuple(
            replace(s, relations_known=False, reaches=None, whole_rows=("*",), search_path=None)
            for s in classification.statements
        ),
    )
    before, after = (decide(c, identity, p, circumstances) for c in (classification, hidden))
    assert STRICTNESS[type(after)] >= STRICTNESS[type(before)]
    if isinstance(before, Forward) and isinstance(after, Forward):
        assert set(before.budgets) <= set(after.budgets)


@given(st.lists(rules(), max_size=4), cases, identities, facts)
def test_observe_stops_nothing_and_says_what_it_would_have(
    listed: list[dict[str, Any]], classification: Any, identity: Identity, circumstances: Facts
) -> None:
    enforced = decide(classification, identity, policy(listed), circumstances)
    observed = decide(classification, identity, policy(listed, Mode.OBSERVE), circumstances)
    assert observed == Forward(enforced.rule, observed=not isinstance(enforced, Forward))


@given(st.lists(rules(), max_size=4), cases, facts)
def test_without_an_owner_nothing_is_parked(
    listed: list[dict[str, Any]], classification: Any, circumstances: Facts
) -> None:
    assert not isinstance(
        decide(classification, Identity("bot", None, "app", "shop"), policy(listed), circumstances), Park
    )


@given(st.lists(rules(), max_size=4), cases, identities, facts)
def test_not_knowing_the_search_path_never_lets_more_pass(
    listed: list[dict[str, Any]], classification: Any, identity: Identity, circumstances: Facts
) -> None:
    p = policy(listed)
    statements = tuple(replace(s, search_path=None) for s in classification.statements)
    before = decide(classification, identity, p, circumstances)
    after = decide(replace(classification, statements=statements), identity, p, circumstances)
    assert STRICTNESS[type(after)] >= STRICTNESS[type(before)]
