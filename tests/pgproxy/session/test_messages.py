"""Every state by every message, known or not, whole or malformed; and conversations cut at every byte."""

from __future__ import annotations

import pytest

from pgproxy.protocol import frontend, tags
from pgproxy.protocol.body import message
from pgproxy.protocol.framing import FRONTEND_TYPES
from pgproxy.session import events
from pgproxy.session.holding import HELD
from pgproxy.session.states import GateState
from tests.pgproxy.session.fake_server import FakeServer
from tests.pgproxy.session.playbook import COPY_DONE, copy_data, copy_fail
from tests.pgproxy.session.rules import Ruled, limited
from tests.pgproxy.session.test_invariants import MARK, end_well, marked
from tests.pgproxy.session.world import World

DROP, SELECT = frontend.query(b"DROP t"), frontend.query(b"SELECT 1")
PASSWORD = message(tags.PASSWORD, b"secret\0")
EXAMPLES: dict[int, list[bytes]] = {
    tags.QUERY: [SELECT, DROP, frontend.query(b""), frontend.query(b"SELCT")],
    tags.PARSE: [frontend.parse(b"", b"SELECT 1"), frontend.parse(b"x", b"DROP t")],
    tags.BIND: [frontend.bind(b"", b""), frontend.bind(b"p", b"none")],
    tags.EXECUTE: [frontend.execute(b""), frontend.execute(b"none", 7)],
    tags.DESCRIBE: [frontend.describe(tags.STATEMENT, b""), frontend.describe(tags.PORTAL, b"none")],
    tags.CLOSE: [frontend.close(tags.STATEMENT, b""), frontend.close(tags.PORTAL, b"none")],
    tags.SYNC: [frontend.SYNC],
    tags.FLUSH: [frontend.FLUSH],
    tags.FUNCTION_CALL: [message(tags.FUNCTION_CALL, b"\0\0\x03\xb9" + bytes(6))],
    tags.COPY_DATA: [copy_data(b"1\n"), copy_data(DROP)],
    tags.COPY_DONE: [COPY_DONE],
    tags.COPY_FAIL: [copy_fail()],
    tags.PASSWORD: [PASSWORD],
    tags.TERMINATE: [frontend.TERMINATE],
}
# What the server, too, takes for the end of the conversation.
MALFORMED = [
    message(tags.QUERY, b"no end"),
    message(tags.QUERY, b"a\0b\0"),
    message(tags.PARSE, b"\0SELECT 1\0\0"),
    message(tags.PARSE, b"\0SELECT 1\0\0\1"),
    message(tags.PARSE, b"\0SELECT 1\0\0\0\0"),
    message(tags.BIND, b"\0\0\0\0\0\1\0\0"),
    message(tags.BIND, b"\0\0\0\0\0\1\x7f\xff\xff\xff\0\0"),
    message(tags.BIND, b"\0\0\xff\xff"),
    message(tags.EXECUTE, b"\0\0\0"),
    message(tags.DESCRIBE, b"X\0"),
    message(tags.DESCRIBE, b"S"),
    message(tags.CLOSE, b""),
    message(tags.SYNC, b"x"),
    message(tags.FLUSH, b"x"),
    message(tags.FUNCTION_CALL, b"\0\0\0\1"),
    b"Q\0\0\0\3",
    b"S\xff\xff\xff\xff",
]
WAITING = [s for s in GateState if s not in (GateState.OPEN, GateState.LEAVING, GateState.CLOSED)]


LATER = (GateState.COMPARING, *HELD, GateState.STOPPING)


def brought_to(state: GateState) -> World:
    """A session that has come into this state the ordinary way; what it waits for is on its way."""
    approve = 0.0 if state is GateState.STOPPING else 1.0
    rules = Ruled(estimates=True) if state is GateState.ESTIMATING else limited(1)
    world = World(5 if state is GateState.ANALYSING else 4, approve=approve, lazy=True, policy=rules)
    match state:
        case GateState.ANALYSING | GateState.RECORDING | GateState.ESTIMATING:
            world.client(SELECT)
        case GateState.COMPARING:
            world.changes = {"DROP t": "DROP u"}
            world.client(frontend.parse(b"", b"DROP t") + frontend.bind(b"", b""))
        case GateState.HELD_OPENING | GateState.HELD_PARKED | GateState.HELD_CLAIMING | GateState.STOPPING:
            world.client(frontend.query(b"ROWS 9"))
        case GateState.SETTLING:
            world.client(SELECT)
            world.step()
            world.client(DROP)
        case GateState.PROBING:
            world.client(frontend.query(b"SELCT"))
        case GateState.OPENING:
            world.client(DROP)
        case GateState.PARKED:
            world.client(DROP)
            world.step()
        case GateState.CLAIMING:
            world.client(DROP)
            for _ in range(3):  # the request is there, a human approves, the trail has it
                world.step()
        case GateState.LEAVING:
            world.client(SELECT)
            world.step()
            world.client(frontend.TERMINATE)
        case GateState.CLOSED:
            world.client(frontend.TERMINATE)
        case GateState.OPEN:
            pass
    if state in LATER:
        for _ in range(200):
            if world.session.state is state:
                break
            world.step()
    assert world.session.state is state
    return world


def ends_with(world: World, sqlstate: str) -> None:
    world.settle()
    assert world.closed and world.errors()[-1]["C"] == sqlstate and world.errors()[-1]["S"] == "FATAL"
    assert not world.server.alive, "the server was told to go"
    assert not world.pending() and "executing" not in world.status.values()


@pytest.mark.parametrize("state", GateState, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", sorted(EXAMPLES), ids=chr)
def test_every_state_and_every_message(state: GateState, kind: int) -> None:
    for sent in EXAMPLES[kind]:
        world = brought_to(state)
        before = world.server.received
        # Not through World, which says nothing more to a session that is closed.
        for effect in world.session.handle(events.FrontendData(sent), 1.0):
            world.perform(effect)
        if state in WAITING:
            assert world.server.received.removesuffix(frontend.TERMINATE) == before, "sent while something is awaited"
        if state in (GateState.LEAVING, GateState.CLOSED):
            assert world.server.received == before and world.session.state is state
            world.settle()
            assert world.closed
            continue
        if kind == tags.PASSWORD:
            ends_with(world, "08P01")
        elif kind == tags.TERMINATE:
            world.settle()
            assert world.closed and not world.server.alive
            assert "FATAL" not in [e["S"] for e in world.errors()]
            assert "DROP t" not in world.server.ran and not world.pending()
        else:
            end_well(world)
            assert not world.closed


@pytest.mark.parametrize("state", [GateState.OPEN, *WAITING], ids=lambda s: s.name)
def test_every_state_and_every_byte_that_is_no_type(state: GateState) -> None:
    for tag in set(range(256)) - set(FRONTEND_TYPES):
        world = brought_to(state)
        world.client(message(tag, b"body"))
        assert world.closed, "known at once, whatever is awaited"
        ends_with(world, "08P01")
        assert "DROP t" not in world.server.ran


@pytest.mark.parametrize("state", [GateState.OPEN, *WAITING], ids=lambda s: s.name)
@pytest.mark.parametrize("sent", MALFORMED, ids=repr)
def test_every_state_and_malformed_messages(state: GateState, sent: bytes) -> None:
    world = brought_to(state)
    before = world.server.received
    world.client(sent + SELECT)
    if state in WAITING and not world.closed:
        assert world.server.received == before
    world.settle()
    assert world.errors()[-1]["C"] in ("08P01", "22021")
    ends_with(world, world.errors()[-1]["C"])
    assert world.server.ran.count("SELECT 1") <= 1, "what comes behind a malformed message does not run"


@pytest.mark.parametrize("kind", sorted(EXAMPLES), ids=chr)
@pytest.mark.parametrize("protocol", ["simple", "extended"])
def test_every_message_during_copy_from_stdin(kind: int, protocol: str) -> None:
    copy = b"COPY t FROM STDIN"
    begin = frontend.query(copy)
    if protocol == "extended":
        begin = frontend.parse(b"", copy) + frontend.bind(b"", b"") + frontend.execute(b"") + frontend.FLUSH
    for sent in EXAMPLES[kind]:
        world = World(4, approve=0.0)
        world.client(begin)
        world.settle()
        world.client(sent)
        world.settle()
        if kind in (tags.COPY_DATA, tags.COPY_DONE, tags.COPY_FAIL, tags.SYNC, tags.FLUSH):
            end_well(world)
            assert not world.closed
        elif kind == tags.TERMINATE:
            assert world.closed and not world.errors()
        else:  # the server ends the connection, too ("COPY Operations")
            ends_with(world, "08P01")
        assert world.server.ran[:1] == ["COPY t FROM STDIN"] and "DROP t" not in world.server.ran


CONVERSATIONS = {
    "strings": [SELECT, frontend.query(b"SELECT 1;FAIL;SELECT 2"), DROP, frontend.query(b"SELECT 3")],
    "pipeline": [
        frontend.parse(b"", b"SELECT 1") + frontend.bind(b"", b"") + frontend.execute(b""),
        frontend.parse(b"x", b"DROP t") + frontend.bind(b"", b"x") + frontend.execute(b"") + frontend.SYNC,
        frontend.bind(b"", b"none") + frontend.execute(b"") + frontend.parse(b"", b"SELECT 2") + frontend.SYNC,
        frontend.bind(b"", b"x") + frontend.execute(b"") + frontend.SYNC,
    ],
    "copy": [
        frontend.query(b"COPY t FROM STDIN"),
        copy_data(b"1\n") + copy_data(b"2\n") + COPY_DONE,
        frontend.parse(b"", b"COPY t FROM STDIN") + frontend.bind(b"", b"") + frontend.execute(b""),
        copy_data(b"3\n") + COPY_DONE + frontend.SYNC,
        frontend.query(b"COPY t TO STDOUT"),
    ],
    "names": [
        frontend.query(b"PREPARE x AS SELECT 1") + frontend.query(b"EXECUTE x") + frontend.query(b"DEALLOCATE x"),
        frontend.parse(b"x", b"DROP t") + frontend.SYNC + frontend.query(b"EXECUTE x"),
        frontend.close(tags.STATEMENT, b"x") + frontend.SYNC + frontend.query(b"EXECUTE x"),
    ],
}


def held(pieces: list[bytes]) -> tuple[list[str], list[str], list[tuple[int, bytes]], list[str]]:
    """What ran, what was bound, what the client got, what a human was asked."""
    world = World(4)
    for piece in pieces:
        world.client(piece)
        world.settle()
    world.client(frontend.query(MARK))
    world.settle()
    assert marked(world.seen())
    heard = [(kind, b"" if kind == tags.DATA_ROW else data) for kind, data in world.seen()]
    return world.server.ran, world.server.bound, heard, [r.sql for r in world.requests.values()]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_cut_at_every_byte_is_the_same(name: str) -> None:
    whole = b"".join(CONVERSATIONS[name])
    expected = held([whole])
    assert expected[0] and expected[3], "something ran, and a human was asked"
    for at in range(1, len(whole)):
        assert held([whole[:at], whole[at:]]) == expected, f"cut at {at}"
    assert held([whole[i : i + 1] for i in range(len(whole))]) == expected


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_answers_cut_at_every_byte_are_the_same(name: str) -> None:
    whole = b"".join(CONVERSATIONS[name])
    world = World(4)
    world.client(whole)
    world.settle()
    for size in (1, 2, 3, 4, 5, 6, 7, 50):
        other = World(4)
        other.client(whole)
        while other.coming or other.from_server or other.pending():
            if other.from_server:
                piece, other.from_server = other.from_server[:size], other.from_server[size:]
                other.handle(events.BackendData(piece))
            else:
                other.step()
        assert other.to_client == world.to_client and other.server.ran == world.server.ran


def test_the_fake_server_knows_every_type_this_does() -> None:
    assert set(EXAMPLES) == set(FRONTEND_TYPES)
    assert FakeServer().feed(PASSWORD)[:1] == b"E"
