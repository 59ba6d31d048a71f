"""The gate: takes the client's messages one at a time, in order, and lets each pass only as its kind allows.

Query, Bind and FunctionCall are judged, for they make the server do something; a Parse only names, but one that will
be parked is held until its Bind is here, so that nothing of it is held on the server while a human thinks.
"""

from __future__ import annotations

from collections import deque

from classifier.model import Action, ActionClass, Classification, Risk, Statement
from pgproxy.errors import Denied, StatementUnknown
from pgproxy.policy import Deny, Mode, Park
from pgproxy.protocol import frontend, tags
from pgproxy.protocol.framing import HEAD
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session import effects, values
from pgproxy.session.context import Context
from pgproxy.session.judgement import Judgement, too_large
from pgproxy.session.large import Fate, Large, ValueDigest
from pgproxy.session.reading import may_copy_in, unknown
from pgproxy.session.replies import Expected, ReplyKind
from pgproxy.session.runs import StatementRun
from pgproxy.session.statements import PreparedStatement
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit, UnitKind

# What a message costs in the inbox beside its bytes: messages of five bytes must not add up unseen.
_MESSAGE_OVERHEAD_BYTES = 100
# Of a text that is not kept.
_SHOWN_BYTES = 10_000
# Describes between a Parse and the Bind held with it.
_MAX_HELD = 8
_UNIT_KINDS = {tags.QUERY: UnitKind.QUERY, tags.PARSE: UnitKind.PARSE, tags.FUNCTION_CALL: UnitKind.FUNCTION_CALL}
_REPLIES = {
    tags.QUERY: ReplyKind.QUERY,
    tags.PARSE: ReplyKind.PARSE,
    tags.BIND: ReplyKind.BIND,
    tags.DESCRIBE: ReplyKind.DESCRIBE,
    tags.FUNCTION_CALL: ReplyKind.FUNCTION_CALL,
}
_COPY_KINDS = frozenset({tags.COPY_DATA, tags.COPY_DONE, tags.COPY_FAIL})


class Gate:
    """The inbox of one session and the way each message takes out of it."""

    def __init__(self, context: Context, judgement: Judgement) -> None:
        self._ = context
        self._judgement = judgement
        self._inbox: deque[tuple[int, bytes | Large]] = deque()
        self.inbox_bytes = 0
        self.arriving: Large | None = None  # whose rest is yet to come
        self.terminate_waits = False  # the client has already said goodbye, behind what waits here
        self._arrived_at = 0.0

    def take(self, items: list[tuple[int, bytes, int]]) -> None:
        """Whole messages, or stretches of CopyData, from the client."""
        self._arrived_at = self._.now
        for kind, data, count in items:
            if count <= 0 and kind != tags.COPY_DATA:
                self._take_part(kind, data, count)
                continue
            self._inbox.append((kind, data))
            self.inbox_bytes += len(data) + _MESSAGE_OVERHEAD_BYTES
            if kind == tags.TERMINATE:
                self.terminate_waits = True

    def _take_part(self, kind: int, data: bytes, count: int) -> None:
        """The head of a large message, or the next stretch of it."""
        if count == HEAD:
            self.arriving = Large(kind, data)
            self._inbox.append((kind, self.arriving))
            self.inbox_bytes += len(data) + _MESSAGE_OVERHEAD_BYTES
            return
        large = self.arriving
        assert large is not None
        kept = large.held
        now = large.take(data)
        if now is not None:
            self._.emit(effects.ToServer(now))
        self.inbox_bytes += large.held - kept
        if large.is_complete:
            self.arriving = None

    def advance(self) -> None:
        """Judge and forward until something has to be awaited. OPEN afterwards means that more of the client is
        needed."""
        c = self._
        while c.state is GateState.OPEN and self._inbox:
            if c.abandoned:
                self._clear()
                return
            before = len(self._inbox)
            c.take_up_policy()
            _, first = self._inbox[0]
            fate = first.fate if isinstance(first, Large) else None
            self._step()
            if len(self._inbox) == before and c.state is GateState.OPEN:
                if isinstance(first, Large) and first.fate is not fate:
                    continue
                return

    def _clear(self) -> None:
        self._inbox.clear()
        self.inbox_bytes = 0
        if self.arriving is not None and self.arriving.fate is not Fate.PASS:
            self.arriving.drop()

    def _pop(self) -> bytes:
        _, message = self._inbox.popleft()
        assert isinstance(message, bytes)
        self.inbox_bytes -= len(message) + _MESSAGE_OVERHEAD_BYTES
        return message

    def _pop_large(self) -> None:
        """What it held, it has given away already."""
        self._inbox.popleft()
        self.inbox_bytes = sum(
            _MESSAGE_OVERHEAD_BYTES + (m.held if isinstance(m, Large) else len(m)) for _, m in self._inbox
        )

    def _step(self) -> None:
        """One message; leaves it in the inbox when it cannot be taken up yet."""
        c = self._
        kind, message = self._inbox[0]
        if isinstance(message, Large) and message.fate in (Fate.PASS, Fate.DROP):
            self._pop_large()  # decided, and on its way or not
            return
        if c.replies.skipping and kind not in (tags.SYNC, tags.TERMINATE, tags.COPY_DATA):
            # The server would skip it; so nothing of it need be judged. CopyData goes on being sent: the beginning
            # of a message may be out already, and the server would take what comes next for the rest of it.
            if isinstance(message, Large):
                message.drop()
                self._pop_large()
            else:
                self._pop()
            return
        if kind not in _COPY_KINDS and c.replies.copying is not None and not self._past_copy(kind):
            return
        if isinstance(message, Large):
            if self._steady():
                self._take_large(kind, message)
            return
        match kind:
            case tags.QUERY:
                if self._steady():
                    self._take_query(self._pop())
            case tags.PARSE:
                if self._steady():
                    self._take_parse(message)
            case tags.BIND:
                if self._steady():
                    self._take_bind(message)
            case tags.EXECUTE:
                self._take_execute(message)
            case tags.FUNCTION_CALL:
                if self._steady():
                    self._take_function_call(self._pop())
            case tags.DESCRIBE:
                if not self._may_follow():
                    return
                target = frontend.read_describe(message)
                name = bytes((target.kind,)) + self._name(target.name)
                self._pass(self._pop(), Expected(ReplyKind.DESCRIBE, name=name))
            case tags.CLOSE:
                if not self._may_follow():
                    return
                target = frontend.read_close(message)
                name = bytes((target.kind,)) + self._name(target.name)
                self._pass(self._pop(), Expected(ReplyKind.CLOSE, name=name))
            case tags.SYNC:
                _require_empty(message)
                if not self._may_follow():
                    return
                c.segment += 1
                self._pass(self._pop(), Expected(ReplyKind.SYNC))
            case tags.FLUSH:
                _require_empty(message)
                c.replies.flushed()
                c.emit(effects.ToServer(self._pop()))
            case tags.COPY_DATA:
                c.emit(effects.ToServer(self._pop()))
            case tags.COPY_DONE | tags.COPY_FAIL:
                c.replies.copy_ended()
                c.emit(effects.ToServer(self._pop()))
            case tags.TERMINATE:  # the session says it to the server; whatever is behind it was never sent
                self._clear()
            case _:
                raise ProtocolViolation(f"message type {chr(kind)!r} does not belong in this phase")

    def _steady(self) -> bool:
        """Whether texts and names mean now what they will mean when the server reads them. A statement on its way
        that may change settings or prepared names must have been answered first; and one whose rows are counted,
        for what is behind it must not have run should its result be refused."""
        return not (self._judgement.barriers or self._.replies.metered) or self._.settle()

    def _may_follow(self) -> bool:
        """Whether what runs nothing may pass: of the batch in which a counted result comes, not of the next one."""
        replies = self._.replies
        return not replies.metered or replies.batch_open or self._.settle()

    def _past_copy(self, kind: int) -> bool:
        """Whether a message may pass while a COPY FROM STDIN is, or may be, under way. A Sync that libpq sends at
        once with the Execute is kept here instead of being sent to be ignored: had the COPY failed before the server
        read it, it would be answered."""
        if kind == tags.TERMINATE:
            return True
        if not self._.replies.copy_in:
            self._.settle()
            return False
        if kind not in (tags.SYNC, tags.FLUSH):
            raise ProtocolViolation(f"unexpected message type 0x{kind:02X} during COPY from stdin")
        if len(self._inbox) > 1:
            self._pop()
        return False

    def _name(self, name: bytes) -> bytes:
        """The name under which the server keeps a statement or portal. Cut at 63 bytes of the *server's* encoding:
        where a conversion lies between, two names of the client can be one to the server."""
        c = self._
        if not name.isascii() and not c.settings.names_are_exact and c.policy.mode is Mode.ENFORCE:
            raise ProtocolViolation(
                "pgproxy: names of statements and portals must be ASCII unless both encodings are UTF8", "0A000"
            )
        return frontend.truncate_name(name)

    def _pass(self, message: bytes, expected: Expected) -> None:
        self._.replies.sent(expected)
        self._.emit(effects.ToServer(message))

    def _unit(self, kind: UnitKind, sql: bytes, messages: list[bytes], expected: list[Expected]) -> Unit:
        return Unit(kind, sql, messages, expected, self._arrived_at, self._.next_statement_id())

    # large messages -----------------------------------------------------------------------------------------------

    def _take_large(self, kind: int, large: Large) -> None:
        """The first in the inbox, undecided or being collected."""
        c = self._
        if large.fate is Fate.COLLECT:
            if self._whole(0, large, 1):
                self._step()
        elif kind == tags.BIND:
            self._take_large_bind(large)
        elif large.size <= c.limits.message_bytes and (
            kind != tags.QUERY or c.policy.mode is Mode.OBSERVE or large.size <= c.limits.statement_bytes + 6
        ):
            large.collect()
            self._take_large(kind, large)
        else:
            self._refuse_large(large, _UNIT_KINDS[kind], *_beginning(kind, large.head))

    def _whole(self, position: int, large: Large, answer: int) -> int | None:
        """Puts the whole message in its place, once it is here; None before."""
        large.collect()
        if not large.is_complete:
            return None
        self._inbox[position] = (large.kind, large.whole())
        return answer

    def _take_large_bind(self, large: Large) -> None:
        """Its values are not looked at: if its statement passes, so does it."""
        c = self._
        bound = frontend.read_bind_head(large.head)
        name = self._name(bound.statement)
        if not c.statements.is_settled(name, c.segment) and not c.settle():
            return
        candidates = c.statements.candidates(name)
        if len(candidates) != 1:
            self._take_unsure_bind([], large, bound.portal, name, len(candidates))
            return
        (statement,) = candidates
        unit = self._unit(UnitKind.BIND, statement.sql, [], [Expected(ReplyKind.BIND)])
        unit.large = large
        unit.portal = self._name(bound.portal)
        unit.statement_name = name
        unit.prepared = statement
        unit.parameter_types = statement.parameter_types
        types = c.statements.parameter_types(name, statement)
        large.digest = ValueDigest(bound, types, c.settings.codec or "latin-1")
        unit.parameters = large.digest.beginning(large.head)
        self._judgement.begin(unit)

    def _refuse_large(self, large: Large, kind: UnitKind, sql: bytes, messages: list[bytes]) -> None:
        """Larger than what is kept of one message, and it would have to be. (In `observe` it passes as unknown.)"""
        c = self._
        expected = [Expected(_REPLIES[m[0]]) for m in messages] + [Expected(_REPLIES[large.kind])]
        unit = self._unit(kind, sql, messages, expected)
        unit.large = large
        unit.text = sql.decode(c.settings.codec or "latin-1", "backslashreplace")
        if c.policy.mode is Mode.ENFORCE:
            unit.refusal = too_large(large.size)
        elif kind is UnitKind.PARSE:
            name = frontend.read_parse_head(large.head)
            reason = "the statement is larger than the limit"
            unit.statement_name, unit.prepared = self._name(name), PreparedStatement(sql, (), unknown("Parse", reason))
        self._judgement.begin_uncertain(unit, f"a message of {large.size} bytes, larger than the limit")

    # simple query -------------------------------------------------------------------------------------------------

    def _take_query(self, message: bytes) -> None:
        sql = frontend.read_query(message)
        self._judgement.begin(self._unit(UnitKind.QUERY, sql, [message], [Expected(ReplyKind.QUERY)]))

    def _take_function_call(self, message: bytes) -> None:
        """The fast-path interface: a function by OID, with no SQL to read ("Function Call")."""
        call = frontend.read_function_call(message)
        sql = f"FUNCTION CALL {call.oid}".encode()
        unit = self._unit(UnitKind.FUNCTION_CALL, sql, [message], [Expected(ReplyKind.FUNCTION_CALL)])
        unit.text = sql.decode()
        codec = self._.settings.codec or "latin-1"
        unit.parameters = [values.describe(a, 0, True, codec) for a in call.arguments]
        unit.classification = _fast_path(call.oid)
        self._judgement.begin(unit)

    # extended query -----------------------------------------------------------------------------------------------

    def _take_parse(self, message: bytes) -> None:
        c = self._
        parsed = frontend.read_parse(message)
        name = self._name(parsed.name)
        conforming = c.settings.environment.standard_conforming_strings
        statement = PreparedStatement(parsed.query, parsed.parameter_types, conforming=conforming)
        classification = self._judgement.peek(statement.sql)
        if classification is None:
            return
        decision = self._judgement.foresee(statement.sql, classification)
        if isinstance(decision, Deny):
            self._pop()
            unit = self._unit(UnitKind.PARSE, parsed.query, [message], [Expected(ReplyKind.PARSE)])
            unit.statement_name, unit.prepared = name, statement
            self._judgement.begin(unit)
            return
        if c.policy.mode is Mode.ENFORCE and len(statement.sql) > c.limits.statement_bytes:
            self._pop()
            unit = self._unit(UnitKind.PARSE, parsed.query, [message], [Expected(ReplyKind.PARSE)])
            unit.statement_name, unit.prepared = name, statement
            self._judgement.begin(unit)  # which refuses it
            return
        # A text the grammar rejects goes to the server's own parser first, which executes nothing.
        if classification.syntax_error is None and isinstance(decision, Park):
            held = self._held_with_parse(name)
            if held is None:
                return  # its Bind, or the end of the batch, is still to come
            if held:
                self._take_held_bind(held, name, statement)
                return
        self._pop()
        pending = c.statements.parse_sent(name, statement, c.segment)
        run = self._judgement.lazy_run(statement.sql, classification)
        self._pass(message, Expected(ReplyKind.PARSE, run=run, parse=pending))

    def _held_with_parse(self, name: bytes) -> int | None:
        """How many messages, from the Parse to its Bind, belong together; 0 when the Parse comes without its Bind;
        None when the client has yet to send what tells."""
        for position, (kind, message) in enumerate(self._inbox):
            if position == 0:
                continue
            if isinstance(message, Large):
                if kind != tags.BIND or self._name(frontend.read_bind_head(message.head).statement) != name:
                    return 0
                if message.size <= self._.limits.message_bytes:
                    return self._whole(position, message, position + 1)
                return position + 1
            if kind == tags.BIND:
                same = self._name(frontend.read_bind(message).statement) == name
                return position + 1 if same else 0
            if kind == tags.DESCRIBE and position <= _MAX_HELD:
                target = frontend.read_describe(message)
                if target.kind == tags.STATEMENT and self._name(target.name) == name:
                    continue
            return 0
        return 0 if self._.client_gone else None

    def _take_held_bind(self, count: int, name: bytes, statement: PreparedStatement) -> None:
        _, last = self._inbox[count - 1]
        if isinstance(last, Large):  # too large for anybody to be asked
            messages = [self._pop() for _ in range(count - 1)]
            self._refuse_large(last, UnitKind.BIND, statement.sql, messages)
            return
        messages = [self._pop() for _ in range(count)]
        expected = [Expected(ReplyKind.PARSE)]
        expected += [Expected(ReplyKind.DESCRIBE, name=b"S" + name) for _ in messages[1:-1]]
        self._begin_bind(messages, expected, frontend.read_bind(messages[-1]), name, statement)

    def _take_bind(self, message: bytes) -> None:
        c = self._
        bound = frontend.read_bind(message)
        name = self._name(bound.statement)
        if not c.statements.is_settled(name, c.segment) and not self._.settle():
            return
        self._pop()
        candidates = c.statements.candidates(name)
        if len(candidates) == 1:
            self._begin_bind([message], [], bound, name, candidates[0])
        else:
            self._take_unsure_bind([message], None, bound.portal, name, len(candidates))

    def _take_unsure_bind(
        self, messages: list[bytes], large: Large | None, portal: bytes, name: bytes, candidates: int
    ) -> None:
        """A Bind of a name that stands for nothing, or for more than one text."""
        c = self._
        unit = self._unit(UnitKind.BIND, b"", messages, [Expected(ReplyKind.BIND)])
        unit.large = large
        unit.portal = self._name(portal)
        shown = name.decode("utf-8", "replace")
        if not candidates:
            # Made behind our back (by a function, say) it would run unjudged; not made at all, the server would
            # say just this.
            text = (
                f'prepared statement "{shown}" does not exist' if name else "unnamed prepared statement does not exist"
            )
            unit.refusal = StatementUnknown(text)
        else:
            unit.refusal = Denied(
                f'pgproxy: it is not certain what prepared statement "{shown}" is',
                hint="prepare it again under another name",
            )
        if c.policy.mode is Mode.OBSERVE:
            unit.refusal = None
        self._judgement.begin_uncertain(unit)

    def _begin_bind(
        self,
        messages: list[bytes],
        expected: list[Expected],
        bound: frontend.Bind,
        name: bytes,
        statement: PreparedStatement,
    ) -> None:
        c = self._
        unit = self._unit(UnitKind.BIND, statement.sql, messages, [*expected, Expected(ReplyKind.BIND)])
        unit.portal = self._name(bound.portal)
        unit.statement_name = name
        unit.prepared = statement
        unit.parameter_types = statement.parameter_types
        types = c.statements.parameter_types(name, statement)
        formats = bound.parameter_formats
        codec = c.settings.codec or "latin-1"
        for i, value in enumerate(bound.parameters):
            form = formats[i] if i < len(formats) else (formats[0] if len(formats) == 1 else 0)
            oid = types[i] if i < len(types) else 0
            unit.parameters.append(values.describe(value, oid, form == 1, codec))
        self._judgement.begin(unit)

    def _take_execute(self, message: bytes) -> None:
        c = self._
        name = self._name(frontend.read_execute(message).portal)
        if not c.statements.portal_is_settled(name, c.segment) and not self._.settle():
            return
        if c.replies.metered and not c.settle():
            return
        run = c.statements.portal(name)
        if run is None or (name and c.settings.cursors_may_change):
            # A portal this session did not bind is a cursor: DECLARE was judged by its query, whose functions run
            # only now. None at all is the server's to refuse, like any other name it does not know. (SQL's CLOSE and
            # DECLARE may have put a cursor in the place of a portal.) Earlier replies first: the ReadyForQuery of
            # something before would say that all is as reported.
            if not c.settle():
                return
            c.settings.may_have_changed(("search_path", *c.settings.cursors_may_change))
        if run is None:
            allowance = c.meters.of_cursor(name, c.now)
            expected = Expected(ReplyKind.EXECUTE, run=None if allowance is None else allowance.run)
        else:
            if run.stood_for:
                if not c.settle():
                    return
                if c.policy.mode is Mode.ENFORCE and not self._judgement.still_means_the_same(run):
                    self._refuse_changed(self._pop(), run)
                    return
            run.executed = True
            self._judgement.guard(run)
            allowance = run.allowance
            expected = Expected(ReplyKind.EXECUTE, run=run, may_copy_in=may_copy_in(run.classification))
        expected.allowance = allowance
        self._pass(self._pop(), expected)
        if allowance is not None:
            c.meters.arm(allowance, c.now)

    def _refuse_changed(self, message: bytes, run: StatementRun) -> None:
        """An Execute of a portal that executes by name what is no longer what was judged."""
        unit = self._unit(UnitKind.BIND, run.sql, [message], [Expected(ReplyKind.EXECUTE)])
        unit.text = run.sql.decode(self._.settings.codec or "latin-1", "backslashreplace")
        unit.refusal = Denied(
            "pgproxy: what this portal executes may have changed since it was bound", hint="bind its statement again"
        )
        self._judgement.begin_uncertain(unit, "a prepared statement it executes, or the search_path, was changed")


def _require_empty(message: bytes) -> None:
    if len(message) != 5:
        raise ProtocolViolation("invalid message format")


def _beginning(kind: int, head: bytes) -> tuple[bytes, list[bytes]]:
    """What the trail shows of a text too large to be kept."""
    if kind == tags.FUNCTION_CALL:
        return f"FUNCTION CALL {int.from_bytes(head[5:9], 'big')}".encode(), []
    begins = 5 if kind == tags.QUERY else head.find(b"\0", 5) + 1
    return head[begins : begins + _SHOWN_BYTES].partition(b"\0")[0], []


def _fast_path(oid: int) -> Classification:
    reason = f"the function with OID {oid} is called without SQL, through the fast-path interface"
    action = Action(ActionClass.UNKNOWN, "function_call", f"oid {oid}", reason)
    statement = Statement("FunctionCall", "FUNCTION CALL", (action,), reasons=(reason,))
    return Classification(True, Risk.HIGH, f"function-call-{oid}", f"FUNCTION CALL {oid}", (statement,))
