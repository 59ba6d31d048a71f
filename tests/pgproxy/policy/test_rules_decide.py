"""What rules decide, from the text of a policy and the text of a statement to the decision."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import yaml

from classifier import Classification, classify
from pgproxy.policy import (
    Decision,
    Deny,
    Escalation,
    Facts,
    Forward,
    Identity,
    Mode,
    Park,
    Per,
    Policy,
    Requirement,
    decide,
    explain,
    read_rules,
    wants_estimate,
)

BOT = Identity("etl-bot", "alice@example.com", "app", "shop", "10.1.2.3")
ORPHAN = replace(BOT, owner=None)
NOON = Facts(now=datetime.fromisoformat("2026-01-02T12:00:00Z").timestamp())  # a Friday
TAGS = "tags: {pii: [public.customers.email, public.customers.phone], money: ['billing.*.*']}"


def policy(rules: str, *more: str, **changes: Any) -> Policy:
    data = yaml.safe_load("\n".join(["version: 1", "rules:", rules, *more]))
    return Policy(rules=read_rules(data), **changes)


def without_path(classification: Classification) -> Classification:
    """Where names without a schema are looked for is not known: a server before PostgreSQL 18 does not tell."""
    return replace(classification, statements=tuple(replace(s, search_path=None) for s in classification.statements))


def ask(rules: str | Policy, sql: str | Classification, who: Identity = BOT, facts: Facts = NOON) -> Decision:
    """Decided twice, for a decision may be remembered."""
    p = policy(rules) if isinstance(rules, str) else rules
    classification = without_path(classify(sql)) if isinstance(sql, str) else sql
    first = decide(classification, who, p, facts)
    assert decide(classification, who, p, facts) == first
    return first


def word(decision: Decision) -> str:
    return {Forward: "allow", Park: "approve", Deny: "deny"}[type(decision)]


def rule(match: str = "{}", decision: str = "deny", more: str = "") -> str:
    return f"  - {{name: r, match: {match}, decision: {decision}{', ' + more if more else ''}}}"


# what is matched ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "sql", "met"),
    [
        ("{classes: [read]}", "SELECT 1", True),
        ("{classes: [ddl]}", "SELECT 1", False),
        ("{classes: [ddl]}", "SELECT 1; CREATE TABLE a.b ()", True),
        ("{agents: [etl-bot]}", "SELECT 1", True),
        ("{agents: [etl-*]}", "SELECT 1", True),
        ("{agents: [ETL-*, etl]}", "SELECT 1", False),
        ("{owners: ['*@example.com']}", "SELECT 1", True),
        ("{owners: [bob@example.com]}", "SELECT 1", False),
        ("{databases: ['sh?p']}", "SELECT 1", True),
        ("{databases: [other]}", "SELECT 1", False),
        ("{networks: [10.0.0.0/8]}", "SELECT 1", True),
        ("{networks: [192.168.0.0/16, local]}", "SELECT 1", False),
        ("{hours: '08:00-18:00 UTC'}", "SELECT 1", True),
        ("{hours: ['13:00-18:00 UTC', 'Sat 00:00-24:00 UTC']}", "SELECT 1", False),
        ("{min_risk: high}", "COPY a TO STDOUT", True),
        ("{min_risk: critical}", "COPY a TO STDOUT", False),
        ("{verbs: ['temp_*']}", "CREATE TEMP TABLE a ()", True),
        ("{verbs: ['temp_*']}", "CREATE TABLE a ()", False),
        ("{functions: [pg_sleep]}", "SELECT pg_sleep(1)", True),
        ("{functions: [pg_catalog.pg_sleep]}", "SELECT pg_sleep(1)", True),
        ("{functions: [pg_sleep]}", "SELECT pg_catalog.pg_sleep(1)", True),
        ("{functions: [pg_sleep]}", "SELECT now()", False),
        ("{relations: ['billing.*']}", "SELECT id FROM billing.invoices", True),
        ("{relations: ['billing.*']}", "SELECT id FROM public.a JOIN billing.invoices USING (id)", True),
        ("{relations: ['billing.*']}", "SELECT id FROM public.a", False),
        ("{relations: ['billing.*']}", "SELECT id FROM invoices", True),  # it may be billing's
        ("{relations: [public.customers]}", "SELECT id FROM customers", True),
        ("{relations: [public.customers]}", "SELECT id FROM orders", False),
        ("{relations: [customers]}", 'SELECT id FROM "Customers"', False),
        ("{relations: ['billing.*']}", "SELECT 1", False),
        ("{relations: ['billing.*']}", "BEGIN", False),
        ("{relations: ['billing.*']}", "FETCH 1 FROM c", False),
        ("{relations: ['billing.*']}", "DROP SCHEMA billing", True),  # nobody can tell what is in it
        ("{relations: ['billing.*']}", "DO 'BEGIN END'", True),
        ("{relations: ['billing.*']}", "SELECT query_to_xml('TABLE billing.a', true, true, '')", True),
        ("{relations: ['billing.*']}", "nonsense", True),
    ],
)
def test_what_a_rule_that_denies_is_met_by(match: str, sql: str, met: bool) -> None:
    assert (ask(rule(match), sql).rule == "r") is met


@pytest.mark.parametrize(
    ("match", "sql", "allowed"),
    [
        ("{relations: ['scratch.*']}", "DROP TABLE scratch.a", True),
        ("{relations: ['scratch.*']}", "DROP TABLE scratch.a, billing.b", False),
        ("{relations: ['scratch.*', 'billing.*']}", "DROP TABLE scratch.a, billing.b", True),
        ("{relations: ['scratch.*']}", "DROP TABLE a", False),
        ("{relations: [a]}", "DROP TABLE a", True),
        ("{relations: [scratch.a]}", 'DROP TABLE "scratch.a"', False),
        ("{relations: ['*']}", "DROP SCHEMA billing", False),
        ("{relations: ['*']}", "DROP TABLE scratch.a CASCADE", False),
        ("{relations: ['*']}", "DO 'BEGIN END'", False),
        ("{functions: [pg_reload_conf]}", "SELECT pg_reload_conf()", True),
        ("{functions: [pg_reload_conf]}", "SELECT pg_reload_conf(), pg_read_file('x')", False),
        ("{functions: [pg_catalog.pg_reload_conf]}", "SELECT pg_reload_conf()", False),
        ("{verbs: ['temp_*']}", "CREATE TEMP TABLE a ()", True),
        ("{classes: [ddl]}", "CREATE TABLE a ()", True),
        ("{classes: [ddl]}", "CREATE TABLE a (); GRANT x TO y", False),
    ],
)
def test_a_rule_that_allows_must_cover_everything(match: str, sql: str, allowed: bool) -> None:
    assert isinstance(ask(rule(match, "allow"), sql), Forward) is allowed


def test_the_search_path_tells_whose_a_name_is() -> None:
    hidden = classify("SELECT id FROM salaries")  # by search_path public
    assert ask(rule("{relations: ['hr.*']}"), hidden).rule == "built-in"
    assert ask(rule("{relations: ['public.*']}"), hidden).rule == "r"
    moved = classify("SET search_path = hr; SELECT id FROM salaries")
    assert ask(rule("{relations: ['hr.*']}"), moved).rule == "r"
    assert isinstance(ask(rule("{relations: ['public.*']}", "allow"), classify("DROP TABLE a")), Forward)
    pii = policy(rule("{tags: [pii]}", "allow"), TAGS)
    assert isinstance(ask(pii, classify("COPY customers TO STDOUT")), Forward)


@pytest.mark.parametrize(
    ("sql", "touches"),
    [
        ("SELECT email FROM public.customers", True),
        ("SELECT email FROM customers", True),
        ("SELECT * FROM public.customers", True),
        ("SELECT c FROM customers c", True),
        ("SELECT id FROM customers WHERE phone = '1'", True),
        ("UPDATE customers SET email = 'x' WHERE id = 1", True),
        ("COPY public.customers TO STDOUT", True),
        ("DO 'BEGIN END'", True),
        ("SELECT id FROM public.customers", False),
        ("SELECT email FROM shop.customers", False),
        ("SELECT email FROM other", False),
        ("SELECT count(*) FROM customers", False),
        ("SELECT 1", False),
    ],
)
def test_tags_are_touched_column_by_column(sql: str, touches: bool) -> None:
    assert (ask(policy(rule("{tags: [pii]}"), TAGS), sql).rule == "r") is touches


def test_a_rule_that_allows_must_cover_every_tag() -> None:
    pii = policy(rule("{tags: [pii]}", "allow"), TAGS)
    assert isinstance(ask(pii, "COPY public.customers TO STDOUT"), Forward)
    assert isinstance(ask(pii, "COPY customers TO STDOUT"), Park)  # whose?
    both = "COPY (SELECT * FROM public.customers, billing.a) TO STDOUT"
    assert isinstance(ask(pii, both), Park)
    assert isinstance(ask(policy(rule("{tags: [pii, money]}", "allow"), TAGS), both), Forward)


@pytest.mark.parametrize(
    ("network", "address", "met"),
    [
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", "local", False),
        ("local", "local", True),
        ("local", "10.1.1.1", False),
        ("10.0.0.7", "10.0.0.7", True),
        ("10.0.0.0/8", "not an address", True),  # for a rule that denies
    ],
)
def test_networks(network: str, address: str, met: bool) -> None:
    found = ask(rule(f"{{networks: ['{network}']}}"), "SELECT 1", replace(BOT, client_addr=address))
    assert (found.rule == "r") is met


def test_what_is_not_known_counts_against_the_statement() -> None:
    when = "when: request.rows_estimate > 1000"
    assert isinstance(ask(rule(decision="deny", more=when), "SELECT 1"), Deny)
    assert isinstance(ask(rule(decision="approve", more=when), "SELECT 1"), Park)
    allow = rule(decision="allow", more="when: request.rows_estimate < 1000")
    assert isinstance(ask(allow, "CREATE TABLE a ()"), Park)
    assert isinstance(ask(allow, "CREATE TABLE a ()", facts=replace(NOON, rows_estimate=5.0)), Forward)
    assert isinstance(ask(allow, "CREATE TABLE a ()", facts=replace(NOON, rows_estimate=5e6)), Park)
    forever = replace(NOON, now=float("inf"))
    assert isinstance(ask(rule("{hours: '08:00-18:00'}", "deny"), "SELECT 1", facts=forever), Deny)
    assert isinstance(ask(rule("{hours: '08:00-18:00'}", "allow"), "CREATE TABLE a ()", facts=forever), Park)


def test_conditions_see_the_statement() -> None:
    seen = {
        "request.agent == 'etl-bot' && request.owner == 'alice@example.com' && request.database == 'shop'",
        "request.classes == ['read'] && request.kinds == ['SelectStmt'] && request.verbs == ['select']",
        "request.relations == ['public.customers'] && request.columns == ['email'] && request.tags == ['pii']",
        "request.risk == 'low' && !request.privileged && request.statement_count == 1 && !request.in_transaction",
        "request.hour == 12 && request.weekday == 'Fri' && request.client_addr.startsWith('10.')",
        "!has(request.reaches) && !has(request.rows_estimate) && !has(request.context)",
        "request.reason == 'why' && request.ticket == 'T-1' && request.application_name == 'psql'",
    }
    facts = replace(NOON, reason="why", ticket="T-1", application_name="psql")
    for text in seen:
        p = policy(f'  - {{name: r, decision: deny, when: "{text}"}}', TAGS)
        e = explain(classify("SELECT email FROM public.customers"), BOT, p, facts)
        assert e["actions"][0]["met"] == "yes" and e["decision"]["decision"] == "deny", text


def test_a_conditions_clock_is_in_the_rules_zone() -> None:
    p = "  - {name: r, match: {hours: '00:00-24:00 Asia/Tokyo'}, when: request.hour == 21, decision: deny}"
    assert isinstance(ask(p, "SELECT 1"), Deny)


@pytest.mark.parametrize("depth", [5, 5_000])
def test_a_context_of_any_depth_is_harmless(depth: int) -> None:
    context: Any = 1
    for _ in range(depth):
        context = [context]
    found = explain(
        classify("SELECT 1"), BOT, policy(rule(more="when: size(request.context) == 1")), replace(NOON, context=context)
    )
    assert found["actions"][0]["met"] == ("yes" if depth == 5 else "perhaps")


# what is decided ------------------------------------------------------------------------------------------------------


def test_the_first_rule_that_is_met_decides_an_action() -> None:
    rules = """
  - {name: a, match: {classes: [ddl], agents: [other]}, decision: allow}
  - {name: b, match: {classes: [ddl], agents: [etl-bot]}, decision: allow}
  - {name: c, match: {classes: [ddl]}, decision: deny}"""
    assert ask(rules, "CREATE TABLE a ()") == Forward("b")
    assert ask(rules, "CREATE TABLE a ()", replace(BOT, agent="x")).rule == "c"


def test_the_strictest_action_decides_the_text() -> None:
    rules = """
  - {name: a, match: {classes: [ddl]}, decision: allow}
  - {name: b, match: {classes: [export]}, decision: approve}
  - {name: c, match: {classes: [role]}, decision: deny, message: never}"""
    assert isinstance(ask(rules, "CREATE TABLE a ()"), Forward)
    assert isinstance(ask(rules, "CREATE TABLE a (); COPY a TO STDOUT"), Park)
    denied = ask(rules, "CREATE TABLE a (); COPY a TO STDOUT; SET ROLE x")
    assert denied == Deny("c", "a rule denies it", message="never")


def test_what_no_rule_is_about_gets_the_default() -> None:
    rules = rule("{classes: [ddl]}", "allow")
    assert ask(rules, "COPY a TO STDOUT").rule == "built-in"
    assert ask(rules, "SELECT 1").rule == "built-in"
    both = ask(rules, "CREATE TABLE a (); SELECT 1")
    assert isinstance(both, Forward) and both.rule == "r, built-in" and len(both.budgets) == 2


def test_several_rules_that_ask_are_all_to_be_satisfied() -> None:
    rules = """
  - {name: a, match: {classes: [ddl]}, decision: approve, approvers: {groups: [dba], count: 2, via: [console, api]},
     timeout: 20m, notify: ['slack:#a', pager], escalate: {after: 10m, notify: [boss]}, message: one}
  - {name: b, match: {classes: [export]}, decision: approve, approvers: {groups: [privacy], via: [slack, console]},
     timeout: 5m, notify: ['slack:#b', pager], escalate: {after: 1m, notify: [boss]}, message: two}"""
    assert ask(rules, "CREATE TABLE a (); COPY a TO STDOUT; GRANT x TO y") == Park(
        "a, b, built-in",
        300.0,
        (Requirement("a", ("dba",), 2), Requirement("b", ("privacy",)), Requirement("built-in")),
        ("console",),
        ("slack:#a", "pager", "slack:#b"),
        (Escalation(60.0, ("boss",)), Escalation(600.0, ("boss",))),
        "one; two",
    )


def test_places_that_have_nothing_in_common_satisfy_nobody() -> None:
    rules = """
  - {name: a, match: {classes: [ddl]}, decision: approve, approvers: {via: [console]}}
  - {name: b, match: {classes: [export]}, decision: approve, approvers: {via: [slack]}}"""
    found = ask(rules, "CREATE TABLE a (); COPY a TO STDOUT")
    assert isinstance(found, Deny) and "different places" in found.reason


@pytest.mark.parametrize("what", ["reason", "ticket", "context"])
@pytest.mark.parametrize("decision", ["approve", "allow"])
def test_what_an_agent_must_say(what: str, decision: str) -> None:
    rules = rule("{classes: [ddl]}", decision, f"require: [{what}], message: please")
    denied = ask(rules, "CREATE TABLE a ()")
    assert isinstance(denied, Deny) and denied.hint and f"SET pgproxy.{what} = '" in denied.hint
    assert denied.message == "please" and what in denied.reason
    said = replace(NOON, **{what: {"x": 1} if what == "context" else "because"})
    assert not isinstance(ask(rules, "CREATE TABLE a ()", facts=said), Deny)
    if what != "context":
        assert isinstance(ask(rules, "CREATE TABLE a ()", facts=replace(NOON, **{what: " "})), Deny)


def test_inside_of_a_transaction() -> None:
    rules = rule("{classes: [ddl]}", "approve", "in_transaction: deny")
    assert isinstance(ask(rules, "CREATE TABLE a ()"), Park)
    inside = ask(rules, "CREATE TABLE a ()", facts=replace(NOON, in_transaction=True))
    assert isinstance(inside, Deny) and "transaction block" in inside.reason
    parked = ask(rule("{classes: [ddl]}", "approve"), "CREATE TABLE a ()", facts=replace(NOON, in_transaction=True))
    assert isinstance(parked, Park)


def test_nothing_of_an_agent_without_an_owner_is_parked() -> None:
    for sql in ("CREATE TABLE a ()", "SELECT 1"):
        found = ask(rule(decision="approve"), sql, ORPHAN)
        assert isinstance(found, Deny) and found.hint and "auth.default_owner" in found.hint
    assert isinstance(ask(rule(decision="allow"), "CREATE TABLE a ()", ORPHAN), Forward)
    assert isinstance(ask(rule("{owners: ['*']}", "allow"), "CREATE TABLE a ()", ORPHAN), Deny)


def test_observe_never_stops_anything() -> None:
    for decision in ("approve", "deny"):
        p = policy(rule(decision=decision), mode=Mode.OBSERVE)
        assert ask(p, "SELECT 1") == Forward("r", observed=True)
    p = policy(rule(decision="allow", more="budget: {rows: 1}"), mode=Mode.OBSERVE)
    assert ask(p, "SELECT 1") == Forward("r")


# budgets --------------------------------------------------------------------------------------------------------------


def limits(decision: Decision) -> list[tuple[str, Per, int | None, int | None]]:
    assert isinstance(decision, Forward)
    return [(b.rule, b.per, b.rows, b.bytes) for b in decision.budgets]


def test_the_default_keeps_reads_from_adding_up_to_a_dump() -> None:
    expected = [("built-in", Per.PORTAL, 10_000, None), ("built-in", Per.HOUR, 100_000, None)]
    assert limits(ask(Policy(), "SELECT 1")) == expected
    assert limits(ask(Policy(), "UPDATE a SET b = 1 WHERE c = 2 RETURNING *")) == expected
    assert limits(ask(Policy(), "BEGIN")) == []
    first = ask(Policy(approval_timeout_s=7.0), "SELECT 1")
    assert isinstance(first, Forward) and first.budgets[0].park == Park("built-in", 7.0, (Requirement("built-in"),))


def test_budgets_of_all_rules_that_allow_count() -> None:
    rules = """
  - {name: a, match: {classes: [read]}, decision: allow, budget: [{rows: 10}, {bytes: 1MB, per: session}]}
  - {name: b, match: {classes: [export]}, decision: allow, budget: {rows: 5, per: statement}}"""
    assert limits(ask(rules, "SELECT 1")) == [("a", Per.PORTAL, 10, None), ("a", Per.SESSION, None, 1048576)]
    assert [r for r, *_ in limits(ask(rules, "COPY (SELECT 1) TO STDOUT"))] == ["b", "a", "a"]


def test_a_rule_that_allows_without_a_budget_lifts_the_default() -> None:
    assert limits(ask(rule("{classes: [read]}", "allow"), "SELECT 1")) == []


def test_a_budget_cannot_be_left_by_reading_something_else_as_well() -> None:
    rules = """
  - {name: big, match: {classes: [read], relations: [big.*]}, decision: allow, budget: {rows: 5}}
  - {name: rest, match: {classes: [read]}, decision: allow, budget: {rows: 100}}"""
    assert limits(ask(rules, "SELECT id FROM big.a")) == [("big", Per.PORTAL, 5, None)]
    for sql in ("SELECT a.id FROM big.a JOIN small.b USING (id)", "SELECT id FROM a"):
        found = ask(rules, sql)
        assert found.rule == "rest"
        assert limits(found) == [("big", Per.PORTAL, 5, None), ("rest", Per.PORTAL, 100, None)]
    assert limits(ask(rules, "SELECT id FROM small.b")) == [("rest", Per.PORTAL, 100, None)]


# the planner's estimate -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "sql", "wanted"),
    [
        (rule("{classes: [read]}", "deny", "when: request.rows_estimate > 1000"), "SELECT 1", True),
        (rule("{classes: [read]}", "deny", "when: request.rows_estimate > 1000"), "CREATE TABLE a ()", False),
        (rule("{classes: [read]}", "deny", "when: request.rows_estimate > 1000"), "SHOW all", False),
        (rule("{classes: [read]}", "deny", "when: request.rows_estimate > 1000"), "SELECT 1; SELECT 2", False),
        (rule("{classes: [read]}", "deny", "when: request.hour > 1"), "SELECT 1", False),
        (rule("{agents: [other]}", "deny", "when: request.rows_estimate > 1000"), "SELECT 1", False),
        (
            "  - {name: a, match: {classes: [read], agents: [etl-bot]}, decision: allow}\n"
            "  - {name: b, decision: deny, when: request.rows_estimate > 1}",
            "SELECT 1",
            False,
        ),
        (
            "  - {name: a, match: {classes: [read]}, when: request.hour == 1, decision: allow}\n"
            "  - {name: b, decision: deny, when: request.rows_estimate > 1}",
            "SELECT 1",
            True,
        ),
    ],
)
def test_the_planner_is_asked_only_where_a_rule_needs_it(rules: str, sql: str, wanted: bool) -> None:
    assert wants_estimate(classify(sql), BOT, policy(rules), NOON) is wanted
    assert not wants_estimate(classify(sql), BOT, policy(rules), replace(NOON, rows_estimate=1.0))
    assert not wants_estimate(classify(sql), BOT, Policy(), NOON)


# remembering ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "facts"),
    [
        (rule("{hours: '08:00-18:00 UTC'}", "deny"), replace(NOON, now=NOON.now + 12 * 3600)),
        (rule(more="when: request.hour == 12"), replace(NOON, now=NOON.now + 12 * 3600)),
        (rule(more="when: '!has(request.reason)'"), replace(NOON, reason="x")),
        (rule("{}", "approve", "require: [reason]"), replace(NOON, reason="x")),
        (rule("{}", "approve", "in_transaction: deny"), replace(NOON, in_transaction=True)),
        (rule(more="when: request.rows_estimate > 10"), replace(NOON, rows_estimate=1.0)),
    ],
)
def test_a_decision_that_hangs_on_circumstances_is_made_anew(rules: str, facts: Facts) -> None:
    p, classification = policy(rules), classify("SELECT 1")
    first = decide(classification, BOT, p, NOON)
    assert word(first) != word(decide(classification, BOT, p, facts))
    assert decide(classification, BOT, p, NOON) == first


def test_a_remembered_decision_is_that_of_the_same_agent_and_text() -> None:
    p = policy(rule("{agents: [etl-bot]}"))
    classification = classify("SELECT 1")
    other = replace(BOT, agent="other")
    for _ in range(2):
        assert isinstance(decide(classification, BOT, p, NOON), Deny)
        assert isinstance(decide(classification, other, p, NOON), Forward)
    for number in range(10_000):
        found = decide(classify("SELECT 1") if number % 100 == 0 else classification, replace(other), p, NOON)
        assert isinstance(found, Forward)


# hiding ---------------------------------------------------------------------------------------------------------------


def test_behind_a_rule_that_may_be_met_the_next_counts_too() -> None:
    rules = """
  - {name: a, match: {relations: [billing.*]}, decision: approve}
  - {name: b, match: {relations: [hr.*]}, decision: deny}"""
    assert ask(rules, "SELECT id FROM hr.salaries").rule == "b"
    assert ask(rules, "SELECT id FROM salaries").rule == "b"  # hr's or billing's
    assert ask(rules, "DO 'BEGIN END'").rule == "b"
    assert ask(rules, "SELECT id FROM billing.a").rule == "a"


def test_what_a_rule_that_may_allow_wants_to_hear_is_wanted_all_the_same() -> None:
    rules = rule("{classes: [read], relations: [hr.*]}", "allow", "require: [ticket]")
    for sql in ("SELECT id FROM hr.a", "SELECT id FROM hr.a JOIN b USING (id)", "SELECT id FROM a"):
        assert isinstance(ask(rules, sql), Deny)
        assert isinstance(ask(rules, sql, facts=replace(NOON, ticket="T-1")), Forward)
    assert isinstance(ask(rules, "SELECT id FROM public.a"), Forward)
