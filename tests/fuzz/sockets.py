"""The same over sockets: a real Listener and its Relays before a listening fake server.

A client sends its conversation in pieces while a person decides, a store and a trail fail now and then, and somebody
cancels. Afterwards the connection is closed, or a Sync and a marker are answered; and once the client has gone, nothing
of it is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from classifier.classify import classify
from classifier.model import Classification, Environment
from pgproxy.metrics import NullMetrics
from pgproxy.net.errands import Errands
from pgproxy.net.listener import Listener, ListenerOptions, Terms
from pgproxy.net.ports import Parking, Services
from pgproxy.net.startup import Access
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode, Policy
from pgproxy.protocol import backend
from pgproxy.session.ports import (
    ApprovalRequest,
    AuditUnavailable,
    OpenedApproval,
    ResolvedApproval,
    StoreUnavailable,
)
from tests.fuzz import mutations, seeds
from tests.fuzz.conversation import MARK, Circumstances, Hang, Left, classified, is_whole
from tests.fuzz.server import Claim, Leak, SqlServer

PATIENCE_S = 20.0
OK = seeds.message(b"R", b"\0\0\0\0")


# Of what may never arrive in a StartupMessage.
FORBIDDEN = (b"role", b"session_authorization", b"session_replication_role", b"standard_conforming_strings")


def watch(packet: bytes) -> None:
    """The StartupMessage that the server gets (without its length word). Raises Leak."""
    words = packet[4:].split(b"\0")
    names = [w.lower() for w in words[0::2]]
    options = words[words.index(b"options") + 1].lower() if b"options" in words[0::2] else b""
    for name in FORBIDDEN:
        if name in names or b"-c " + name + b"=" in options or b"--" + name in options or b"-c" + name in options:
            raise Leak(f"the server was told {name!r}: {packet!r}")
    # As a setting's name or among the options; the value of somebody's own setting may say it.
    if any(name.startswith(b"pgproxy.") for name in names) or b"pgproxy." in options:
        raise Leak(f"the server was told what was for pgproxy: {packet!r}")


class Analyzer:
    """Now and then an answer has to be awaited."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def lookup(self, text: str, environment: Environment) -> Classification | None:
        return None if self._chance.random() < 0.2 else classified(text, environment)

    async def analyze(self, text: str, environment: Environment) -> Classification:
        await asyncio.sleep(0)
        return classified(text, environment)


class Trail:
    """Fails as often as it is told to."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.fail = 0.0

    async def append(self, entry: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if self._chance.random() < self.fail:
            raise AuditUnavailable

    def append_soon(self, entry: dict[str, Any]) -> None:
        return None


class Store:
    """A store and the person who decides, at once or a little later."""

    def __init__(self, chance: random.Random, front: Front) -> None:
        self._chance = chance
        self._front = front
        self.fail = 0.0
        self.approve = 1.0
        self.requests: dict[str, ApprovalRequest] = {}
        self.status: dict[str, str] = {}
        self.asked = 0

    def _flaky(self) -> None:
        if self._chance.random() < self.fail:
            raise StoreUnavailable

    async def open(self, request: ApprovalRequest) -> OpenedApproval:
        await asyncio.sleep(0)
        self._flaky()
        self.asked += 1
        id_ = f"a{self.asked}"
        self.requests[id_], self.status[id_] = request, "pending"
        return OpenedApproval(id_, datetime(2030, 1, 1, tzinfo=UTC))

    async def wait(self, approval_id: str) -> ResolvedApproval:
        for _ in range(self._chance.choice([0, 1, 5])):
            await asyncio.sleep(0)
        if self.status[approval_id] == "pending":
            refused = self._chance.choice(["denied", "expired"])
            self.status[approval_id] = "approved" if self._chance.random() < self.approve else refused
        return ResolvedApproval(approval_id, self.status[approval_id], "bob", None, ("bob",))

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        await asyncio.sleep(0)
        if self._chance.random() < self.fail:
            self.status[approval_id] = "in doubt"
            raise StoreUnavailable
        request = self.requests[approval_id]
        ok = self.status[approval_id] == "approved" and request.binding == binding
        if ok:
            self.status[approval_id] = "executing"
            shown = {text for texts in request.context.get("executes", {}).values() for text in texts}
            claim = Claim(request.sha256, [p["value"] for p in request.params], shown)
            self._front.backends[request.requester.application_name].claims.append(claim)
        return ok

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        ok = self.status[approval_id] in ("pending", "approved")
        if ok:
            self.status[approval_id] = "withdrawn"
        return ok

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        self.status[approval_id] = status


@dataclass
class Front:
    """The listening fake server; a backend a connection, found by the application_name the client gave itself."""

    backends: dict[str, SqlServer] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)
    broken: list[Exception] = field(default_factory=list)
    cancels: int = 0
    open: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        name = ""
        try:
            size = int.from_bytes(await reader.readexactly(4), "big")
            packet = await reader.readexactly(size - 4)
            if packet[:4] == b"\x04\xd2\x16\x2e":
                self.cancels += 1
                return
            watch(packet)
            words = packet[4:].split(b"\0")
            name = words[words.index(b"application_name") + 1].decode() if b"application_name" in words else "?"
            server = self.backends[name] = SqlServer()
            writer.write(OK + b"".join(backend.parameter_status(*p) for p in PARAMETERS))
            writer.write(backend.backend_key_data(4711, b"\1\2\3\4") + backend.ready_for_query(ord("I")))
            while server.alive and (data := await reader.read(1 << 16)):
                if b"replication" in words[0::2] and data != seeds.message(b"X", b""):
                    raise Leak(f"{data!r} on a replication connection, which nobody allowed")
                writer.write(server.feed(data))
        except Leak as leak:
            self.leaks.append(leak)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as broken:
            self.broken.append(broken)
        finally:
            self.open -= 1
            writer.close()


PARAMETERS = [
    (b"server_version", b"18.0"),
    (b"client_encoding", b"UTF8"),
    (b"server_encoding", b"UTF8"),
    (b"standard_conforming_strings", b"on"),
    (b"search_path", b"public"),
]


@dataclass
class Stand:
    """Proxy and fake server, for many conversations."""

    port: int
    listener: Listener
    front: Front
    store: Store
    trail: Trail
    services: Services
    number: int = 0

    async def settled(self) -> None:
        """Until nobody is left on either side."""
        async with asyncio.timeout(PATIENCE_S):
            while self.listener.directory.live() or self.front.open:  # noqa: ASYNC110 - a test's patience
                await asyncio.sleep(0)


@asynccontextmanager
async def stand(seed: int) -> AsyncIterator[Stand]:
    chance = random.Random(seed)
    front, trail, errands = Front(), Trail(chance), Errands()
    server = await asyncio.start_server(front.serve, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    store = Store(chance, front)
    upstream = Upstream("127.0.0.1", front.port)
    services = Services(upstream, store, trail, Analyzer(chance), NullMetrics(), errands, Parking(100))

    async def nowhere(_pid: int, _secret: bytes) -> None:
        return None

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    access = Access(Mode.ENFORCE, None, {}, {"agent": "alice"})
    terms = Terms(access, Policy(Mode.ENFORCE), ListenerOptions("http://c"))
    listener = Listener(services, terms, classify, nowhere)
    async with asyncio.TaskGroup() as tasks:
        await listener.start(tasks, sock)
        try:
            yield Stand(sock.getsockname()[1], listener, front, store, trail, services)
        finally:
            listener.stop()
            await errands.close(2)
            server.close()


class Talker:
    """A client that reads all the while, so that nothing ever stands still for its sake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.heard = b""
        self.arrived = asyncio.Event()
        self.closed = False

    async def listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(1 << 16):
                self.heard += data
                self.arrived.set()
        self.closed = True
        self.arrived.set()

    async def until(self, what: bytes, after: int, why: str) -> bool:
        """Whether it came, before the connection ended."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while what not in self.heard[after:] and not self.closed:
                    self.arrived.clear()
                    await self.arrived.wait()
        except TimeoutError:
            raise Hang(f"no answer: {why}; heard {self.heard[-300:]!r}") from None
        return what in self.heard[after:]

    def send(self, data: bytes) -> None:
        if not self.closed and not self.writer.is_closing():
            self.writer.write(data)


def startup(name: str) -> bytes:
    body = b"\0\3\0\0user\0agent\0database\0postgres\0application_name\0" + name.encode() + b"\0\0"
    return (len(body) + 4).to_bytes(4, "big") + body


async def hold(at: Stand, messages: list[bytes], how: Circumstances, counts: Counter[str]) -> None:
    """One conversation. Raises Leak, Hang, Left, or whatever broke."""
    at.number += 1
    name = f"c{at.number}"
    at.store.approve, at.store.fail, at.trail.fail = how.approve, how.fail, how.fail
    before = len(at.store.requests)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
    talker = Talker(reader, writer)
    listening = asyncio.get_running_loop().create_task(talker.listen())
    try:
        talker.send(startup(name))
        if not await talker.until(b"Z\0\0\0\5I", 0, "start-up"):
            raise Hang(f"no session: {talker.heard!r}")
        await _converse(at, talker, messages, how, counts)
    finally:
        writer.close()
        await listening
        at.store.fail = at.trail.fail = 0.0
    try:
        await at.settled()
    except TimeoutError:
        raise Left(f"sessions {_sessions(at)}, connections to the server {at.front.open}") from None
    _judge(at, name, talker, before, counts)


async def _converse(at: Stand, talker: Talker, messages: list[bytes], how: Circumstances, counts: Counter[str]) -> None:
    chance = random.Random(how.world_seed)
    stream = b"".join(messages)
    cut = len(stream) if how.happens == "nothing" else len(b"".join(messages[: int(len(messages) * how.moment)]))
    await _send(talker, stream[:cut], how, chance)
    if how.happens not in ("nothing", "cancel"):
        counts[f"sessions: {how.happens}"] += 1
        match how.happens:
            case "half closed" if not talker.writer.is_closing():
                talker.writer.write_eof()
                await talker.until(b"\0never\0", 0, "the end after a half close")
            case "terminate":
                talker.send(seeds.message(b"X", b""))
            case "ended":
                for session in _sessions(at):
                    at.listener.directory.end(session["id"])
                await talker.until(b"\0never\0", 0, "the end by an administrator")
            case "lost":
                talker.writer.transport.abort()
            case _:
                pass
        return
    if how.happens == "cancel":
        for session in _sessions(at):
            key = backend.read_backend_key_data(_key_of(talker.heard))
            assert at.listener.directory.cancel(*key), session
    await _send(talker, stream[cut:], how, chance)
    at.store.fail = at.trail.fail = 0.0
    if not is_whole(stream):
        counts["sessions left in mid-message"] += 1
        return
    for _ in range(3):
        talker.send(seeds.message(b"f", b"enough\0") + mutations.SYNC)
    talker.send(seeds.message(b"Q", b"rollback\0"))
    talker.send(seeds.message(b"Q", MARK + b"\0"))
    if await talker.until(b"\x06424242", 0, "the marker"):
        counts["sessions that answered to the end"] += 1
    else:
        counts["sessions closed for a violation"] += 1


def _key_of(heard: bytes) -> bytes:
    at = heard.index(b"K\0\0\0")
    return heard[at : at + 1 + int.from_bytes(heard[at + 1 : at + 5], "big")]


def _sessions(at: Stand) -> list[dict[str, Any]]:
    return [live.describe() for live in at.listener.directory.live()]


async def _send(talker: Talker, data: bytes, how: Circumstances, chance: random.Random) -> None:
    while data and not talker.closed:
        size = chance.choice(how.chunks)
        talker.send(data[:size])
        data = data[size:]
        if chance.random() < how.patience:
            await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        await talker.writer.drain()


def _judge(at: Stand, name: str, talker: Talker, before: int, counts: Counter[str]) -> None:
    if at.front.leaks:
        raise at.front.leaks.pop()
    if at.front.broken:
        raise at.front.broken.pop()
    if at.services.parking.occupied:
        raise Left(f"{at.services.parking.occupied} places of parked statements are still taken")
    left = {i: s for i, s in at.store.status.items() if s in ("pending", "approved", "executing")}
    if left:
        raise Left(f"requests stay behind: {left}")
    counts["approvals asked"] += len(at.store.requests)
    for status in at.store.status.values():
        counts[f"approvals {status}"] += 1
    at.store.requests.clear()
    at.store.status.clear()
    server = at.front.backends.pop(name)
    counts["privileged statements run, each with its approval"] += server.privileged_runs
    whole = talker.heard
    while len(whole) >= 5 and len(whole) > int.from_bytes(whole[1:5], "big"):
        size = 1 + int.from_bytes(whole[1:5], "big")
        if whole[:1] == b"E":
            fields = backend.read_error(whole[:size])
            ours = "pgproxy" if fields.get("M", "").startswith("pgproxy: ") else "server or protocol"
            counts[f"error {fields['C']} ({ours})"] += 1
            if fields["C"] == "XX000":
                raise AssertionError("internal error")
        elif whole[:1] == b"Z":
            counts["ReadyForQuery"] += 1
        whole = whole[size:]
