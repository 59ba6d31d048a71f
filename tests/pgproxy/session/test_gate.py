"""The extended protocol at the gate: what is held, what is forwarded, when it is judged again."""

from __future__ import annotations

import pytest

from pgproxy.policy import Mode
from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.body import message
from pgproxy.session import effects, events
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    BOUND,
    NO_DATA,
    PARSED,
    SUSPENDED,
    Cache,
    Playbook,
    answers,
    complete,
    error,
    fields,
    opened,
    ready,
    resolved,
    sends,
    to_client,
    to_server,
)
from tests.pgproxy.session.stub_classifier import classify
from tests.pgproxy.session.world import World

PARSE_DROP = frontend.parse(b"", b"DROP t")
BIND = frontend.bind(b"", b"")
EXECUTE = frontend.execute(b"")
SYNC = frontend.SYNC
DESCRIBE = frontend.describe(tags.STATEMENT, b"")


def approve(play: Playbook) -> Playbook:
    play >> opened() << effects.ToClient >> resolved("approved") << effects.Record
    return play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True)


@pytest.mark.parametrize("held", [(PARSE_DROP, BIND), (PARSE_DROP, DESCRIBE, BIND)])
def test_parse_and_bind_are_held_together_and_go_together(held: tuple[bytes, ...]) -> None:
    play = Playbook()
    play >> sends(*held, EXECUTE, SYNC) << effects.OpenApproval  # nothing at the server while a human thinks
    approve(play) << to_server(*held) << to_server(EXECUTE) << to_server(SYNC)


def test_a_privileged_parse_waits_for_its_bind_in_a_later_segment() -> None:
    play = Playbook()
    play >> sends(PARSE_DROP) << None >> sends(DESCRIBE) << None >> sends(BIND) << effects.OpenApproval


@pytest.mark.parametrize(
    "behind",
    [
        (DESCRIBE, frontend.FLUSH),
        (DESCRIBE, SYNC),
        (SYNC,),
        (frontend.bind(b"", b"other"),),
        (frontend.describe(tags.STATEMENT, b"other"),),
        (DESCRIBE,) * 20,
    ],
)
def test_a_parse_without_its_bind_is_forwarded_and_judged_at_bind(behind: tuple[bytes, ...]) -> None:
    play = Playbook()
    play >> sends(PARSE_DROP, *behind) << to_server(PARSE_DROP)
    play.left.clear()
    assert play.state is not GateState.OPENING


def test_judged_again_at_every_bind() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"d", b"DROP t"), SYNC) << effects.ToServer << effects.ToServer
    play >> answers(PARSED, ready()) << effects.ToClient
    for number in (1, 2):
        play >> sends(frontend.bind(b"", b"d")) << effects.OpenApproval >> opened(f"a{number}") << effects.ToClient
        play >> resolved("approved", f"a{number}") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
        play >> events.ClaimAnswered(True) << to_server(frontend.bind(b"", b"d"))
        play >> sends(EXECUTE, SYNC) << effects.ToServer << effects.ToServer
        play >> answers(BOUND, complete("DROP"), ready()) << effects.FinishApproval << effects.ToClient


def test_one_approval_covers_a_portal_and_all_its_executes() -> None:
    cache = Cache(special={"ROWS 9": classify("DROP t")})
    play = Playbook(cache=cache)
    play >> sends(frontend.query(b"BEGIN")) << effects.Record >> events.Recorded(True) << effects.ToServer
    play >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(frontend.parse(b"", b"ROWS 9"), BIND) << effects.OpenApproval
    approve(play) << effects.ToServer
    for _ in range(2):
        play >> sends(frontend.execute(b"", 2), SYNC) << effects.ToServer << effects.ToServer
        play >> answers(*((PARSED, BOUND) if _ == 0 else ()), SUSPENDED, ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(EXECUTE, SYNC) << effects.ToServer << effects.ToServer
    play >> answers(complete("SELECT 9"), ready(tags.IN_TRANSACTION)) << effects.FinishApproval
    assert isinstance(play.last, effects.FinishApproval) and play.last.status == "executed"


def test_a_refused_parse_leaves_the_old_unnamed_statement_alone() -> None:
    """Forwarding the Bind of a refused Parse would run the old unnamed statement."""
    world = World(4, approve=0.0)
    world.client(frontend.parse(b"", b"SELECT 1") + SYNC)
    world.settle()
    world.client(PARSE_DROP + BIND + EXECUTE + SYNC)
    world.settle()
    assert world.server.ran == [] and world.server.statements == {b"": "SELECT 1"}
    assert world.readies() == 2 and world.errors()[0]["C"] == "42501"


def test_names_are_cut_at_63_bytes() -> None:
    world = World(4, approve=0.0)
    world.client(frontend.parse(b"n" * 63, b"DROP t") + SYNC + frontend.bind(b"", b"n" * 70) + EXECUTE + SYNC)
    world.settle()
    assert world.server.ran == [] and world.requests["a1"].sql == "DROP t"


def test_a_parse_that_reuses_a_live_name_changes_nothing() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"d", b"DROP t"), SYNC) << effects.ToServer << effects.ToServer
    play >> answers(PARSED, ready()) << effects.ToClient
    play >> sends(frontend.parse(b"d", b"SELECT 1"), SYNC) << effects.ToServer << effects.ToServer
    play >> answers(error("42P05"), ready()) << effects.ToClient
    play >> sends(frontend.bind(b"", b"d")) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval) and play.last.request.sql == "DROP t"


def test_a_bind_waits_for_a_parse_of_its_name_in_an_earlier_segment() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"s", b"SELECT 1"), SYNC, frontend.bind(b"", b"s"))
    play << effects.ToServer << to_server(SYNC) << None
    assert play.state is GateState.SETTLING
    play >> answers(PARSED, ready()) << effects.ToClient << effects.Record


def test_a_bind_in_the_same_segment_need_not_wait() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"s", b"SELECT 1"), frontend.bind(b"", b"s")) << effects.ToServer << effects.Record


@pytest.mark.parametrize("name", [b"", b"none"])
def test_an_unknown_statement_gets_the_servers_sqlstate(name: bytes) -> None:
    world = World(4)
    world.client(frontend.bind(b"", name) + EXECUTE + SYNC)
    world.settle()
    assert [e["C"] for e in world.errors()] == ["26000"] and world.readies() == 1
    assert world.server.bound == []


def test_prepare_and_parse_share_their_names() -> None:
    world = World(4, approve=0.0)
    for move in (
        frontend.query(b"PREPARE x AS SELECT 1"),
        frontend.bind(b"", b"x") + EXECUTE + SYNC,
        frontend.parse(b"y", b"DROP t") + SYNC,
        frontend.query(b"EXECUTE y"),
        frontend.query(b"DEALLOCATE x"),
        frontend.bind(b"", b"x") + SYNC,
    ):
        world.client(move)
        world.settle()
    assert world.server.ran == ["PREPARE x AS SELECT 1", "SELECT 1", "DEALLOCATE x"]
    assert [e["C"] for e in world.errors()] == ["42501", "26000"]


def test_discard_all_forgets_every_name() -> None:
    world = World(4)
    for move in (
        frontend.parse(b"s", b"SELECT 1") + SYNC,
        frontend.query(b"DISCARD ALL"),
        frontend.bind(b"", b"s") + SYNC,
        frontend.parse(b"s", b"SELECT 2") + frontend.bind(b"", b"s") + EXECUTE + SYNC,
    ):
        world.client(move)
        world.settle()
    assert world.server.ran == ["DISCARD ALL", "SELECT 2"] and len(world.errors()) == 1


def test_a_name_that_may_be_either_is_judged_by_the_worse() -> None:
    """`PREPARE x AS …; FAIL` leaves x behind, for statements survive a rollback."""
    world = World(4, approve=0.0)
    for move in (frontend.query(b"PREPARE x AS SELECT 1;FAIL"), frontend.query(b"EXECUTE x")):
        world.client(move)
        world.settle()
    assert world.server.ran[-1] == "SELECT 1"


def test_the_third_of_five_waits_for_the_replies_to_the_first_two() -> None:
    one = frontend.parse(b"", b"SELECT 1") + BIND + EXECUTE
    play = Playbook()
    play >> sends(frontend.parse(b"", b"SELECT 1"), BIND, EXECUTE, PARSE_DROP, BIND, EXECUTE, one, SYNC)
    play << effects.ToServer << effects.Record >> events.Recorded(True) << effects.ToServer << effects.ToServer
    play << to_server(frontend.FLUSH) << None
    said = (PARSED, BOUND, complete("SELECT 1"))
    play >> answers(*said) << to_client(*said) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval) and play.last.request.context["in_transaction"]


def test_an_earlier_error_means_that_nobody_is_asked() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"", b"FAIL"), BIND, EXECUTE, PARSE_DROP, BIND, EXECUTE, SYNC)
    play << effects.ToServer << effects.Record >> events.Recorded(True) << effects.ToServer << effects.ToServer
    play << to_server(frontend.FLUSH)
    play >> answers(PARSED, BOUND, error("22012")) << effects.ToClient << to_server(SYNC)
    play >> answers(ready()) << effects.ToClient


def test_a_refusal_in_a_pipeline_skips_to_sync_and_the_next_segment_runs() -> None:
    world = World(4, approve=0.0)
    one = frontend.parse(b"", b"SELECT 1") + BIND + EXECUTE
    world.client(one + PARSE_DROP + BIND + EXECUTE + one + SYNC + one + SYNC)
    world.settle()
    assert world.server.ran == ["SELECT 1", "SELECT 1"]
    assert world.readies() == 2 and [e["C"] for e in world.errors()] == ["42501"]


def test_a_setting_under_way_holds_back_what_is_judged_by_it() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"SET search_path TO other"), frontend.query(b"SELECT f"))
    play << effects.Record >> events.Recorded(True) << effects.ToServer << None
    assert play.state is GateState.SETTLING
    status = backend.parameter_status(b"search_path", b"other")
    play >> answers(complete("SET"), status, ready()) << effects.ToClient << effects.OpenApproval


def test_within_a_batch_a_changed_search_path_is_unknown() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"", b"SET search_path TO public"), BIND, EXECUTE)
    play << effects.ToServer << effects.Record >> events.Recorded(True) << effects.ToServer << effects.ToServer
    play >> sends(frontend.parse(b"", b"SELECT f"), BIND) << to_server(frontend.FLUSH) << None
    play >> answers(PARSED, BOUND, complete("SET")) << effects.ToClient << effects.OpenApproval


def test_an_encoding_that_can_hide_a_quote_is_unknown() -> None:
    play = Playbook(encodings=("SJIS", "UTF8"))
    play >> sends(frontend.query(b"SELECT 1")) << effects.OpenApproval


def test_text_invalid_in_its_encoding_is_refused() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"SELECT '\xff'")) << effects.Record >> events.Recorded(True) << effects.ToServer
    assert play.state is GateState.OPEN
    assert play.context.replies._queue[0].refusal is not None
    assert play.context.replies._queue[0].refusal.sqlstate == "22021"


def test_a_function_call_is_privileged_and_shows_its_arguments() -> None:
    call = b"F\x00\x00\x00\x14\x00\x00\x00\x2a\x00\x00\x00\x01\x00\x00\x00\x02hi\x00\x00"
    play = Playbook()
    play >> sends(call) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval)
    assert play.last.request.sql == "FUNCTION CALL 42" and play.last.request.params[0]["value"] == "hi"
    approve(play) << to_server(call)
    play >> answers(b"V\x00\x00\x00\x08\xff\xff\xff\xff", ready()) << effects.FinishApproval << effects.ToClient


def test_a_parse_denied_by_policy_is_refused_at_once() -> None:
    play = Playbook(owner=None)
    play >> sends(PARSE_DROP, SYNC) << effects.Record >> events.Recorded(True) << effects.ToServer << to_server(SYNC)
    assert play.context.replies._queue[0].refusal is not None


def test_analysis_is_awaited_for_parse_and_bind() -> None:
    cache = Cache(empty=True)
    play = Playbook(cache=cache)
    play >> sends(PARSE_DROP, BIND) << effects.Analyse >> events.Analysed(classify("DROP t"))
    play << effects.Analyse >> events.Analysed(classify("DROP t")) << effects.OpenApproval


def test_observe_forwards_a_privileged_parse_without_waiting_for_its_bind() -> None:
    play = Playbook(mode=Mode.OBSERVE)
    play >> sends(PARSE_DROP) << to_server(PARSE_DROP)
    play >> sends(BIND) << effects.Record
    assert play.recorded["decision"] == "observed"


def test_describe_tells_the_types_a_reviewer_sees() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"d", b"DROP t"), frontend.describe(tags.STATEMENT, b"d"), SYNC)
    play << effects.ToServer << effects.ToServer << effects.ToServer
    described = b"t\x00\x00\x00\x0a\x00\x01\x00\x00\x00\x17"
    play >> answers(PARSED, described, NO_DATA, ready()) << effects.ToClient
    bind = message(tags.BIND, b"\x00d\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00")
    play >> sends(bind) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval)
    assert play.last.request.params == ({"type": "int4", "value": "7"},)


def test_the_notice_names_no_statement() -> None:
    play = Playbook()
    play >> sends(PARSE_DROP, BIND) << effects.OpenApproval >> opened() << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert "DROP" not in "".join(fields(play.last.data).values())
