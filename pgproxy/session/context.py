"""What the parts of one session share."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from classifier.model import Classification, Environment
from pgproxy.errors import ProxyError
from pgproxy.policy import Facts, Identity, Policy, PolicyInForce
from pgproxy.protocol import frontend, tags
from pgproxy.session.annotations import told
from pgproxy.session.budget import Meters
from pgproxy.session.effects import Effect, ToServer
from pgproxy.session.hourly import HourlyUse
from pgproxy.session.ports import Requester
from pgproxy.session.replies import Replies
from pgproxy.session.runs import StatementRun
from pgproxy.session.settings import Settings
from pgproxy.session.statements import Statements
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit

# What a reviewer sees of the session's last statements.
_RECENT = 10
_RECENT_CHARACTERS = 500

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
    wait: bool = True  # for a human, and not only ask: pgproxy.wait
    server_pid: int | None = None
    hourly: HourlyUse = field(default_factory=HourlyUse)
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
    meters: Meters = field(init=False)
    ended: list[StatementRun] = field(default_factory=list)
    client_gone: bool = False  # has said goodbye, or sends no more; it may still read
    client_lost: bool = False  # and does not read any more either
    abandoned: bool = False  # a statement died with its client: nothing behind it runs either
    segment: int = 0  # Syncs and Queries sent so far
    recent: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    transaction_began: float | None = None
    transactions: int = 0  # blocks so far
    _statements_seen: int = 0
    _nonces: int = 0
    _facts: Facts = field(default_factory=Facts)
    _facts_of: Requester | None = None

    def __post_init__(self) -> None:
        self.replies = Replies(self.statements, self.ended.append)
        self.meters = Meters(self.identity.agent, self.hourly, self.statements)

    @property
    def in_transaction(self) -> bool:
        """A block is open, or a batch has begun, which is one of its own."""
        return self.replies.transaction_status != tags.IDLE or self.replies.batch_open

    def facts(self, requester: Requester | None = None, rows_estimate: float | None = None) -> Facts:
        """The circumstances now, to the second; the same object while nothing of them changes."""
        requester = requester or self.requester
        now, facts = float(int(self.now)), self._facts
        in_transaction = self.in_transaction
        if (
            requester is not self._facts_of
            or now != facts.now
            or in_transaction is not facts.in_transaction
            or rows_estimate is not facts.rows_estimate
        ):
            facts = self._facts = Facts(
                now,
                requester.application_name,
                requester.reason,
                requester.ticket,
                requester.context,
                in_transaction,
                rows_estimate,
            )
            self._facts_of = requester
        return facts

    def remember(self, text: str) -> None:
        """A statement goes to the server: reviewers of later ones see it."""
        if len(text) > _RECENT_CHARACTERS:
            text = f"{text[:_RECENT_CHARACTERS]} … ({len(text)} characters)"
        self.recent.append((self.now, text))

    def status_is(self, status: int) -> None:
        """ReadyForQuery told the transaction's status."""
        if status == tags.IDLE:
            self.transaction_began = None
        elif self.transaction_began is None:
            self.transaction_began = self.now
            self.transactions += 1

    def said(self, key: str, value: str) -> None:
        """`SET pgproxy.key = value` was sent."""
        if key == "wait":
            self.wait = value.lower() != "return" if value.lower() in ("park", "return") else self.wait
        else:
            self.requester = told(self.requester, key, value)

    def application_is(self, name: str) -> None:
        """The server reported application_name."""
        if name != self.requester.application_name:
            self.requester = replace(self.requester, application_name=name)

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
