"""A policy beside the configuration or in it: the same checks, and every problem with the line it stands on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgproxy.config import ConfigError, Settings, load
from pgproxy.policyfile import load_policy

POLICY = """\
version: 1
rules:
  - name: exports
    match: {classes: [export]}
    decision: approve
    approvers: {groups: [dba], count: 2}
"""
PEOPLE = """\
reviewers:
  - {name: bob, token: bobs-token-0123456789abcdef, groups: [dba]}
  - {name: eve, token: eves-token-0123456789abcdef, groups: [dba, privacy]}
  - {name: kim, token: kims-token-0123456789abcdef, groups: [dba, privacy], roles: [auditor]}
"""


def configured(
    directory: Path, policy: str, config: str = "policy: policy.yaml\n" + PEOPLE, **environ: str
) -> Settings:
    (directory / "policy.yaml").write_text(policy)
    (directory / "pgproxy.yaml").write_text(config)
    return load(directory / "pgproxy.yaml", environ)


def refusal(directory: Path, policy: str, config: str = "policy: policy.yaml\n" + PEOPLE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(directory, policy, config)
    return [line.removeprefix(f"{directory}/") for line in str(caught.value).splitlines()]


def test_a_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    settings = configured(tmp_path, POLICY)
    assert settings.policy["rules"][0]["name"] == "exports"
    assert Settings.from_wire(settings.to_wire()).policy == settings.policy


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("version: 1\n")
    assert configured(tmp_path, POLICY, PEOPLE, PGPROXY_POLICY="other.yaml").policy == {"version": 1}


def test_it_can_stand_in_the_configuration(tmp_path: Path) -> None:
    inline = "policy:\n" + "".join(f"  {line}\n" for line in POLICY.splitlines()) + PEOPLE
    settings = configured(tmp_path, "", inline)
    assert settings.policy == configured(tmp_path, POLICY).policy
    json.loads(settings.to_wire())


def test_problems_are_on_the_lines_of_the_policy_file(tmp_path: Path) -> None:
    broken = POLICY.replace("decision: approve", "decision: aprove").replace("count: 2", "count: two")
    assert refusal(tmp_path, broken) == [
        "policy.yaml:5: rules[0].decision: 'aprove' is none of them; did you mean 'approve'?",
        "policy.yaml:6: rules[0].approvers.count: must be a whole number, not text",
    ]


def test_problems_of_an_inline_policy_are_on_the_lines_of_the_configuration(tmp_path: Path) -> None:
    inline = PEOPLE + "policy:\n  version: 1\n  rules:\n    - {name: a, decision: allow, wen: x}\n"
    assert refusal(tmp_path, "", inline) == [
        "pgproxy.yaml:8: policy.rules[0].wen: unknown key; did you mean 'when'?",
    ]


def test_problems_of_both_are_told_at_once(tmp_path: Path) -> None:
    both = "policy: policy.yaml\napi: {listen: '0.0.0.0:8432'}\n"
    told = refusal(tmp_path, "version: 2\n", both)
    assert told[0].startswith("pgproxy.yaml:2: api.listen: tokens and SQL would cross the network")
    assert told[1] == "policy.yaml:1: version: must be 1, the only version there is"


@pytest.mark.parametrize("value", ["5", "[a]", "true"])
def test_a_policy_is_a_name_or_a_mapping(tmp_path: Path, value: str) -> None:
    assert refusal(tmp_path, "", f"policy: {value}\n") == [
        "pgproxy.yaml:1: policy: must be a file's name or the policy itself"
    ]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path, "", "policy: nowhere.yaml\n") == [
        "nowhere.yaml: cannot be read: No such file or directory"
    ]
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_policy(tmp_path / "latin.yaml")
    assert refusal(tmp_path, "a: 1\na: 2\n") == ["policy.yaml:2: a: said twice"]
    assert refusal(tmp_path, "rules: [\n")[0].startswith("policy.yaml:2: not YAML")


@pytest.mark.parametrize(
    ("approvers", "reason"),
    [
        ("{groups: [dba], count: 3}", "asks for 3 reviewers of dba, and 2 is configured (reviewers)"),
        ("{groups: [privacy, dba], count: 3}", "asks for 3 reviewers of privacy or dba, and 2 is configured"),
        ("{groups: [dbas]}", "asks for 1 reviewer of dbas, and none is configured (reviewers)"),
        ("{count: 3}", "asks for 3 reviewers, and 2 is configured"),
    ],
)
def test_approvers_that_nobody_is_are_refused(tmp_path: Path, approvers: str, reason: str) -> None:
    told = refusal(tmp_path, POLICY.replace("{groups: [dba], count: 2}", approvers))
    assert len(told) == 1 and told[0].startswith(f"policy.yaml:6: rules[0].approvers: {reason}")


def test_approvers_of_a_budget_are_looked_at_too(tmp_path: Path) -> None:
    budget = "version: 1\nrules:\n  - name: a\n    decision: allow\n    budget:\n      rows: 5\n"
    assert configured(tmp_path, budget)
    (told,) = refusal(tmp_path, budget + "      approvers: {groups: [nobody]}\n")
    assert told.startswith("policy.yaml:7: rules[0].budget.approvers: asks for 1 reviewer of nobody")
    (told,) = refusal(tmp_path, budget, "policy: policy.yaml\n")
    assert "rules[0].approvers: asks for 1 reviewer, and none is configured" in told
