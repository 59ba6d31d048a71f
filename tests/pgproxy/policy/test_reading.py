"""Documents to rules: what is understood, and that whatever could not work is refused by place and in words."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from classifier.model import ActionClass, Risk
from pgproxy.document import parse
from pgproxy.policy import Escalation, Per, RulesError, read_rules
from pgproxy.policy.rules import Outcome

CONTRACT = """
version: 1
rules:
  - name: exports
    match: {classes: [export, ddl], agents: ["*"], owners: [], databases: [shop], relations: ["billing.*"],
            tags: [pii], networks: [10.0.0.0/8], hours: "08:00-18:00 Europe/Berlin", min_risk: low}
    when: "request.rows_estimate > 1000"
    decision: approve
    approvers: {groups: [dba], count: 1}
    timeout: 10m
    in_transaction: park
    require: [reason]
    message: "why, shown to the agent"
  - name: reads
    match: {classes: [read]}
    decision: allow
    budget: {rows: 10000, bytes: 50MB, per: portal}
    notify: ["slack:#dba"]
tags:
  pii: ["public.customers.email", "public.customers.phone"]
"""


def data(text: str) -> Any:
    return parse(text, "p.yaml").data


def test_the_contracts_example_is_understood() -> None:
    found = read_rules(data(CONTRACT))
    exports, reads = found.rules
    match = exports.match
    assert match.classes == {ActionClass.EXPORT, ActionClass.DDL}
    assert match.agents[0].matches("anybody") and match.owners == ()
    assert [p.text for p in match.databases + match.relations] == ["shop", "billing.*"]
    assert (match.tags, match.min_risk) == ({"pii"}, Risk.LOW)
    assert match.networks == (ipaddress.ip_network("10.0.0.0/8"),)
    assert (match.hours[0].start, match.hours[0].end, match.hours[0].zone) == (480, 1080, "Europe/Berlin")
    assert exports.when is not None and exports.when.facts == {"rows_estimate"}
    assert (exports.outcome, exports.groups, exports.count, exports.timeout_s) == (Outcome.APPROVE, ("dba",), 1, 600.0)
    assert (exports.denies_in_transaction, exports.requires) == (False, ("reason",))
    assert exports.message == "why, shown to the agent"
    (limit,) = reads.limits
    assert (limit.per, limit.rows, limit.bytes) == (Per.PORTAL, 10_000, 50 * 1024 * 1024)
    assert reads.notify == ("slack:#dba",)
    assert [(tag, [c.text for c in columns]) for tag, columns in found.tags] == [
        ("pii", ["public.customers.email", "public.customers.phone"])
    ]


def test_one_of_something_needs_no_list() -> None:
    found = read_rules(
        data(
            """
            version: 1
            rules:
              - {name: a, match: {classes: ddl, agents: etl-*}, decision: approve, require: ticket,
                 escalate: {after: 90s, notify: "slack:#dba"}, in_transaction: deny,
                 approvers: {via: console, count: 2}}
              - {name: b, decision: allow, budget: [{rows: 5}, {bytes: 1kB, per: hour, timeout: 1h,
                 approvers: {groups: privacy}}], approvers: {groups: [dba]}, timeout: 500ms}
            """
        )
    )
    a, b = found.rules
    assert (a.requires, a.channels, a.count, a.denies_in_transaction) == (("ticket",), ("console",), 2, True)
    assert a.escalations == (Escalation(90.0, ("slack:#dba",)),)
    portal, hour = b.budgets(600.0)
    assert (portal.per, portal.rows, portal.bytes, portal.park.timeout_s) == (Per.PORTAL, 5, None, 0.5)
    assert portal.park.requirements[0].groups == ("dba",)
    assert (hour.per, hour.bytes, hour.park.timeout_s) == (Per.HOUR, 1024, 3600.0)
    assert hour.park.requirements[0].groups == ("privacy",)


def test_no_rules_are_a_policy_too() -> None:
    assert read_rules({"version": 1}).rules == ()


RULE = "version: 1\nrules:\n  - "
BROKEN = [
    ("{}", "version: is required: version: 1"),
    ("version: 2", "version: must be 1, the only version there is"),
    ("version: true", "version: must be 1, the only version there is"),
    ("version: 1\nruls: []", "ruls: unknown key; did you mean 'rules'?"),
    ("version: 1\nrules: {}", "rules: must be a list of rules"),
    ("version: 1\nrules: [5]", "rules[0]: must be a mapping with name, match, when,"),
    (RULE + "{decision: allow}", "rules[0].name: is required"),
    (RULE + "{name: a}", "rules[0].decision: is required"),
    (RULE + "{name: 5, decision: allow}", "rules[0].name: must be text, not a number (quote it)"),
    (RULE + "{name: '', decision: allow}", "rules[0].name: is empty"),
    (RULE + '{name: "a\\e[2J", decision: allow}', "rules[0].name: must begin with a letter or digit"),
    (RULE + "{name: built-in, decision: allow}", "rules[0].name: is what the default is called"),
    (RULE + "{name: a, decision: alow}", "rules[0].decision: 'alow' is none of them; did you mean 'allow'?"),
    (RULE + "{name: a, decision: allow, wen: x}", "rules[0].wen: unknown key; did you mean 'when'?"),
    (
        RULE + "{name: a, decision: deny, match: {clases: [ddl]}}",
        "rules[0].match.clases: unknown key; did you mean 'classes'?",
    ),
    (
        RULE + "{name: a, decision: deny, match: {classes: [exports]}}",
        "rules[0].match.classes[0]: 'exports' is none of them; did you mean 'export'?",
    ),
    (RULE + "{name: a, decision: deny, match: {classes: 5}}", "rules[0].match.classes: must be a list, not a number"),
    (RULE + "{name: a, decision: deny, match: {agents: [5]}}", "rules[0].match.agents[0]: must be text, not a number"),
    (RULE + "{name: a, decision: deny, match: {agents: ['']}}", "rules[0].match.agents[0]: is empty"),
    (
        RULE + "{name: a, decision: deny, match: {relations: ['a.b.c']}}",
        "rules[0].match.relations[0]: 'a.b.c': must be relation or schema.relation",
    ),
    (
        RULE + "{name: a, decision: deny, match: {relations: ['a..b']}}",
        "rules[0].match.relations[0]: 'a..b': is not a name",
    ),
    (
        RULE + "{name: a, decision: deny, match: {tags: [pii]}}",
        "rules[0].match.tags[0]: there is no tag 'pii'; there are none below tags:",
    ),
    (
        RULE + "{name: a, decision: deny, match: {tags: [pi]}}\ntags: {pii: [a.b.c]}",
        "rules[0].match.tags[0]: there is no tag 'pi'; did you mean 'pii'?",
    ),
    (
        RULE + "{name: a, decision: deny, match: {networks: [10.0.0.1/8]}}",
        "rules[0].match.networks[0]: '10.0.0.1/8': has bits beyond its prefix; did you mean '10.0.0.0/8'?",
    ),
    (
        RULE + "{name: a, decision: deny, match: {networks: [intranet]}}",
        "rules[0].match.networks[0]: 'intranet': is neither an address, a network (10.0.0.0/8) nor `local`",
    ),
    (
        RULE + "{name: a, decision: deny, match: {hours: '8-18'}}",
        "rules[0].match.hours: '8-18': must look like \"08:00-18:00 Europe/Berlin\"",
    ),
    (
        RULE + "{name: a, decision: deny, match: {hours: '08:00-18:00 Europe/Berln'}}",
        "rules[0].match.hours: '08:00-18:00 Europe/Berln': 'Europe/Berln' is not a time zone",
    ),
    (
        RULE + "{name: a, decision: deny, match: {hours: 'Mo-Fri 08:00-18:00 UTC'}}",
        "rules[0].match.hours: 'Mo-Fri 08:00-18:00 UTC': 'Mo' is not a day",
    ),
    (
        RULE + "{name: a, decision: deny, match: {hours: '08:00-08:00 UTC'}}",
        "rules[0].match.hours: '08:00-08:00 UTC': begins when it ends",
    ),
    (
        RULE + "{name: a, decision: deny, match: {hours: '08:00-25:00 UTC'}}",
        "rules[0].match.hours: '08:00-25:00 UTC': 25:00 is not a time of day",
    ),
    (
        RULE + "{name: a, decision: deny, match: {min_risk: hihg}}",
        "rules[0].match.min_risk: 'hihg' is none of them; did you mean 'high'?",
    ),
    (
        RULE + "{name: a, decision: deny, when: request.rows_estimat > 1}",
        "rules[0].when: at character 9: there is no fact 'rows_estimat'; did you mean 'rows_estimate'?",
    ),
    (RULE + "{name: a, decision: deny, when: 'true'}", "rules[0].when: asks about no fact (request.…)"),
    (RULE + "{name: a, decision: deny, when: yes}", "rules[0].when: must be text, not yes or no (quote it)"),
    (
        RULE + "{name: a, decision: approve, approvers: {group: [dba]}}",
        "rules[0].approvers.group: unknown key; did you mean 'groups'?",
    ),
    (
        RULE + "{name: a, decision: approve, approvers: [dba]}",
        "rules[0].approvers: must be a mapping with groups, count",
    ),
    (RULE + "{name: a, decision: approve, approvers: {count: 0}}", "rules[0].approvers.count: must be from 1 to 100"),
    (
        RULE + "{name: a, decision: approve, approvers: {count: '2'}}",
        "rules[0].approvers.count: must be a whole number, not text",
    ),
    (
        RULE + "{name: a, decision: approve, approvers: {via: [konsole]}}",
        "rules[0].approvers.via[0]: 'konsole' is none of them; did you mean 'console'?",
    ),
    (RULE + "{name: a, decision: approve, timeout: 10}", "rules[0].timeout: must be a time with its unit"),
    (RULE + "{name: a, decision: approve, timeout: 0s}", "rules[0].timeout: must be more than nothing and at most 30d"),
    (
        RULE + "{name: a, decision: approve, in_transaction: dny}",
        "rules[0].in_transaction: 'dny' is none of them; did you mean 'deny'?",
    ),
    (
        RULE + "{name: a, decision: approve, require: [reasons]}",
        "rules[0].require[0]: 'reasons' is none of them; did you mean 'reason'?",
    ),
    (RULE + "{name: a, decision: approve, notify: ['#dba']}", "rules[0].notify[0]: '#dba' must be a notifier"),
    (RULE + "{name: a, decision: approve, escalate: {after: 5m}}", "rules[0].escalate.notify: is required"),
    (
        RULE + "{name: a, decision: approve, timeout: 5m, escalate: {after: 5m, notify: [slack]}}",
        "rules[0].escalate: comes when the request has expired (timeout)",
    ),
    (RULE + "{name: a, decision: approve, budget: {rows: 1}}", "rules[0].budget: is for rules that allow"),
    (RULE + "{name: a, decision: allow, budget: {per: hour}}", "rules[0].budget: needs rows or bytes"),
    (
        RULE + "{name: a, decision: allow, budget: [{rows: 1}, {bytes: 5MiB}]}",
        "rules[0].budget[1].bytes: must be a number of bytes",
    ),
    (RULE + "{name: a, decision: allow, budget: {rows: -1}}", "rules[0].budget.rows: must be from 0 to"),
    (
        RULE + "{name: a, decision: allow, budget: {rows: 1, per: portals}}",
        "rules[0].budget.per: 'portals' is none of them; did you mean 'portal'?",
    ),
    (
        RULE + "{name: a, decision: allow, match: {classes: [transaction]}, budget: {rows: 1}}",
        "rules[0].budget: has no effect: the classes it matches return no rows",
    ),
    (
        RULE + "{name: a, decision: allow, approvers: {count: 1}}",
        "rules[0].approvers: has no effect: a rule that says allow",
    ),
    (RULE + "{name: a, decision: deny, timeout: 5m}", "rules[0].timeout: has no effect: a rule that says deny"),
    (RULE + "{name: a, decision: deny, notify: [slack]}", "rules[0].notify: has no effect"),
    (RULE + "{name: a, decision: deny, require: [reason]}", "rules[0].require: has no effect on a rule that denies"),
    (RULE + "{name: a, decision: deny, in_transaction: deny}", "rules[0].in_transaction: has no effect"),
    (RULE + "{name: a, decision: allow, message: x}", "rules[0].message: would be shown to nobody"),
    (
        RULE + "{name: a, decision: deny, match: {classes: [ddl]}}\n  - {name: a, decision: deny}",
        "rules[1].name: rule 'a' appears twice",
    ),
    (
        RULE + "{name: a, decision: allow}\n  - {name: b, decision: deny, match: {classes: [ddl]}}",
        "rules[1]: is never reached: 'a' before it takes all its classes",
    ),
    (
        RULE + "{name: a, decision: allow, match: {classes: [ddl, role]}}\n"
        "  - {name: b, decision: deny, match: {classes: [role], agents: [x]}}",
        "rules[1]: is never reached: 'a' before it takes all its classes",
    ),
    ("version: 1\ntags: [pii]", "tags: must be a mapping of tags to columns"),
    ("version: 1\ntags: {pii: []}", "tags.pii: stands for no column"),
    ("version: 1\ntags: {pii: [customers.email]}", "tags.pii[0]: 'customers.email': must be schema.relation.column"),
]


@pytest.mark.parametrize(("text", "expected"), BROKEN, ids=[e for _, e in BROKEN])
def test_what_could_not_work_is_refused(text: str, expected: str) -> None:
    document = parse(text, "p.yaml")
    with pytest.raises(RulesError) as caught:
        read_rules(document.data)
    said = [str(document.problem(place, reason)).partition(": ")[2] for place, reason in caught.value.findings]
    assert len(said) == 1, said
    assert said[0].startswith(expected)


def test_every_problem_is_told_at_once_and_with_its_line() -> None:
    document = parse("version: 1\nrules:\n  - name: a\n    decision: alow\n    timeout: 5\n  - {name: b}\n", "p.yaml")
    with pytest.raises(RulesError) as caught:
        read_rules(document.data)
    told = [str(document.problem(place, reason)) for place, reason in caught.value.findings]
    assert [line.split(":")[:3] for line in told] == [
        ["p.yaml", "4", " rules[0].decision"],
        ["p.yaml", "5", " rules[0].timeout"],
        ["p.yaml", "6", " rules[1].decision"],
    ]


def test_the_version_is_that_of_the_meaning() -> None:
    def version(text: str) -> str:
        return read_rules(data(text)).version

    first = version(CONTRACT)
    assert first == version(CONTRACT.replace("[export, ddl]", "[ddl, export]"))
    assert first == version(CONTRACT.replace("10m", "600s").replace("50MB", "51200kB").replace("owners: [],", ""))
    assert first == version(CONTRACT.replace("billing.*", "BILLING.**") + "# a comment\n")
    changes = {
        "10m": "11m",
        "dba]": "dbas]",
        "10000": "10001",
        "min_risk: low": "min_risk: high",
        "email": "mail",
        "[reason]": "[ticket]",
        "name: exports": "name: export",
        "in_transaction: park": "in_transaction: deny",
        "08:00": "09:00",
        "> 1000": "> 2000",
        "[shop]": "[shops]",
        "10.0.0.0": "11.0.0.0",
        "per: portal": "per: hour",
    }
    others = {version(CONTRACT.replace(old, new)) for old, new in changes.items()}
    assert len(others - {first}) == len(changes)
    assert version("name: shop rules\n" + CONTRACT) == f"shop rules {first}"


@pytest.mark.parametrize("value", [None, 5, "x", [], [[]], {"version": [1]}, {"version": 1, "rules": [None, [], {}]}])
def test_any_data_is_read_or_refused(value: Any) -> None:
    with pytest.raises(RulesError):
        read_rules(value)
