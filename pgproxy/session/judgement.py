"""The life of one unit between the client's message and the server: classify, decide, record, ask, send.

One unit is under judgement at a time. Every step either goes on at once or leaves the session in a state that names
what it waits for; `Session` calls back here when that arrives.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from classifier.catalog import changes_catalog
from classifier.model import ActionClass, Classification
from pgproxy import policy
from pgproxy.errors import (
    AuditFull,
    Cancelled,
    Denied,
    FeatureNotSupported,
    ProxyError,
    StoreDown,
    TooLarge,
    TooManyParked,
)
from pgproxy.policy import Deny, Forward, Park
from pgproxy.protocol import backend, frontend, tags
from pgproxy.session import effects, evidence, refusals, replication
from pgproxy.session.annotations import said_by_comment, said_by_set, told
from pgproxy.session.context import Context
from pgproxy.session.events import ApprovalOpened
from pgproxy.session.large import Fate, Large
from pgproxy.session.ports import ApprovalRequest, Requester, ResolvedApproval
from pgproxy.session.reading import Reading, is_barrier, may_copy_in, unknown
from pgproxy.session.replies import Expected, ReplyKind
from pgproxy.session.runs import StatementRun
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit, UnitKind

_PROTOCOL = {UnitKind.QUERY: "simple", UnitKind.START_UP: "start-up"}


class Judgement:
    """Judges units for one session. `unit` is the one in progress, if any."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self.unit: Unit | None = None
        # Statements on their way after which texts or names may mean something else.
        self.barriers: dict[StatementRun, Classification] = {}
        self._reading = Reading(context)

    # classify ---------------------------------------------------------------------------------------------------

    def begin(self, unit: Unit) -> None:
        """Take up a unit whose texts and names are settled."""
        self.unit = unit
        self.go_on()

    def go_on(self) -> None:
        """From the top, with whatever has become known meanwhile."""
        c, unit = self._, self.unit
        assert unit is not None
        c.state = GateState.OPEN
        classification = self._reading.classify(unit)
        if classification is None:
            return
        unit.classification = classification
        if unit.refusal is not None:
            self._refuse_recorded(unit)
        elif self._needs_probe(unit, classification):
            self._probe(unit)
        else:
            self._decide(unit)

    def peek(self, sql: bytes) -> Classification | None:
        """What a Parse names, before anything is decided; None while it is being analysed."""
        return self._reading.peek(sql)

    def analysed(self, classification: Classification) -> None:
        """An analyser answered what was asked last."""
        if self.unit is None:
            self._reading.peek_analysed(classification)
            self._.state = GateState.OPEN
            return
        self._reading.analysed(self.unit, classification)
        self.go_on()

    def lazy_run(self, sql: bytes, classification: Classification) -> StatementRun:
        """For a Parse: it enters the trail only if the server rejects it, for until its Bind nothing executes."""
        run = StatementRun(self._.next_statement_id(), classification, self._.now)
        run.unrecorded_sql = sql
        return run

    def begin_replication(self, kind: str, ready: bytes) -> None:
        """The start-up of a replication connection, which ends the session if it is refused."""
        c = self._
        sql, classification = replication.start_up(kind)
        unit = self.unit = Unit(UnitKind.START_UP, sql, [], [], c.now, c.next_statement_id())
        unit.text, unit.classification, unit.ready = sql.decode(), classification, ready
        self._decide(unit)

    def begin_uncertain(self, unit: Unit, reason: str = "a prepared statement that this session did not make") -> None:
        """A Bind of a name that stands for nothing, or for more than one text; a message too large to be read."""
        self.unit = unit
        unit.classification = unknown(unit.kind.value, reason)
        if unit.refusal is not None:
            self._refuse_recorded(unit)
        else:
            self._decide(unit)

    # a text the grammar rejects ------------------------------------------------------------------------------------

    def _needs_probe(self, unit: Unit, classification: Classification) -> bool:
        c = self._
        return (
            classification.syntax_error is not None
            and not unit.probed
            and unit.kind is UnitKind.QUERY
            and c.replication is None  # a walsender has no Parse
            and not isinstance(policy.decide(classification, c.identity, c.policy), Forward)
        )

    def _probe(self, unit: Unit) -> None:
        """Ask the server to Parse it under a private name: nothing executes, and an agent that mistyped gets the
        server's own error instead of a human's time. (In the extended protocol the client's own Parse does that.)"""
        c = self._
        if not c.settle():
            return
        unit.probed = True
        if c.replies.skipping or unit.text.rstrip().rstrip(";").find(";") >= 0:
            self.go_on()  # a string of several statements cannot be parsed as one
            return
        name = f"pgproxy_probe_{c.next_nonce()}".encode()
        c.replies.probe_sqlstate = None
        messages = frontend.parse(name, unit.sql, unit.parameter_types) + frontend.close(tags.STATEMENT, name)
        c.replies.sent(Expected(ReplyKind.PARSE, probe=True))
        c.replies.sent(Expected(ReplyKind.CLOSE, name=b"S" + name, probe=True))
        c.replies.sent(Expected(ReplyKind.SYNC, probe=True))
        c.emit(effects.ToServer(messages + frontend.SYNC))
        c.state = GateState.PROBING

    def probe_answered(self) -> None:
        """The server parsed the text or did not. If it did not, the client has the server's own error."""
        c, unit = self._, self.unit
        assert unit is not None and unit.classification is not None
        sqlstate = c.replies.probe_sqlstate
        if sqlstate is None:
            self.go_on()
            return
        unit.decision, unit.rule = "allowed", policy.BUILT_IN_RULE
        c.emit(effects.RecordSoon(self._entry(unit, unit.classification)))
        run = StatementRun(unit.statement_id, unit.classification, unit.received_at, sqlstate=sqlstate)
        run.finished_at = c.now
        c.emit(effects.RecordSoon(evidence.outcome_entry(run, c.requester, None, c.now)))
        c.emit(effects.Decided(unit.classification.classes, unit.decision, unit.classification.fingerprint))
        self._done()

    # decide -----------------------------------------------------------------------------------------------------

    def _decide(self, unit: Unit) -> None:
        c = self._
        assert unit.classification is not None
        admission = c.admission
        if admission is not None and admission.decision == "approved" and replication.is_command(unit.classification):
            unit.covered, unit.decision, unit.rule = True, admission.decision, admission.rule
            unit.approval_id, unit.reviewers = admission.approval_id, admission.reviewers
            self._record(unit)
            return
        decision = policy.decide(unit.classification, c.identity, c.policy)
        unit.rule = decision.rule
        match decision:
            case Forward(observed=observed):
                unit.decision = "observed" if observed else "allowed"
                self._record(unit)
            case Deny(reason=reason, hint=hint, unsupported=True):
                detail = f"{reason}; rule: {unit.rule}"
                unit.refusal = FeatureNotSupported("pgproxy: replication is not supported", detail=detail, hint=hint)
                unit.decision = "denied"
                self._record(unit)
            case Deny(reason=reason, hint=hint):
                unit.refusal = Denied("pgproxy: denied by policy", detail=f"{reason}; rule: {unit.rule}", hint=hint)
                unit.decision = "denied"
                self._record(unit)
            case Park() as park:
                self._park(unit, park)

    def will_park(self, classification: Classification) -> bool:
        """Whether executing this would be parked (for a Parse, whose Bind decides)."""
        return isinstance(policy.decide(classification, self._.identity, self._.policy), Park)

    def _park(self, unit: Unit, park: Park) -> None:
        c = self._
        assert unit.classification is not None
        if unit.large is not None:
            self._wants_whole(unit, unit.large)
            return
        if not c.settle():
            return
        if c.replies.skipping:
            self._done()
            return
        transactional = any(a.cls is ActionClass.TRANSACTION for s in unit.classification.statements for a in s.actions)
        # (Within a batch the status is that of its beginning.)
        failed = c.replies.transaction_status == tags.FAILED_TRANSACTION and not c.replies.batch_open
        if failed and not transactional:
            unit.server_refuses, unit.decision = True, "blocked"
            self._record(unit)
            return
        if c.client_gone:
            self._abandon(unit)
            return
        unit.binding = self._binding(unit)
        c.emit(
            effects.OpenApproval(
                ApprovalRequest(
                    requester=self._requester(unit),
                    sql=unit.text,
                    sha256=evidence.digest(unit.sql),
                    params=tuple(unit.parameters),
                    classification=unit.classification.to_dict(),
                    risk=str(unit.classification.risk),
                    rule=park.rule,
                    required_approvals=park.required_approvals,
                    approver_groups=park.groups,
                    timeout_s=park.timeout_s,
                    binding=unit.binding,
                    context={
                        "statement_id": unit.statement_id,
                        "in_transaction": c.replies.transaction_status != tags.IDLE or c.replies.batch_open,
                        "protocol": _PROTOCOL.get(unit.kind, "extended"),
                        **({"executes": unit.executes} if unit.executes else {}),
                    },
                )
            )
        )
        c.state = GateState.OPENING

    def _wants_whole(self, unit: Unit, large: Large) -> None:
        """A human is to see all of it; the gate comes with it again once it is whole."""
        if large.size <= self._.limits.message_bytes:
            large.collect()
            self._done()
            return
        unit.refusal = too_large(large.size)
        self._refuse_recorded(unit)

    def _binding(self, unit: Unit) -> str:
        """Everything an approval is bound to, as one digest."""
        c = self._
        h = hashlib.sha256()
        parts: list[bytes] = [
            c.requester.session_id.encode(),
            c.identity.db_user.encode(),
            c.identity.database.encode(),
            # Not the catalog's version: somebody else's CREATE TABLE must not void what a human approved.
            repr(replace(c.settings.environment, catalog_version=0, catalog_changed=False)).encode(),
            repr(unit.parameter_types).encode(),
            unit.kind.value.encode(),
            *(unit.messages or [unit.sql]),
        ]
        for part in parts:
            h.update(len(part).to_bytes(8, "big"))
            h.update(part)
        return h.hexdigest()

    # park -------------------------------------------------------------------------------------------------------

    def opened(self, event: ApprovalOpened) -> None:
        """The store took the request, or did not."""
        c, unit = self._, self.unit
        assert unit is not None and unit.classification is not None
        if event.opened is None:
            unit.decision = "blocked"
            unit.refusal = (
                TooManyParked(
                    "pgproxy: too many statements are waiting for approval",
                    hint=f"try again once some are decided; the operator can raise {event.limit}",
                )
                if event.limit is not None
                else StoreDown(
                    "pgproxy: the approval store does not answer, so this statement cannot be decided",
                    hint="try again later; ordinary statements go on",
                )
            )
            self._record(unit)
            return
        unit.approval_id = event.opened.id
        c.state = GateState.PARKED
        c.emit(effects.Parked(True, unit.approval_id))
        if c.client_gone:
            self.withdraw("the client is gone")
        elif unit.cancelled:
            self.cancelled()
        elif c.notice:
            expires = event.opened.expires_at.strftime("%Y-%m-%d %H:%M:%SZ")
            c.emit(
                effects.ToClient(
                    backend.notice_response(
                        "01000",
                        f"pgproxy: waiting for approval {unit.approval_id}",
                        f"classes: {', '.join(unit.classification.classes)}; rule: {unit.rule}; expires: {expires}",
                        f"a reviewer decides at {c.console}",
                        c.settings.told_codec,
                    )
                )
            )

    def resolved(self, resolved: ResolvedApproval) -> None:
        """A human decided, or time did."""
        c, unit = self._, self.unit
        assert unit is not None
        if resolved.id != unit.approval_id:
            return
        c.emit(effects.Parked(False, unit.approval_id))
        unit.reviewers = resolved.reviewers
        match resolved.status:
            case "approved":
                unit.decision = "approved"
            case "denied":
                unit.decision = "denied"
                comment = f"{resolved.comment}; " if resolved.comment else ""
                unit.refusal = Denied(
                    f"pgproxy: denied by {resolved.reviewer}", detail=f"{comment}approval {unit.approval_id}"
                )
            case "expired":
                unit.decision = "expired"
                unit.refusal = Cancelled(
                    f"pgproxy: approval {unit.approval_id} expired",
                    hint="nobody decided in time; the statement did not run",
                )
            case _:
                unit.decision = "withdrawn"
                unit.refusal = Cancelled(
                    f"pgproxy: approval {unit.approval_id} was withdrawn", hint="the statement did not run"
                )
        self._record(unit)

    def withdraw(self, reason: str) -> None:
        """Take a parked (or approved, not yet sent) request back; nothing is sent to the server for it."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None and unit.classification is not None
        c.emit(effects.WithdrawApproval(unit.approval_id, reason))
        c.emit(effects.Parked(False, unit.approval_id))
        self._abandon(unit)

    def opened_too_late(self, approval_id: str) -> None:
        """The session ended while the store took the request."""
        c, unit = self._, self.unit
        c.emit(effects.WithdrawApproval(approval_id, "the session ended"))
        if unit is not None:
            unit.approval_id = approval_id
            self._abandon(unit)

    def cancelled(self) -> None:
        """CancelRequest while parked: the client gets its prompt back."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None
        c.emit(effects.WithdrawApproval(unit.approval_id, "cancelled by the client"))
        c.emit(effects.Parked(False, unit.approval_id))
        unit.decision = "withdrawn"
        unit.refusal = _cancelled_by_client()
        self._record(unit)

    def _abandon(self, unit: Unit) -> None:
        """The client is gone: the record, no substitute, and nobody to tell."""
        c = self._
        assert unit.classification is not None
        unit.decision = "withdrawn"
        c.abandoned = True
        c.emit(effects.RecordSoon(self._entry(unit, unit.classification)))
        c.emit(
            effects.Decided(
                unit.classification.classes, unit.decision, unit.classification.fingerprint, unit.approval_id
            )
        )
        self._done()

    # record, claim, send ----------------------------------------------------------------------------------------

    def _refuse_recorded(self, unit: Unit) -> None:
        unit.decision, unit.rule = "blocked", unit.rule or policy.BUILT_IN_RULE
        self._record(unit)

    def _record(self, unit: Unit) -> None:
        c = self._
        assert unit.classification is not None
        c.emit(effects.Record(self._entry(unit, unit.classification)))
        c.emit(
            effects.Decided(
                unit.classification.classes, unit.decision, unit.classification.fingerprint, unit.approval_id
            )
        )
        c.state = GateState.RECORDING

    def _entry(self, unit: Unit, classification: Classification) -> dict[str, object]:
        c = self._
        return evidence.statement_entry(unit, classification, self._requester(unit), c.policy.version, c.now)

    def _requester(self, unit: Unit) -> Requester:
        """Who asks, with what this statement's own comment says about why."""
        said = said_by_comment(unit.text)
        requester = self._.requester
        return requester if not said else replace(requester, **said)

    def recorded(self, ok: bool) -> None:
        """The trail holds the decision, or cannot: then the statement does not go on, whatever was decided."""
        c, unit = self._, self.unit
        assert unit is not None
        asked = unit.decision == "approved" and unit.approval_id is not None
        approved = asked and not unit.covered
        if c.replies.skipping and not approved:
            self._skip(unit)
            return
        if not ok or unit.cancelled or (asked and c.client_gone):
            if approved and unit.approval_id is not None:
                reason = "the audit trail is not available" if not ok else "cancelled by the client"
                c.emit(effects.WithdrawApproval(unit.approval_id, reason))
            if asked and c.client_gone:
                c.abandoned = True
                self._done()
                return
            unit.refusal = unit.refusal or _cancelled_by_client() if ok else _audit_full()
            self._refuse(unit)
        elif unit.refusal is not None or unit.server_refuses:
            self._refuse(unit)
        elif approved and unit.approval_id is not None:
            c.state = GateState.CLAIMING
            c.emit(effects.ClaimApproval(unit.approval_id, self._binding(unit)))
        else:
            self._forward(unit)

    def claimed(self, ok: bool | None) -> None:
        """The approval is ours to spend now, or never."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None
        if ok and not unit.cancelled and not c.client_gone:
            self._forward(unit)
            return
        if ok:
            c.emit(effects.FinishApproval(unit.approval_id, "failed", {"sqlstate": "57014"}))
            unit.refusal = _cancelled_by_client()
        elif ok is None:
            unit.refusal = StoreDown(
                "pgproxy: the approval store does not answer, so this statement cannot run",
                hint="ask again; the approval was not used",
            )
        else:
            unit.refusal = Cancelled(f"pgproxy: approval {unit.approval_id} expired")
        self._refuse(unit)

    def _forward(self, unit: Unit) -> None:
        """The client's own bytes, as they came."""
        c = self._
        assert unit.classification is not None
        run = StatementRun(
            unit.statement_id, unit.classification, c.now, unit.approval_id, unit.decision, unit.reviewers
        )
        run.covered = unit.covered
        unit.run = run
        if unit.kind is UnitKind.START_UP:
            c.admission = unit
            c.emit(effects.ToClient(unit.ready))
            self._done()
            return
        said = said_by_set(unit.text)
        if said is not None:
            c.requester = told(c.requester, *said)
        for expected in unit.expected:
            if expected.kind in (ReplyKind.QUERY, ReplyKind.BIND, ReplyKind.FUNCTION_CALL):
                expected.run = run
            if expected.kind is ReplyKind.QUERY:
                expected.may_copy_in = may_copy_in(unit.classification)
            elif expected.kind is ReplyKind.PARSE and unit.prepared is not None:
                expected.parse = c.statements.parse_sent(unit.statement_name, unit.prepared, c.segment)
            elif expected.kind is ReplyKind.BIND:
                expected.bind = c.statements.bind_sent(unit.portal, run, c.segment)
            c.replies.sent(expected)
        if unit.kind in (UnitKind.QUERY, UnitKind.FUNCTION_CALL):
            c.segment += 1
        if any(s.prepares is not None for s in unit.classification.statements):
            run.sql = unit.sql
        self.guard(run)
        messages = unit.messages
        if unit.large is not None:
            run.digest = unit.large.digest
            messages = [*messages, unit.large.let_pass()]
        c.emit(effects.ToServer(b"".join(messages), unit.received_at if unit.approval_id is None else None))
        self._done()

    def guard(self, run: StatementRun) -> None:
        """A statement goes to the server, to be bound or to be executed. If it changes what texts or names mean,
        the next judgement waits for it."""
        if is_barrier(run.classification, self._.settings.touched_in_transaction):
            self.barriers[run] = run.classification

    def replies_are_in(self) -> None:
        """Nothing is on its way. A barrier that has not ended is a portal: it may have run in part, and its next
        Execute raises it again."""
        c = self._
        for classification in self.barriers.values():
            c.settings.may_have_changed(tuple(name for s in classification.statements for name in s.settings))
            if changes_catalog(classification):
                c.settings.catalog_may_have_changed()
        self.barriers.clear()

    def _skip(self, unit: Unit) -> None:
        """An earlier message failed while this one was recorded: the server would skip it, without an answer."""
        c = self._
        assert unit.classification is not None
        run = StatementRun(
            unit.statement_id, unit.classification, c.now, decision=unit.decision, skipped=True, finished_at=c.now
        )
        c.ended.append(run)
        self._done()

    def _refuse(self, unit: Unit) -> None:
        """The substitute in its place. Behind it the server skips to Sync, so the rest of the batch is not sent."""
        c = self._
        assert unit.classification is not None
        run = StatementRun(unit.statement_id, unit.classification, c.now, decision=unit.decision, refused=True)
        if unit.kind is UnitKind.START_UP:
            assert unit.refusal is not None
            run.sqlstate, run.finished_at = unit.refusal.sqlstate, c.now
            c.ended.append(run)
            c.fatal = unit.refusal
            self._done()
            return
        large = unit.large
        if large is not None and not (large.fate is Fate.REFUSE or large.is_complete or c.client_gone):
            large.refuse()
            c.state = GateState.OPEN  # the gate comes with it again
            return
        nonce = c.next_nonce()
        if unit.server_refuses:
            data, expected = refusals.in_failed_transaction(unit, run, nonce)
        else:
            assert unit.refusal is not None
            data, expected = refusals.substitute(
                unit, run, unit.refusal, nonce, c.settings.told_codec, replication=c.replication is not None
            )
        c.replies.sent(expected)
        if expected.kind is ReplyKind.QUERY:
            c.segment += 1
        else:
            c.replies.skipping = True
        c.emit(effects.ToServer(data))
        self._done()

    def refuse_arrived(self) -> None:
        """A large message that was refused at its head has come to its end."""
        unit = self.unit
        assert unit is not None
        if self._.replies.skipping:
            self._skip(unit)
        else:
            self._refuse(unit)

    def _done(self) -> None:
        large = self.unit.large if self.unit is not None else None
        if large is not None and large.fate in (Fate.OPEN, Fate.REFUSE):
            large.drop()
        self.unit = None
        if self._.state is not GateState.CLOSED:
            self._.state = GateState.OPEN


def _cancelled_by_client() -> ProxyError:
    return Cancelled("canceling statement due to user request")


def too_large(size: int, limit: str = "message_bytes") -> ProxyError:
    """For a message that would have to be kept whole."""
    return TooLarge(
        f"pgproxy: message of {size} bytes is larger than the limit",
        hint=f"send less in one message; the operator can raise limits.{limit}",
    )


def _audit_full() -> ProxyError:
    return AuditFull(
        "pgproxy: the audit trail cannot take the record of this statement, so it is refused",
        hint="try again once the operator has mended the audit store",
    )
