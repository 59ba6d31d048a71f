"""Messages too large to be kept: what passes as it arrives, what is collected, what is dropped."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from pgproxy.policy import Mode
from pgproxy.protocol import frontend, tags
from pgproxy.protocol.body import message
from pgproxy.protocol.frontend import read_bind_head
from pgproxy.session import effects, events
from pgproxy.session.context import Limits
from pgproxy.session.large import ValueDigest
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    BOUND,
    PARSED,
    Playbook,
    answers,
    complete,
    copy_data,
    error,
    fields,
    opened,
    ready,
    resolved,
    sends,
    to_client,
    to_server,
)

LIMITS = Limits(
    statement_bytes=1000,
    message_bytes=5000,
    parked_backlog_bytes=20_000,
    input_bytes=3000,
    large_bytes=2000,
    head_bytes=200,
)
SYNC = frontend.SYNC
EXECUTE = frontend.execute(b"")


def bind(*parameters: bytes | None, statement: bytes = b"s", binary: bool = True) -> bytes:
    values = b"".join(b"\xff\xff\xff\xff" if v is None else len(v).to_bytes(4, "big") + v for v in parameters)
    count = len(parameters).to_bytes(2, "big")
    return message(
        tags.BIND, b"\0" + statement + b"\0" + b"\0\1" + (b"\0\1" if binary else b"\0\0") + count + values + b"\0\0"
    )


def playing(text: bytes, mode: Mode = Mode.ENFORCE) -> Playbook:
    """A session that has prepared `s`."""
    play = Playbook(limits=LIMITS, mode=mode)
    parse = frontend.parse(b"s", text)
    play >> sends(parse, SYNC)
    if play.state is GateState.OPEN:
        play << to_server(parse) << to_server(SYNC)
    play >> answers(PARSED, ready()) << effects.ToClient
    return play


BIG = bind(b"k" * 3, b"v" * 9000, None, b"", b"w" * 2000)


def refused(play: Playbook, then: bytes = b"") -> dict[str, str]:
    """The substitute has gone to the server, which rejects it; what the client is told."""
    play << effects.ToServer
    assert isinstance(play.last, effects.ToServer)
    text = play.last.data[5:].decode()
    nonce = text[text.index("pgproxy_denied_") :].partition("\0")[0]
    if then:
        play << to_server(then)
    play >> answers(error("42601", f'syntax error at or near "{nonce}"'))
    play << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    return fields(play.last.data)


def test_a_bind_passes_as_it_arrives_once_its_decision_is_recorded() -> None:
    play = playing(b"SELECT 1")
    play >> sends(BIG[:199]) << None
    play >> sends(BIG[199:300]) << effects.Record
    shown = [p["value"] for p in play.recorded["params"]]
    assert shown == ["kkk", "<9000 bytes, sha256 in the outcome>", "<3 more, in the outcome>"]
    play >> sends(BIG[300:2000]) << None  # nothing before the trail has it
    play >> events.Recorded(True) << to_server(BIG[:2000])
    play >> sends(BIG[2000:9000]) << to_server(BIG[2000:9000])
    play >> sends(BIG[9000:], EXECUTE, SYNC) << to_server(BIG[9000:]) << to_server(EXECUTE) << to_server(SYNC)
    assert play.session._gate.inbox_bytes == 0
    play >> answers(BOUND, complete("SELECT 1"), ready()) << effects.ToClient
    (outcome,) = [e for e in play.trail if e["kind"] == "outcome"]
    assert [p["value"] for p in outcome["params"]] == [
        "kkk",
        f"<9000 bytes, sha256 {hashlib.sha256(b'v' * 9000).hexdigest()}>",
        None,
        "",
        f"<2000 bytes, sha256 {hashlib.sha256(b'w' * 2000).hexdigest()}>",
    ]


@pytest.mark.parametrize("at", [*range(230), 1999, 2000, 2001, len(BIG) - 1, len(BIG)])
def test_it_passes_the_same_wherever_it_is_cut(at: int) -> None:
    play = playing(b"SELECT 1")
    sent = b""
    for piece in (BIG[:at], BIG[at:]):
        for effect in play.session.handle(sends(piece), 1.0):
            assert not isinstance(effect, effects.ToServer) or play.state is GateState.OPEN
            sent += effect.data if isinstance(effect, effects.ToServer) else b""
        if play.state is GateState.RECORDING:
            for effect in play.session.handle(events.Recorded(True), 1.0):
                sent += effect.data if isinstance(effect, effects.ToServer) else b""
    assert sent == BIG


def test_while_undecided_the_client_is_held_back() -> None:
    play = playing(b"SELECT 1")
    play >> sends(BIG[:2000]) << effects.Record
    assert play.session.wants_client_data
    play >> sends(BIG[2000:4000])
    assert not play.session.wants_client_data
    play >> events.Recorded(True) << to_server(BIG[:4000])
    assert play.session.wants_client_data


@pytest.mark.parametrize("cuts", [(250,), (1, 7, 199, 250, 3000), ()])
def test_what_a_human_must_see_is_collected_and_shown_whole(cuts: tuple[int, ...]) -> None:
    play = playing(b"SELECT 1")
    play >> sends(frontend.parse(b"d", b"DROP t"), frontend.describe(tags.STATEMENT, b"d"), SYNC)
    play << effects.ToServer << effects.ToServer << effects.ToServer
    play >> answers(PARSED, b"n\0\0\0\4", ready()) << effects.ToClient
    wanted = bind(b"x" * 4000, statement=b"d")
    points = [0, *cuts, len(wanted)]
    for start, end in itertools.pairwise(points[:-1]):
        play >> sends(wanted[start:end]) << None
        assert play.session.wants_client_data
    play >> sends(wanted[points[-2] :], SYNC) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval)
    assert play.last.request.params[0]["value"] == "x" * 4000
    play >> opened() << effects.ToClient >> resolved("approved") << effects.Record
    play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True)
    play << to_server(wanted) << to_server(SYNC)


@pytest.mark.parametrize("held", [True, False])
def test_what_nobody_could_look_at_is_refused_and_skipped(held: bool) -> None:
    play = playing(b"SELECT 1")
    if held:
        play >> sends(frontend.parse(b"d", b"DROP t")) << None
    else:
        play >> sends(frontend.parse(b"d", b"DROP t"), SYNC) << effects.ToServer << effects.ToServer
        play >> answers(PARSED, ready()) << effects.ToClient
    huge = bind(b"x" * 50_000, statement=b"d")
    play >> sends(huge[:300]) << effects.Record
    assert play.recorded["decision"] == "blocked"
    play >> events.Recorded(True) << None  # the client still sends: told now, it might never look
    for start in range(300, len(huge) - 1, 10_000):
        play >> sends(huge[start : min(start + 10_000, len(huge) - 1)]) << None
        assert play.session._gate.inbox_bytes < 1000
        assert play.session.wants_client_data
    play >> sends(huge[-1:])
    said = refused(play)
    assert (said["S"], said["C"]) == ("ERROR", "54000") and "limits.message_bytes" in said["H"]
    play >> sends(EXECUTE, SYNC) << to_server(SYNC)
    play >> answers(ready()) << to_client(ready())
    play.allowed(frontend.query(b"SELECT 2"))


@pytest.mark.parametrize(
    ("size", "limit"), [(1500, "statement_bytes"), (4000, "statement_bytes"), (50_000, "message_bytes")]
)
def test_a_text_beyond_its_limit_is_an_error_of_the_statement(size: int, limit: str) -> None:
    play = playing(b"SELECT 1")
    text = frontend.query(b"SELECT '" + b"x" * size + b"'")
    play >> sends(text) << effects.Record >> events.Recorded(True)
    said = refused(play)
    assert said["C"] == "54000" and f"limits.{limit}" in said["H"]
    play >> answers(ready()) << to_client(ready())
    play.allowed(frontend.query(b"SELECT 2"))


@pytest.mark.parametrize("size", [1500, 4000, 50_000])
def test_a_parse_beyond_its_limit_too(size: int) -> None:
    play = playing(b"SELECT 1")
    play >> sends(frontend.parse(b"big", b"SELECT '" + b"x" * size + b"'"), SYNC) << effects.Record
    play >> events.Recorded(True)
    assert refused(play, SYNC)["C"] == "54000"


def test_a_function_call_beyond_the_limit_too() -> None:
    play = playing(b"SELECT 1")
    call = message(tags.FUNCTION_CALL, (764).to_bytes(4, "big") + b"\0\0\0\1" + b"\0\0\xff\0" + bytes(0xFF00) + b"\0\0")
    play >> sends(call) << effects.Record
    assert play.recorded["sql"] == "FUNCTION CALL 764"
    play >> events.Recorded(True)
    assert refused(play)["C"] == "54000"


@pytest.mark.parametrize(
    "large",
    [
        frontend.query(b"DROP " + b"x" * 50_000),
        frontend.parse(b"p", b"DROP " + b"x" * 50_000),
        bind(b"x" * 50_000, statement=b"d"),
        message(tags.FUNCTION_CALL, bytes(50_000)),
    ],
    ids=["Query", "Parse", "Bind", "FunctionCall"],
)
def test_in_observe_everything_passes(large: bytes) -> None:
    play = playing(b"SELECT 1", Mode.OBSERVE)
    play >> sends(frontend.parse(b"d", b"DROP t"), SYNC) << effects.ToServer << effects.ToServer
    play >> answers(PARSED, ready()) << effects.ToClient
    play >> sends(large[:1000])
    play << effects.Record
    assert play.recorded["decision"] == "observed"
    play >> events.Recorded(True) << to_server(large[:1000])
    play >> sends(large[1000:]) << to_server(large[1000:])


def test_behind_an_error_it_is_dropped_unless_its_beginning_is_out() -> None:
    play = playing(b"SELECT 1")
    play >> sends(EXECUTE, BIG[:300]) << to_server(EXECUTE) << effects.Record
    play >> events.Recorded(True) << to_server(BIG[:300])
    play >> answers(error("34000")) << effects.ToClient
    play >> sends(BIG[300:], EXECUTE, SYNC) << to_server(BIG[300:]) << to_server(SYNC)
    play >> answers(ready()) << effects.ToClient
    play >> sends(EXECUTE) << to_server(EXECUTE) >> answers(error("34000")) << effects.ToClient
    play >> sends(BIG[:300]) << None >> sends(BIG[300:], SYNC) << to_server(SYNC)


def test_a_failure_while_it_is_recorded_drops_it() -> None:
    play = playing(b"SELECT 1")
    play >> sends(EXECUTE, BIG[:300]) << to_server(EXECUTE) << effects.Record
    play >> answers(error("34000")) << effects.ToClient
    play >> events.Recorded(True) << None
    play >> sends(BIG[300:], SYNC) << to_server(SYNC)


def test_a_trail_that_cannot_take_it_refuses_it() -> None:
    play = playing(b"SELECT 1")
    play >> sends(BIG[:300]) << effects.Record >> events.Recorded(False) << None
    play >> sends(BIG[300:], SYNC)
    assert refused(play, SYNC)["C"] == "58030"


def test_a_refusal_behind_an_error_is_not_told() -> None:
    play = playing(b"SELECT 1")
    huge = bind(b"x" * 50_000, statement=b"none")
    play >> sends(EXECUTE, huge[:300]) << to_server(EXECUTE) << effects.Record >> events.Recorded(True) << None
    play >> answers(error("34000")) << effects.ToClient
    play >> sends(huge[300:], EXECUTE, SYNC) << to_server(SYNC)
    play >> answers(ready()) << to_client(ready())
    play.allowed(frontend.query(b"SELECT 2"))


@pytest.mark.parametrize("event", [events.ClientClosed(True), events.EndRequested("stop")])
def test_an_end_in_the_middle_of_it_puts_nothing_of_ours_into_it(event: events.Event) -> None:
    play = playing(b"SELECT 1")
    play >> sends(BIG[:300]) << effects.Record >> events.Recorded(True) << to_server(BIG[:300])
    sent = play.session.handle(event, play.now)
    assert not [e for e in sent if isinstance(e, effects.ToServer)]
    assert [e for e in sent if isinstance(e, effects.Close)]
    (outcome,) = [e.entry for e in sent if isinstance(e, effects.RecordSoon)]
    assert outcome["params"][-1]["value"] == "<9000 bytes, of which 275 arrived>"


def test_an_end_while_it_is_dropped_says_goodbye() -> None:
    play = playing(b"SELECT 1")
    huge = bind(b"x" * 50_000, statement=b"none")
    play >> sends(huge[:300]) << effects.Record >> events.Recorded(True) << None
    play >> events.ClientClosed(True) << effects.ToServer << to_server(frontend.TERMINATE) << effects.Close


def test_behind_a_parked_statement_it_counts_as_backlog() -> None:
    play = playing(b"SELECT 1")
    play.parks(frontend.query(b"DROP t"))
    play >> sends(BIG) << None
    play >> sends(bind(b"x" * 10_000))
    play << effects.WithdrawApproval << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    said = fields(play.last.data)
    assert (said["S"], said["C"]) == ("FATAL", "54000") and "limits.parked_backlog_bytes" in said["H"]
    play << to_server(frontend.TERMINATE) << effects.Close


def test_copy_data_behind_a_parked_copy_is_bounded() -> None:
    play = playing(b"SELECT 1")
    play.parks(frontend.query(b"DROP t"))
    line = copy_data(b"x" * 6000)
    play >> sends(line, line, line) << None
    play >> sends(line) << effects.WithdrawApproval << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "54000"
    play << to_server(frontend.TERMINATE) << effects.Close


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 4096])
def test_values_are_told_the_same_in_any_pieces(size: int) -> None:
    digest = ValueDigest(read_bind_head(BIG), (25, 17), "utf-8")
    for start in range(digest.offset, len(BIG), size):
        digest.feed(BIG[start : start + size])
    assert [p["value"] for p in digest.described()] == [
        "kkk",
        f"<9000 bytes, sha256 {hashlib.sha256(b'v' * 9000).hexdigest()}>",
        None,
        "",
        f"<2000 bytes, sha256 {hashlib.sha256(b'w' * 2000).hexdigest()}>",
    ]
