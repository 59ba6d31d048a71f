"""A result that runs into a budget: held in mid-stream until a human decides, and then sent on, or ended.

What the server sends from the first row beyond the budget on is held here, in order, asynchronous messages included,
and the server is read no further: what is held is bounded by what was on its way. Nothing the client sends meanwhile is
judged. (Nothing that depends on the result was sent before either: behind a statement whose rows are counted, the gate
waits for its replies.)

A refused rest is ended by the server: it gets a CancelRequest, and once that has certainly arrived and its answers are
in, the client has an ErrorResponse of ours in place of the server's. If the server was faster and completed, its
answers are dropped and a substitute makes it fail now, so that its transaction is as failed as the client believes, and
the ReadyForQuery is the server's own.
"""

from __future__ import annotations

from pgproxy import policy
from pgproxy.errors import ProxyError, StoreDown
from pgproxy.policy import Budget, Deny, Park
from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import asking, budget, effects, evidence, refusals
from pgproxy.session.budget import Allowance
from pgproxy.session.context import Context
from pgproxy.session.events import ApprovalOpened
from pgproxy.session.ports import ResolvedApproval
from pgproxy.session.refusals import error_response
from pgproxy.session.replies import ReplyKind
from pgproxy.session.states import GateState

Item = tuple[int, bytes, int]

HELD = frozenset({GateState.HELD_OPENING, GateState.HELD_PARKED, GateState.HELD_CLAIMING})
_NOT_SENT = "the rest of the result was not sent"


class Holding:
    """The result of one session that is held, or being ended."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self.items: list[Item] = []
        self._allowance: Allowance | None = None
        self._budget: Budget | None = None
        self._told_budget = ""
        self._binding = ""
        self._approval_id: str | None = None
        self._row_cap: int | None = None
        self._parked = False
        self._cancelled = False
        # while it is being ended
        self._error: ProxyError | None = None
        self.told = False  # the client has the error
        self._completed = False  # a ReadyForQuery came before any error
        self._cancel_over = False
        self._substituted = False

    # held

    def begin(self, allowance: Allowance, items: list[Item]) -> None:
        """A row beyond a budget is here; everything before it has gone to the client."""
        c = self._
        unit, run = allowance.unit, allowance.run
        self.items = items
        self._allowance, self._approval_id, self._cancelled, self._row_cap = allowance, None, False, None
        run.reported = False  # an Execute of a cursor is only reported when it comes to this
        if c.client_gone:
            run.decision = "withdrawn"
            self._count_rows()
            c.emit(effects.CancelServer())
            return
        next_bytes = 1 + int.from_bytes(items[0][1][1:5], "big")
        self._budget, rows, size = c.meters.reached(allowance, next_bytes, c.now)
        self._told_budget = f"budget: {budget.in_words(self._budget)}, {allowance.rows} rows sent"
        unit.waits = c.wait
        described = budget.describe(self._budget, rows, size)
        request = asking.request(c, unit, self._budget.park, run.classification, described)
        if allowance.cursors:
            request.context["cursors"] = [cursor.unit.text for cursor in allowance.cursors]
        self._binding = request.binding if unit.waits else request.retry_binding
        c.emit(effects.OpenApproval(request))
        c.state = GateState.HELD_OPENING

    def opened(self, event: ApprovalOpened) -> None:
        c, allowance = self._, self._allowance
        assert allowance is not None and self._budget is not None
        opened = event.opened
        if opened is None:
            self.end("blocked", asking.not_opened(event, "the rest of this result"))
            return
        self._approval_id = opened.id
        waits, classification, park = allowance.unit.waits, allowance.run.classification, self._budget.park
        if opened.status == "pending" and not waits:
            self.end("blocked", asking.required(c, opened, park, classification, self._told_budget))
            return
        c.state = GateState.HELD_PARKED
        self._parked = opened.status == "pending"
        if self._parked:
            c.emit(effects.Parked(True, opened.id))
        if self._cancelled:
            self.cancelled()
        elif c.notice and self._parked and not c.client_gone:
            c.emit(effects.ToClient(asking.notice(c, opened, park, classification, self._told_budget)))

    def resolved(self, resolved: ResolvedApproval) -> None:
        c, allowance = self._, self._allowance
        assert allowance is not None and self._budget is not None
        if resolved.id != self._approval_id:
            return
        self._unpark()
        allowance.run.reviewers = resolved.reviewers
        if resolved.status != "approved":
            self.end(*asking.not_approved(resolved, _NOT_SENT))
            return
        problem = self._judged_again(allowance, self._budget)
        if problem is not None:
            c.emit(effects.WithdrawApproval(resolved.id, problem[1].message.removeprefix("pgproxy: ")))
            self.end(*problem)
            return
        self._row_cap = resolved.row_cap
        c.emit(effects.ClaimApproval(resolved.id, self._binding, evidence.digest(allowance.unit.sql)))
        c.state = GateState.HELD_CLAIMING

    def _judged_again(self, allowance: Allowance, reached: Budget) -> tuple[str, ProxyError] | None:
        """The policy as it is now may deny the statement, or ask for more: rules may have been reloaded."""
        c, unit = self._, allowance.unit
        c.take_up_policy()
        facts = c.facts(asking.requester_of(c, unit), unit.rows_estimate)
        decision = policy.decide(allowance.run.classification, c.identity, c.policy, facts)
        if isinstance(decision, Deny):
            return "denied", asking.denied_by_policy(decision)
        parks = [decision] if isinstance(decision, Park) else [b.park for b in decision.budgets if b.per is reached.per]
        for park in parks:
            if asking.asks_for_more(park, reached.park):
                return "withdrawn", asking.policy_changed(park)
        return None

    def claimed(self, ok: bool | None) -> list[Item]:
        """What may go on now."""
        c, allowance = self._, self._allowance
        assert allowance is not None and self._budget is not None and self._approval_id is not None
        run = allowance.run
        if ok:
            run.approval_id, run.decision = self._approval_id, "approved"
            run.claimed.append(self._approval_id)
        if ok and not self._cancelled:
            allowance.lift(self._budget.rule, self._budget.park, self._row_cap)
            c.state = GateState.OPEN
            items, self.items = self.items, []
            return items
        if ok:
            self.end("withdrawn", asking.cancelled_by_client())
        elif ok is None:
            text = "pgproxy: the approval store does not answer, so the rest of this result cannot be sent"
            self.end("blocked", StoreDown(text, hint="ask again; the approval was not used"))
        else:
            unused = ResolvedApproval(self._approval_id, "expired")
            self.end(*asking.not_approved(unused, _NOT_SENT))
        return []

    def cancelled(self) -> None:
        """A CancelRequest of the client's."""
        c = self._
        if c.state is not GateState.HELD_PARKED:
            self._cancelled = True  # the answer that is awaited sees it
            return
        self._withdraw("cancelled by the client")
        self.end("withdrawn", asking.cancelled_by_client())

    def give_up(self, reason: str) -> None:
        """The session ends while a result is held."""
        c, allowance = self._, self._allowance
        if allowance is None or c.state not in HELD:
            return
        if c.state is GateState.HELD_PARKED:
            self._withdraw(reason)
        if c.state is not GateState.HELD_CLAIMING:
            allowance.run.decision = "withdrawn"
            allowance.run.approval_id = self._approval_id or allowance.run.approval_id
        self._count_rows()
        self.items = []

    def claimed_too_late(self) -> None:
        if self._approval_id is not None:
            self._.emit(effects.FinishApproval(self._approval_id, "failed", {"sqlstate": "08006"}))

    @property
    def outlives_session(self) -> bool:
        """Whether the request is one that nobody waits for."""
        return self._allowance is not None and not self._allowance.unit.waits

    @property
    def is_asking(self) -> bool:
        """Whether an answer that comes after the end of the session is this one's."""
        return self._allowance is not None and self._error is None

    def _withdraw(self, reason: str) -> None:
        assert self._approval_id is not None and self._allowance is not None
        if self._allowance.unit.waits:
            self._.emit(effects.WithdrawApproval(self._approval_id, reason))
        self._unpark()

    def _unpark(self) -> None:
        if self._parked:
            self._parked = False
            self._.emit(effects.Parked(False, self._approval_id))

    def _count_rows(self) -> None:
        assert self._allowance is not None
        self._allowance.run.stopped_rows = self._allowance.rows

    # refused

    def end(self, decision: str, error: ProxyError) -> None:
        """The client gets this error, and nothing more of the result."""
        c, allowance = self._, self._allowance
        assert allowance is not None
        run = allowance.run
        run.decision, run.sqlstate = decision, error.sqlstate
        run.approval_id = self._approval_id or run.approval_id
        self._count_rows()
        self._error, self.told = error, False
        self._completed = self._cancel_over = self._substituted = False
        c.emit(effects.StopServer())
        c.state = GateState.STOPPING

    def take_refused(self) -> list[Item]:
        items, self.items = self.items, []
        return items

    def swallow(self, kind: int, message: bytes) -> bytes | None:
        """One message of the server's, before the client has its error: what the client gets of it."""
        c = self._
        assert self._error is not None and self._allowance is not None
        match kind:
            case tags.NOTICE_RESPONSE | tags.NOTIFICATION_RESPONSE | tags.PARAMETER_STATUS:
                return c.replies.receive(kind, message)
            case tags.ERROR_RESPONSE:
                fields = backend.read_error(message)
                c.replies.receive(kind, message)
                if fields.get("V", "ERROR") != "ERROR":
                    return message  # the server's end of the session
                self.told = True
                self._allowance.run.sqlstate = self._error.sqlstate
                return error_response(self._error, c.settings.told_codec)
            case tags.READY_FOR_QUERY:
                self._completed = True
        c.replies.receive(kind, message)
        if kind == tags.COPY_IN_RESPONSE:  # the next statement of the string, which was not to be reached
            c.replies.copy_ended()
            c.emit(effects.ToServer(frontend.copy_fail(b"pgproxy ended the string of statements")))
        return None

    def server_cancelled(self) -> None:
        self._cancel_over = True

    def go_on(self) -> bool:
        """After each step of the end: whether it is over, and the session as before."""
        c = self._
        if not self._cancel_over:
            return False
        if self.told:
            self._allowance = self._error = self._budget = None
            return True
        if self._substituted:
            return False
        if self._completed or c.replies.settled:
            self._substitute()
        elif c.replies.needs_flush:
            c.emit(effects.ToServer(frontend.FLUSH))
            c.replies.flushed()
        return False

    def _substitute(self) -> None:
        """The server completed before it was told to stop."""
        c = self._
        assert self._error is not None and self._allowance is not None
        self._substituted = True
        run = self._allowance.run
        simple = self._completed
        data, expected = refusals.failing(
            simple, run, self._error, c.next_nonce(), c.settings.told_codec, replication=c.replication is not None
        )
        c.replies.sent(expected)
        if expected.kind is ReplyKind.QUERY:
            c.segment += 1
        else:
            c.replies.skipping = True
        c.emit(effects.ToServer(data))
