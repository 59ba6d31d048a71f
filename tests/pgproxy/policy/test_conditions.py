"""CEL conditions: refused when the policy is read if they could not work, and total when they are evaluated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pgproxy.policy import read_rules
from pgproxy.policy.conditions import Condition
from pgproxy.policy.expressions import MAX_DEPTH
from pgproxy.policy.facts import FACTS
from pgproxy.policy.words import ExpressionError

VALUES: dict[str, Any] = {
    "agent": "etl-bot",
    "relations": ["public.a", "public.b"],
    "classes": ["read"],
    "context": {"model": "x", "tries": [{"n": 1}, {"n": 2}]},
    "rows_estimate": 5000.0,
    "hour": 3,
    "weekday": "Sat",
    "privileged": True,
    "in_transaction": False,
    "statement_count": 1,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("request.rows_estimate > 1000", True),
        ("request.rows_estimate * 2.0 >= 1e4", True),
        ("request.agent.startsWith('etl-') && !request.in_transaction", True),
        ("request.agent == 'x' ? request.privileged : request.hour < 4", True),
        ("request.relations.all(r, r.startsWith('public.'))", True),
        ("request.relations.exists_one(r, r.endsWith('.b'))", True),
        ("request.relations.exists(r, ['public.c', 'public.b'].exists(p, p == r))", True),
        ("request.relations.filter(r, r.contains('.b')).map(r, r + '!') == ['public.b!']", True),
        ("'read' in request.classes && size(request.classes) == 1", True),
        ("request.weekday in ['Sat', 'Sun']", True),
        ("request.agent.matches('^etl-[a-z]+$')", True),
        ("request.context.model == 'x'", True),
        ("request.context.tries.exists(t, t.n == 2)", True),
        ("has(request.context.nope)", False),
        ("has(request.reason)", False),
        ("!has(request.ticket)", True),
        ("request.relations[0] == 'public.a'", True),
        ("int(request.rows_estimate) % 2 == 0", True),
        ("-request.hour < 0", True),
        # what cannot be known or computed
        ("request.reason.startsWith('x')", None),
        ("request.reason == 'x' || request.hour == 3", True),  # CEL: an error on one side does not matter then
        ("request.reason == 'x' || request.hour == 4", None),
        ("request.reason != 'x'", None),
        ("request.relations[7] == 'x'", None),
        ("1 / (request.hour - 3) > 0", None),
        ("request.context.nope > 3", None),
        ("request.context.model > 3", None),
        ("request.hour * 9223372036854775807 > 0", None),
    ],
)
def test_conditions(text: str, expected: bool | None) -> None:
    assert Condition(text).evaluate(VALUES.get) is expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the end is not expected here"),
        ("request.agent", "must be true or false, and is a string"),
        ("1 < 2", "asks about no fact"),
        ("request.rows_estimat > 1", "at character 9: there is no fact 'rows_estimat'; did you mean 'rows_estimate'?"),
        ("rows_estimate > 1", "did you mean request.rows_estimate?"),
        ("request.agent > 1", "at character 1: a string > an int cannot be"),
        ("request.agent == 1", "a string == an int cannot be"),
        ("request.hour in ['a']", "an int in a list(string) cannot be"),
        ("request.hour && request.privileged", "must be a bool, and is an int"),
        ("request.rows_estimate + 1 > 2", "write 2.0 for a double"),
        ("request.context.flag", "must be true or false, and is JSON"),
        ("request.context.flag || request.privileged", "compare it (== …)"),
        ("request.agent.matches(request.agent)", "the pattern of matches must be a plain string"),
        ("request.agent.matches('[')", "'[' is not a regular expression"),
        ("request.agent.lowerAscii() == 'x'", "there is no function 'lowerAscii'"),
        ("timestamp('x') > 1", "there is no function 'timestamp'"),
        ("request.agent == 'x", "is not expected here"),
        ("request.agent = 'x'", "'=' is not expected here"),
        ("request.agent == null", "'null' is not known here"),
        ("request.relations.exists(r)", "',' is expected here, not ')'"),
        ("request.relations.exists(request, true)", "exists needs a new name first"),
        ("request.agent.exists(r, true)", "exists is for lists"),
        ("request.relations.all(a, request.classes.all(b, a == b))", "could take more than 20000 steps"),
        ("request.classes == []", "a list needs items of one type"),
        ("request.classes == ['a', 1]", "a list needs items of one type"),
        ("has(1)", "has() is for facts"),
        ("request == request", "a fact is expected"),
        ("request.agent.b == 'x'", "a string has no 'b'"),
        ("request.relations.exists(if, true)", "'if' is a reserved word"),
        ("request.hour > 99999999999999999999", "is not a 64-bit integer"),
        ("(" * 40 + "request.privileged" + ")" * 40, f"nested deeper than {MAX_DEPTH}"),
        ("!" * 40 + "request.privileged", f"nested deeper than {MAX_DEPTH}"),
        ("request.agent == '" + "x" * 2000 + "'", "is longer than 2000 characters"),
        ("request.privileged request.privileged", "'request' is not expected here"),
        ("request.privileged // nothing", "'/' is not expected here"),
    ],
)
def test_what_could_not_work_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        Condition(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_can_be_asked_for(name: str) -> None:
    assert Condition(f"has(request.{name})").evaluate({}.get) is False


facts = st.dictionaries(
    st.sampled_from(sorted(FACTS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    ),
)
CONDITIONS = [
    Condition(text)
    for text in (
        "request.rows_estimate > 1000 || request.agent.matches('^a+$')",
        "request.relations.all(r, r.startsWith('a')) && request.context.x == 1",
        "request.hour + 1 > 3 && request.context.list.exists(i, i.y in ['read', 'x'])",
        "(has(request.reason) ? request.reason.size() : 0) < request.statement_count",
    )
]


@given(st.sampled_from(CONDITIONS), facts)
def test_evaluation_is_total(condition: Condition, values: dict[str, Any]) -> None:
    assert condition.evaluate(values.get) in (True, False, None)


@given(st.text(st.sampled_from("request.agent hour()[]'\"&|!<>=+-*/?:,0123456789 in true has"), max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = Condition(text)
    except ExpressionError:
        return
    assert condition.evaluate(VALUES.get) in (True, False, None)


words = st.sampled_from(
    [
        *("request", ".", "agent", "hour", "privileged", "relations", "classes", "(", ")", "[", "]", "&&", "||", "!"),
        *("==", "<", "+", "'a'", "1", "2.0", "in", "exists", "all", "size", ",", "x", "?", ":"),
    ]
)


@given(st.lists(words, max_size=20))
def test_what_is_accepted_the_library_accepts(tokens: list[str]) -> None:
    """Its refusal would show as an error of the reader: `CEL refuses it`."""
    try:
        Condition(" ".join(["request.privileged == (", *tokens, ")"]))
    except ExpressionError as error:
        assert "CEL refuses it" not in str(error)


def test_every_fact_stands_in_the_readme_with_its_type() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    table = readme.partition("| `request.` | type | |")[2].partition("\n\n")[0]
    found = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+?)( ○)? \|$", table, re.MULTILINE)
    assert [(name, type_, says, not absent) for name, type_, says, absent in found] == [
        (name, *fact) for name, fact in FACTS.items()
    ]


def test_the_readmes_policy_can_be_used() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(version: 1\n.*?)```", readme, re.DOTALL)
    assert [rule.name for rule in read_rules(yaml.safe_load(text)).rules] == ["scratch", "personal data", "reads"]
