"""Session tests as dialogues: `>> event`, `<< effect`.

    play >> sends(query(b"DROP t")) << Record >> Recorded(True) << to_server(query(b"DROP t"))

What follows `<<` is an effect, or a class of which the next effect must be. Effects nobody waits for (RecordSoon,
Decided, Rows, Parked, CatalogChanged) are kept aside: `play.trail` has the audit entries. An effect left over fails the
next `>>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from classifier.model import Classification, Environment
from pgproxy.policy import Identity, Mode, Policy
from pgproxy.protocol import backend, tags
from pgproxy.session import effects, events
from pgproxy.session.context import Context, Limits
from pgproxy.session.effects import Effect
from pgproxy.session.events import Event
from pgproxy.session.hourly import HourlyUse
from pgproxy.session.machine import Session
from pgproxy.session.ports import OpenedApproval, Requester, ResolvedApproval
from pgproxy.session.settings import Settings
from pgproxy.session.states import GateState
from tests.pgproxy.session.stub_classifier import classify

ASIDE = (effects.RecordSoon, effects.Decided, effects.Rows, effects.Parked, effects.CatalogChanged)


def settings(client_encoding: str = "UTF8", server_encoding: str = "UTF8") -> Settings:
    made = Settings("shop")
    for name, value in (
        ("client_encoding", client_encoding),
        ("server_encoding", server_encoding),
        ("standard_conforming_strings", "on"),
        ("server_version", "18.0"),
        ("search_path", "public"),
    ):
        made.reported(name, value)
    return made


@dataclass
class Cache:
    """What the classifier's caches know; `empty` knows nothing, so every text is analysed first."""

    empty: bool = False
    special: dict[str, Classification] = field(default_factory=dict)

    def lookup(self, text: str, environment: Environment) -> Classification | None:
        return None if self.empty else self.special.get(text) or classify(text, environment)


def context(
    *,
    mode: Mode = Mode.ENFORCE,
    owner: str | None = "alice",
    cache: Cache | None = None,
    limits: Limits | None = None,
    notice: bool = True,
    encodings: tuple[str, str] = ("UTF8", "UTF8"),
    policy: Policy | None = None,
    wait: bool = True,
    hourly: HourlyUse | None = None,
) -> Context:
    return Context(
        identity=Identity("bot", owner, "app", "shop"),
        requester=Requester("bot", owner, "app", "shop", "10.0.0.1", "test", "s1"),
        policy=policy or Policy(mode),
        settings=settings(*encodings),
        lookup=(cache or Cache()).lookup,
        nonce="secret",
        console="http://console",
        notice=notice,
        limits=limits or Limits(),
        wait=wait,
        server_pid=4711,
        hourly=hourly or HourlyUse(),
    )


class Playbook:
    def __init__(self, **wanted: Any) -> None:
        self.context = context(**wanted)
        self.session = Session(self.context)
        self.now = 1_700_000_000.0
        self.left: list[Effect] = []
        self.aside: list[Effect] = []
        self.last: Effect | None = None

    def __rshift__(self, event: Event) -> Playbook:
        assert not self.left, f"not expected: {self.left}"
        self.now += 0.001
        for effect in self.session.handle(event, self.now):
            (self.aside if isinstance(effect, ASIDE) else self.left).append(effect)
        return self

    def __lshift__(self, expected: Effect | type[Any] | None) -> Playbook:
        if expected is None:
            assert not self.left, f"not expected: {self.left}"
            return self
        assert self.left, f"nothing left, expected {expected}"
        self.last = self.left.pop(0)
        if isinstance(expected, type):
            assert isinstance(self.last, expected), f"expected {expected}, got {self.last}"
        elif isinstance(expected, effects.ToServer):
            assert isinstance(self.last, effects.ToServer), self.last
            assert self.last.data == expected.data
        else:
            assert self.last == expected
        return self

    @property
    def state(self) -> GateState:
        return self.session.state

    @property
    def trail(self) -> list[Any]:
        return [e.entry for e in self.aside if isinstance(e, effects.RecordSoon)]

    @property
    def recorded(self) -> Any:
        """The entry of the Record effect just seen."""
        assert isinstance(self.last, effects.Record)
        return self.last.entry

    def allowed(self, sent: bytes, forwarded: bytes | None = None) -> Playbook:
        """One judged message that passes."""
        self >> sends(sent) << effects.Record >> events.Recorded(True)
        return self << to_server(sent if forwarded is None else forwarded)

    def parks(self, sent: bytes, id: str = "a1") -> Playbook:
        """One privileged message, up to the notice."""
        self >> sends(sent) << effects.OpenApproval >> opened(id)
        if self.context.notice:
            self << effects.ToClient
        assert self.state is GateState.PARKED
        return self


def sends(*messages: bytes) -> events.FrontendData:
    return events.FrontendData(b"".join(messages))


def answers(*messages: bytes) -> events.BackendData:
    return events.BackendData(b"".join(messages))


def to_server(*messages: bytes) -> effects.ToServer:
    return effects.ToServer(b"".join(messages))


def to_client(*messages: bytes) -> effects.ToClient:
    return effects.ToClient(b"".join(messages))


def opened(id: str = "a1", status: str = "pending") -> events.ApprovalOpened:
    return events.ApprovalOpened(OpenedApproval(id, datetime(2030, 1, 1, tzinfo=UTC), status))


def resolved(status: str, id: str = "a1", comment: str | None = None, **more: Any) -> events.ApprovalResolved:
    return events.ApprovalResolved(ResolvedApproval(id, status, "bob", comment, ("bob",), **more))


def complete(tag: str) -> bytes:
    return b"C" + (len(tag) + 5).to_bytes(4, "big") + tag.encode() + b"\x00"


def ready(status: int = tags.IDLE) -> bytes:
    return backend.ready_for_query(status)


def row(value: bytes = b"1") -> bytes:
    return b"D" + (len(value) + 10).to_bytes(4, "big") + b"\x00\x01" + len(value).to_bytes(4, "big") + value


DESCRIBED = b"T\x00\x00\x00\x06\x00\x00"
PARSED = b"1\x00\x00\x00\x04"
BOUND = b"2\x00\x00\x00\x04"
CLOSED = b"3\x00\x00\x00\x04"
SUSPENDED = b"s\x00\x00\x00\x04"
NO_DATA = b"n\x00\x00\x00\x04"
COPY_IN = b"G\x00\x00\x00\x07\x00\x00\x00"
COPY_DONE = b"c\x00\x00\x00\x04"


def error(sqlstate: str, text: str = "wrong", severity: str = "ERROR") -> bytes:
    return backend.error_response(severity, sqlstate, text)


def copy_data(data: bytes) -> bytes:
    return b"d" + (len(data) + 4).to_bytes(4, "big") + data


def copy_fail(reason: bytes = b"no") -> bytes:
    return b"f" + (len(reason) + 5).to_bytes(4, "big") + reason + b"\x00"


def fields(data: bytes) -> dict[str, str]:
    """Of the first ErrorResponse or NoticeResponse."""
    return backend.read_error(data[: 1 + int.from_bytes(data[1:5], "big")])
