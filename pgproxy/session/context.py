"""What the parts of one session share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from classifier.model import Classification, Environment
from pgproxy.errors import ProxyError
from pgproxy.policy import Identity, Policy, PolicyInForce
from pgproxy.protocol import frontend
from pgproxy.session.effects import Effect, ToServer
from pgproxy.session.ports import Requester
from pgproxy.session.replies import Replies
from pgproxy.session.runs import StatementRun
from pgproxy.session.settings import Settings
from pgproxy.session.statements import Statements
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit

Lookup = Callable[[str, Environment], Classification | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one session's memory, in bytes. Precedents: the server's own message limit is 1 GB, PgBouncer's
    default `max_packet_size` 2 GB; a statement a human is to read is far below either."""

    statement_bytes: int = 16 << 20
    message_bytes: int = 64 << 20  # of a message that has to be kept whole
    parked_backlog_bytes: int = 16 << 20
    # unjudged input kept before the client is no longer read (nothing is parked then)
    input_bytes: int = 1 << 20
    # A Query, Parse, Bind or FunctionCall beyond `large_bytes` comes in stretches, behind a head, which has room for
    # two names and the 65,535 format codes of a Bind.
    large_bytes: int = 1 << 20
    head_bytes: int = 256 << 10


@dataclass(slots=True)
class Context:
    """One session's parts. `nonce` is a secret of this session, so that no client can forge a substitute's echo."""

    identity: Identity
    requester: Requester
    policy: Policy  # of the statement under judgement: one, from its beginning to its record
    settings: Settings
    lookup: Lookup
    nonce: str
    console: str
    notice: bool = True
    limits: Limits = field(default_factory=Limits)
    replication: str | None = None  # `true` or `database`, as the server was asked for it
    policies: PolicyInForce | None = None  # where a newer one is found
    admission: Unit | None = None  # what let a replication connection begin
    fatal: ProxyError | None = None  # ends the session, in place of an answer
    draining: str | None = None  # why the session is to end at the next opportunity
    now: float = 0.0
    state: GateState = GateState.OPEN
    effects: list[Effect] = field(default_factory=list)
    statements: Statements = field(default_factory=Statements)
    replies: Replies = field(init=False)
    ended: list[StatementRun] = field(default_factory=list)
    client_gone: bool = False  # has said goodbye, or sends no more; it may still read
    client_lost: bool = False  # and does not read any more either
    abandoned: bool = False  # a statement died with its client: nothing behind it runs either
    segment: int = 0  # Syncs and Queries sent so far
    _statements_seen: int = 0
    _nonces: int = 0

    def __post_init__(self) -> None:
        self.replies = Replies(self.statements, self.ended.append)

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def take_up_policy(self) -> None:
        """No statement is under judgement: the next is judged by the policy of now."""
        if self.policies is not None:
            self.policy = self.policies.current

    def settle(self) -> bool:
        """Whether every reply is in; if not, ask the server for them and wait."""
        if self.replies.settled:
            return True
        if self.replies.needs_flush:
            self.emit(ToServer(frontend.FLUSH))
            self.replies.flushed()
        self.state = GateState.SETTLING
        return False

    def next_statement_id(self) -> str:
        self._statements_seen += 1
        return f"{self.requester.session_id}-{self._statements_seen}"

    def next_nonce(self) -> str:
        """Each is a secret of its own: other sessions of the same user see one in pg_stat_activity, and whoever
        knew the next one could make what a substitute relies on not to exist."""
        self._nonces += 1
        return hashlib.sha256(f"{self.nonce} {self._nonces}".encode()).hexdigest()[:24]
