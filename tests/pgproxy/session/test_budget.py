"""What counts towards what: cursors, named portals, wider budgets, and how far the fuse reaches."""

from __future__ import annotations

import pytest

from classifier.classify import classify
from pgproxy.policy import Budget, Forward, Per
from pgproxy.protocol import frontend, tags
from pgproxy.session import budget, effects, events
from pgproxy.session.budget import FAR
from tests.pgproxy.session.playbook import (
    BOUND,
    DESCRIBED,
    PARSED,
    SUSPENDED,
    Cache,
    Playbook,
    answers,
    complete,
    error,
    opened,
    ready,
    resolved,
    row,
    sends,
    to_client,
)
from tests.pgproxy.session.rules import PARK, Ruled, budgeted, limited

OPEN = tags.IN_TRANSACTION
TEXTS = {
    "DECLARE": "declare c cursor for select * from t",
    "HOLD": "declare c cursor with hold for select * from t",
    "OTHER": "declare d cursor for select * from t",
    "FETCH": "fetch 2 from c",
    "FETCHD": "fetch 2 from d",
    "PORTAL": "fetch 2 from p",
    "CLOSE": "close c",
    "MIXED": "fetch 1 from c; select * from t",
}


def play(rows: int = 3, **wanted: object) -> Playbook:
    cache = Cache(special={word: classify(sql) for word, sql in TEXTS.items()})
    return Playbook(cache=cache, policy=limited(rows), **wanted)


def says(p: Playbook, word: str, *said: bytes, status: int = OPEN) -> Playbook:
    """One statement that passes, with this answer."""
    p.allowed(frontend.query(word.encode()))
    whole = (*said, complete(word), ready(status))
    return p >> answers(*whole) << to_client(*whole)


def fetches(p: Playbook, word: str = "FETCH") -> Playbook:
    return says(p, word, DESCRIBED, row(), row())


def stops(p: Playbook, passed: int, word: str = "FETCH") -> None:
    """The same FETCH runs into the budget behind so many rows."""
    p.allowed(frontend.query(word.encode())) >> answers(DESCRIBED, row(), row())
    p << to_client(DESCRIBED, *[row()] * passed) << effects.OpenApproval


def test_a_cursor_is_counted_over_its_fetches() -> None:
    p = fetches(says(play(), "DECLARE"))
    stops(p, 1)
    assert isinstance(p.last, effects.OpenApproval)
    request = p.last.request
    assert request.context["cursors"] == ["DECLARE"] and request.budget is not None
    assert request.budget["passed_rows"] == 3


def test_each_cursor_for_itself() -> None:
    p = fetches(says(says(play(), "DECLARE"), "OTHER"))
    stops(fetches(p, "FETCHD"), 1)


def test_a_new_cursor_of_the_name_begins_anew_and_a_failed_one_does_not() -> None:
    p = fetches(says(play(), "DECLARE"))
    p.allowed(frontend.query(b"DECLARE")) >> answers(error("42P03"), ready(tags.FAILED_TRANSACTION)) << effects.ToClient
    says(p, "ROLLBACK TO s")
    stops(p, 1)
    p = fetches(says(says(fetches(says(play(), "DECLARE")), "CLOSE"), "DECLARE"))
    stops(p, 1)


def test_only_held_cursors_outlive_their_transaction() -> None:
    p = says(fetches(says(play(), "HOLD")), "COMMIT", status=tags.IDLE)
    stops(p, 1)
    p = says(fetches(says(play(), "DECLARE")), "COMMIT", status=tags.IDLE)
    assert not p.context.meters.cursors


def test_the_rest_of_an_approved_cursor_is_free() -> None:
    p = fetches(says(play(), "DECLARE"))
    stops(p, 1)
    p >> opened() << effects.ToClient >> resolved("approved") << effects.ClaimApproval
    p >> events.ClaimAnswered(True) << to_client(row())
    p >> answers(complete("FETCH"), ready(OPEN)) << effects.FinishApproval << effects.ToClient
    for _ in range(3):
        fetches(p)


def test_the_row_cap_of_an_approved_cursor_holds_over_its_fetches() -> None:
    p = fetches(says(play(), "DECLARE"))
    stops(p, 1)
    p >> opened() << effects.ToClient >> resolved("approved", row_cap=5) << effects.ClaimApproval
    p >> events.ClaimAnswered(True) << to_client(row())
    p >> answers(complete("FETCH"), ready(OPEN)) << effects.FinishApproval << effects.ToClient
    stops(p, 1)


def test_a_string_with_more_than_fetches_is_counted_although_its_cursor_is_free() -> None:
    p = fetches(says(play(), "DECLARE"))
    p.context.meters.cursors[b"c"].free, p.context.meters.cursors[b"c"].meters = True, []
    fetches(p)
    p.allowed(frontend.query(b"MIXED")) >> answers(DESCRIBED, *[row()] * 4)
    p << to_client(DESCRIBED, *[row()] * 3) << effects.OpenApproval


def test_fetch_can_name_a_portal_of_the_protocol() -> None:
    p = play()
    bind = frontend.bind(b"p", b"")
    p >> sends(frontend.parse(b"", b"SELECT 1"), bind, frontend.execute(b"p", 2), frontend.SYNC)
    p << effects.ToServer << effects.Record >> events.Recorded(True)
    p << effects.ToServer << effects.ToServer << effects.ToServer
    p >> answers(PARSED, BOUND, row(), row(), SUSPENDED, ready(OPEN)) << effects.ToClient
    stops(p, 1, "PORTAL")


def test_an_execute_can_name_a_cursor() -> None:
    p = fetches(says(play(), "DECLARE"))
    p >> sends(frontend.execute(b"c", 2), frontend.SYNC) << effects.ToServer << effects.ToServer
    p >> answers(row(), row()) << to_client(row()) << effects.OpenApproval >> opened() << effects.ToClient
    p >> resolved("denied") << effects.StopServer
    p >> answers(SUSPENDED, ready(OPEN)) << None >> events.ServerCancelled() << effects.ToServer
    p >> answers(error("42601", "pgproxy_denied"), ready(tags.FAILED_TRANSACTION)) << effects.ToClient
    assert p.trail[-1]["decision"] == "denied" and p.trail[-1]["outcome"]["rows"] == 1


def test_cursors_beyond_the_limit_share_one_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_CURSORS", 1)
    p = says(says(play(), "DECLARE"), "OTHER")
    assert set(p.context.meters.cursors) == {b"c", b""}
    stops(fetches(p, "FETCHD"), 1, "FETCHD")


def test_the_fuse() -> None:
    p = play(100)
    meters = p.context.meters
    assert meters.fuse == FAR
    p.allowed(frontend.query(b"SELECT 1"))
    assert meters.fuse == meters.seen + 5 * 100
    p >> answers(DESCRIBED, *[row()] * 60) << effects.ToClient
    assert meters.fuse == meters.seen + 5 * 40  # looked at once, and set anew
    p >> answers(complete("SELECT 60"), ready()) << effects.ToClient
    assert meters.fuse == FAR


def test_every_budget_of_a_rule_counts() -> None:
    budgets = (
        Budget("r", Per.PORTAL, PARK, rows=10),
        Budget("r", Per.SESSION, PARK, rows=3),
        Budget("r", Per.HOUR, PARK, rows=99),
    )
    p = Playbook(policy=budgeted(*budgets))
    says(p, "SELECT", DESCRIBED, row(), row(), status=tags.IDLE)
    p.allowed(frontend.query(b"SELECT 1")) >> answers(DESCRIBED, row(), row())
    p << to_client(DESCRIBED, row()) << effects.OpenApproval
    assert isinstance(p.last, effects.OpenApproval) and p.last.request.budget is not None
    assert (p.last.request.budget["per"], p.last.request.budget["passed_rows"]) == ("session", 3)


def test_a_reload_does_not_forget_what_has_passed() -> None:
    p = Playbook(policy=limited(5, per=Per.SESSION))
    says(p, "SELECT", DESCRIBED, *[row()] * 4, status=tags.IDLE)
    p.context.policy = limited(4, per=Per.SESSION)
    p.allowed(frontend.query(b"SELECT 1")) >> answers(DESCRIBED, row()) << to_client(DESCRIBED) << effects.OpenApproval


def test_what_was_approved_has_no_budget() -> None:
    forward = Forward("r", budgets=(Budget("r", Per.PORTAL, PARK, rows=1),))
    p = Playbook(policy=Ruled(rule=lambda _c, _i, _f: forward)).parks(frontend.query(b"COPY t TO STDOUT"))
    p >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    p >> events.ClaimAnswered(True) << effects.ToServer
    assert p.context.meters.fuse == FAR


def test_two_budgets_of_one_session() -> None:
    rows, size = Budget("r", Per.SESSION, PARK, rows=3), Budget("r", Per.SESSION, PARK, bytes=1000)
    for budgets in ((rows, size), (size, rows)):
        p = Playbook(policy=budgeted(*budgets))
        says(p, "SELECT", DESCRIBED, row(), row(), status=tags.IDLE)
        p.allowed(frontend.query(b"SELECT 1")) >> answers(DESCRIBED, row(), row())
        p << to_client(DESCRIBED, row()) << effects.OpenApproval
        assert isinstance(p.last, effects.OpenApproval) and p.last.request.budget is not None
        assert p.last.request.budget["passed_rows"] == 3
