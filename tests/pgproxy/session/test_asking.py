"""What is asked, what an answer is bound to, and what becomes of it when it is to be spent."""

from __future__ import annotations

import pytest

from classifier.classify import classify
from classifier.model import Classification
from pgproxy.policy import Decision, Deny, Facts, Forward, Identity, Park, PolicyInForce, Requirement
from pgproxy.protocol import frontend, tags
from pgproxy.session import effects, events
from pgproxy.session.ports import ApprovalRequest
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    DESCRIBED,
    Cache,
    Playbook,
    answers,
    complete,
    error,
    fields,
    opened,
    ready,
    resolved,
    row,
    sends,
    to_client,
    to_server,
)
from tests.pgproxy.session.rules import Ruled

DROP = frontend.query(b"DROP t")
SELECT = frontend.query(b"SELECT 1")


def asked(play: Playbook, sent: bytes = DROP) -> ApprovalRequest:
    play >> sends(sent) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval)
    return play.last.request


def said(play: Playbook) -> dict[str, str]:
    """The error that the substitute is exchanged for."""
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_query(play.last.data).decode()
    play >> answers(error("42601", name), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    return fields(play.last.data)


def parks(*requirements: Requirement, label: str = "test-1", **more: object) -> Ruled:
    park = Park("rule", 600.0, requirements or (Requirement("rule"),), **more)  # type: ignore[arg-type]
    return Ruled(label=label, always=lambda _c, _i, _f: park)


# circumstances


def test_the_facts_of_a_statement() -> None:
    seen: list[Facts] = []

    def look(_c: Classification, _i: Identity, facts: Facts) -> Decision:
        seen.append(facts)
        return Forward("x")

    play = Playbook(policy=Ruled(always=look))
    play.allowed(frontend.query(b"SET pgproxy.reason = 'because'"))
    play >> answers(complete("SET"), b"S\0\0\0\x19application_name\0job\0", ready()) << effects.ToClient
    play.allowed(frontend.query(b"BEGIN")) >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play.allowed(frontend.query(b"SELECT 1 /*ticket='OPS-1'*/"))
    first, last = seen[0], seen[-1]
    assert (first.reason, first.in_transaction, first.application_name) == (None, False, "test")
    assert (last.reason, last.ticket, last.in_transaction, last.application_name) == ("because", "OPS-1", True, "job")
    assert last.now == int(play.now)


def test_the_same_facts_are_one_object() -> None:
    c = Playbook().context
    c.now = 5.25
    first = c.facts()
    c.now = 5.75
    assert c.facts() is first
    c.now = 6.0
    assert c.facts() is not first


def test_a_rules_own_words_reach_the_client() -> None:
    deny = Deny("no-nights", "outside of its hours", "come back tomorrow", message="ask the DBAs")
    play = Playbook(policy=Ruled(always=lambda _c, _i, _f: deny))
    play >> sends(SELECT) << effects.Record >> events.Recorded(True) << effects.ToServer
    error_ = said(play)
    assert error_["D"] == "ask the DBAs; outside of its hours; rule: no-nights" and error_["H"] == "come back tomorrow"
    play = Playbook(policy=parks(message="say why in the ticket")) >> sends(SELECT) << effects.OpenApproval
    play >> opened() << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert fields(play.last.data)["D"].startswith("say why in the ticket; classes: read")


def test_what_a_reviewer_is_told() -> None:
    play = Playbook()
    for i in range(12):
        text = f"SELECT {i}" if i != 11 else "SELECT " + "1" * 2000
        play.allowed(frontend.query(text.encode())) >> answers(complete("SELECT 1"), ready()) << effects.ToClient
    play.allowed(frontend.query(b"BEGIN")) >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play.now += 90
    context = asked(play).context
    recent = [entry["sql"] for entry in context["recent_statements"]]
    assert len(recent) == 10 and recent[0] == "SELECT 3" and recent[-1] == "BEGIN"
    assert recent[-2].endswith("… (2007 characters)") and len(recent[-2]) < 530
    assert context["in_transaction"] and context["transaction_seconds"] > 90
    assert (context["server_pid"], context["search_path"], context["protocol"]) == (4711, ["public"], "simple")


# the planner


def test_the_planner_is_asked_when_a_rule_wants_to_know() -> None:
    seen: list[float | None] = []

    def look(_c: Classification, _i: Identity, facts: Facts) -> Decision:
        seen.append(facts.rows_estimate)
        return Forward("x")

    text = "SELECT 1"
    known = classify("select a from t")
    play = Playbook(policy=Ruled(always=look, estimates=True), cache=Cache(special={text: known}))
    play >> sends(SELECT) << effects.Estimate(text, 0, ("public",)) >> events.Estimated(12.5) << effects.Record
    assert seen == [12.5]


def test_what_might_run_code_is_not_planned() -> None:
    unknown = classify("select f(1) from t")
    assert unknown.privileged
    play = Playbook(policy=Ruled(always=lambda _c, _i, _f: Forward("x"), estimates=True))
    play.context.lookup = lambda _t, _e: unknown
    play >> sends(SELECT) << effects.Record


# judged again


def test_what_is_denied_by_now_does_not_run() -> None:
    play = Playbook(policy=parks()).parks(DROP)
    deny = Deny("night", "not at this hour")
    play.context.policies = PolicyInForce(Ruled(label="test-2", always=lambda _c, _i, _f: deny))
    play >> resolved("approved") << effects.WithdrawApproval("a1", "denied by policy") << effects.Record
    assert (play.recorded["decision"], play.recorded["policy_version"]) == ("denied", "test-2")
    play >> events.Recorded(True) << effects.ToServer
    assert said(play)["M"] == "pgproxy: denied by policy"


@pytest.mark.parametrize(
    ("now", "runs"),
    [
        ((Requirement("rule"),), True),
        ((Requirement("other"),), True),  # the same people, by another rule
        ((Requirement("rule", count=2),), False),
        ((Requirement("rule", ("dba",)),), False),
        ((Requirement("rule"), Requirement("second", ("dba",))), False),
    ],
)
def test_what_takes_more_consent_by_now(now: tuple[Requirement, ...], runs: bool) -> None:
    play = Playbook(policy=parks()).parks(DROP)
    play.context.policies = PolicyInForce(parks(*now, label="test-2"))
    play >> resolved("approved")
    if runs:
        play << effects.Record >> events.Recorded(True) << effects.ClaimApproval
        return
    play << effects.WithdrawApproval << effects.Record >> events.Recorded(True) << effects.ToServer
    assert said(play)["M"].startswith("pgproxy: policy changed") and play.state is GateState.OPEN


def test_a_reload_while_the_record_is_made() -> None:
    play = Playbook(policy=parks()).parks(DROP) >> resolved("approved") << effects.Record
    play.context.policies = PolicyInForce(parks(Requirement("rule", count=2), label="test-2"))
    play >> events.Recorded(True) << effects.WithdrawApproval << effects.Record
    assert play.recorded["policy_version"] == "test-2"
    play >> events.Recorded(True) << effects.ToServer


# grants and returning at once


def test_a_grant_needs_no_notice() -> None:
    play = Playbook() >> sends(DROP) << effects.OpenApproval >> opened(status="approved") << None
    play >> resolved("approved") << effects.Record
    assert play.recorded["decision"] == "approved" and play.recorded["reviewers"] == ["bob"]
    assert effects.Parked not in [type(e) for e in play.aside]
    play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True) << to_server(DROP)


def test_grant_keys() -> None:
    cache = Cache(special={"DROP t": classify("delete from t")})
    request = asked(Playbook(cache=cache, policy=parks()))
    key = request.grant_key
    assert key is not None and key.shape and key.transaction is None and key.text_sha256 == request.sha256
    cache = Cache(special={"DROP t": classify("delete  from u")})
    other = asked(Playbook(cache=cache, policy=parks())).grant_key
    assert other is not None and other.shape != key.shape and other.environment == key.environment
    play = Playbook(policy=parks())
    play >> sends(frontend.query(b"BEGIN")) << effects.OpenApproval >> opened() << effects.ToClient
    play >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << effects.ToServer
    play >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.FinishApproval << effects.ToClient
    inside = asked(play).grant_key
    assert inside is not None and inside.transaction == "s1/1"


@pytest.mark.parametrize(
    "sql",
    [
        "select pg_read_file('/etc/passwd')",
        "set role a",
        "do 'begin end'",
        "alter system set work_mem = '1MB'",
        "select set_config('role', 'a', false)",
        "select query_to_xml('select 1', true, true, '')",
        "create function f() returns int language sql as 'select 1'",
        "call p('x')",
        "update t set a = 1 where 1 = 1",  # the constants decide that it reaches every row
    ],
)
def test_no_shape_where_a_constant_could_name_something_else(sql: str) -> None:
    key = asked(Playbook(cache=Cache(special={"DROP t": classify(sql)}), policy=parks())).grant_key
    assert key is not None and key.shape is None


def test_names_of_prepared_statements_have_no_grants() -> None:
    play = Playbook()
    play.allowed(frontend.query(b"PREPARE x AS SELECT 1")) >> answers(complete("PREPARE"), ready()) << effects.ToClient
    play.context.policies = PolicyInForce(parks())
    assert asked(play, frontend.query(b"EXECUTE x")).grant_key is None


def test_returning_at_once() -> None:
    play = Playbook(wait=False)
    request = asked(play)
    assert not request.wait
    play >> opened() << effects.Record
    assert play.recorded["decision"] == "blocked" and play.recorded["approval_id"] == "a1"
    play >> events.Recorded(True) << effects.ToServer
    error_ = said(play)
    assert (error_["C"], error_["M"]) == ("42501", "pgproxy: approval a1 required")
    assert "classes: ddl" in error_["D"] and "http://console" in error_["H"]
    # the same from another session
    play = Playbook(wait=False)
    again = asked(play)
    assert again.retry_binding == request.retry_binding
    play >> opened(status="approved") << None >> resolved("approved") << effects.Record >> events.Recorded(True)
    play << effects.ClaimApproval("a1", request.retry_binding, request.sha256)
    play >> events.ClaimAnswered(True) << to_server(DROP)
    # denied
    play = Playbook(wait=False) >> sends(DROP) << effects.OpenApproval >> opened(status="denied") << None
    play >> resolved("denied") << effects.Record >> events.Recorded(True) << effects.ToServer
    assert said(play)["M"] == "pgproxy: denied by bob"


def test_a_retry_is_the_same_statement_with_the_same_values() -> None:
    def binding(sql: bytes, value: bytes, portal: bytes = b"") -> str:
        play = Playbook(wait=False)
        bind = frontend.bind(portal, b"")[:-6] + b"\0\0\0\1" + len(value).to_bytes(4, "big") + value + b"\0\0"
        bind = bind[:1] + (len(bind) - 1).to_bytes(4, "big") + bind[5:]
        return asked(play, frontend.parse(b"", sql, (25,)) + bind).retry_binding

    first = binding(b"DROP t", b"1")
    assert binding(b"DROP t", b"1", b"portal") == first
    assert len({first, binding(b"DROP t", b"2"), binding(b"DROP u", b"1")}) == 3
    play = Playbook(wait=False)
    play.context.settings.reported("search_path", "other")
    assert asked(play).retry_binding != asked(Playbook(wait=False)).retry_binding


def test_returning_is_asked_for_and_taken_back() -> None:
    play = Playbook()
    for value, wait in (("return", False), ("RETURN", False), ("nonsense", False), ("park", True)):
        play.allowed(frontend.query(f"SET pgproxy.wait = '{value}'".encode()))
        play >> answers(complete("SET"), ready()) << effects.ToClient
        assert play.context.wait is wait


def test_a_client_that_left_leaves_its_request() -> None:
    play = Playbook(wait=False) >> sends(DROP) << effects.OpenApproval >> events.ClientClosed() << None
    play >> opened(status="approved")
    assert effects.WithdrawApproval not in [type(e) for e in play.left] and play.state is GateState.CLOSED


# the row cap


def test_the_row_cap_of_an_approved_statement() -> None:
    play = Playbook(policy=parks()).parks(SELECT) >> resolved("approved", row_cap=1) << effects.Record
    play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True) << to_server(SELECT)
    play >> answers(DESCRIBED, row(), row()) << to_client(DESCRIBED, row()) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval) and play.last.request.budget is not None
    assert play.last.request.budget["rows"] == 1
