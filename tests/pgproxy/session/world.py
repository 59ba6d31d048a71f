"""A session between a client and the fake server, with everything slow: what the server says, what the store and the
trail answer comes when the scheduler says so. Watches the promises on every byte.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from classifier.model import Classification, Environment
from pgproxy.policy import Mode
from pgproxy.protocol import backend, tags
from pgproxy.protocol.framing import BACKEND_TYPES, Framer
from pgproxy.session import effects, events
from pgproxy.session.events import Event
from pgproxy.session.machine import Session
from pgproxy.session.ports import ApprovalRequest, OpenedApproval, ResolvedApproval
from tests.pgproxy.session.fake_server import FakeServer
from tests.pgproxy.session.playbook import Cache, context
from tests.pgproxy.session.stub_classifier import classify, is_privileged


class World:
    def __init__(
        self, seed: int = 0, *, approve: float = 1.0, fail: float = 0.0, lazy: bool = False, **wanted: Any
    ) -> None:
        self.random = random.Random(seed)
        self.approve = approve
        self.fail = fail  # how often store and trail do not answer
        self.cache = self.make_cache(seed)
        self.session = Session(context(cache=self.cache, **wanted))
        self.server = self.make_server()
        self.server.lazy = lazy
        self.cancels: list[bool] = []  # CancelRequests on their way; whether the session is told of their end
        self.now = 1e9
        self.coming: list[Event] = []  # answers on their way, in any order
        self.from_server = b""
        self.server_gone = False
        self.to_client = b""
        self.closed = False
        self.requests: dict[str, ApprovalRequest] = {}
        self.status: dict[str, str] = {}
        self.claimed: Counter[str] = Counter()  # texts that may run, and how often
        self.withdrawn: list[str] = []
        self.recorded: set[str] = set()
        self.changes: dict[str, str] = {}  # what the reviewer writes in place of a text

    def make_cache(self, seed: int) -> Cache:
        return Cache(empty=bool(seed % 2))

    def make_server(self) -> FakeServer:
        return FakeServer()

    def classify(self, text: str, environment: Environment) -> Classification:
        return classify(text, environment)

    def handle(self, event: Event) -> None:
        self.now += 0.001
        for effect in self.session.handle(event, self.now):
            self.perform(effect)

    def client(self, data: bytes) -> None:
        if not self.closed:
            self.handle(events.FrontendData(data))

    def perform(self, effect: effects.Effect) -> None:
        flaky = self.random.random() < self.fail
        match effect:
            case effects.ToServer(data=data):
                if self.server.alive:
                    self.from_server += self.server.feed(data)
                    self.watch()
            case effects.ToClient(data=data):
                self.to_client += data
            case effects.Analyse(text=text, environment=environment):
                self.coming.append(events.Analysed(self.classify(text, environment)))
            case effects.Estimate():
                self.coming.append(events.Estimated(None if flaky else 7.0))
            case effects.Record(entry=entry):
                if not flaky:
                    self.recorded.add(entry["sql"])
                    self.recorded.add(entry.get("modified_sql", entry["sql"]))
                self.coming.append(events.Recorded(not flaky))
            case effects.RecordSoon(entry=entry):
                if entry["kind"] == "statement":
                    self.recorded.add(entry["sql"])
            case effects.CancelServer():
                self.cancels.append(False)
            case effects.StopServer():
                self.cancels.append(True)
            case effects.OpenApproval(request=request):
                if flaky:
                    self.coming.append(events.ApprovalOpened(None))
                    return
                id_ = f"a{len(self.requests) + 1}"
                self.requests[id_] = request
                self.status[id_] = "pending"
                self.coming.append(events.ApprovalOpened(OpenedApproval(id_, datetime(2030, 1, 1, tzinfo=UTC))))
            case effects.ClaimApproval(id=id_, binding=binding, sha256=sha256):
                request = self.requests[id_]
                bound = request.binding if request.wait else request.retry_binding
                ok = (
                    self.status[id_] == "approved" and binding == bound and sha256 == self.sha256(request) and not flaky
                )
                if ok:
                    self.status[id_] = "executing"
                    self.spend(self.requests[id_])
                self.coming.append(events.ClaimAnswered(None if flaky else ok))
            case effects.WithdrawApproval(id=id_):
                if self.status[id_] in ("pending", "approved"):
                    self.status[id_] = "withdrawn"
            case effects.FinishApproval(id=id_, status=status):
                assert self.status[id_] == "executing", (id_, self.status[id_])
                self.status[id_] = status
            case effects.Close():
                self.closed = True

    def spend(self, request: ApprovalRequest) -> None:
        """An approval was handed out: these texts may run once more."""
        if request.sql in self.changes:
            self.claimed[self.changes[request.sql]] += 1
            return
        shown = request.context.get("executes", {})
        for text in [*request.sql.split(";"), *(t for ts in shown.values() for t in ts)]:
            self.claimed[text.strip()] += 1
            self.claimed[text.partition(" AS ")[2]] += 1

    def sha256(self, request: ApprovalRequest) -> str:
        """Of what was voted on."""
        new = self.changes.get(request.sql)
        return request.sha256 if new is None else hashlib.sha256(new.encode()).hexdigest()

    def watch(self) -> None:
        enforced = self.session._.policy.mode is Mode.ENFORCE
        for what in (self.server.ran, self.server.bound):
            for text, count in Counter(what).items():
                if enforced and is_privileged(text):
                    assert count <= self.claimed[text], f"{text!r} ran unasked"
        for text in self.server.ran:
            assert any(text in sql for sql in self.recorded) or self.is_named(text), f"{text!r} ran unrecorded"

    def is_named(self, text: str) -> bool:
        return any("EXECUTE" in sql for sql in self.recorded) or any("PREPARE" in sql for sql in self.recorded)

    def pending(self) -> list[str]:
        return [i for i, status in self.status.items() if status == "pending"]

    def step(self) -> bool:
        """One thing that was on its way arrives; False when nothing is."""
        choices = []
        if self.coming:
            choices.append("answer")
        if self.cancels:
            choices.append("cancel")
        if self.server.is_streaming and len(self.from_server) < 100:
            choices.append("pump")
        # (What was on its way when the session stopped reading still arrives.)
        held = not self.session.wants_server_data
        if self.from_server and not self.closed and not (held and self.random.random() < 0.9):
            choices.append("server")
        elif not self.server.alive and not self.from_server and not self.server_gone and not self.closed:
            choices.append("gone")
        parked = self.session.is_parked
        waiting = [i for i in self.pending() if parked and not self.coming]
        if waiting and not self.closed:
            choices.append("human")
        if not choices:
            return False
        match self.random.choice(choices):
            case "cancel":
                told = self.cancels.pop(0)
                self.from_server += self.server.cancel()
                if told:
                    self.coming.append(events.ServerCancelled())
            case "pump":
                self.from_server += self.server.pump()
                self.watch()
            case "answer":
                self.handle(self.coming.pop(self.random.randrange(len(self.coming))))
            case "server":
                size = self.random.choice([1, 5, 7, 30, len(self.from_server)])
                piece, self.from_server = self.from_server[:size], self.from_server[size:]
                self.handle(events.BackendData(piece))
            case "gone":
                self.server_gone = True
                self.handle(events.ServerClosed())
            case "human":
                id_ = waiting[-1]
                refused = "denied" if self.approve == 0.0 else self.random.choice(["denied", "expired"])
                status = "approved" if self.random.random() < self.approve else refused
                self.status[id_] = status
                new = self.changes.get(self.requests[id_].sql)
                resolved = ResolvedApproval(id_, status, "bob", None, ("bob",), sql=new, modified_by=new and "bob")
                self.handle(events.ApprovalResolved(resolved))
        return True

    def settle(self) -> None:
        for _ in range(100_000):
            if not self.step():
                return
        raise AssertionError("never comes to rest")

    def seen(self) -> list[tuple[int, bytes]]:
        """What the client got, notices left out."""
        return [(kind, data) for kind, data in messages_of(self.to_client) if kind != tags.NOTICE_RESPONSE]

    def rows_of_results(self) -> int:
        """Rows the client got of ROWS statements."""
        return sum(kind == tags.DATA_ROW and data[11:] == b"r" for kind, data in self.seen())

    def readies(self) -> int:
        return sum(kind == tags.READY_FOR_QUERY for kind, _ in self.seen())

    def errors(self) -> list[dict[str, str]]:
        return [backend.read_error(data) for kind, data in self.seen() if kind == tags.ERROR_RESPONSE]


def messages_of(data: bytes) -> list[tuple[int, bytes]]:
    """What a server said, message by message."""
    return [(kind, one) for kind, one, _ in Framer(b"", 1 << 30, BACKEND_TYPES).feed(data)]
