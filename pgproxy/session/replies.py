"""Which reply of the server belongs to what was sent: a typed queue of expected replies ("Message Flow").

After an error in the extended protocol the server skips everything up to the next Sync; that is followed here,
because pgproxy must know at any moment whether a reply is due, and to which statement: one reply too many or too few,
and a ParseComplete vouches for the wrong text. During COPY FROM STDIN the server ignores Flush and Sync, and whether it
read one before or after its COPY failed cannot be told; so the gate sends nothing but the COPY's own messages while a
statement that may read CopyData is on its way (`copying`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pgproxy.protocol import backend, tags
from pgproxy.protocol.violation import ProtocolViolation
from pgproxy.session.runs import StatementRun
from pgproxy.session.statements import PendingBind, PendingParse, Statements

if TYPE_CHECKING:
    from pgproxy.session.budget import Allowance


class ReplyKind(Enum):
    """What a message that was sent will be answered with."""

    PARSE = "ParseComplete"
    BIND = "BindComplete"
    DESCRIBE = "RowDescription or NoData"
    EXECUTE = "CommandComplete, EmptyQueryResponse or PortalSuspended"
    CLOSE = "CloseComplete"
    SYNC = "ReadyForQuery"
    QUERY = "any number of results, then ReadyForQuery"
    FUNCTION_CALL = "FunctionCallResponse, then ReadyForQuery"


_ENDS_WITH_READY = frozenset({ReplyKind.SYNC, ReplyKind.QUERY, ReplyKind.FUNCTION_CALL})
_SIMPLE = frozenset({ReplyKind.QUERY, ReplyKind.FUNCTION_CALL})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A substitute that must fail: the server's ErrorResponse holding `nonce` is replaced by `error`. (An empty nonce:
    it is a question of ours, and any error of the server's is replaced.)"""

    nonce: str
    error: bytes
    sqlstate: str

    def answers(self, fields: dict[str, str]) -> bool:
        return self.nonce in fields.get("M", "") and fields.get("V", "ERROR") == "ERROR"


@dataclass(eq=False, slots=True)
class Expected:
    """One entry of the queue. `name` is what a Close or Describe names, with its kind (`S` or `P`) in front."""

    kind: ReplyKind
    run: StatementRun | None = None
    parse: PendingParse | None = None
    bind: PendingBind | None = None
    # It may be a COPY FROM STDIN, whose end the client may already have sent.
    may_copy_in: bool = False
    copy_ended: bool = False
    name: bytes = b""
    refusal: Refusal | None = None
    allowance: Allowance | None = None  # of the rows it will be answered with
    describes: list[Any] | None = None  # takes what the server describes, for our own question
    # Ours, not the client's: its replies are swallowed, but for an error that answers the client's own text.
    probe: bool = False


class Replies:
    """The queue of one session. `on_end` is told of each run whose part at the server is over."""

    def __init__(self, statements: Statements, on_end: Callable[[StatementRun], None]) -> None:
        self._queue: deque[Expected] = deque()
        self._statements = statements
        self._on_end = on_end
        self.transaction_status = tags.IDLE
        self.skipping = False  # the server skips until a Sync that has not been sent yet
        self.copying: Expected | None = None  # may read CopyData, whose end the client has yet to send
        self.copy_in = False  # the server reads CopyData now
        self._ends_ahead = 0  # CopyDone and CopyFail sent before the COPY they end has begun
        self.needs_flush = False  # the server may sit on replies to what was sent
        self.batch_open = False  # extended messages were sent since the last Sync
        self.metered = 0  # of what was sent, how much is answered with rows that are counted
        self.failed = False  # an error since the last ReadyForQuery
        self.probe_sqlstate: str | None = None  # the server rejected the probed text, and the client has its error

    @property
    def settled(self) -> bool:
        """Every reply to everything sent is in."""
        return not self._queue

    @property
    def current_allowance(self) -> Allowance | None:
        """Of whose rows are passing now."""
        return self._queue[0].allowance if self._queue else None

    def outstanding(self) -> list[StatementRun]:
        """The runs that still await something of the server."""
        return list(dict.fromkeys(e.run for e in self._queue if e.run is not None))

    def sent(self, expected: Expected) -> None:
        """A message that will be answered went to the server."""
        if expected.kind is ReplyKind.SYNC:
            self.skipping = False
        assert not self.skipping, "the server would not answer it"
        self._queue.append(expected)
        if expected.allowance is not None:
            self.metered += 1
        if expected.may_copy_in:
            self.copying = expected
            self._ends_ahead = 0
        self.needs_flush = self.batch_open = expected.kind not in _ENDS_WITH_READY

    def copy_ended(self) -> None:
        """A CopyDone or CopyFail went to the server, which ignores it unless a COPY is there to be ended."""
        if self.copying is None:
            return
        if self.copy_in:
            self.copy_in = False
        else:
            self._ends_ahead += 1
        if self.copying.kind is ReplyKind.EXECUTE:
            self.copying.copy_ended = True
            self.copying = None  # one statement, so there is no second COPY
            self.needs_flush = True  # a Flush before this was ignored

    def flushed(self) -> None:
        """A Flush went to the server."""
        self.needs_flush = False

    def data(self, count: int, size: int) -> None:
        """A run of DataRow or CopyData passed."""
        if not self._queue:
            return
        head = self._queue[0]
        if head.run is not None:
            head.run.data_bytes += size
        if head.allowance is not None:
            head.allowance.rows += count
            head.allowance.bytes += size

    def receive(self, kind: int, message: bytes) -> bytes | None:
        """Match one message of the server; gives what the client is to get (None: nothing).

        Raises ProtocolViolation when the server says something that nothing sent can have caused: then this
        session no longer knows what it guards.
        """
        match kind:
            case tags.NOTICE_RESPONSE | tags.NOTIFICATION_RESPONSE | tags.PARAMETER_STATUS:
                return message
            case tags.ERROR_RESPONSE:
                return self._error(message)
            case tags.READY_FOR_QUERY:
                return self._ready(message)
        if not self._queue:
            raise ProtocolViolation(f"the server sent an unexpected message {chr(kind)!r}")
        head = self._queue[0]
        forward: bytes | None = None if head.probe else message
        match kind, head.kind:
            case tags.PARSE_COMPLETE, ReplyKind.PARSE:
                self._pop()
                if head.parse is not None:
                    self._statements.parse_completed(head.parse)
            case tags.BIND_COMPLETE, ReplyKind.BIND:
                self._pop()
                replaced = self._statements.bind_completed(head.bind) if head.bind is not None else None
                if replaced is not None:
                    self._on_end(replaced)
            case tags.CLOSE_COMPLETE, ReplyKind.CLOSE:
                self._pop()
                self._closed(head.name)
            case (tags.ROW_DESCRIPTION | tags.NO_DATA, ReplyKind.DESCRIBE):
                self._pop()
                if head.describes is not None:
                    head.describes.append(backend.read_row_description(message) if kind == tags.ROW_DESCRIPTION else ())
            case tags.PARAMETER_DESCRIPTION, ReplyKind.DESCRIBE if head.describes is not None:
                head.describes.append(backend.read_parameter_description(message))
            case tags.PARAMETER_DESCRIPTION, ReplyKind.DESCRIBE:
                self._statements.described(head.name[1:], backend.read_parameter_description(message))
            case tags.ROW_DESCRIPTION, ReplyKind.QUERY | ReplyKind.EXECUTE:
                pass
            case tags.COMMAND_COMPLETE, ReplyKind.QUERY | ReplyKind.EXECUTE:
                if head.run is not None:
                    head.run.add_tag(backend.read_command_complete(message).decode("utf-8", "replace"))
                    head.run.completed = True
                if head.kind is ReplyKind.EXECUTE:
                    self._end_execute(head)
            case tags.EMPTY_QUERY_RESPONSE, ReplyKind.QUERY:
                pass
            case tags.EMPTY_QUERY_RESPONSE, ReplyKind.EXECUTE:
                self._end_execute(head)
            case tags.PORTAL_SUSPENDED, ReplyKind.EXECUTE:
                self._pop()
                if head.run is not None:
                    head.run.portal_open = True
            case tags.COPY_IN_RESPONSE, ReplyKind.QUERY | ReplyKind.EXECUTE:
                self._copy_in_begins(head)
            case tags.COPY_BOTH_RESPONSE, ReplyKind.QUERY:  # START_REPLICATION
                self._copy_in_begins(head)
            case (tags.COPY_OUT_RESPONSE | tags.COPY_DONE, ReplyKind.QUERY | ReplyKind.EXECUTE):
                pass
            case tags.FUNCTION_CALL_RESPONSE, ReplyKind.FUNCTION_CALL:
                pass
            case _:
                raise ProtocolViolation(f"the server sent {chr(kind)!r} where {head.kind.value} was expected")
        return forward

    def _end_execute(self, head: Expected) -> None:
        self._pop()
        if head.run is not None:
            head.run.portal_open = False
            self._on_end(head.run)

    def _closed(self, name: bytes) -> None:
        if name[:1] == b"S":
            self._statements.forget(name[1:])
            return
        run = self._statements.portals.pop(name[1:], None)
        if run is not None and run.portal_open:
            run.portal_open = False
            self._on_end(run)

    def _copy_in_begins(self, head: Expected) -> None:
        if head.copy_ended:
            return
        if self._ends_ahead and head is self.copying:
            self._ends_ahead -= 1
            return
        if head is not self.copying and len(self._queue) > 1:
            raise ProtocolViolation("the server began a COPY that was not expected")
        self.copying = head
        self.copy_in = True

    def _pop(self) -> Expected:
        entry = self._queue.popleft()
        if entry.allowance is not None:
            self.metered -= 1
        if entry is self.copying:
            self._copy_over()
        return entry

    def _copy_over(self) -> None:
        self.copying = None
        self.copy_in = False
        self._ends_ahead = 0

    def _error(self, message: bytes) -> bytes | None:
        fields = backend.read_error(message)
        sqlstate = fields.get("C", "XX000")
        if not self._queue:
            return message  # "terminating connection due to administrator command" and the like
        head = self._queue[0]
        forward: bytes | None = message
        self.failed = True
        if head.probe and fields.get("V", "ERROR") == "ERROR":
            # "cannot insert multiple commands into a prepared statement" has no position and says nothing of the
            # text as a simple query.
            self.probe_sqlstate = sqlstate if "P" in fields else None
            forward = message if self.probe_sqlstate is not None else None
        if head.refusal is not None and head.refusal.answers(fields):
            forward = head.refusal.error
            sqlstate = head.refusal.sqlstate
        if head is self.copying:
            self._copy_over()
        if head.run is not None:
            head.run.sqlstate = sqlstate
            head.run.portal_open = False
            self._on_end(head.run)
        if head.kind in _SIMPLE:
            return forward  # its ReadyForQuery follows
        while self._queue and self._queue[0].kind is not ReplyKind.SYNC:
            entry = self._pop()
            if entry.parse is not None:
                self._statements.parse_failed(entry.parse)
            if entry.bind is not None:
                self._statements.bind_failed(entry.bind)
            if entry.run is not None and entry is not head:
                if entry.run.sqlstate is None and not entry.run.tags:
                    entry.run.skipped = True
                self._on_end(entry.run)
        self.skipping = not self._queue
        return forward

    def _ready(self, message: bytes) -> bytes | None:
        self.transaction_status = backend.read_ready_for_query(message)
        if not self._queue or self._queue[0].kind not in _ENDS_WITH_READY:
            raise ProtocolViolation("the server sent an unexpected ReadyForQuery")
        head = self._pop()
        if head.run is not None:
            self._on_end(head.run)
        if head.probe:
            return message if self.probe_sqlstate is not None else None
        return message
