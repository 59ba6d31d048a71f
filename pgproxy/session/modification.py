"""A statement that a reviewer changed: what runs is their text, and the client must not be told otherwise by its shape.

In the simple protocol the new text takes the place of the old. In the extended protocol the client may have been told
the parameters' types and the columns of its statement, and will send and read values by them; so the new text is
prepared under a private name, the server describes both, and only if they are alike is the client's Bind sent, with
the private name in it.
"""

from __future__ import annotations

from pgproxy.errors import Denied, ProxyError
from pgproxy.protocol import frontend, tags
from pgproxy.session import asking, effects, evidence
from pgproxy.session.context import Context
from pgproxy.session.ports import ResolvedApproval
from pgproxy.session.refusals import error_response
from pgproxy.session.replies import Expected, Refusal, ReplyKind
from pgproxy.session.runs import StatementRun
from pgproxy.session.states import GateState
from pgproxy.session.units import Modified, Unit, UnitKind

_HINT = "run the statement as the reviewer wrote it, or ask again"


class Modification:
    """Of the units of one session, one at a time."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self.names: list[tuple[bytes, StatementRun]] = []  # private statements, and what they were made for

    def begin(self, unit: Unit, resolved: ResolvedApproval) -> ProxyError | None:
        """Puts the new text into the unit, to be classified; or says why it cannot be."""
        c = self._
        assert resolved.sql is not None
        if unit.kind not in (UnitKind.QUERY, UnitKind.BIND) or c.replication == "true":
            return Denied("pgproxy: this kind of request cannot be modified", hint="approve or deny it as it is")
        try:
            sql = resolved.sql.encode(c.settings.codec or "ascii")
        except UnicodeEncodeError:
            return Denied(
                "pgproxy: the reviewer's text cannot be written in this client_encoding",
                hint="use client_encoding UTF8",
            )
        if b"\0" in sql:
            return Denied("pgproxy: the reviewer's text contains a NUL byte")
        unit.modified = Modified(resolved.sql, sql, resolved.modified_by or resolved.reviewer or "a reviewer")
        unit.classification = None
        unit.executes = {}
        unit.estimated, unit.rows_estimate = False, None
        return None

    def problem(self, unit: Unit) -> ProxyError | None:
        """What the new text's classification says against it."""
        assert unit.classification is not None
        if unit.refusal is not None:
            return unit.refusal
        if unit.classification.syntax_error is not None or len(unit.classification.statements) != 1:
            return Denied("pgproxy: the reviewer's text is not one statement", hint=_HINT)
        return None

    # extended query

    def compare(self, unit: Unit) -> None:
        """Has the server describe both. What the client sent before its Bind goes on as it came, and is answered."""
        c = self._
        modified = unit.modified
        assert modified is not None and unit.prepared is not None
        modified.name = f"pgproxy_modified_{c.next_nonce()}".encode()
        for expected in unit.expected[:-1]:
            if expected.kind is ReplyKind.PARSE:
                expected.parse = c.statements.parse_sent(unit.statement_name, unit.prepared, c.segment)
            c.replies.sent(expected)
        error = Denied(
            f"pgproxy: the statement as {modified.by} modified it is not accepted by the server",
            detail=f"approval {unit.approval_id}",
            hint=_HINT,
        )
        refusal = Refusal("", error_response(error, c.settings.told_codec), error.sqlstate)
        described: list[list[object]] = [[], []]
        modified.descriptions = described
        for kind, which in ((ReplyKind.DESCRIBE, 0), (ReplyKind.PARSE, None), (ReplyKind.DESCRIBE, 1)):
            describes = None if which is None else described[which]
            c.replies.sent(Expected(kind, probe=True, refusal=refusal, describes=describes))
        messages = [
            *unit.messages[:-1],
            frontend.describe(tags.STATEMENT, unit.statement_name),
            frontend.parse(modified.name, modified.sql, unit.prepared.parameter_types),
            frontend.describe(tags.STATEMENT, modified.name),
            frontend.FLUSH,
        ]
        unit.expected = unit.expected[-1:]
        c.replies.flushed()
        c.emit(effects.ToServer(b"".join(messages)))
        c.state = GateState.COMPARING

    def difference(self, unit: Unit) -> ProxyError | None:
        """What of the new text is not as the client was, or may have been, told."""
        assert unit.modified is not None
        (types, columns), (new_types, new_columns) = unit.modified.descriptions
        what = "parameter types" if types != new_types else "columns" if columns != new_columns else None
        if what is None:
            return None
        return Denied(
            f"pgproxy: the statement as {unit.modified.by} modified it has other {what} than the client expects",
            detail=f"approval {unit.approval_id}",
            hint=_HINT,
        )

    # what is sent

    def messages(self, unit: Unit, run: StatementRun) -> list[bytes]:
        """In place of the client's; the client is told first."""
        c = self._
        modified = unit.modified
        assert modified is not None
        c.emit(effects.ToClient(asking.modified_notice(c, modified.by, evidence.digest(modified.sql))))
        if unit.kind is UnitKind.QUERY:
            return [frontend.query(modified.sql)]
        self.names.append((modified.name, run))
        return [frontend.bind_other(unit.messages[-1], modified.name)]

    def dropped(self, unit: Unit, run: StatementRun) -> None:
        """What was prepared will not be bound."""
        if unit.modified is not None and unit.modified.name:
            self.names.append((unit.modified.name, run))

    def closed_names(self) -> list[bytes]:
        """Closes of private statements whose portal is over, to go before the next statement."""
        over = [(name, run) for name, run in self.names if run.finished_at is not None and not run.portal_open]
        for entry in over:
            self.names.remove(entry)
            self._.replies.sent(Expected(ReplyKind.CLOSE, name=b"S" + entry[0], probe=True))
        return [frontend.close(tags.STATEMENT, name) for name, _ in over]
