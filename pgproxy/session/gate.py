"""The gate: takes the client's messages one at a time, in order, and lets each pass only as its kind allows.

Query, Bind and FunctionCall are judged, for they make the server do something; a Parse only names, but one that will
be parked is held until its Bind is here, so that nothing of it is held on the server while a human thinks.
"""

from __future__ import annotations

from collections import deque

from classifier.model import Action, ActionClass, Classification, Risk, Statement
from pgproxy import policy
from pgproxy.errors import Denied, StatementUnknown
from pgproxy.policy import Deny, Mode
from pgproxy.protocol import frontend, tags
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session import effects, values
from pgproxy.session.context import Context
from pgproxy.session.judgement import Judgement
from pgproxy.session.reading import may_copy_in
from pgproxy.session.replies import Expected, ReplyKind
from pgproxy.session.statements import PreparedStatement
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit, UnitKind

# What a message costs in the inbox beside its bytes: messages of five bytes must not add up unseen.
_MESSAGE_OVERHEAD_BYTES = 100
# Describes between a Parse and the Bind held with it.
_MAX_HELD = 8
_COPY_KINDS = frozenset({tags.COPY_DATA, tags.COPY_DONE, tags.COPY_FAIL})


class Gate:
    """The inbox of one session and the way each message takes out of it."""

    def __init__(self, context: Context, judgement: Judgement) -> None:
        self._ = context
        self._judgement = judgement
        self._inbox: deque[tuple[int, bytes]] = deque()
        self.inbox_bytes = 0
        self.terminate_waits = False  # the client has already said goodbye, behind what waits here
        self._arrived_at = 0.0

    def take(self, items: list[tuple[int, bytes, int]]) -> None:
        """Whole messages, or stretches of CopyData, from the client."""
        self._arrived_at = self._.now
        for kind, data, _count in items:
            self._inbox.append((kind, data))
            self.inbox_bytes += len(data) + _MESSAGE_OVERHEAD_BYTES
            if kind == tags.TERMINATE:
                self.terminate_waits = True

    def advance(self) -> None:
        """Judge and forward until something has to be awaited. OPEN afterwards means that more of the client is
        needed."""
        c = self._
        while c.state is GateState.OPEN and self._inbox:
            if c.abandoned:
                self._clear()
                return
            before = len(self._inbox)
            self._step()
            if len(self._inbox) == before and c.state is GateState.OPEN:
                return

    def _clear(self) -> None:
        self._inbox.clear()
        self.inbox_bytes = 0

    def _pop(self) -> bytes:
        _, message = self._inbox.popleft()
        self.inbox_bytes -= len(message) + _MESSAGE_OVERHEAD_BYTES
        return message

    def _step(self) -> None:
        """One message; leaves it in the inbox when it cannot be taken up yet."""
        c = self._
        kind, message = self._inbox[0]
        if c.replies.skipping and kind not in (tags.SYNC, tags.TERMINATE, tags.COPY_DATA):
            # The server would skip it; so nothing of it need be judged. CopyData goes on being sent: the beginning
            # of a message may be out already, and the server would take what comes next for the rest of it.
            self._pop()
            return
        if kind not in _COPY_KINDS and c.replies.copying is not None and not self._past_copy(kind):
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
                target = frontend.read_describe(message)
                name = bytes((target.kind,)) + self._name(target.name)
                self._pass(self._pop(), Expected(ReplyKind.DESCRIBE, name=name))
            case tags.CLOSE:
                target = frontend.read_close(message)
                name = bytes((target.kind,)) + self._name(target.name)
                self._pass(self._pop(), Expected(ReplyKind.CLOSE, name=name))
            case tags.SYNC:
                _require_empty(message)
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
        that may change settings or prepared names must have been answered first."""
        return not self._judgement.barriers or self._.settle()

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
        statement = PreparedStatement(parsed.query, parsed.parameter_types)
        classification = self._judgement.peek(statement.sql)
        if classification is None:
            return
        decision = policy.decide(classification, c.identity, c.policy)
        if isinstance(decision, Deny):
            self._pop()
            unit = self._unit(UnitKind.PARSE, parsed.query, [message], [Expected(ReplyKind.PARSE)])
            unit.statement_name, unit.prepared = name, statement
            self._judgement.begin(unit)
            return
        # A text the grammar rejects goes to the server's own parser first, which executes nothing.
        if classification.syntax_error is None and self._judgement.will_park(classification):
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
            return
        unit = self._unit(UnitKind.BIND, b"", [message], [Expected(ReplyKind.BIND)])
        unit.portal = self._name(bound.portal)
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
        self._pop()
        run = c.statements.portal(name)
        if run is None:
            # A portal this session did not bind is a cursor: DECLARE was judged by its query, whose functions run
            # only now. None at all is the server's to refuse, like any other name it does not know.
            c.settings.may_have_changed(("search_path",))
            self._pass(message, Expected(ReplyKind.EXECUTE))
            return
        self._judgement.guard(run)
        self._pass(message, Expected(ReplyKind.EXECUTE, run=run, may_copy_in=may_copy_in(run.classification)))


def _require_empty(message: bytes) -> None:
    if len(message) != 5:
        raise ProtocolViolation("invalid message format")


def _fast_path(oid: int) -> Classification:
    reason = f"the function with OID {oid} is called without SQL, through the fast-path interface"
    action = Action(ActionClass.UNKNOWN, "function_call", f"oid {oid}", reason)
    statement = Statement("FunctionCall", "FUNCTION CALL", (action,), reasons=(reason,))
    return Classification(True, Risk.HIGH, f"function-call-{oid}", f"FUNCTION CALL {oid}", (statement,))
