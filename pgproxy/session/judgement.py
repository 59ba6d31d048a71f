"""The life of one unit between the client's message and the server: classify, decide, record, ask, send.

One unit is under judgement at a time. Every step either goes on at once or leaves the session in a state that names
what it waits for; `Session` calls back here when that arrives.
"""

from __future__ import annotations

from dataclasses import replace

from classifier.catalog import changes_catalog
from classifier.model import ActionClass, Classification, Environment
from pgproxy import policy
from pgproxy.errors import AuditFull, Cancelled, FeatureNotSupported, ProxyError, ShuttingDown, StoreDown, TooLarge
from pgproxy.policy import Decision, Deny, Forward, Mode, Park, Policy
from pgproxy.protocol import frontend, tags
from pgproxy.session import asking, effects, evidence, refusals, replication
from pgproxy.session.annotations import said_by_comment, said_by_set
from pgproxy.session.context import Context
from pgproxy.session.events import ApprovalOpened
from pgproxy.session.large import Fate, Large
from pgproxy.session.modification import Modification
from pgproxy.session.ports import ResolvedApproval
from pgproxy.session.reading import (
    Reading,
    is_barrier,
    may_copy_in,
    plans_without_code,
    settings_changed_by,
    unknown,
)
from pgproxy.session.replies import Expected, ReplyKind
from pgproxy.session.runs import StatementRun
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit, UnitKind


class Judgement:
    """Judges units for one session. `unit` is the one in progress, if any."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self.unit: Unit | None = None
        # Statements on their way after which texts or names may mean something else.
        self.barriers: dict[StatementRun, Classification] = {}
        self._reading = Reading(context)
        self._modification = Modification(context)

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
        if unit.modified is not None:
            self._modified(unit)
        elif unit.refusal is not None:
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
            and not isinstance(self._decision(unit), Forward)
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
        if self._asks_planner(unit):
            return
        decision = self._decision(unit)
        unit.rule, unit.policy = decision.rule, c.policy
        match decision:
            case Forward(observed=observed):
                unit.decision = "observed" if observed else "allowed"
                unit.budgets = () if c.policy.mode is Mode.OBSERVE else decision.budgets
                self._record(unit)
            case Deny(reason=reason, hint=hint, unsupported=True):
                detail = f"{reason}; rule: {unit.rule}"
                unit.refusal = FeatureNotSupported("pgproxy: replication is not supported", detail=detail, hint=hint)
                unit.decision = "denied"
                self._record(unit)
            case Deny():
                unit.refusal = asking.denied_by_policy(decision)
                unit.decision = "denied"
                self._record(unit)
            case Park() as park:
                self._park(unit, park)

    def _decision(self, unit: Unit, by: Policy | None = None) -> Decision:
        c = self._
        assert unit.classification is not None
        facts = c.facts(asking.requester_of(c, unit), unit.rows_estimate)
        return policy.decide(unit.classification, c.identity, by or c.policy, facts)

    def foresee(self, sql: bytes, classification: Classification) -> Decision:
        """For a Parse, whose Bind decides. What hangs on a fact that is not known yet is not denied here."""
        c = self._
        requester = c.requester
        if b"/*" in sql:
            said = said_by_comment(sql.decode(c.settings.codec or "latin-1", "replace"))
            requester = replace(requester, **said) if said else requester
        facts = c.facts(requester)
        decision = policy.decide(classification, c.identity, c.policy, facts)
        if isinstance(decision, Deny) and policy.wants_estimate(classification, c.identity, c.policy, facts):
            return Park(decision.rule, 0.0)
        return decision

    def _asks_planner(self, unit: Unit) -> bool:
        """Whether the planner is being asked, because a rule wants to know. What it is not asked counts against the
        statement."""
        c = self._
        assert unit.classification is not None
        if unit.estimated or c.policy.mode is Mode.OBSERVE:
            return False
        facts = c.facts(asking.requester_of(c, unit))
        if not policy.wants_estimate(unit.classification, c.identity, c.policy, facts):
            return False
        unit.estimated = True
        path = c.settings.environment.search_path
        if unit.executes or path is None or not plans_without_code(unit.classification):
            return False
        c.emit(effects.Estimate(unit.running[0], len(unit.parameters), path))
        c.state = GateState.ESTIMATING
        return True

    def estimated(self, rows: float | None) -> None:
        """The planner's word."""
        c, unit = self._, self.unit
        assert unit is not None
        c.state = GateState.OPEN
        unit.rows_estimate = rows
        if unit.modified is not None:
            self._judge_again(unit)
        else:
            self._decide(unit)

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
        if c.draining is not None:
            c.fatal = ShuttingDown(c.draining)  # nobody is asked any more
            self._abandon(unit)
            return
        unit.park, unit.waits = park, c.wait
        c.emit(effects.OpenApproval(asking.request(c, unit, park, unit.classification)))
        c.state = GateState.OPENING

    def _wants_whole(self, unit: Unit, large: Large) -> None:
        """A human is to see all of it; the gate comes with it again once it is whole."""
        if large.size <= self._.limits.message_bytes:
            large.collect()
            self._done()
            return
        unit.refusal = too_large(large.size)
        self._refuse_recorded(unit)

    # park -------------------------------------------------------------------------------------------------------

    def opened(self, event: ApprovalOpened) -> None:
        """The store took the request, or did not."""
        c, unit = self._, self.unit
        assert unit is not None and unit.classification is not None and unit.park is not None
        opened = event.opened
        if opened is None:
            unit.decision = "blocked"
            unit.refusal = asking.not_opened(event, "this statement")
            self._record(unit)
            return
        unit.approval_id = opened.id
        if opened.status == "pending" and not unit.waits:
            unit.decision = "blocked"
            unit.refusal = asking.required(c, opened, unit.park, unit.classification)
            self._record(unit)
            return
        c.state = GateState.PARKED
        unit.parked = opened.status == "pending"
        if unit.parked:
            c.emit(effects.Parked(True, unit.approval_id))
        if c.client_gone:
            self.withdraw("the client is gone")
        elif unit.cancelled:
            self.cancelled()
        elif c.notice and unit.parked:
            c.emit(effects.ToClient(asking.notice(c, opened, unit.park, unit.classification)))

    def _unpark(self, unit: Unit) -> None:
        if unit.parked:
            unit.parked = False
            self._.emit(effects.Parked(False, unit.approval_id))

    def resolved(self, resolved: ResolvedApproval) -> None:
        """A human decided, or time did, or a grant or an earlier decision had."""
        unit = self.unit
        assert unit is not None
        if resolved.id != unit.approval_id:
            return
        self._unpark(unit)
        unit.reviewers = resolved.reviewers
        if resolved.status != "approved":
            unit.decision, unit.refusal = asking.not_approved(resolved, "the statement did not run")
            self._record(unit)
            return
        unit.claimable, unit.row_cap = True, resolved.row_cap
        if resolved.sql is None or resolved.sql == unit.text:
            self._judge_again(unit)
            return
        problem = self._modification.begin(unit, resolved)
        if problem is not None:
            self._give_up(unit, problem)
        else:
            self.go_on()

    def _judge_again(self, unit: Unit) -> None:
        """What a human approved is put to the policy as it is now: rules may have been reloaded, and the hour is
        another."""
        c = self._
        assert unit.park is not None and unit.policy is not None
        c.take_up_policy()
        if unit.modified is not None and self._asks_planner(unit):
            return
        decision = self._decision(unit)
        # (For another text, approvals asked what the policy in force then said of it.)
        reference: Decision = unit.park
        if unit.modified is not None:
            reference = self._decision(unit, unit.policy)
        unit.policy, unit.decision = c.policy, "approved"
        if isinstance(decision, Deny):
            unit.rule = decision.rule
            self._give_up(unit, asking.denied_by_policy(decision), "denied")
        elif isinstance(decision, Park) and asking.asks_for_more(decision, reference):
            unit.rule = decision.rule
            self._give_up(unit, asking.policy_changed(decision), "withdrawn")
        else:
            self._record(unit)

    def _give_up(self, unit: Unit, problem: ProxyError, decision: str = "blocked") -> None:
        """An approved statement that will not run after all."""
        assert unit.approval_id is not None
        unit.claimable, unit.decision, unit.refusal = False, decision, problem
        self._.emit(effects.WithdrawApproval(unit.approval_id, problem.message.removeprefix("pgproxy: ")))
        self._record(unit)

    # a text a reviewer changed ----------------------------------------------------------------------------------

    def _modified(self, unit: Unit) -> None:
        """The new text is classified."""
        problem = self._modification.problem(unit)
        if problem is not None:
            self._give_up(unit, problem)
        elif unit.kind is UnitKind.BIND:
            self._modification.compare(unit)
        else:
            self._judge_again(unit)

    def compared(self) -> None:
        """The server has described both texts, or refused one."""
        c, unit = self._, self.unit
        assert unit is not None and unit.classification is not None
        c.state = GateState.OPEN
        if c.replies.skipping:
            # The client has its error already: the server's own for its Parse, or ours for the new text.
            assert unit.approval_id is not None
            unit.claimable, unit.decision = False, "blocked"
            c.emit(effects.WithdrawApproval(unit.approval_id, "the server did not take the new text"))
            c.emit(effects.RecordSoon(self._entry(unit, unit.classification)))
            self._done()
            return
        problem = self._modification.difference(unit)
        if problem is not None:
            self._give_up(unit, problem)
        else:
            self._judge_again(unit)

    # ends without running ---------------------------------------------------------------------------------------

    def withdraw(self, reason: str) -> None:
        """Take a parked (or approved, not yet sent) request back; nothing is sent to the server for it."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None and unit.classification is not None
        if unit.waits:
            c.emit(effects.WithdrawApproval(unit.approval_id, reason))
        self._unpark(unit)
        self._abandon(unit)

    def opened_too_late(self, approval_id: str) -> None:
        """The session ended while the store took the request."""
        c, unit = self._, self.unit
        if unit is None or unit.waits:
            c.emit(effects.WithdrawApproval(approval_id, "the session ended"))
        if unit is not None:
            unit.approval_id = approval_id
            self._abandon(unit)

    def cancelled(self) -> None:
        """CancelRequest while parked: the client gets its prompt back."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None
        if unit.waits:
            c.emit(effects.WithdrawApproval(unit.approval_id, "cancelled by the client"))
        self._unpark(unit)
        unit.decision = "withdrawn"
        unit.refusal = asking.cancelled_by_client()
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
        version = (unit.policy or c.policy).version
        return evidence.statement_entry(unit, classification, asking.requester_of(c, unit), version, c.now)

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
            if unit.claimable and unit.approval_id is not None:
                unit.claimable = False
                if unit.waits:
                    reason = "the audit trail is not available" if not ok else "cancelled by the client"
                    c.emit(effects.WithdrawApproval(unit.approval_id, reason))
            if asked and c.client_gone:
                c.abandoned = True
                self._done()
                return
            unit.refusal = unit.refusal or asking.cancelled_by_client() if ok else _audit_full()
            self._refuse(unit)
        elif unit.refusal is not None or unit.server_refuses:
            self._refuse(unit)
        elif approved and unit.approval_id is not None:
            c.take_up_policy()
            if unit.policy is not c.policy:
                self._judge_again(unit)  # reloaded while the record was made
                return
            c.state = GateState.CLAIMING
            binding = asking.binding(c, unit) if unit.waits else asking.retry_binding(c, unit, None)
            c.emit(effects.ClaimApproval(unit.approval_id, binding, asking.sha256(unit)))
        else:
            self._forward(unit)

    def claimed(self, ok: bool | None) -> None:
        """The approval is ours to spend now, or never."""
        c, unit = self._, self.unit
        assert unit is not None and unit.approval_id is not None
        unit.claimable = False
        if ok and not unit.cancelled and not c.client_gone:
            self._forward(unit)
            return
        if ok:
            c.emit(effects.FinishApproval(unit.approval_id, "failed", {"sqlstate": "57014"}))
            unit.refusal = asking.cancelled_by_client()
        elif ok is None:
            unit.refusal = StoreDown(
                "pgproxy: the approval store does not answer, so this statement cannot run",
                hint="ask again; the approval was not used",
            )
        else:
            unit.refusal = Cancelled(f"pgproxy: approval {unit.approval_id} expired")
        self._refuse(unit)

    def _forward(self, unit: Unit) -> None:
        """The client's own bytes, as they came; or what a reviewer put in their place."""
        c = self._
        assert unit.classification is not None
        run = StatementRun(
            unit.statement_id, unit.classification, c.now, unit.approval_id, unit.decision, unit.reviewers
        )
        run.covered = unit.covered
        if unit.approval_id is not None and not unit.covered:
            run.claimed.append(unit.approval_id)
        run.executed = unit.kind in (UnitKind.QUERY, UnitKind.FUNCTION_CALL)
        unit.run = run
        if unit.kind is UnitKind.START_UP:
            c.admission = unit
            c.emit(effects.ToClient(unit.ready))
            self._done()
            return
        text, sql = unit.running
        c.remember(text)
        said = said_by_set(text)
        if said is not None:
            c.said(*said)
        messages = unit.messages if unit.modified is None else self._modification.messages(unit, run)
        if self._modification.names:
            messages = [*self._modification.closed_names(), *messages]
        run.allowance = c.meters.allowance(unit, run, unit.classification)
        for expected in unit.expected:
            if expected.kind in (ReplyKind.QUERY, ReplyKind.BIND, ReplyKind.FUNCTION_CALL):
                expected.run = run
            if expected.kind is ReplyKind.QUERY:
                expected.may_copy_in = may_copy_in(unit.classification)
                expected.allowance = run.allowance
            elif expected.kind is ReplyKind.PARSE and unit.prepared is not None:
                expected.parse = c.statements.parse_sent(unit.statement_name, unit.prepared, c.segment)
            elif expected.kind is ReplyKind.BIND:
                expected.bind = c.statements.bind_sent(unit.portal, run, c.segment)
            c.replies.sent(expected)
        if unit.kind in (UnitKind.QUERY, UnitKind.FUNCTION_CALL):
            c.segment += 1
        if unit.stood_for:
            self._keep_text(run, sql)
            if unit.kind is UnitKind.BIND:
                run.stood_for, run.environment = dict(unit.stood_for), self._reading_environment()
        for statement in unit.classification.statements:
            if statement.prepares is not None:
                self._keep_text(run, sql)
            if statement.cursor is not None:
                run.cursors = unit
            if unit.portal or statement.kind == "DeclareCursorStmt":
                c.settings.cursor_over(statement.settings)
        self.guard(run)
        if unit.kind is UnitKind.QUERY and run.allowance is not None:
            c.meters.arm(run.allowance, c.now)
        if unit.large is not None:
            run.digest = unit.large.digest
            messages = [*messages, unit.large.let_pass()]
        c.emit(effects.ToServer(b"".join(messages), unit.received_at if unit.approval_id is None else None))
        self._done()

    def _keep_text(self, run: StatementRun, sql: bytes) -> None:
        """Whoever is asked about a name it makes, or executes, later needs the text."""
        run.sql, run.conforming = sql, self._.settings.environment.standard_conforming_strings

    def still_means_the_same(self, run: StatementRun) -> bool:
        """Whether what a portal executes by name is what was judged at its Bind: the server looks the names up, and
        plans what they stand for, when the portal runs ("EXECUTE")."""
        statements = self._.statements
        names = all(statements.candidates(key) == was for key, was in run.stood_for.items())
        return names and run.environment == self._reading_environment()

    def _reading_environment(self) -> Environment:
        """Not the catalog's version: what others change meanwhile, they can change at any other moment too."""
        return replace(self._.settings.environment, catalog_version=0, catalog_changed=False)

    def guard(self, run: StatementRun) -> None:
        """A statement goes to the server, to be bound or to be executed. If it changes what texts or names mean,
        the next judgement waits for it."""
        run.completed = False
        if is_barrier(run.classification, self._.settings):
            self.barriers[run] = run.classification

    def replies_are_in(self) -> None:
        """Nothing is on its way. A barrier that has not ended is a portal: it may have run in part, and its next
        Execute raises it again."""
        c = self._
        for classification in self.barriers.values():
            for statement in classification.statements:
                c.settings.may_have_changed(settings_changed_by(statement, c.settings))
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
        self._modification.dropped(unit, run)
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

    def _done(self) -> None:
        if self.unit is not None and self.unit.large is not None and self.unit.large.fate is Fate.OPEN:
            self.unit.large.drop()
        self.unit = None
        if self._.state is not GateState.CLOSED:
            self._.state = GateState.OPEN


def too_large(size: int) -> ProxyError:
    """For a message that would have to be kept whole."""
    return TooLarge(
        f"pgproxy: message of {size} bytes is larger than the limit",
        hint="send less in one message; the operator can raise limits.message_bytes",
    )


def _audit_full() -> ProxyError:
    return AuditFull(
        "pgproxy: the audit trail cannot take the record of this statement, so it is refused",
        hint="try again once the operator has mended the audit store",
    )
