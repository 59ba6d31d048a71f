"""A reviewer's text in place of the client's."""

from __future__ import annotations

import hashlib

import pytest

from pgproxy.policy import Deny, Forward, PolicyInForce
from pgproxy.protocol import frontend, tags
from pgproxy.protocol.body import int32, message
from pgproxy.session import effects, events
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    BOUND,
    CLOSED,
    PARSED,
    Playbook,
    answers,
    complete,
    error,
    fields,
    opened,
    ready,
    resolved,
    sends,
    to_server,
)
from tests.pgproxy.session.rules import Ruled

DROP, OTHER = frontend.query(b"DROP t"), frontend.query(b"DROP u")
PARSE, BIND = frontend.parse(b"s", b"DROP t"), frontend.bind(b"", b"s")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def modified(play: Playbook, sql: str = "DROP u") -> Playbook:
    return play >> resolved("approved", sql=sql, modified_by="carol")


def described(*types: int, columns: tuple[tuple[bytes, int], ...] = ()) -> bytes:
    said = message(tags.PARAMETER_DESCRIPTION, len(types).to_bytes(2, "big") + b"".join(int32(t) for t in types))
    if not columns:
        return said + b"n\0\0\0\4"
    body = len(columns).to_bytes(2, "big")
    for name, oid in columns:
        body += name + b"\0" + b"\0" * 6 + int32(oid) + b"\0" * 8
    return said + message(tags.ROW_DESCRIPTION, body)


def test_simple_the_new_text_runs_and_the_client_is_told() -> None:
    play = modified(Playbook().parks(DROP)) << effects.Record
    entry = play.recorded
    assert (entry["sql"], entry["sha256"]) == ("DROP t", sha256("DROP t"))
    assert (entry["modified_sql"], entry["modified_sha256"]) == ("DROP u", sha256("DROP u"))
    assert entry["modified_by"] == "carol"
    play >> events.Recorded(True) << effects.ClaimApproval
    assert isinstance(play.last, effects.ClaimApproval) and play.last.sha256 == sha256("DROP u")
    play >> events.ClaimAnswered(True) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    notice = fields(play.last.data)
    assert notice["M"] == "pgproxy: modified by carol" and sha256("DROP u") in notice["D"]
    play << to_server(OTHER) >> answers(complete("DROP"), ready()) << effects.FinishApproval << effects.ToClient


@pytest.mark.parametrize("sql", ["DROP u;SELECT 1", "SELCT", "", "DROP \0"])
def test_what_is_not_one_statement_does_not_run(sql: str) -> None:
    play = modified(Playbook().parks(DROP), sql) << effects.WithdrawApproval << effects.Record
    assert play.recorded["decision"] == "blocked"
    play >> events.Recorded(True) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and b"pgproxy_denied" in play.last.data


def test_what_the_client_encoding_cannot_say() -> None:
    play = Playbook(encodings=("LATIN1", "UTF8")).parks(DROP)
    modified(play, "DROP \u20ac") << effects.WithdrawApproval << effects.Record


def test_the_policy_judges_the_new_text() -> None:
    play = Playbook().parks(DROP)
    rule = Ruled(
        always=lambda c, _i, _f: Deny("no", "not that") if c.normalized == "DROP u" else Forward("yes"),
    )
    play.context.policies = PolicyInForce(rule)
    modified(play) << effects.WithdrawApproval << effects.Record
    assert play.recorded["decision"] == "denied"


def test_it_is_classified_before_it_runs() -> None:
    play = Playbook().parks(DROP)
    play.context.lookup = lambda _t, _e: None
    modified(play) << effects.Analyse
    play >> events.ServerClosed() << effects.WithdrawApproval


def test_it_is_followed_by_its_own_meaning() -> None:
    """A PREPARE in place of a DROP makes a name."""
    play = modified(Playbook().parks(DROP), "PREPARE x AS SELECT 1") << effects.Record >> events.Recorded(True)
    play << effects.ClaimApproval >> events.ClaimAnswered(True) << effects.ToClient << effects.ToServer
    play >> answers(complete("PREPARE"), ready()) << effects.FinishApproval << effects.ToClient
    assert [s.sql for s in play.context.statements.candidates(b"x")] == [b"PREPARE x AS SELECT 1"]


def comparing(describe: bool = False) -> tuple[Playbook, bytes]:
    """Both texts at the server; and the private name."""
    play = Playbook()
    extra = frontend.describe(tags.STATEMENT, b"s") if describe else b""
    play >> sends(PARSE, extra, BIND) << effects.OpenApproval >> opened() << effects.ToClient
    modified(play) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and play.state is GateState.COMPARING
    sent = play.last.data
    start = sent.index(b"pgproxy_modified_")
    name = sent[start : sent.index(b"\0", start)]
    own = frontend.describe(tags.STATEMENT, b"s")
    private = frontend.parse(name, b"DROP u") + frontend.describe(tags.STATEMENT, name)
    assert sent == PARSE + extra + own + private + frontend.FLUSH
    return play, name


@pytest.mark.parametrize("describe", [False, True])
def test_extended_under_a_private_name(describe: bool) -> None:
    play, name = comparing(describe)
    mine = described(23) if describe else b""
    play >> answers(PARSED, mine, described(23), PARSED, described(23)) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and play.last.data == PARSED + mine
    play << effects.Record >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True)
    play << effects.ToClient << to_server(frontend.bind(b"", name))
    play >> sends(frontend.execute(b""), frontend.SYNC) << effects.ToServer << effects.ToServer
    play >> answers(BOUND, complete("DROP"), ready()) << effects.FinishApproval << effects.ToClient
    # The private name goes when its portal is over; the client's own name means what it meant.
    select = frontend.query(b"SELECT 1")
    play.allowed(select, frontend.close(tags.STATEMENT, name) + select)
    play >> answers(CLOSED, complete("SELECT 1"), ready()) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and CLOSED not in play.last.data
    assert [s.sql for s in play.context.statements.candidates(b"s")] == [b"DROP t"]


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (described(25), "parameter types"),
        (described(), "parameter types"),
        (described(23, columns=((b"a", 23),)), "columns"),
    ],
)
def test_extended_another_shape_is_refused(new: bytes, what: str) -> None:
    play, _ = comparing()
    play >> answers(PARSED, described(23), PARSED, new) << effects.ToClient << effects.WithdrawApproval
    play << effects.Record >> events.Recorded(True) << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    name = frontend.read_parse(play.last.data).name.decode()
    play >> answers(error("42601", name)) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    said = fields(play.last.data)
    assert said["C"] == "42501" and what in said["M"] and "carol" in said["M"]


@pytest.mark.parametrize("columns", [((b"b", 23),), ((b"a", 25),), ((b"a", 23), (b"b", 23))])
def test_extended_other_columns_are_refused(columns: tuple[tuple[bytes, int], ...]) -> None:
    play, _ = comparing()
    first = described(columns=((b"a", 23),))
    play >> answers(PARSED, first, PARSED, described(columns=columns)) << effects.ToClient << effects.WithdrawApproval


def test_extended_the_server_refuses_the_new_text() -> None:
    play, _ = comparing()
    play >> answers(PARSED, described(), error("42P01", "no such table"))
    play << effects.ToClient << effects.WithdrawApproval << None
    assert play.trail[-1]["decision"] == "blocked"
    assert play.state is GateState.OPEN
    play >> sends(frontend.execute(b""), frontend.SYNC) << to_server(frontend.SYNC)
    play >> answers(ready()) << effects.ToClient


def test_extended_the_client_cancels_meanwhile() -> None:
    play, _ = comparing()
    play >> events.CancelRequested() << None
    play >> answers(PARSED, described(), PARSED, described()) << effects.ToClient << effects.Record
    play >> events.Recorded(True) << effects.WithdrawApproval << effects.ToServer
