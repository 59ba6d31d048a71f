"""Ways past the gate that once worked, each as an attacker would play it against the fake server. Append only."""

from __future__ import annotations

import pytest

from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import effects, events
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import COPY_DONE, Playbook, answers, complete, copy_data, ready, sends, to_server
from tests.pgproxy.session.stub_classifier import classify
from tests.pgproxy.session.world import World

DROP = b"DROP t"


def batch(*parts: bytes) -> bytes:
    return b"".join(parts) + frontend.SYNC


def run(statement: bytes, portal: bytes = b"") -> bytes:
    return frontend.bind(portal, statement) + frontend.execute(portal)


def attack(*moves: bytes) -> World:
    """Each move is sent once everything before it has come to rest. Nobody approves anything."""
    world = World(4, approve=0.0)
    for move in moves:
        world.client(move)
        world.settle()
    assert DROP.decode() not in world.server.ran
    assert not world.closed or world.errors()
    return world


def test_a_sync_ignored_during_a_second_copy_shifts_every_later_reply_by_one() -> None:
    """`COPY a; COPY b` in one string: the end of the first was taken for the second's, a Sync counted that the server
    ignored, and then another statement's ParseComplete vouched for a Parse that had failed."""
    attack(
        batch(frontend.parse(b"x", DROP)),
        frontend.query(b"COPY a FROM STDIN;COPY b FROM STDIN"),
        COPY_DONE,
        frontend.SYNC + COPY_DONE,
        batch(frontend.parse(b"x", b"SELECT 1")),
        batch(frontend.parse(b"y", b"SELECT 2")),
        batch(run(b"x")),
        batch(run(b"x")),
    )


def test_a_query_sent_while_the_server_skips_shifts_every_later_reply_by_one() -> None:
    """The error came while the Query's record was on its way to the trail; it was sent all the same and never
    answered."""
    world = World(4, approve=0.0)
    world.client(batch(frontend.parse(b"x", DROP)))
    world.settle()
    world.client(frontend.bind(b"", b"x")[:0] + frontend.execute(b"none") + frontend.query(b"SELECT 1"))
    data, world.from_server = world.from_server, b""
    world.handle(events.BackendData(data))  # before the answer to Record
    for move in (
        frontend.SYNC,
        batch(frontend.parse(b"x", b"SELECT 1")),
        batch(frontend.parse(b"y", b"SELECT 2")),
        batch(run(b"x")),
        batch(run(b"x")),
    ):
        world.client(move)
        world.settle()
    assert DROP.decode() not in world.server.ran
    assert world.readies() == world.server.readies


def test_copy_data_cut_off_by_an_error_hides_a_message_in_the_next_one() -> None:
    """The rest of a half-forwarded CopyData was dropped once the server skipped; the server took what came next for
    it, and read a message of the attacker's out of the middle of a parameter."""
    world = World(4, approve=0.0)
    hidden = frontend.query(DROP)
    world.client(frontend.execute(b"none") + copy_data(b"x" * 40)[:10])
    world.settle()  # the error is here, the server skips
    world.client(copy_data(b"x" * 40)[10:] + frontend.SYNC)
    world.settle()
    world.client(frontend.query(b"SELECT " + b"y" * 60) + copy_data(hidden * 3) + frontend.SYNC)
    world.settle()
    assert DROP.decode() not in world.server.ran
    assert world.server.received.count(b"d\x00\x00\x00\x2c" + b"x" * 40) == 1
    assert world.readies() == world.server.readies


def test_execute_of_an_execute() -> None:
    """A Parse only names, and EXECUTE can execute an EXECUTE that Parse made."""
    world = attack(
        batch(frontend.parse(b"y", DROP), frontend.parse(b"x", b"EXECUTE y")),
        frontend.query(b"EXECUTE x"),
    )
    assert world.requests["a1"].context["executes"] == {"x": ["EXECUTE y"], "y": ["DROP t"]}


def test_a_name_that_may_be_either_is_shown_as_both() -> None:
    """Only the second, harmless one was shown, and a reviewer approved the other."""
    world = attack(
        batch(frontend.parse(b"x", DROP)),
        frontend.query(b"PREPARE x AS SELECT 1;FAIL"),
        frontend.query(b"EXECUTE x"),
    )
    assert world.requests["a1"].context["executes"] == {"x": ["DROP t", "PREPARE x AS SELECT 1;FAIL"]}


def test_execute_of_a_text_that_cannot_be_read() -> None:
    """It was classified with replacement characters while the raw bytes were the server's to run."""
    world = attack(batch(frontend.parse(b"x", b"SELECT '\xe2'")), frontend.query(b"EXECUTE x"))
    assert list(world.status.values()) == ["denied"]
    assert world.requests["a1"].context["executes"] == {"x": [r"SELECT '\xe2'"]}


def test_an_execute_that_names_itself_ends() -> None:
    world = attack(batch(frontend.parse(b"x", b"EXECUTE x")), frontend.query(b"EXECUTE x"))
    assert world.errors()[-1]["C"] == "54001"  # the server's own


def test_execute_behind_a_parse_of_its_name_that_fails() -> None:
    attack(
        batch(frontend.parse(b"x", DROP)),
        batch(frontend.parse(b"x", b"SELECT 1")) + frontend.query(b"EXECUTE x"),
    )


def test_bind_behind_a_parse_of_its_name_that_fails() -> None:
    attack(
        batch(frontend.parse(b"x", DROP)),
        batch(frontend.parse(b"x", b"SELECT 1")) + batch(run(b"x")),
    )


def test_two_names_of_the_client_that_are_one_to_the_server() -> None:
    """40 and 41 times é in LATIN1 are both cut to the same 63 bytes in a UTF8 server."""
    forty, more = b"\xe9" * 40, b"\xe9" * 41
    world = World(4, approve=0.0, encodings=("LATIN1", "UTF8"))
    world.client(batch(frontend.parse(forty, b"SELECT 1")))
    world.settle()
    assert world.closed and world.errors()[-1]["C"] == "0A000"
    world = World(4, approve=0.0, encodings=("LATIN1", "UTF8"))
    world.client(frontend.query(b"EXECUTE " + more))
    world.settle()
    assert world.errors()[-1]["C"] == "42501" and not world.closed


def test_a_portal_that_outlives_the_bind_that_should_have_replaced_it() -> None:
    """The failed Bind's statement stood for the portal, so what the old one does to names went unnoticed."""
    attack(
        batch(frontend.parse(b"d", b"DEALLOCATE x"), frontend.parse(b"s", b"SELECT 1")),
        frontend.query(b"PREPARE x AS SELECT 1"),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"p", b"d")),
        frontend.query(b"SAVEPOINT s"),
        batch(frontend.bind(b"p", b"s")),
        frontend.query(b"ROLLBACK TO s"),
        batch(frontend.execute(b"p")),
        frontend.query(b"EXECUTE x"),
    )


@pytest.mark.parametrize("between", [frontend.FLUSH, frontend.SYNC])
def test_names_changed_by_a_portal_that_is_executed_later(between: bytes) -> None:
    """The barrier of a bound DEALLOCATE fell with BindComplete, and its Execute raised none."""
    world = attack(
        frontend.query(b"PREPARE x AS SELECT 1"),
        frontend.query(b"BEGIN"),
        frontend.parse(b"d", b"DEALLOCATE x") + frontend.bind(b"p", b"d") + between,
        frontend.execute(b"p") + frontend.SYNC,
        frontend.query(b"EXECUTE x"),
    )
    assert world.errors()[-1]["C"] == "26000"
    assert "EXECUTE x" not in world.server.ran, "the name was still taken for what it was"


def test_a_portal_bound_before_the_last_ready_for_query_arrived() -> None:
    """The ReadyForQuery of the batch before swept it away, though it belongs to the next."""
    world = World(4, approve=0.0)
    world.client(frontend.query(b"PREPARE x AS SELECT 1"))
    world.settle()
    world.client(batch(frontend.parse(b"d", b"DEALLOCATE x")) + frontend.bind(b"p", b"d") + frontend.FLUSH)
    world.settle()
    world.client(frontend.execute(b"p") + frontend.SYNC)
    world.settle()
    world.client(frontend.query(b"EXECUTE x"))
    world.settle()
    assert "EXECUTE x" not in world.server.ran


def test_a_portal_closed_and_bound_again_in_one_breath() -> None:
    world = World(4, approve=0.0)
    world.client(frontend.query(b"PREPARE x AS SELECT 1"))
    world.settle()
    world.client(
        frontend.parse(b"d", b"DEALLOCATE x")
        + frontend.close(tags.PORTAL, b"p")
        + frontend.bind(b"p", b"d")
        + frontend.FLUSH
    )
    world.settle()
    world.client(batch(frontend.execute(b"p")) + frontend.query(b"EXECUTE x"))
    world.settle()
    assert "EXECUTE x" not in world.server.ran


def test_a_setting_changed_by_a_portal_that_was_suspended() -> None:
    """The row limit leaves the portal open, and its SET-like effect was forgotten with the barrier."""
    world = attack(
        frontend.query(b"BEGIN"),
        frontend.parse(b"s", b"SET search_path TO other") + frontend.bind(b"p", b"s") + frontend.FLUSH,
        frontend.execute(b"p") + frontend.parse(b"f", b"SELECT f") + run(b"f") + frontend.FLUSH,
    )
    assert "SELECT f" not in world.server.ran


def test_a_nonce_tells_nothing_of_the_next() -> None:
    """Another session of the same user reads the substitute in pg_stat_activity."""
    world = World(4, approve=0.0)
    for _ in range(3):
        world.client(batch(frontend.parse(b"", DROP), run(b"")))
        world.settle()
    found = {m.split(b"\x00")[0] for m in world.server.received.split(b"pgproxy_denied_")[1:]}
    assert len(found) == 3
    assert len({nonce[:6] for nonce in found}) == 3
    assert b"secret" not in world.server.received


def test_the_substitute_fails_even_for_who_knows_its_name() -> None:
    """It is a text that no grammar takes, never a name that somebody could have made."""
    world = World(4, approve=0.0)
    world.client(batch(frontend.parse(b"x", DROP)))
    world.settle()
    nonce = world.session._.nonce
    before = world.session._._nonces
    guess = world.session._.next_nonce()
    world.session._._nonces = before
    assert nonce not in guess
    world.client(batch(frontend.parse(b"pgproxy_denied_" + guess.encode(), DROP)))
    world.settle()
    world.client(frontend.query(b"BEGIN") + batch(run(b"x")) + batch(frontend.execute(b"")))
    world.settle()
    assert DROP.decode() not in world.server.bound


def test_a_portal_of_execute_whose_name_was_made_anew() -> None:
    """EXECUTE looks its name up when the portal runs, and was judged at its Bind."""
    world = attack(
        batch(frontend.parse(b"x", b"SELECT 1"), frontend.parse(b"e", b"EXECUTE x")),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"", b"e")),
        batch(frontend.close(tags.STATEMENT, b"x"), frontend.parse(b"x", DROP)),
        batch(frontend.execute(b"")),
    )
    assert world.errors()[-1]["C"] == "42501" and not world.closed and world.server.status == "E"
    assert "SELECT 1" not in world.server.ran


def test_a_portal_of_execute_of_execute_whose_inner_name_was_made_anew() -> None:
    attack(
        batch(
            frontend.parse(b"x", b"SELECT 1"), frontend.parse(b"y", b"EXECUTE x"), frontend.parse(b"e", b"EXECUTE y")
        ),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"", b"e")),
        batch(frontend.close(tags.STATEMENT, b"x"), frontend.parse(b"x", DROP)) + batch(frontend.execute(b"")),
    )


def test_a_portal_of_execute_after_the_search_path_was_changed() -> None:
    """What EXECUTE runs is planned anew when the portal runs."""
    world = attack(
        batch(frontend.parse(b"x", b"SELECT f"), frontend.parse(b"e", b"EXECUTE x")),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"", b"e")),
        batch(frontend.parse(b"s", b"SET search_path TO other"), run(b"s", b"q"), frontend.execute(b"")),
    )
    assert "SELECT f" not in world.server.ran and world.errors()[-1]["C"] == "42501"


def test_a_portal_of_execute_runs_while_nothing_has_changed() -> None:
    world = World(4, approve=0.0)
    world.client(batch(frontend.parse(b"x", b"ROWS 3"), frontend.parse(b"e", b"EXECUTE x")))
    world.client(frontend.query(b"BEGIN") + batch(run(b"e")))
    world.settle()
    assert world.server.ran == ["BEGIN", "EXECUTE x", "ROWS 3"] and not world.errors()


def test_a_named_portal_of_execute_could_be_run_by_any_fetch() -> None:
    """`FETCH ALL p` and `MOVE ALL p` run it, from inside a portal or a string, where no name is followed."""
    world = attack(
        batch(frontend.parse(b"x", b"SELECT 1"), frontend.parse(b"e", b"EXECUTE x")),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"p", b"e")),
    )
    assert world.errors()[-1]["C"] == "42501" and not world.server.bound


def test_two_statements_of_one_name_in_a_string_that_failed() -> None:
    """The second PREPARE fails, the first holds; the last in the text was taken for it, once for each candidate. Its
    approval was for a PREPARE, which runs nothing."""
    world = World(4, approve=1.0)
    world.client(frontend.query(b"PREPARE x AS DROP t;PREPARE x AS SELECT 1"))
    world.settle()
    assert world.errors() and "DROP t" not in world.server.ran
    world.approve = 0.0
    world.client(frontend.query(b"EXECUTE x"))
    world.settle()
    assert "DROP t" not in world.server.ran and world.errors()[-1]["C"] == "42501"


def cursor_that_sets_the_path() -> Playbook:
    play = Playbook()
    play.allowed(frontend.query(b"DECLARE c CURSOR FOR SELECT set_config"))
    play >> answers(complete("DECLARE CURSOR"), ready()) << effects.ToClient
    return play


def test_a_fetch_that_changes_the_search_path_is_waited_for() -> None:
    """The cursor's set_config() runs when it is fetched from; what came behind was judged by the path of before."""
    play = cursor_that_sets_the_path()
    play.allowed(frontend.query(b"FETCH c")) >> sends(frontend.query(b"SELECT f")) << None
    assert play.state is GateState.SETTLING


def test_a_fetch_that_changes_the_search_path_for_the_rest_of_its_string() -> None:
    play = cursor_that_sets_the_path()
    play >> sends(frontend.query(b"SELECT f;FETCH c")) << effects.OpenApproval


def test_an_execute_of_a_cursor_behind_an_unanswered_statement() -> None:
    """That statement's ReadyForQuery said that the path was as reported, when the cursor had yet to change it."""
    play = cursor_that_sets_the_path()
    play.allowed(frontend.query(b"SELECT 1")) >> sends(frontend.execute(b"c"), frontend.parse(b"", b"SELECT f")) << None
    play >> answers(complete("SELECT 1"), ready()) << effects.ToClient << to_server(frontend.execute(b"c"))
    assert play.session._.settings.environment.search_path is None
    play << None  # the Parse is held for its Bind, as of a privileged text


def test_a_cursor_in_the_place_of_a_portal() -> None:
    """CLOSE and DECLARE in SQL: the name stood for the portal that this session had bound."""
    play = Playbook()
    play.allowed(frontend.query(b"BEGIN")) >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(batch(frontend.parse(b"s", b"SELECT 1"))) << to_server(frontend.parse(b"s", b"SELECT 1"))
    play << to_server(frontend.SYNC) >> answers(b"1\0\0\0\4", ready(tags.IN_TRANSACTION)) << effects.ToClient
    play.allowed(frontend.bind(b"p", b"s"))
    play >> sends(frontend.SYNC) << to_server(frontend.SYNC)
    play >> answers(b"2\0\0\0\4", ready(tags.IN_TRANSACTION)) << effects.ToClient
    play.allowed(frontend.query(b"DECLARE p CURSOR FOR SELECT set_config"))
    play >> answers(complete("DECLARE CURSOR"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(frontend.execute(b"p")) << to_server(frontend.execute(b"p"))
    assert play.session._.settings.environment.search_path is None


def test_a_prepare_that_was_bound_and_never_executed() -> None:
    """Its portal ended with the batch, and the name was taken for what the PREPARE would have made of it. (Found by
    tests.fuzz.)"""
    world = attack(
        batch(frontend.parse(b"", b"PREPARE x AS SELECT 1"), frontend.parse(b"x", DROP), frontend.bind(b"p", b"")),
        frontend.query(b"EXECUTE x"),
    )
    assert world.requests["a1"].context["executes"] == {"x": ["DROP t"]}


def test_a_deallocate_that_was_bound_and_never_executed() -> None:
    world = attack(
        batch(frontend.parse(b"x", b"SELECT 1"), frontend.parse(b"d", b"DEALLOCATE x"), frontend.bind(b"p", b"d")),
        frontend.query(b"EXECUTE x"),
    )
    assert not world.errors() and "SELECT 1" in world.server.ran


def test_a_prepare_executed_again_where_the_server_skips() -> None:
    """It had completed once, so its second, skipped Execute counted as completed, too."""
    attack(
        batch(frontend.parse(b"m", b"PREPARE x AS SELECT 1")),
        frontend.query(b"BEGIN") + batch(frontend.bind(b"p", b"m"), frontend.execute(b"p")),
        frontend.query(b"DEALLOCATE x") + batch(frontend.parse(b"x", DROP)),
        batch(frontend.execute(b"none"), frontend.execute(b"p")),
        frontend.query(b"ROLLBACK"),
        frontend.query(b"EXECUTE x"),
    )


def test_a_text_read_with_standard_conforming_strings_off_and_bound_with_it_on() -> None:
    """The server reads a text when the Parse comes; at its Bind it was judged by the setting of then."""
    play = Playbook()
    play >> answers(backend.parameter_status(b"standard_conforming_strings", b"off")) << effects.ToClient
    play >> sends(batch(frontend.parse(b"x", b"SELECT 1"))) << to_server(frontend.parse(b"x", b"SELECT 1"))
    play << to_server(frontend.SYNC)
    play >> answers(b"1\0\0\0\4", backend.parameter_status(b"standard_conforming_strings", b"on"), ready())
    play << effects.ToClient
    seen: list[bool] = []
    play.context.lookup = lambda text, environment: (
        seen.append(environment.standard_conforming_strings) or classify(text, environment)
    )
    play.allowed(frontend.bind(b"", b"x"))
    assert seen == [False]
