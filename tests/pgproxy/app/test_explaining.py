"""The policy in force as the console shows it, before the real classifier."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from pgproxy.analysis.pool import AnalyserPool
from pgproxy.app.explaining import ApiExplainer
from pgproxy.app.judging import ApiClassifier
from pgproxy.policy import BUILT_IN_VERSION, Policy, read_rules

DOCUMENT = {
    "version": 1,
    "rules": [
        {
            "name": "nights",
            "match": {"classes": ["ddl"], "hours": ["Mon-Fri 22:00-06:00 Europe/Zurich"]},
            "decision": "deny",
            "message": "not at night",
        },
        {
            "name": "exports",
            "match": {"classes": ["export"], "agents": ["etl-*"], "relations": ["billing.*"]},
            "when": "request.rows_estimate > 1000.0",
            "decision": "approve",
            "approvers": {"groups": ["dba"], "count": 2},
        },
    ],
}


@pytest.fixture
async def classifier() -> AsyncIterator[ApiClassifier]:
    pool = AnalyserPool(processes=1)
    await pool.start()
    yield ApiClassifier(pool, None)
    await pool.close()


async def test_rules_as_plain_data(classifier: ApiClassifier) -> None:
    policy = Policy(rules=read_rules(DOCUMENT))
    described = await ApiExplainer(classifier, lambda: policy).describe()
    json.dumps(described)  # nothing else is in it
    nights, exports = described["rules"]
    assert described["version"] == policy.version
    assert nights["decision"] == "deny" and "22:00" in str(nights["match"]["hours"]) and "Mon" in str(nights["match"])
    assert nights["asks"]["message"] == "not at night"
    assert exports["match"] == {"classes": ["export"], "agents": ["etl-*"], "relations": ["billing.*"]}
    assert exports["asks"]["when"] == "request.rows_estimate > 1000.0"
    assert (exports["asks"]["groups"], exports["asks"]["count"]) == (["dba"], 2)


async def test_why_a_statement_is_decided_so(classifier: ApiClassifier) -> None:
    policy = Policy(rules=read_rules(DOCUMENT))
    explainer = ApiExplainer(classifier, lambda: policy)
    found = await explainer.explain(
        "COPY billing.invoices TO STDOUT", {"agent": "etl-1", "owner": "alice", "database": "shop"}
    )
    assert (found["decision"]["decision"], found["decision"]["rule"]) == ("approve", "exports, built-in")
    passed_over = {each["rule"]: each for each in found["actions"][0]["passed_over"]}
    # Nobody asked the planner, so the rule may be met, and counts.
    assert passed_over["exports"] == {"rule": "exports", "key": "when", "met": "perhaps", "effect": "counts"}
    assert passed_over["nights"]["key"] == "classes"
    found = await explainer.explain(
        "COPY billing.invoices TO STDOUT", {"agent": "other", "owner": "alice", "database": "shop"}
    )
    assert found["decision"]["rule"] == "built-in"
    passed_over = {each["rule"]: each for each in found["actions"][0]["passed_over"]}
    assert (passed_over["exports"]["key"], passed_over["exports"]["met"]) == ("agents", "no")


async def test_without_rules_and_without_sense(classifier: ApiClassifier) -> None:
    explainer = ApiExplainer(classifier, Policy)
    assert (await explainer.describe())["version"] == BUILT_IN_VERSION
    with pytest.raises(ValueError, match="not a statement"):
        await explainer.explain("SELEC 1", {})
