"""One mutated conversation with a session, sans I/O: everything is slow, fails now and then, comes in any pieces."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from classifier.classify import classify
from classifier.model import Classification, Environment
from pgproxy.session import effects, events
from pgproxy.session.ports import ApprovalRequest
from pgproxy.session.states import GateState
from tests.fuzz import mutations, seeds
from tests.fuzz.server import Claim, SqlServer
from tests.pgproxy.session.playbook import Cache
from tests.pgproxy.session.world import World

MARK = b"select 424242"
SETTLES_IN = 20_000


class Hang(Exception):
    """The session neither ended nor answered."""


class Left(Exception):
    """Something stayed behind: a request, an approval, a session."""


@lru_cache(maxsize=4_000)
def classified(text: str, environment: Environment) -> Classification:
    return classify(text, environment)


class RealCache(Cache):
    """The real classifier, whose answers come at once or (empty) have to be awaited."""

    def lookup(self, text: str, environment: Environment) -> Classification | None:
        return None if self.empty else classified(text, environment)


class FuzzWorld(World):
    server: SqlServer

    def make_cache(self, seed: int) -> Cache:
        return RealCache(empty=bool(seed % 2))

    def make_server(self) -> SqlServer:
        return SqlServer()

    def classify(self, text: str, environment: Environment) -> Classification:
        return classified(text, environment)

    def spend(self, request: ApprovalRequest) -> None:
        executes = request.context.get("executes", {})
        shown = {text for texts in executes.values() for text in texts}
        self.server.claims.append(Claim(request.sha256, [p["value"] for p in request.params], shown))

    def perform(self, effect: effects.Effect) -> None:
        super().perform(effect)
        if isinstance(effect, effects.ClaimApproval) and self.fail and self.status[effect.id] == "approved":
            self.status[effect.id] = "in doubt"  # of which the gateway disposes

    def watch(self) -> None:
        """The server itself watches."""


@dataclass(frozen=True)
class Case:
    """What `number` of a run with this `seed` is made of; the same each time."""

    seed: int
    number: int

    def chance(self, what: str) -> random.Random:
        return random.Random(f"{self.seed} {self.number} {what}")  # a string: the same in every process


@dataclass(frozen=True)
class Circumstances:
    """Everything but the messages."""

    world_seed: int
    approve: float
    fail: float
    patience: float
    chunks: tuple[int, ...]
    happens: str  # in the middle of it
    moment: float


def messages_of(case: Case, corpus: list[seeds.Seed]) -> list[bytes]:
    chance = case.chance("messages")
    one, other = chance.choice(corpus), chance.choice(corpus)
    plain = [m for m in one.messages if m is not None and m[:1] != b"X"]
    long = max(0, len(plain) - 30)
    begin = chance.randrange(long + 1)
    return mutations.mutated(
        chance, plain[begin : begin + 30], [m for m in other.messages if m is not None and m[:1] != b"X"]
    )


def circumstances_of(case: Case) -> Circumstances:
    chance = case.chance("circumstances")
    happens = chance.choice(
        ["nothing"] * 10 + ["cancel", "cancel", "half closed", "lost", "terminate", "ended", "server lost"]
    )
    return Circumstances(
        world_seed=chance.randrange(2**32),
        approve=chance.choice([1.0, 1.0, 0.5, 0.0]),
        fail=chance.choice([0.0, 0.0, 0.0, 0.2]),
        patience=chance.choice([0.0, 0.5, 0.9]),
        chunks=chance.choice([(1 << 20,), (1 << 20,), (1, 3, 11, 60), (200,)]),
        happens=happens,
        moment=chance.random(),
    )


def is_whole(stream: bytes) -> bool:
    """Whether it ends between messages, if every length in it is taken at its word."""
    position = 0
    while position + 5 <= len(stream):
        position += 1 + int.from_bytes(stream[position + 1 : position + 5], "big")
    return position == len(stream)


def hold(messages: list[bytes], how: Circumstances, counts: Counter[str]) -> None:
    """The conversation and its end. Raises Leak, Hang, Left, or whatever broke."""
    world = FuzzWorld(how.world_seed, approve=how.approve, fail=how.fail)
    chance = random.Random(how.world_seed)
    stream = b"".join(messages)
    cut = len(stream) if how.happens == "nothing" else len(b"".join(messages[: int(len(messages) * how.moment)]))
    _talk(world, stream[:cut], how, chance)
    goes_on = _happen(world, how.happens)
    if goes_on:
        _talk(world, stream[cut:], how, chance)
        _settle(world)
        world.fail = 0.0
        if not world.closed and is_whole(stream):
            _must_answer(world)
            counts["sessions that answered to the end"] += 1
        else:
            counts["sessions closed for a violation" if world.closed else "sessions left in mid-message"] += 1
        world.handle(events.ClientClosed(lost=True))
    else:
        counts[f"sessions: {how.happens}"] += 1
    _settle(world)
    if not world.closed and not world.server_gone:
        world.server_gone = True
        world.handle(events.ServerClosed())  # as the relay's timer does to a server that does not hang up
        _settle(world)
    _nothing_left(world)
    _count(world, counts)


def _talk(world: FuzzWorld, data: bytes, how: Circumstances, chance: random.Random) -> None:
    while data and not world.closed:
        size = chance.choice(how.chunks)
        piece, data = data[:size], data[size:]
        world.client(piece)
        while chance.random() < how.patience and world.step():
            pass


def _happen(world: FuzzWorld, what: str) -> bool:
    """Whether the client can go on afterwards."""
    if world.closed or what == "nothing":
        return True
    event: Any = {
        "cancel": events.CancelRequested(),
        "half closed": events.ClientClosed(lost=False),
        "lost": events.ClientClosed(lost=True),
        "terminate": events.FrontendData(mutations.message(b"X", b"")),
        "ended": events.EndRequested("ended by the fuzzer"),
        "server lost": events.ServerClosed(),
    }[what]
    if what == "server lost":
        world.server.alive, world.server_gone = False, True
    world.handle(event)
    return what == "cancel"


def _settle(world: FuzzWorld) -> None:
    for _ in range(SETTLES_IN):
        if not world.step():
            return
    raise Hang("never comes to rest")


def _must_answer(world: FuzzWorld) -> None:
    """Whatever the client was in the middle of, it can get out of it, and is answered then."""
    for _ in range(3):
        world.client(mutations.message(b"f", b"enough\0") + mutations.SYNC)
        _settle(world)
    world.client(mutations.message(b"Q", b"rollback\0"))
    _settle(world)
    before = len(world.to_client)
    world.client(mutations.message(b"Q", MARK + b"\0"))
    _settle(world)
    if world.closed:
        if world.server.alive:
            raise Hang("closed when it was asked to answer")
        return
    if b"424242" not in world.to_client[before:] or world.session.state is not GateState.OPEN:
        raise Hang(f"no answer to the marker, state {world.session.state.name}")


def _nothing_left(world: FuzzWorld) -> None:
    if not world.closed:
        raise Left(f"the session stays behind, state {world.session.state.name}")
    for effect in world.session.final_effects(world.now):
        world.perform(effect)
    left = {i: s for i, s in world.status.items() if s in ("pending", "approved", "executing")}
    if left:
        raise Left(f"requests stay behind: {left}")
    if world.readies() > world.server.readies + 0:
        raise Left("more ReadyForQuery than the server sent")


def _count(world: FuzzWorld, counts: Counter[str]) -> None:
    counts["approvals asked"] += len(world.requests)
    for status in world.status.values():
        counts[f"approvals {status}"] += 1
    counts["privileged statements run, each with its approval"] += world.server.privileged_runs
    counts["ReadyForQuery"] += world.readies()
    for fields in world.errors():
        ours = "pgproxy" if fields.get("M", "").startswith("pgproxy: ") else "server or protocol"
        counts[f"error {fields['C']} ({ours})"] += 1


def play(messages: list[bytes], how: Circumstances, counts: Counter[str]) -> Exception | None:
    """What went wrong, if anything did."""
    try:
        hold(messages, how, counts)
    except Exception as failure:
        return failure
    return None
