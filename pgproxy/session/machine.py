"""The session: one event in, effects out, by the table in `states`."""

from __future__ import annotations

from classifier.catalog import changes_catalog
from classifier.model import Classification, Statement
from pgproxy.errors import BacklogTooLarge, ConnectionProtocolViolation, ProxyError, ShuttingDown, UpstreamLost
from pgproxy.protocol import backend, frontend, tags
from pgproxy.protocol.framing import (
    BACKEND_PASS_THROUGH,
    BACKEND_TYPES,
    FRONTEND_LARGE,
    FRONTEND_PASS_THROUGH,
    FRONTEND_TYPES,
    SMALL_MESSAGE_LIMIT,
    Framer,
)
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session import effects, evidence
from pgproxy.session.context import Context
from pgproxy.session.effects import Effect
from pgproxy.session.events import (
    Analysed,
    ApprovalOpened,
    ApprovalResolved,
    BackendData,
    CancelRequested,
    ClaimAnswered,
    ClientClosed,
    DrainRequested,
    EndRequested,
    Estimated,
    Event,
    FrontendData,
    Recorded,
    ReplicationRequested,
    ServerCancelled,
    ServerClosed,
)
from pgproxy.session.gate import Gate
from pgproxy.session.holding import HELD, Holding, Item
from pgproxy.session.judgement import Judgement
from pgproxy.session.large import Fate
from pgproxy.session.reading import settings_changed_by
from pgproxy.session.refusals import error_response, fatal_response
from pgproxy.session.runs import StatementRun
from pgproxy.session.statements import PreparedStatement, sql_name
from pgproxy.session.states import TABLE, GateState
from pgproxy.session.units import Unit

# A message of the server that is not data: the largest, a RowDescription of 1,664 columns, stays far below.
_BACKEND_MESSAGE_BYTES = 64 << 20
# Statements of one transaction whose fate is told one by one when it ends.
_MAX_OPEN_OUTCOMES = 10_000

_WAITS_FOR_HUMAN = HELD | {GateState.OPENING, GateState.PARKED, GateState.CLAIMING}
_ASKED = frozenset({GateState.OPENING, GateState.PARKED, GateState.HELD_OPENING, GateState.HELD_PARKED})
_CUT = HELD | {GateState.STOPPING}
_ROWS = (tags.DATA_ROW, tags.COPY_DATA)


class Session:
    """One client and one server connection, after start-up. Not safe for concurrent use; never blocks."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self._judgement = Judgement(context)
        self._gate = Gate(context, self._judgement)
        limits = context.limits
        self._from_client = Framer(
            FRONTEND_PASS_THROUGH,
            SMALL_MESSAGE_LIMIT + 1,
            FRONTEND_TYPES,
            FRONTEND_LARGE,
            limits.large_bytes,
            limits.head_bytes,
        )
        self._from_server = Framer(BACKEND_PASS_THROUGH, _BACKEND_MESSAGE_BYTES, BACKEND_TYPES)
        self._holding = Holding(context)
        self._owed = 0  # of a row looked at, what is still to come
        self.server_fatal: str | None = None  # the SQLSTATE of the error with which the server ended the connection
        self._settled_ends = 0
        self._open_outcomes: list[StatementRun] = []
        self._catalog_touched = False

    @property
    def state(self) -> GateState:
        return self._.state

    @property
    def is_parked(self) -> bool:
        return self._.state in (GateState.PARKED, GateState.HELD_PARKED)

    @property
    def is_leaving(self) -> bool:
        """Whether the server was told goodbye and is expected to close."""
        return self._.state is GateState.LEAVING

    @property
    def is_idle(self) -> bool:
        """Nothing is asked of anybody: the client has every answer, and not even begun its next message."""
        c = self._
        return (
            c.state is GateState.OPEN
            and c.replies.settled
            and not self._gate.inbox_bytes
            and not self._from_client.pending_bytes
            and not self._from_client.mid_message
        )

    @property
    def is_at_rest(self) -> bool:
        """Idle, and nothing would be undone by its end."""
        replies = self._.replies
        return self.is_idle and replies.transaction_status == tags.IDLE and not replies.batch_open

    @property
    def transaction_status(self) -> str:
        return chr(self._.replies.transaction_status)

    @property
    def wants_client_data(self) -> bool:
        """False while enough waits here unjudged. While a human thinks, the client is read on all the same: a
        paused transport does not notice the client leaving."""
        state = self._.state
        return (
            state in _WAITS_FOR_HUMAN or state is GateState.OPEN or self._gate.inbox_bytes < self._.limits.input_bytes
        )

    @property
    def wants_server_data(self) -> bool:
        """False while a result is held."""
        return self._.state not in HELD

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event; the caller performs the effects in order. `now`: seconds since the epoch.

        Any exception is a bug here; the caller must close both sides.
        """
        self._.now = now
        name = TABLE[self._.state].get(type(event))
        if name is None:
            raise AssertionError(f"{type(event).__name__} cannot happen while {self._.state.name}")
        if name != "ignore":
            getattr(self, name)(event)
        if self._.draining is not None:
            self._drain()
        produced, self._.effects = self._.effects, []
        return produced

    def on_replication_requested(self, event: ReplicationRequested) -> None:
        assert self._.replication is not None and self._.admission is None
        self._judgement.begin_replication(self._.replication, event.ready)

    # the two connections

    def on_frontend_data(self, event: FrontendData) -> None:
        c = self._
        try:
            self._gate.take(self._from_client.feed(event.data))
            if not c.client_gone and self._gate.terminate_waits:
                c.client_gone = True
                self._client_is_gone()
            backlog = self._gate.inbox_bytes + self._from_client.pending_bytes
            if c.state in _WAITS_FOR_HUMAN and backlog > c.limits.parked_backlog_bytes:
                self._fail(
                    BacklogTooLarge(
                        "pgproxy: too much was sent behind a statement that waits for approval",
                        hint="wait for the answer before sending more, or raise limits.parked_backlog_bytes",
                    )
                )
                return
            self._advance()
        except ProtocolViolation as violation:
            self._violated(violation)

    def on_backend_data(self, event: BackendData) -> None:
        c, framer = self._, self._from_server
        meters = c.meters
        self._owed = framer.run_left
        meters.seen += len(event.data)
        try:
            items = framer.feed(event.data)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        self._take_items(items, meters.seen + framer.run_left > meters.fuse)

    def _take_items(self, items: list[Item], careful: bool) -> None:
        """What the server sent, in order. `careful`: a budget may be exceeded by it, so each run of rows is looked
        at; behind the first row too many everything is held."""
        c = self._
        out: list[bytes] = []
        try:
            for position, (kind, data, count) in enumerate(items):
                if kind in _ROWS:
                    if careful:
                        rest = self._admit(out, kind, data, count)
                        if rest is not None:
                            self._to_client(out)
                            self._hold([rest, *items[position + 1 :]])
                            return
                        continue
                    self._pass_rows(out, data, count)
                    continue
                self._observe(kind, data)
                forward = c.replies.receive(kind, data)
                if forward is not None:
                    out.append(forward)
                self._take_ends()
                if kind == tags.READY_FOR_QUERY:
                    self._ready()
        except ProtocolViolation as violation:
            self._to_client(out)
            self._violated(violation)
            return
        self._to_client(out)
        if self.server_fatal is not None:
            self._server_is_gone()  # it closes next; nobody is to approve anything meanwhile
            return
        if careful:
            allowance = c.replies.current_allowance
            if allowance is not None:
                c.meters.arm(allowance, c.now)
        self._after_replies()

    def _pass_rows(self, out: list[bytes], data: bytes, count: int) -> None:
        c = self._
        c.replies.data(count, len(data))
        if c.admission is not None and c.admission.run is not None:
            c.admission.run.data_bytes += len(data)
        if count:
            c.emit(effects.Rows(count))
        out.append(data)

    def _admit(self, out: list[bytes], kind: int, data: bytes, count: int) -> Item | None:
        """Lets as much of a run pass as may; gives what may not."""
        c = self._
        allowance = c.replies.current_allowance
        if allowance is None:
            self._pass_rows(out, data, count)
            return None
        end, passed, self._owed = c.meters.admit(allowance, data, self._owed, c.now)
        if end == len(data):
            self._pass_rows(out, data, count)
            return None
        if end:
            self._pass_rows(out, data[:end], passed)
        return kind, data[end:], count - passed

    def _hold(self, items: list[Item]) -> None:
        allowance = self._.replies.current_allowance
        assert allowance is not None and self._judgement.unit is None
        self._holding.begin(allowance, items)
        if self._.client_gone:
            if self._.state is not GateState.LEAVING:
                self._goodbye()
            self._close(None)

    def on_held_data(self, event: BackendData) -> None:
        """What was on its way when reading stopped."""
        self._.meters.seen += len(event.data)
        try:
            self._holding.items += self._from_server.feed(event.data)
        except ProtocolViolation as violation:
            self._violated(violation)

    def on_rest_opened(self, event: ApprovalOpened) -> None:
        if self._.client_gone:
            self.on_opened_too_late(event)
            self._leave_held()
            return
        self._holding.opened(event)
        self._end_held()

    def on_rest_resolved(self, event: ApprovalResolved) -> None:
        self._holding.resolved(event.resolved)
        self._end_held()

    def on_rest_claimed(self, event: ClaimAnswered) -> None:
        if self._.client_gone:
            if event.ok:
                self._holding.claimed_too_late()
            self._leave_held()
            return
        items = self._holding.claimed(event.ok)
        self._owed = 0
        if self._.state is GateState.STOPPING:
            self._end_held()
        else:
            self._take_items(items, careful=True)

    def on_cancel_while_held(self, _: CancelRequested) -> None:
        self._holding.cancelled()
        self._end_held()

    def _leave_held(self) -> None:
        """The client of a held result is gone: as without a proxy, the server finds its connection closed."""
        self._holding.give_up("the client is gone")
        self._.emit(effects.CancelServer())
        self._goodbye()
        self._close(None)

    def _end_held(self) -> None:
        """If the rest was refused: what is held of it is dropped, as what is still to come will be."""
        if self._.state is GateState.STOPPING:
            self._take_refused(self._holding.take_refused())

    def on_refused_data(self, event: BackendData) -> None:
        self._.meters.seen += len(event.data)
        try:
            items = self._from_server.feed(event.data)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        self._take_refused(items)

    def _take_refused(self, items: list[Item]) -> None:
        """Of a result that is being ended."""
        c, holding = self._, self._holding
        out: list[bytes] = []
        try:
            for kind, data, _ in items:
                if holding.told:
                    self._observe(kind, data)
                    forward = c.replies.receive(kind, data)
                elif kind in _ROWS:
                    continue
                else:
                    self._observe(kind, data)
                    forward = holding.swallow(kind, data)
                if forward is not None:
                    out.append(forward)
                self._take_ends()
                if kind == tags.READY_FOR_QUERY:
                    self._ready()
        except ProtocolViolation as violation:
            self._to_client(out)
            self._violated(violation)
            return
        self._to_client(out)
        if self.server_fatal is not None:
            self._server_is_gone()
            return
        self._after_end()

    def _after_end(self) -> None:
        if self._holding.go_on():
            self._.state = GateState.OPEN
            self._.meters.disarm(self._.now)
            self._after_replies()

    def on_server_cancelled(self, _: ServerCancelled) -> None:
        self._holding.server_cancelled()
        self._after_end()

    def _to_client(self, out: list[bytes]) -> None:
        if out:
            self._.emit(effects.ToClient(out[0] if len(out) == 1 else b"".join(out)))

    def _observe(self, kind: int, message: bytes) -> None:
        if kind == tags.PARAMETER_STATUS:
            name, value = backend.read_parameter_status(message)
            if name == b"application_name":
                self._.application_is(value.decode(self._.settings.told_codec, "replace"))
            self._.settings.reported(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
        elif kind == tags.ERROR_RESPONSE:
            fields = backend.read_error(message)
            if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
                self.server_fatal = fields.get("C", "XX000")

    def _after_replies(self) -> None:
        """Replies came in: whoever waits for them to be complete may go on."""
        c = self._
        if c.replies.settled:
            self._judgement.replies_are_in()
        if c.state is GateState.SETTLING and self._judgement.unit is None:
            c.state = GateState.OPEN  # the message that waits looks again
        elif c.state is GateState.SETTLING and c.replies.settled:
            self._judgement.go_on()
        elif c.state is GateState.PROBING and c.replies.settled:
            self._judgement.probe_answered()
        elif c.state is GateState.COMPARING and c.replies.settled:
            self._judgement.compared()
        elif c.state is GateState.LEAVING and c.replies.settled:
            self._close(None)
        self._advance()

    def on_client_closed(self, event: ClientClosed) -> None:
        c = self._
        c.client_lost = c.client_lost or event.lost
        if not c.client_gone:
            c.client_gone = True
            self._client_is_gone()
        self._advance()
        if c.client_lost and c.state is GateState.LEAVING:
            self._close(None)

    def _client_is_gone(self) -> None:
        """Nothing privileged runs for a client that has left; the other states look at `client_gone` themselves."""
        if self._.state is GateState.PARKED:
            self._judgement.withdraw("the client is gone")
        elif self._.state is GateState.HELD_PARKED:
            self._leave_held()

    def on_server_closed(self, _: ServerClosed) -> None:
        self._server_is_gone()

    def _server_is_gone(self) -> None:
        c = self._
        how = "closed the connection" if self.server_fatal is None else f"ended the connection ({self.server_fatal})"
        self._withdraw_if_asked(f"the server {how}")
        if c.state is GateState.LEAVING:
            self._close(None)
            return
        if self.server_fatal is None:
            self._tell(
                error_response(UpstreamLost("pgproxy: the server closed the connection"), self._.settings.told_codec)
            )
        self._close("08006")

    def on_cancel_requested(self, _: CancelRequested) -> None:
        c, unit = self._, self._judgement.unit
        if c.state is GateState.PARKED:
            self._judgement.cancelled()
        elif unit is not None and (c.replies.settled or c.state is GateState.COMPARING):
            unit.cancelled = True  # not at the server yet: the step that follows sees it
        else:
            c.emit(effects.CancelServer())

    def on_end_requested(self, event: EndRequested) -> None:
        if not self._.replies.settled:
            self._.emit(effects.CancelServer())  # or it would finish for nobody what the client takes for ended
        self._fail(event.error or ShuttingDown(event.reason))

    def on_drain_requested(self, event: DrainRequested) -> None:
        self._.draining = event.reason

    def _drain(self) -> None:
        """Ends a session that is to end, if now is the time."""
        c = self._
        assert c.draining is not None
        if c.state in (GateState.CLOSED, GateState.LEAVING):
            return
        if c.fatal is not None:
            self._advance()
            return
        streams = c.replication is not None and c.replies.copying is not None  # which has no end of its own
        if c.state in _ASKED or self.is_at_rest or streams:
            self._fail(ShuttingDown(c.draining))

    # answers to effects

    def on_analysed(self, event: Analysed) -> None:
        self._judgement.analysed(event.classification)
        self._advance()

    def on_estimated(self, event: Estimated) -> None:
        self._judgement.estimated(event.rows)
        self._advance()

    def on_recorded(self, event: Recorded) -> None:
        self._judgement.recorded(event.ok)
        self._advance()

    def on_approval_opened(self, event: ApprovalOpened) -> None:
        self._judgement.opened(event)
        self._advance()

    def on_approval_resolved(self, event: ApprovalResolved) -> None:
        self._judgement.resolved(event.resolved)
        self._advance()

    def on_claim_answered(self, event: ClaimAnswered) -> None:
        self._judgement.claimed(event.ok)
        self._advance()

    def on_opened_too_late(self, event: ApprovalOpened) -> None:
        if event.opened is not None and not self._holding.outlives_session:
            self._judgement.opened_too_late(event.opened.id)

    def on_claimed_too_late(self, event: ClaimAnswered) -> None:
        unit = self._judgement.unit
        if event.ok and self._holding.is_asking:
            self._holding.claimed_too_late()
        elif event.ok and unit is not None and unit.approval_id is not None:
            self._.emit(effects.FinishApproval(unit.approval_id, "failed", {"sqlstate": "08006"}))

    # ends

    def _advance(self) -> None:
        if self._.fatal is not None and self._.state is not GateState.CLOSED:
            self._tell(fatal_response(self._.fatal, self._.settings.told_codec))
            self._.emit(effects.ToServer(frontend.TERMINATE))
            self._close(None)
            return
        try:
            self._gate.advance()
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if self._.client_gone and self._.state is GateState.OPEN:
            self._leave()

    def _leave(self) -> None:
        """The client has said goodbye, and everything before that is sent. As without a proxy between, the server
        finishes what it has, and a client that only closed its sending half gets the answers."""
        c = self._
        self._goodbye()
        reads_on = c.replies.copying is not None or self._server_is_mid_message
        if c.client_lost or c.replies.settled or reads_on:
            self._close(None)
        else:
            c.state = GateState.LEAVING

    def _take_ends(self) -> None:
        """Statements whose part at the server is over: apply what they did to names and settings."""
        c = self._
        while self._settled_ends < len(c.ended):
            run = c.ended[self._settled_ends]
            self._settled_ends += 1
            if run.finished_at is None:
                run.finished_at = c.now
            if run.allowance is not None and not run.portal_open:
                self._disarm()
                run.allowance = None
            if run.cursors is not None and run.sqlstate is None and not run.skipped:
                self._follow_cursors(run.cursors, run.classification)
            if not (run.skipped or run.refused) and changes_catalog(run.classification):
                c.settings.catalog_may_have_changed()
                self._catalog_touched = True
            classification = self._judgement.barriers.pop(run, None)
            if classification is not None:
                self._apply(run, classification)

    def _disarm(self) -> None:
        """A counted result has ended; the next may already be on its way."""
        if self._.replies.metered:
            self._.meters.settle(self._.now)
        else:
            self._.meters.disarm(self._.now)

    def _follow_cursors(self, unit: Unit, classification: Classification) -> None:
        meters = self._.meters
        for statement in classification.statements:
            if statement.kind == "ClosePortalStmt" and statement.cursor is not None:
                meters.closed(statement.cursor)
        meters.declared(unit, classification)

    def _apply(self, run: StatementRun, classification: Classification) -> None:
        c = self._
        certain = run.sqlstate is None and not run.skipped and run.completed
        for statement in classification.statements:
            if run.executed:  # else a portal that was closed without having run: it made and took away no name
                self._apply_to_names(run, statement, classification, certain=certain)
            changed = settings_changed_by(statement, c.settings)
            if changed:
                c.settings.may_have_changed(changed)
        if c.settings.touched_in_transaction:
            c.settings.may_have_changed(("search_path",))  # COMMIT and ROLLBACK may have brought another back

    def _apply_to_names(
        self, run: StatementRun, statement: Statement, classification: Classification, *, certain: bool
    ) -> None:
        statements = self._.statements
        if statement.deallocates is not None and certain:
            if statement.deallocates:
                statements.forget(sql_name(statement.deallocates))
            else:
                statements.forget_all()
        if statement.prepares is not None:
            made = PreparedStatement(run.sql, (), statement.prepared or classification, run.conforming)
            statements.prepared(sql_name(statement.prepares), made, certain=certain)

    def _ready(self) -> None:
        """ReadyForQuery: outcomes are final for what is not inside an open transaction."""
        c = self._
        idle = c.replies.transaction_status == tags.IDLE
        c.status_is(c.replies.transaction_status)
        self._disarm()
        if idle:
            c.meters.transaction_ended()
            for run in c.statements.portals.values():
                if run.portal_open:
                    run.portal_open = False
                    c.ended.append(run)
            c.statements.portals.clear()
            self._take_ends()
        c.settings.ready(idle=idle)
        if idle and self._catalog_touched:
            self._catalog_touched = False
            c.emit(effects.CatalogChanged())
        ended = [run for run in dict.fromkeys(c.ended) if not run.reported]
        c.ended.clear()
        self._settled_ends = 0
        failed = c.replies.failed or any(run.tags[-1:] == ["ROLLBACK"] for run in ended)
        c.replies.failed = False
        fate = ("rolled_back" if failed else "committed") if idle else "open"
        for run in ended:
            self._report(run, fate)
            if not idle and len(self._open_outcomes) < _MAX_OPEN_OUTCOMES:
                self._open_outcomes.append(run)
        if idle and self._open_outcomes:
            for run in self._open_outcomes:
                c.emit(effects.RecordSoon(evidence.outcome_entry(run, c.requester, fate, c.now)))
            self._open_outcomes.clear()

    def _report(self, run: StatementRun, transaction: str | None, status: str | None = None) -> None:
        c = self._
        run.reported = True
        if run.unrecorded_sql is not None:
            if run.sqlstate is None:
                return
            c.emit(
                effects.RecordSoon(
                    evidence.failed_parse_entry(run, c.requester, c.settings.codec, c.policy.version, c.now)
                )
            )
        if run.skipped:
            transaction = None
        c.emit(effects.RecordSoon(evidence.outcome_entry(run, c.requester, transaction, c.now)))
        if run.claimed:
            succeeded = run.sqlstate is None and not run.skipped
            outcome = {
                "command_tag": run.command_tag,
                "rows": run.rows if run.stopped_rows is None else run.stopped_rows,
                "bytes": run.data_bytes,
                "sqlstate": run.sqlstate,
                "started_at": evidence.timestamp(run.started_at),
                "finished_at": evidence.timestamp(run.finished_at or c.now),
            }
            for id_ in run.claimed:
                c.emit(effects.FinishApproval(id_, status or ("executed" if succeeded else "failed"), outcome))

    def _withdraw_if_asked(self, reason: str) -> None:
        c, unit = self._, self._judgement.unit
        if c.state is GateState.PARKED:
            self._judgement.withdraw(reason)
        elif c.state in HELD:
            self._holding.give_up(reason)
        elif unit is not None and unit.claimable and unit.waits and c.state is not GateState.CLAIMING:
            assert unit.approval_id is not None
            c.emit(effects.WithdrawApproval(unit.approval_id, reason))

    def _violated(self, violation: ProtocolViolation) -> None:
        self._fail(ConnectionProtocolViolation(violation.message), violation.sqlstate)

    def _fail(self, error: ProxyError, sqlstate: str | None = None) -> None:
        """Tell the client why, and end both connections."""
        self._withdraw_if_asked(error.message)
        self._tell(
            backend.error_response(
                error.severity,
                sqlstate or error.sqlstate,
                error.message,
                error.detail,
                error.hint,
                self._.settings.told_codec,
            )
        )
        self._goodbye()
        self._close(error.sqlstate)

    def _goodbye(self) -> None:
        """Terminate, unless it would land in the middle of a message: then the server sees the connection end there, as
        it would without a proxy between."""
        if not self._server_is_mid_message:
            self._.emit(effects.ToServer(frontend.TERMINATE))

    @property
    def _server_is_mid_message(self) -> bool:
        """Whether what was sent to the server ends inside a message, and the client has yet to send the rest."""
        gate = self._gate
        if gate.arriving is not None:
            return gate.arriving.fate is Fate.PASS
        return self._from_client.mid_message and not gate.inbox_bytes

    def _tell(self, error: bytes) -> None:
        """The last word to the client, unless it would land in the middle of a row."""
        # (What is held, and what is dropped, was cut off where a row begins.)
        if self._.state in _CUT or not self._from_server.mid_message:
            self._.emit(effects.ToClient(error))

    def _close(self, sqlstate: str | None) -> None:
        """Both connections end; what the server still did with what it had is not known."""
        c = self._
        if c.state is GateState.CLOSED:
            return
        self.finish(sqlstate)
        c.emit(effects.Close())
        c.state = GateState.CLOSED

    def finish(self, sqlstate: str | None) -> None:
        """The end of the session: the last word on everything not yet reported."""
        c = self._
        c.meters.disarm(c.now)
        known = [run for run in dict.fromkeys(c.ended) if not run.reported]
        for run in known:
            self._report(run, None)
        open_portals = [run for run in c.statements.portals.values() if run.portal_open]
        for run in dict.fromkeys((*c.replies.outstanding(), *open_portals)):
            if not run.reported:
                run.sqlstate = run.sqlstate or sqlstate
                self._report(run, None, "unknown")
        if c.admission is not None and c.admission.run is not None and not c.admission.run.reported:
            c.admission.run.sqlstate, c.admission.run.finished_at = sqlstate, c.now
            self._report(c.admission.run, None)
        c.ended.clear()
        self._settled_ends = 0

    def final_effects(self, now: float) -> list[Effect]:
        """What is left to tell once both connections are closed by the client's own goodbye."""
        self._.now = now
        self.finish(None)
        produced, self._.effects = self._.effects, []
        return produced
