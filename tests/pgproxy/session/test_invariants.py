"""Random conversations against the fake server: the promises hold whatever the client sends and whoever is slow."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgproxy.policy import Mode
from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import events
from pgproxy.session.states import GateState
from tests.pgproxy.session.fake_server import FakeServer
from tests.pgproxy.session.playbook import COPY_DONE, copy_data, copy_fail
from tests.pgproxy.session.rules import limited
from tests.pgproxy.session.world import World, messages_of

NAMES = [b"", b"x", b"y", b"n" * 63, b"n" * 64]
PORTALS = [b"", b"p", b"q"]
HARMLESS = [
    "SELECT 1", "SELECT 2", "ROWS 3", "INSERT", "", "FAIL", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT s",
    "ROLLBACK TO s", "COPY t FROM STDIN", "PREPARE x AS SELECT 3", "PREPARE y AS INSERT", "EXECUTE x", "EXECUTE y",
    "DEALLOCATE x", "DEALLOCATE ALL", "DISCARD ALL", "SET search_path TO other", "SELECT f", "DEFERRED",
]  # fmt: skip
PRIVILEGED = ["DROP t", "COPY t TO STDOUT", "PREPARE x AS DROP u"]
STRINGS = [
    "COPY t FROM STDIN;COPY u FROM STDIN", "COPY t FROM STDIN;SELECT 1", "INSERT;DROP t",
    "DEALLOCATE x;PREPARE x AS INSERT",
    "BEGIN;INSERT", "PREPARE x AS SELECT 1;FAIL", "SELECT 1;SELECT 2", "SELCT", "SELCT;DROP t",
]  # fmt: skip

texts = st.sampled_from([*HARMLESS, *PRIVILEGED, "SELCT"])
names = st.sampled_from(NAMES)
portals = st.sampled_from(PORTALS)
message = st.one_of(
    st.sampled_from([*HARMLESS, *PRIVILEGED, *STRINGS]).map(lambda t: frontend.query(t.encode())),
    st.builds(lambda n, t: frontend.parse(n, t.encode()), names, texts),
    st.builds(frontend.bind, portals, names),
    st.builds(frontend.execute, portals, st.sampled_from([0, 0, 1, 2])),
    st.builds(frontend.describe, st.sampled_from([tags.STATEMENT, tags.PORTAL]), names),
    st.builds(frontend.close, st.sampled_from([tags.STATEMENT, tags.PORTAL]), names),
    # As drivers do it.
    st.builds(
        lambda t: frontend.parse(b"", t.encode()) + frontend.bind(b"", b"") + frontend.execute(b"") + frontend.SYNC,
        texts,
    ),
    st.just(frontend.SYNC),
    st.just(frontend.SYNC),
    st.just(frontend.FLUSH),
    st.just(copy_data(b"1\n")),
    st.just(copy_data(b"BAD")),
    st.just(COPY_DONE),
    st.just(copy_fail()),
)
conversation = st.lists(message, min_size=1, max_size=14)
MARK = b"SELECT 424242"


def marked(seen: list[tuple[int, bytes]]) -> bool:
    return any(kind == tags.DATA_ROW and b"424242" in data for kind, data in seen)


def talk(world: World, messages: list[bytes], chance: random.Random, patience: float) -> None:
    """Sends everything in chunks that know nothing of messages, now and then letting something arrive."""
    data = b"".join(messages)
    while data and not world.closed:
        size = chance.choice([1, 3, 11, 60, len(data)])
        piece, data = data[:size], data[size:]
        world.client(piece)
        while chance.random() < patience and world.step():
            pass


def end_well(world: World) -> None:
    """Whatever the client was in the middle of, it can get out of it, and is answered then."""
    world.settle()
    world.client(copy_fail() + frontend.SYNC)
    world.settle()
    world.client(copy_fail() + frontend.SYNC)
    world.settle()
    world.client(frontend.query(b"ROLLBACK"))
    world.settle()
    world.client(frontend.query(MARK))
    world.settle()
    if not world.closed:
        assert world.session.state is GateState.OPEN
        assert marked(world.seen()), "the session hangs"
    assert world.readies() <= world.server.readies
    assert (not world.pending() and "executing" not in world.status.values()) or world.closed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversation, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([1.0, 0.5, 0.0]))
def test_nothing_privileged_runs_unasked_and_nothing_hangs(
    messages: list[bytes], seed: int, patience: float, approve: float
) -> None:
    world = World(seed, approve=approve)
    talk(world, messages, random.Random(seed), patience)
    end_well(world)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversation, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.9]))
def test_nothing_privileged_runs_unasked_while_store_and_trail_fail(
    messages: list[bytes], seed: int, patience: float
) -> None:
    world = World(seed, approve=0.8, fail=0.3)
    talk(world, messages, random.Random(seed), patience)
    world.fail = 0.0
    end_well(world)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversation, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 400))
def test_a_client_that_leaves_or_cancels_at_any_moment(
    messages: list[bytes], seed: int, patience: float, moment: int
) -> None:
    world = World(seed, approve=0.8)
    chance = random.Random(seed)
    data = b"".join(messages)
    if seed % 5 == 3:  # a Terminate stands between messages
        moment = len(b"".join(messages[: moment % (len(messages) + 1)]))
    talk(world, [data[:moment]], chance, patience)
    if not world.closed:
        match seed % 5:
            case 0:
                world.handle(events.CancelRequested())
            case 1:
                world.handle(events.ClientClosed(lost=True))
            case 2:
                world.handle(events.ClientClosed(lost=False))
            case 3:
                world.client(frontend.TERMINATE)
            case 4:
                world.handle(events.EndRequested("shutting down"))
    if seed % 5 == 0:
        talk(world, [data[moment:]], chance, patience)
        end_well(world)
    else:
        world.settle()
        assert world.closed, "the session stays behind"
        assert not world.pending(), "a request outlives its client"
        assert "executing" not in world.status.values()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversation, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 0.9]))
def test_observe_mode_is_transparent(messages: list[bytes], seed: int, patience: float) -> None:
    direct = FakeServer()
    wire = b"".join(messages) + copy_fail() + frontend.SYNC
    expected = direct.feed(wire)
    world = World(seed, mode=Mode.OBSERVE)
    talk(world, [wire], random.Random(seed), patience)
    world.settle()
    assert not world.requests
    if copy_data(b"BAD") in messages:
        # A Sync in the middle of CopyData is answered or not by whether the server had already failed when it read
        # it; here it is dropped. libpq sends one there, and another behind CopyDone.
        return
    if direct.alive and not world.closed:
        assert world.to_client == expected
        assert world.server.ran == direct.ran
    elif not direct.alive:
        assert world.closed  # a message that has no place in a COPY


LARGE = ["ROWS 3", "ROWS 9", "ROWS 20", "SELECT 1", "BEGIN", "COMMIT", "FAIL", "INSERT", "SAVEPOINT s", "ROLLBACK TO s"]
large_texts = st.sampled_from(LARGE)
streaming = st.one_of(
    st.sampled_from([*LARGE, "BEGIN;ROWS 9;COMMIT", "ROWS 9;INSERT", "ROWS 9;FAIL", "ROWS 5;COPY t FROM STDIN"]).map(
        lambda t: frontend.query(t.encode())
    ),
    st.builds(
        lambda t, n: frontend.parse(b"", t.encode()) + frontend.bind(b"", b"") + frontend.execute(b"", n),
        large_texts,
        st.sampled_from([0, 0, 2, 4]),
    ),
    st.builds(lambda p, n: frontend.execute(p, n), portals, st.sampled_from([0, 1, 4])),
    st.builds(lambda t: frontend.parse(b"x", t.encode()), large_texts),
    st.builds(frontend.bind, portals, st.just(b"x")),
    st.builds(frontend.close, st.sampled_from([tags.STATEMENT, tags.PORTAL]), names),
    st.builds(frontend.describe, st.just(tags.PORTAL), portals),
    st.just(frontend.SYNC),
    st.just(frontend.SYNC),
    st.just(frontend.FLUSH),
)
streams = st.lists(streaming, min_size=1, max_size=12)
PATIENCE = st.sampled_from([0.0, 0.5, 0.9])


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, st.integers(0, 2**32), PATIENCE, st.sampled_from([0.5, 0.0]), st.sampled_from([0.0, 0.3]))
def test_after_any_budget_stop_the_conversation_goes_on(
    messages: list[bytes], seed: int, patience: float, approve: float, fail: float
) -> None:
    world = World(seed, approve=approve, fail=fail, lazy=True, policy=limited(2))
    talk(world, messages, random.Random(seed), patience)
    world.fail = 0.0
    end_well(world)
    assert world.session.state is GateState.OPEN or world.closed
    if approve == 0.0:
        # Of each result no more than its budget, and an error for each that was stopped.
        assert world.rows_of_results() <= 2 * sum(t.startswith("ROWS") for t in world.server.ran)
        refused = [e for e in world.errors() if e["M"].startswith("pgproxy: ")]
        assert len(refused) >= sum(s == "denied" for s in world.status.values())


def alike(seen: list[tuple[int, bytes]]) -> list[tuple[int, bytes | str]]:
    """Of errors the SQLSTATE alone: of a name that nobody prepared pgproxy says so itself, in other words."""
    return [(k, backend.read_error(d)["C"] if k == tags.ERROR_RESPONSE else d) for k, d in seen]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, st.integers(0, 2**32), PATIENCE)
def test_an_approved_rest_is_the_servers_own_answer(messages: list[bytes], seed: int, patience: float) -> None:
    direct = FakeServer(lazy=True)
    wire = b"".join(messages) + copy_fail() + frontend.SYNC
    expected = direct.feed(wire)
    while direct.is_streaming:
        expected += direct.pump()
    world = World(seed, approve=1.0, lazy=True, policy=limited(2))
    talk(world, [wire], random.Random(seed), patience)
    world.settle()
    if direct.alive and not world.closed:
        assert alike(world.seen()) == alike(messages_of(expected))
        assert world.server.ran == direct.ran
        # The approval of a portal lasts as long as the portal, and that as long as its transaction.
        in_transaction = world.session.transaction_status != "I"
        assert set(world.status.values()) <= {"executed", "failed"} | ({"executing"} if in_transaction else set())
    elif not direct.alive:
        assert world.closed


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, st.integers(0, 2**32), PATIENCE, st.integers(0, 300))
def test_a_client_that_leaves_or_cancels_while_a_result_is_held(
    messages: list[bytes], seed: int, patience: float, moment: int
) -> None:
    world = World(seed, approve=0.5, lazy=True, policy=limited(2))
    chance = random.Random(seed)
    talk(world, messages, chance, patience)
    for _ in range(moment % 60):
        world.step()
    if not world.closed:
        match seed % 5:
            case 0 | 1:
                world.handle(events.CancelRequested())
            case 2:
                world.handle(events.ClientClosed(lost=True))
            case 3:
                world.client(frontend.TERMINATE)
            case 4:
                world.handle(events.EndRequested("shutting down"))
    if seed % 5 < 2:
        end_well(world)
        return
    world.settle()
    assert world.closed, "the session stays behind"
    assert not world.pending(), "a request outlives its client"
    assert "executing" not in world.status.values()


@pytest.mark.parametrize("privileged", range(5))
@pytest.mark.parametrize("patience", [0.0, 0.5, 1.0])
def test_one_of_five_in_a_pipeline(privileged: int, patience: float) -> None:
    world = World(4, approve=1.0)
    batch = b""
    for position in range(5):
        text = b"DROP t" if position == privileged else b"SELECT %d" % position
        batch += frontend.parse(b"", text) + frontend.bind(b"", b"") + frontend.execute(b"")
    talk(world, [batch + frontend.SYNC], random.Random(4), patience)
    world.settle()
    assert world.server.ran == ["DROP t" if i == privileged else f"SELECT {i}" for i in range(5)]
    assert world.readies() == 1 and not world.errors()
    assert list(world.status.values()) == ["executed"]


def test_the_fake_server_answers_like_the_real_one() -> None:
    """Kept beside its twin against a real server in tests/pgproxy/net."""
    server = FakeServer()
    assert server.feed(frontend.query(b"COPY t FROM STDIN"))[:1] == b"G"
    said = server.feed(frontend.query(b"SELECT 1"))
    assert b"08P01" in said and not server.alive
    assert backend.read_error(said[: 1 + int.from_bytes(said[1:5], "big")])["S"] == "ERROR"
