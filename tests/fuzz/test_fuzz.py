"""A short run, always the same; what a long one found, as regression cases; and the fuzzer's own eyes."""

from __future__ import annotations

from collections import Counter

import pytest

from pgproxy.session.machine import Session
from tests.fuzz import mutations, oracle, run, seeds, shrink
from tests.fuzz.conversation import Circumstances, FuzzWorld, Hang, play
from tests.fuzz.seeds import message
from tests.fuzz.server import Leak, ServerError, SqlServer, translated

CALM = Circumstances(4, approve=0.0, fail=0.0, patience=0.5, chunks=(1 << 20,), happens="nothing", moment=0.0)


def q(sql: bytes) -> bytes:
    return message(b"Q", sql + b"\0")


@pytest.mark.parametrize("seed", [2, 3])
def test_a_short_run_sans_io(seed: int) -> None:
    counts = Counter[str]()
    assert run.sans_io(run.Cases(seeds.load(), seed), 8_000, counts) == []
    assert counts["privileged statements run, each with its approval"] > 50
    assert counts["approvals denied"] > 20 and counts["approvals withdrawn"] > 5
    assert counts["sessions that answered to the end"] > 80


async def test_a_short_run_over_sockets(caplog: pytest.LogCaptureFixture) -> None:
    counts = Counter[str]()
    failures = await run.over_sockets(run.Cases(seeds.load(), 4), 3_000, counts)
    assert failures == [], failures[0].told()
    assert counts["privileged statements run, each with its approval"] > 20
    assert counts["sessions that answered to the end"] > 30
    assert not [r for r in caplog.records if "internal error" in r.message]


async def test_first_packets() -> None:
    counts = Counter[str]()
    failures = await run.start_ups(seeds.load(), 5, 400, counts)
    assert failures == [], failures[0].told()
    assert counts["start-ups that made a session"] > 20 and counts["start-ups refused 28000"] > 10


# what runs have found, made small

FOUND = {
    "a portal of EXECUTE whose name was made anew": [
        mutations.parse(b"x", b"insert into t values (1)"),
        mutations.parse(b"e", b"execute x"),
        q(b"begin"),
        mutations.bind(b"p", b"e"),
        q(b"deallocate all"),
        mutations.parse(b"x", b"DELETE FROM leak_7"),
        mutations.execute(b"p"),
    ],
    "the same with an unnamed portal, closed and parsed in one batch": [
        mutations.parse(b"x", b"insert into t values (1)"),
        mutations.parse(b"e", b"execute x"),
        q(b"begin"),
        mutations.bind(b"", b"e"),
        message(b"C", b"Sx\0"),
        mutations.parse(b"x", b"DELETE FROM leak_7"),
        mutations.execute(b""),
    ],
    "a PREPARE that was bound and never executed": [
        mutations.parse(b"", b"prepare x as select 1"),
        mutations.parse(b"x", b"; EXPLAIN ANALYZE DELETE FROM leak_756"),
        mutations.bind(b"p", b""),
        mutations.SYNC,
        q(b"execute x"),
        mutations.SYNC,
    ],
}


@pytest.mark.parametrize("messages", FOUND.values(), ids=FOUND)
@pytest.mark.parametrize("approve", [0.0, 1.0])
def test_found_once(messages: list[bytes], approve: float) -> None:
    for world_seed in range(6):
        how = Circumstances(world_seed, approve, 0.0, 0.5, (1 << 20,), "nothing", 0.0)
        error = play(messages, how, Counter())
        assert error is None, error


# the fuzzer sees


def fed(*messages: bytes) -> SqlServer:
    server = SqlServer()
    server.feed(b"".join(messages))
    return server


@pytest.mark.parametrize("form", oracle.FORMS)
def test_the_server_cries_out_at_every_privileged_text(form: str) -> None:
    sql = form.format(1).encode()
    for messages in (
        [q(sql)],
        [q(b"begin; " + sql + b"; select 1")],
        [q(b"/* a */ " + sql.lower() + b" -- b")],
        [mutations.parse(b"x", sql), mutations.bind(b"", b"x")],
        [mutations.parse(b"x", sql), q(b"execute x")],
        [mutations.parse(b"x", sql), mutations.parse(b"", b"execute x"), mutations.bind(b"", b"")],
    ):
        with pytest.raises(Leak):
            fed(*messages)


def test_what_is_quoted_or_only_named_is_no_leak() -> None:
    fed(
        q(b"select 'DROP TABLE leak_1'; select 1 -- DROP TABLE leak_1"),
        q(b"select $a$; DROP TABLE leak_1; $a$ /* ; DROP TABLE leak_1; /* */ */"),
        mutations.parse(b"x", b"DROP TABLE leak_1"),
        mutations.SYNC,
        q(b"copy t from stdin"),
        message(b"d", q(b"DROP TABLE leak_1")),
    )


def test_an_approval_serves_once_and_for_its_own_bytes_and_values() -> None:
    world = FuzzWorld(4, approve=1.0)
    for _ in range(2):
        world.client(q(b"DROP TABLE leak_1"))
        world.settle()
    assert world.server.privileged_runs == 2 and not world.server.claims
    with pytest.raises(Leak):
        world.server.feed(q(b"DROP TABLE leak_1"))


def test_a_session_that_forwards_everything_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pgproxy.session.judgement.policy.decide", lambda *_: __import__("pgproxy.policy").policy.Forward("rule")
    )
    assert isinstance(play([q(b"select 1"), q(b"DROP TABLE leak_1")], CALM, Counter()), Leak)


def test_a_session_that_stops_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "on_recorded", lambda *_: None)
    assert isinstance(play([q(b"select 1")], CALM, Counter()), Hang)


def test_a_failure_is_made_small() -> None:
    noise = [q(b"select %d" % i) for i in range(20)]
    bad = [q(b"one"), q(b"two")]
    assert shrink.shrunk([*noise[:7], bad[0], *noise[7:], bad[1]], lambda ms: all(b in ms for b in bad)) == bad


def test_seeds_are_what_was_recorded() -> None:
    corpus = {s.name: s for s in seeds.load()}
    kinds = {chr(m[0]) for s in corpus.values() for m in s.messages if m is not None}
    assert kinds >= set("QPBEDCSHXdcfF")
    for seed in corpus.values():
        kept = [m for m in seed.messages]
        assert seeds.read(seed.name, seeds.written(seed.first, kept, "again")) == seed


def test_translated_refuses_what_is_no_sql() -> None:
    with pytest.raises(ServerError):
        translated("selct 1")
