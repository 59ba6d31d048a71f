"""The session's life: approvals, cancels, leaving, losing, limits, evidence."""

from __future__ import annotations

import pytest

from pgproxy.policy import Mode
from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import effects, events
from pgproxy.session.context import Limits
from pgproxy.session.states import GateState
from tests.pgproxy.session.playbook import (
    COPY_DONE,
    COPY_IN,
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

DROP = frontend.query(b"DROP t")
SELECT = frontend.query(b"SELECT 1")
ROW = b"D\x00\x00\x00\x0b\x00\x01\x00\x00\x00\x011"


def substitute(play: Playbook) -> str:
    """The text of the substitute just sent, as the server would quote it."""
    assert isinstance(play.last, effects.ToServer)
    return play.last.data[play.last.data.index(b"pgproxy_denied") :].split(b"\x00")[0].decode()


def swapped(play: Playbook, *, status: int = tags.IDLE) -> dict[str, str]:
    """The server rejects the substitute; what the client gets."""
    play >> answers(error("42601", f'syntax error at or near "{substitute(play)}"'), ready(status))
    play << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert play.last.data.endswith(ready(status))
    return fields(play.last.data)


# an approval


def test_approved_runs_the_clients_own_bytes_once() -> None:
    play = Playbook()
    play.parks(DROP) >> resolved("approved") << effects.Record
    assert play.recorded["decision"] == "approved" and play.recorded["reviewers"] == ["bob"]
    play >> events.Recorded(True) << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << to_server(DROP)
    play >> answers(complete("DROP TABLE"), ready()) << effects.FinishApproval
    assert isinstance(play.last, effects.FinishApproval) and play.last.status == "executed"
    play << to_client(complete("DROP TABLE"), ready())
    play >> resolved("approved") << None  # nothing twice


def test_the_notice_comes_at_once_and_names_the_request() -> None:
    play = Playbook()
    play >> sends(DROP) << effects.OpenApproval >> opened("a7") << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    said = fields(play.last.data)
    assert said["C"] == "01000" and said["M"].startswith("pgproxy: waiting for approval a7")
    assert "ddl" in said["D"] and "http://console" in said["H"]


def test_no_notice_for_who_wants_none() -> None:
    play = Playbook(notice=False)
    play >> sends(DROP) << effects.OpenApproval >> opened() << None
    assert play.state is GateState.PARKED


@pytest.mark.parametrize(
    ("status", "sqlstate", "starts"),
    [
        ("denied", "42501", "pgproxy: denied by bob"),
        ("expired", "57014", "pgproxy: approval a1 expired"),
        ("withdrawn", "57014", "pgproxy: approval a1 was withdrawn"),
    ],
)
def test_not_approved_is_refused_by_the_server_itself(status: str, sqlstate: str, starts: str) -> None:
    play = Playbook()
    play.parks(DROP) >> resolved(status, comment="not today") << effects.Record
    assert play.recorded["decision"] == status
    play >> events.Recorded(True) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and b"DROP" not in play.last.data
    said = swapped(play)
    assert said["C"] == sqlstate and said["M"].startswith(starts)
    assert ("not today" in said.get("D", "")) == (status == "denied")
    play.allowed(SELECT)  # the session goes on


def test_an_error_of_ours_is_in_the_clients_encoding() -> None:
    """And a character the encoding has not is shown by its number."""
    play = Playbook(encodings=("LATIN1", "UTF8"))
    play.parks(DROP) >> resolved("denied", comment="né 日") << effects.Record >> events.Recorded(True)
    play << effects.ToServer
    refused = play.last.data.split(b"pgproxy_denied_")[1][:24].decode()
    play >> answers(error("42601", f"syntax error at or near pgproxy_denied_{refused}"), ready()) << effects.ToClient
    assert b"Dn\xe9 \\u65e5; approval a1\x00" in play.last.data


def test_only_the_error_that_carries_the_nonce_is_swapped() -> None:
    play = Playbook()
    play.parks(DROP) >> resolved("denied") << effects.Record >> events.Recorded(True) << effects.ToServer
    foreign = error("57014", "canceling statement due to user request")
    play >> answers(foreign, ready()) << to_client(foreign, ready())


@pytest.mark.parametrize("ok", [False, None])
def test_claim_lost_or_in_doubt_runs_nothing(ok: bool | None) -> None:
    play = Playbook()
    play.parks(DROP) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    play >> events.ClaimAnswered(ok) << effects.ToServer
    assert swapped(play)["C"] == ("57014" if ok is False else "58000")


@pytest.mark.parametrize(("limit", "sqlstate"), [(False, "58000"), (True, "53400")])
def test_store_down_or_too_many_parked(limit: bool, sqlstate: str) -> None:
    play = Playbook()
    play >> sends(DROP) << effects.OpenApproval
    play >> events.ApprovalOpened(None, limit="limits.parked" if limit else None) << effects.Record
    assert play.recorded["decision"] == "blocked"
    play >> events.Recorded(True) << effects.ToServer
    assert swapped(play)["C"] == sqlstate


def test_without_its_record_no_statement_goes() -> None:
    play = Playbook()
    play >> sends(SELECT) << effects.Record >> events.Recorded(False) << effects.ToServer
    assert swapped(play)["C"] == "58030"
    play.parks(DROP) >> resolved("approved") << effects.Record
    play >> events.Recorded(False) << effects.WithdrawApproval << effects.ToServer
    assert swapped(play)["C"] == "58030"


def test_an_agent_without_an_owner_is_denied_with_the_key_to_set() -> None:
    play = Playbook(owner=None)
    play >> sends(DROP) << effects.Record >> events.Recorded(True) << effects.ToServer
    said = swapped(play)
    assert said["C"] == "42501" and said["M"] == "pgproxy: denied by policy" and "default_owner" in said["H"]


def test_inside_a_transaction_the_server_fails_it() -> None:
    play = Playbook()
    play.allowed(frontend.query(b"BEGIN")) >> answers(complete("BEGIN"), ready(tags.IN_TRANSACTION)) << effects.ToClient
    play >> sends(DROP) << effects.OpenApproval
    assert isinstance(play.last, effects.OpenApproval) and play.last.request.context["in_transaction"]
    play >> opened() << effects.ToClient >> resolved("denied") << effects.Record
    play >> events.Recorded(True) << effects.ToServer
    swapped(play, status=tags.FAILED_TRANSACTION)
    # Now the server refuses by itself: nobody is asked.
    play >> sends(DROP) << effects.Record >> events.Recorded(True) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and b"DROP" not in play.last.data
    own = error("25P02", "current transaction is aborted")
    play >> answers(own, ready(tags.FAILED_TRANSACTION)) << to_client(own, ready(tags.FAILED_TRANSACTION))


def test_the_binding_changes_with_everything_it_is_bound_to() -> None:
    def binding(*messages: bytes) -> str:
        play = Playbook()
        play >> sends(*messages) << effects.OpenApproval
        assert isinstance(play.last, effects.OpenApproval)
        return play.last.request.binding

    with_value = frontend.bind(b"", b"")[:-4] + b"\x00\x01\x00\x00\x00\x01v\x00\x00"
    with_value = b"B" + (len(with_value) - 1).to_bytes(4, "big") + with_value[5:]
    seen = {
        binding(DROP),
        binding(frontend.query(b"DROP t ")),
        binding(frontend.parse(b"", b"DROP t"), frontend.bind(b"", b"")),
        binding(frontend.parse(b"", b"DROP t", (23,)), frontend.bind(b"", b"")),
        binding(frontend.parse(b"", b"DROP t"), with_value),
    }
    assert len(seen) == 5


# cancel


def test_cancel_while_parked_gives_the_prompt_back() -> None:
    play = Playbook()
    play.parks(DROP) >> events.CancelRequested() << effects.WithdrawApproval << effects.Record
    assert play.recorded["decision"] == "withdrawn"
    play >> events.Recorded(True) << effects.ToServer
    said = swapped(play)
    assert (said["C"], said["M"]) == ("57014", "canceling statement due to user request")


def test_cancel_before_the_request_is_there() -> None:
    play = Playbook()
    play >> sends(DROP) << effects.OpenApproval >> events.CancelRequested() << None
    play >> opened() << effects.WithdrawApproval << effects.Record >> events.Recorded(True) << effects.ToServer
    assert swapped(play)["C"] == "57014"


def test_cancel_between_approval_and_claim() -> None:
    play = Playbook()
    play.parks(DROP) >> resolved("approved") << effects.Record >> events.CancelRequested() << None
    play >> events.Recorded(True) << effects.WithdrawApproval << effects.ToServer
    assert swapped(play)["C"] == "57014"
    play = Playbook()
    play.parks(DROP) >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    play >> events.CancelRequested() << None
    play >> events.ClaimAnswered(True) << effects.FinishApproval << effects.ToServer
    assert swapped(play)["C"] == "57014"


def test_cancel_of_a_running_statement_goes_to_the_server() -> None:
    play = Playbook()
    play.allowed(SELECT) >> events.CancelRequested() << effects.CancelServer


# leaving


@pytest.mark.parametrize("lost", [False, True])
def test_a_parked_statement_dies_with_its_client(lost: bool) -> None:
    play = Playbook()
    play.parks(DROP) >> events.ClientClosed(lost) << effects.WithdrawApproval
    play << to_server(frontend.TERMINATE) << effects.Close
    assert play.trail[0]["decision"] == "withdrawn"


def test_terminate_in_the_same_segment_behind_a_privileged_statement() -> None:
    play = Playbook()
    play >> sends(DROP, frontend.query(b"INSERT"), frontend.TERMINATE)
    play << to_server(frontend.TERMINATE) << effects.Close
    assert play.trail[0]["decision"] == "withdrawn"


def test_terminate_behind_a_parked_statement_takes_what_is_between_along() -> None:
    play = Playbook()
    play.parks(DROP) >> sends(frontend.query(b"INSERT"), frontend.TERMINATE) << effects.WithdrawApproval
    play << to_server(frontend.TERMINATE) << effects.Close


def test_what_was_sent_before_the_goodbye_still_runs_and_is_told() -> None:
    play = Playbook()
    play.allowed(frontend.query(b"INSERT")) >> sends(frontend.TERMINATE) << to_server(frontend.TERMINATE) << None
    play >> answers(complete("INSERT 0 1"), ready()) << effects.ToClient << effects.Close
    assert play.trail[-1]["outcome"]["command_tag"] == "INSERT 0 1"


def test_a_client_that_closed_only_its_sending_half_gets_its_answer() -> None:
    play = Playbook()
    play.allowed(SELECT) >> events.ClientClosed(lost=False) << to_server(frontend.TERMINATE) << None
    play >> answers(ROW) << to_client(ROW)
    play >> answers(complete("SELECT 1"), ready()) << effects.ToClient << effects.Close


def test_a_client_that_is_lost_while_leaving_is_not_waited_for() -> None:
    play = Playbook()
    play.allowed(SELECT) >> sends(frontend.TERMINATE) << effects.ToServer
    play >> events.ClientClosed(lost=False) << None >> events.ClientClosed(lost=True) << effects.Close


def test_leaving_in_the_middle_of_a_copy_does_not_wait_for_a_server_that_waits() -> None:
    play = Playbook()
    play.allowed(frontend.query(b"COPY t FROM STDIN")) >> answers(COPY_IN) << effects.ToClient
    play >> sends(copy_data(b"x")[:6]) << effects.ToServer
    play >> events.ClientClosed(lost=False) << to_server(frontend.TERMINATE) << effects.Close


# losing the server


def test_the_servers_own_last_words_are_the_last() -> None:
    play = Playbook()
    fatal = error("57P01", "terminating connection due to administrator command", "FATAL")
    play.parks(DROP) >> answers(fatal) << to_client(fatal) << effects.WithdrawApproval << effects.Close
    play >> events.ServerClosed() << None


def test_without_last_words_the_client_gets_08006() -> None:
    play = Playbook()
    play.allowed(SELECT) >> events.ServerClosed() << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "08006"
    play << effects.Close
    assert play.trail[-1]["outcome"]["sqlstate"] == "08006"


def test_nothing_is_written_into_the_middle_of_a_row() -> None:
    play = Playbook()
    play.allowed(SELECT) >> answers(ROW[:8]) << to_client(ROW[:8])
    play >> events.ServerClosed() << effects.Close


def test_a_fatal_error_in_answer_to_a_probe_reaches_the_client() -> None:
    play = Playbook()
    fatal = error("57P01", "terminating connection", "FATAL")
    play >> sends(frontend.query(b"SELCT")) << effects.ToServer >> answers(fatal) << to_client(fatal)


# limits and violations


def test_a_backlog_behind_a_parked_statement_is_bounded() -> None:
    play = Playbook(limits=Limits(parked_backlog_bytes=1000))
    play.parks(DROP) >> sends(copy_data(b"x" * 500)) << None
    play >> sends(copy_data(b"x" * 500)) << effects.WithdrawApproval << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "54000"
    play << to_server(frontend.TERMINATE) << effects.Close


@pytest.mark.parametrize("sent", [frontend.FLUSH * 10, frontend.query(b"x" * 2000)[:1500]])
def test_small_messages_and_unfinished_ones_count_in_the_backlog(sent: bytes) -> None:
    play = Playbook(limits=Limits(parked_backlog_bytes=1000))
    play.parks(DROP) >> sends(sent) << effects.WithdrawApproval << effects.ToClient << effects.ToServer << effects.Close


@pytest.mark.parametrize(
    "bad",
    [
        b"?\x00\x00\x00\x04",
        b"Q\x00\x00\x00\x03",
        b"Q\x00\x00\x00\x07DR\x00"[:-1] + b"x",
        frontend.password(b"x"),
        b"S\x00\x00\x00\x05x",
        b"B\x00\x00\x00\x06\x00\x00",
    ],
)
def test_malformed_messages_close_both_sides_and_withdraw(bad: bytes) -> None:
    play = Playbook()
    play >> sends(bad) << effects.ToClient
    assert isinstance(play.last, effects.ToClient)
    assert fields(play.last.data)["C"] == "08P01" and fields(play.last.data)["S"] == "FATAL"
    play << to_server(frontend.TERMINATE) << effects.Close


def test_a_violation_behind_a_parked_statement_withdraws_it_once() -> None:
    play = Playbook()
    play.parks(DROP) >> sends(b"?\x00\x00\x00\x04") << effects.WithdrawApproval << effects.ToClient
    play << to_server(frontend.TERMINATE) << effects.Close << None


def test_a_nul_in_a_query_is_never_cut() -> None:
    play = Playbook()
    play >> sends(b"Q\x00\x00\x00\x0dSEL\x00DROP\x00") << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "22021"


def test_what_the_server_cannot_say_ends_the_session() -> None:
    play = Playbook()
    play >> answers(ready()) << effects.ToClient << to_server(frontend.TERMINATE) << effects.Close


def test_a_large_privileged_parse_still_lets_its_bind_in() -> None:
    """The inbox was full of the Parse, so the client was not read, and its Bind never came."""
    play = Playbook(limits=Limits(input_bytes=100))
    play >> sends(frontend.parse(b"", b"DROP t" + b" " * 200)) << None
    assert play.session.wants_client_data


def test_input_is_bounded_while_replies_are_awaited() -> None:
    play = Playbook(limits=Limits(input_bytes=100))
    play.allowed(SELECT) >> sends(DROP, frontend.query(b"SELECT " + b"1" * 200)) << None
    assert play.state is GateState.SETTLING and not play.session.wants_client_data


# evidence


def test_an_error_at_the_commit_of_a_batch_rolls_all_of_it_back() -> None:
    play = Playbook()
    play >> sends(frontend.parse(b"", b"DEFERRED"), frontend.bind(b"", b""))
    play << effects.ToServer << effects.Record >> events.Recorded(True) << effects.ToServer
    play >> sends(frontend.execute(b""), frontend.SYNC) << effects.ToServer << effects.ToServer
    play >> answers(b"1\x00\x00\x00\x04", b"2\x00\x00\x00\x04", complete("INSERT 0 1"), error("23505"), ready())
    play << effects.ToClient
    assert play.trail[-1]["outcome"]["transaction"] == "rolled_back"


def test_a_transactions_fate_is_told_when_it_ends() -> None:
    play = Playbook()
    for text, tag, status in (("BEGIN", "BEGIN", tags.IN_TRANSACTION), ("INSERT", "INSERT 0 1", tags.IN_TRANSACTION)):
        play.allowed(frontend.query(text.encode())) >> answers(complete(tag), ready(status)) << effects.ToClient
    assert play.trail[-1]["outcome"]["transaction"] == "open"
    play.allowed(frontend.query(b"COMMIT")) >> answers(complete("COMMIT"), ready()) << effects.ToClient
    fates = {e["statement_id"]: e["outcome"]["transaction"] for e in play.trail}
    assert set(fates.values()) == {"committed"}


def test_a_mistyped_statement_gets_the_servers_own_error_and_a_decision_before_its_outcome() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"SELCT")) << effects.ToServer
    assert isinstance(play.last, effects.ToServer) and play.last.data.endswith(frontend.SYNC)
    own = error("42601")[:-1] + b"P1\x00\x00"
    own = own[:1] + (len(own) - 1).to_bytes(4, "big") + own[5:]
    play >> answers(own, ready()) << to_client(own, ready())
    assert [(e["kind"], e.get("decision")) for e in play.trail] == [("statement", "allowed"), ("outcome", "allowed")]
    assert play.trail[1]["outcome"]["sqlstate"] == "42601"


def test_a_text_only_our_grammar_rejects_is_parked_after_the_probe() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"SELCT")) << effects.ToServer
    play >> answers(b"1\x00\x00\x00\x04", b"3\x00\x00\x00\x04", ready()) << effects.OpenApproval
    play = Playbook()
    play >> sends(frontend.query(b"SELCT")) << effects.ToServer
    play >> answers(error("42601"), ready()) << effects.OpenApproval  # no position: it says nothing of a simple query


def test_a_string_of_statements_is_not_probed() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"SELCT;DROP t")) << effects.OpenApproval


# observe


@pytest.mark.parametrize("text", [b"DROP t", b"SELCT", b"\xff", b"EXECUTE none", b"SELCT;DROP t"])
def test_observe_never_parks_refuses_or_probes(text: bytes) -> None:
    play = Playbook(mode=Mode.OBSERVE, owner=None)
    play >> sends(frontend.query(text)) << effects.Record
    assert play.recorded["decision"] in ("observed", "allowed")
    play >> events.Recorded(True) << to_server(frontend.query(text))


def test_observe_lets_unknown_names_and_function_calls_pass() -> None:
    play = Playbook(mode=Mode.OBSERVE)
    call = b"F\x00\x00\x00\x0e\x00\x00\x00\x2a\x00\x00\x00\x00\x00\x00"
    play.allowed(call) >> answers(b"V\x00\x00\x00\x08\xff\xff\xff\xff", ready()) << effects.ToClient
    play.allowed(frontend.bind(b"", b"none"))
    play = Playbook(mode=Mode.OBSERVE, encodings=("SJIS", "UTF8"))
    play.allowed(frontend.query(b"SELECT 1"))


def test_observe_still_refuses_what_the_trail_does_not_take() -> None:
    play = Playbook(mode=Mode.OBSERVE)
    play >> sends(SELECT) << effects.Record >> events.Recorded(False) << effects.ToServer
    assert swapped(play)["C"] == "58030"


# COPY


def test_libpq_sends_sync_at_once_and_again_behind_copy_done() -> None:
    play = Playbook()
    messages = (frontend.parse(b"", b"COPY t FROM STDIN"), frontend.bind(b"", b""))
    play >> sends(*messages, frontend.execute(b""), frontend.SYNC) << effects.ToServer << effects.Record
    play >> events.Recorded(True) << effects.ToServer << to_server(frontend.execute(b"")) << to_server(frontend.FLUSH)
    play >> answers(b"1\x00\x00\x00\x04", b"2\x00\x00\x00\x04", COPY_IN) << effects.ToClient
    play >> sends(copy_data(b"x\n")) << to_server(copy_data(b"x\n"))  # the first Sync is not sent to be ignored
    play >> sends(COPY_DONE, frontend.SYNC) << to_server(COPY_DONE) << to_server(frontend.SYNC)
    play >> answers(complete("COPY 1"), ready()) << to_client(complete("COPY 1"), ready())
    assert play.context.replies.settled


def test_a_copy_that_fails_at_once_is_answered_by_the_first_sync() -> None:
    play = Playbook()
    messages = (frontend.parse(b"", b"COPY t FROM STDIN"), frontend.bind(b"", b""))
    play >> sends(*messages, frontend.execute(b""), frontend.SYNC) << effects.ToServer << effects.Record
    play >> events.Recorded(True) << effects.ToServer << effects.ToServer << effects.ToServer
    play >> answers(b"1\x00\x00\x00\x04", b"2\x00\x00\x00\x04", error("42P01")) << effects.ToClient
    play << to_server(frontend.SYNC)
    play >> answers(ready()) << to_client(ready())


def test_a_privileged_statement_behind_a_finished_copy_is_parked() -> None:
    """The COPY's end stayed in the queue for ever, and the session waited for its reply."""
    play = Playbook()
    play.allowed(frontend.query(b"COPY t FROM STDIN")) >> answers(COPY_IN) << effects.ToClient
    play >> sends(copy_data(b"x\n"), COPY_DONE) << effects.ToServer << effects.ToServer
    play >> answers(complete("COPY 1"), ready()) << effects.ToClient
    play.parks(DROP)


def test_a_flush_before_the_end_of_a_copy_was_ignored_and_is_sent_again() -> None:
    play = Playbook()
    messages = (frontend.parse(b"", b"COPY t FROM STDIN"), frontend.bind(b"", b""))
    play >> sends(*messages, frontend.execute(b""), frontend.SYNC, COPY_DONE, DROP) << effects.ToServer
    play << effects.Record >> events.Recorded(True) << effects.ToServer << effects.ToServer << to_server(frontend.FLUSH)
    play >> answers(b"1\x00\x00\x00\x04", b"2\x00\x00\x00\x04", COPY_IN) << effects.ToClient
    play << to_server(COPY_DONE) << to_server(frontend.FLUSH)
    play >> answers(complete("COPY 0")) << effects.ToClient << effects.OpenApproval


def test_a_query_during_copy_closes_both_sides() -> None:
    play = Playbook()
    play.allowed(frontend.query(b"COPY t FROM STDIN")) >> answers(COPY_IN) << effects.ToClient
    play >> sends(SELECT) << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "08P01"
    play << to_server(frontend.TERMINATE) << effects.Close


def test_copy_data_pipelined_before_the_server_asks_for_it() -> None:
    play = Playbook()
    play >> sends(frontend.query(b"COPY t FROM STDIN"), copy_data(b"x\n"), COPY_DONE, DROP) << effects.Record
    play >> events.Recorded(True) << effects.ToServer << to_server(copy_data(b"x\n")) << to_server(COPY_DONE)
    play >> answers(COPY_IN, complete("COPY 1")) << effects.ToClient
    play >> answers(ready()) << effects.ToClient << effects.OpenApproval


def test_copy_data_behind_a_parked_statement_waits() -> None:
    play = Playbook()
    play.parks(DROP) >> sends(copy_data(b"x\n")) << None
    play >> resolved("approved") << effects.Record >> events.Recorded(True) << effects.ClaimApproval
    play >> events.ClaimAnswered(True) << to_server(DROP) << to_server(copy_data(b"x\n"))


@pytest.mark.parametrize(
    "said",
    [
        backend.parameter_status(b"TimeZone", b"Asia/Tokyo"),
        backend.notice_response("57P02", "terminating connection because of crash of another server process"),
        b"A\x00\x00\x00\x11\x00\x00\x00\x07news\x00now\x00",
    ],
)  # fmt: skip
def test_what_the_server_says_of_itself_arrives_while_parked(said: bytes) -> None:
    play = Playbook().parks(DROP)
    play >> answers(said) << to_client(said)
    assert play.state is GateState.PARKED


def test_a_fatal_error_while_parked_ends_the_session_before_anybody_can_approve() -> None:
    play = Playbook().parks(DROP)
    fatal = error("57P05", "terminating connection due to idle-session timeout", "FATAL")
    play >> answers(fatal) << to_client(fatal)
    play << effects.WithdrawApproval("a1", "the server ended the connection (57P05)") << effects.Close
    assert play.trail[-1]["decision"] == "withdrawn"
    play >> resolved("approved") << None


def test_draining_ends_a_session_when_its_answer_is_in() -> None:
    play = Playbook()
    play.allowed(SELECT) >> events.DrainRequested("stopping") << None
    play >> answers(complete("SELECT 1"), ready(tags.IN_TRANSACTION)) << effects.ToClient << None
    commit = frontend.query(b"COMMIT")
    play.allowed(commit) >> answers(complete("COMMIT"), ready()) << effects.ToClient
    play << effects.ToClient
    assert isinstance(play.last, effects.ToClient) and fields(play.last.data)["C"] == "57P01"
    play << to_server(frontend.TERMINATE) << effects.Close


def test_an_approval_that_is_being_spent_is_not_cut_short_by_draining() -> None:
    play = Playbook().parks(DROP) >> resolved("approved") << effects.Record
    play >> events.DrainRequested("stopping") << None
    play >> events.Recorded(True) << effects.ClaimApproval >> events.ClaimAnswered(True) << to_server(DROP)
    play >> answers(complete("DROP TABLE"), ready()) << effects.FinishApproval << effects.ToClient
    play << effects.ToClient << to_server(frontend.TERMINATE) << effects.Close


def test_ending_a_session_cancels_what_the_server_would_go_on_with() -> None:
    play = Playbook()
    play.allowed(SELECT) >> events.EndRequested("ended") << effects.CancelServer << effects.ToClient
    play << to_server(frontend.TERMINATE) << effects.Close
    assert play.trail[-1]["outcome"]["sqlstate"] == "57P01"
