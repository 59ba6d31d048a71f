"""What a text means in this session now: its classification, and that of whatever it executes by name.

An answer that no cache knows has to be awaited (state ANALYSING), and a name whose maker is still unanswered has to be
settled first; both give None, and the caller asks again when the session goes on.
"""

from __future__ import annotations

from dataclasses import replace

from classifier.catalog import changes_catalog
from classifier.model import Action, ActionClass, Classification, Environment, Risk, Statement
from classifier.settings import HIDES_QUOTES
from pgproxy.errors import Denied, InvalidText, ProxyError, StatementUnknown, TooLarge
from pgproxy.policy import Mode
from pgproxy.session import effects, replication
from pgproxy.session.context import Context
from pgproxy.session.settings import MEANINGFUL, Settings
from pgproxy.session.statements import PreparedStatement, sql_name
from pgproxy.session.states import GateState
from pgproxy.session.units import Unit, UnitKind

_RISKS = list(Risk)
_PLANNED = frozenset({"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})
_HARMLESS = frozenset({ActionClass.READ, ActionClass.WRITE, ActionClass.BULK_WRITE})


def unknown(kind: str, reason: str) -> Classification:
    """The answer for what cannot be classified: privileged."""
    statement = Statement(
        kind, kind.upper(), (Action(ActionClass.UNKNOWN, "unknown", None, reason),), reasons=(reason,)
    )
    return Classification(True, Risk.HIGH, "", "", (statement,))


class Reading:
    """Reads texts for one session."""

    def __init__(self, context: Context) -> None:
        self._ = context
        self._peeked: tuple[str, Environment, Classification] | None = None
        self._awaited: tuple[str, Environment] = ("", context.settings.environment)

    def classify(self, unit: Unit) -> Classification | None:
        """The unit's classification; None when it has to be awaited. A text that cannot even be read sets
        `unit.refusal` (in `observe` it goes on as unknown)."""
        c = self._
        if unit.classification is not None and unit.kind in (UnitKind.FUNCTION_CALL, UnitKind.START_UP):
            return unit.classification
        if c.replication is not None and unit.kind is UnitKind.QUERY:
            found = replication.command(unit.sql)
            if found is not None:
                unit.text = unit.sql.decode("utf-8", "backslashreplace")
                return found
        unit.refusal = None
        codec = c.settings.codec
        problem: ProxyError | None = None
        if codec is None:
            unit.text = unit.sql.decode("latin-1")
            return unknown("Encoding", "the client_encoding can hide quotes from a reader")
        try:
            unit.text = unit.sql.decode(codec)
        except UnicodeDecodeError:
            unit.text = unit.sql.decode(codec, "backslashreplace")
            problem = InvalidText(f'invalid byte sequence for encoding "{codec}"')
        text, sql = unit.running
        if len(sql) > c.limits.statement_bytes:
            problem = TooLarge(
                f"pgproxy: statement of {len(sql)} bytes is larger than the limit",
                hint="send smaller statements, or raise limits.statement_bytes",
            )
        if problem is not None:
            if c.policy.mode is Mode.ENFORCE:
                unit.refusal = problem
            return unknown("Unreadable", problem.message)
        own: Classification | None
        if unit.prepared is not None and unit.modified is None:
            shown = unit.statement_name.decode(codec, "replace")
            own = self._now(unit, unit.text, shown, unit.prepared)
        else:
            own = self._classification_of(unit, text)
        if own is None:
            return None
        joined = self._with_executed(unit, own)
        if unit.portal and unit.stood_for and unit.refusal is None and c.policy.mode is Mode.ENFORCE:
            unit.refusal = Denied(
                "pgproxy: a named portal cannot execute a prepared statement by its name",
                detail="the name may stand for another statement by the time a FETCH runs the portal",
                hint="use the unnamed portal, or bind the prepared statement itself",
            )
        if joined is not None and c.policy.mode is Mode.ENFORCE and _hides_quotes(joined):
            unit.refusal = Denied(
                "pgproxy: this client_encoding is not supported",
                detail="in this encoding a character can hide a quote, or pgproxy has no table of it",
                hint="use UTF8",
            )
        return joined

    def _classification_of(self, unit: Unit, text: str, *, conforming: bool = True) -> Classification | None:
        environment = self._.settings.environment
        if not conforming and environment.standard_conforming_strings:
            environment = replace(environment, standard_conforming_strings=False)
        found = self._in(unit, text, environment)
        # What a FETCH changes holds for the rest of its string already.
        if found is not None and len(found.statements) > 1 and self._fetches(found) and environment.search_path:
            changed = self._in(unit, text, replace(environment, search_path=None, role=None))
            found = changed and _join(found, changed)
        return found

    def _fetches(self, classification: Classification) -> bool:
        may_change = self._.settings.cursors_may_change
        return bool(may_change) and any(s.kind == "FetchStmt" for s in classification.statements)

    def _in(self, unit: Unit, text: str, environment: Environment) -> Classification | None:
        c = self._
        found = unit.analysed.get((text, environment)) or c.lookup(text, environment)
        if found is None:
            self._awaited = (text, environment)
            c.emit(effects.Analyse(text, environment))
            c.state = GateState.ANALYSING
        return found

    def peek(self, sql: bytes) -> Classification | None:
        """What a Parse names, before anything is decided; None while it is being analysed."""
        c = self._
        codec = c.settings.codec
        if codec is None:
            return unknown("Encoding", "the client_encoding can hide quotes from a reader")
        if len(sql) > c.limits.statement_bytes:
            return unknown("Unreadable", "the statement is larger than the limit")
        try:
            text = sql.decode(codec)
        except UnicodeDecodeError:
            return unknown("Unreadable", "the text is not valid in its client_encoding")
        environment = c.settings.environment
        if self._peeked is not None and self._peeked[:2] == (text, environment):
            return self._peeked[2]
        found = c.lookup(text, environment)
        if found is None:
            self._awaited = (text, environment)
            c.emit(effects.Analyse(text, environment))
            c.state = GateState.ANALYSING
        return found

    def peek_analysed(self, classification: Classification) -> None:
        """An analyser answered what `peek` asked."""
        self._peeked = (*self._awaited, classification)

    def analysed(self, unit: Unit, classification: Classification) -> None:
        """An analyser answered what was asked for this unit."""
        unit.analysed[self._awaited] = classification

    def _now(self, unit: Unit, text: str, name: str, prepared: PreparedStatement) -> Classification | None:
        """What a prepared statement means now: the server plans it again after a change of search_path or of an
        object ("PREPARE"). One that SQL made is found again inside the text that made it."""
        found = self._classification_of(unit, text, conforming=prepared.conforming)
        if found is None or prepared.classification is None:
            return found
        made = [
            s.prepared
            for s in found.statements
            if s.prepared is not None and sql_name(s.prepares or "") == sql_name(name)
        ]
        if len(made) == 1:
            return made[0]
        # Of several with this name in one text, whichever the server came to.
        for one in made:
            found = _join(found, one)
        return _join(prepared.classification, found)

    def _with_executed(self, unit: Unit, own: Classification) -> Classification | None:
        """Join what SQL EXECUTE will run: the name's statement counts, not the word EXECUTE. A name may stand for
        another EXECUTE, if the protocol's Parse made it."""
        c = self._
        joined = own
        unit.stood_for = {}
        names = [n for s in own.statements for n in s.executes]
        for name in names:  # grows
            key = sql_name(name)
            if not c.statements.is_settled(key, c.segment) and not c.settle():
                return None
            candidates = c.statements.candidates(key)
            unit.stood_for[key] = candidates
            if not candidates:
                if c.policy.mode is Mode.ENFORCE and len(own.statements) == len(names) == 1:
                    unit.refusal = StatementUnknown(f'prepared statement "{name}" does not exist')
                joined = _join(
                    joined, unknown("ExecuteStmt", f'EXECUTE of "{name}", which this session did not prepare')
                )
                continue
            for candidate in candidates:
                try:
                    text = candidate.sql.decode(c.settings.codec or "utf-8")
                    inner = self._now(unit, text, name, candidate)
                except UnicodeDecodeError:
                    text = candidate.sql.decode("ascii", "backslashreplace")
                    inner = unknown("Unreadable", "the text is not valid in its client_encoding")
                if inner is None:
                    return None
                joined = _join(joined, inner)
                if text not in unit.executes.setdefault(name, []):
                    unit.executes[name].append(text)
                names += [n for s in inner.statements for n in s.executes if n not in names]
        if not c.settings.names_are_exact and c.policy.mode is Mode.ENFORCE and not _names_are_ascii(joined):
            unit.refusal = Denied(
                "pgproxy: names of prepared statements must be ASCII unless both encodings are UTF8",
                hint="the server may take two such names for one; use another name, or client_encoding UTF8",
            )
        return joined


def may_copy_in(classification: Classification) -> bool:
    """Whether the server may read CopyData once it runs this: COPY FROM STDIN, START_REPLICATION, and what is not known
    not to be."""
    return any(
        s.kind in ("CopyStmt", replication.COMMAND_KIND) or any(a.cls is ActionClass.UNKNOWN for a in s.actions)
        for s in classification.statements
    )


def plans_without_code(classification: Classification) -> bool:
    """Whether planning this runs nothing but what PostgreSQL itself brings, or is known to be harmless."""
    return len(classification.statements) == 1 and all(
        s.kind in _PLANNED and not s.executes and all(a.cls in _HARMLESS for a in s.actions)
        for s in classification.statements
    )


def settings_changed_by(statement: Statement, settings: Settings) -> tuple[str, ...]:
    """The settings that running it may change; a FETCH runs what its cursor was declared over."""
    fetches = statement.kind == "FetchStmt"
    return (*statement.settings, *settings.cursors_may_change) if fetches else statement.settings


def is_barrier(classification: Classification, settings: Settings) -> bool:
    """Whether later texts or names may mean something else once this has run."""
    touched = settings.touched_in_transaction
    if changes_catalog(classification):
        return True
    for statement in classification.statements:
        if statement.prepares is not None or statement.deallocates is not None:
            return True
        if statement.kind == "DeclareCursorStmt":  # what a FETCH of it counts towards
            return True
        if not MEANINGFUL.isdisjoint(settings_changed_by(statement, settings)):
            return True
        if touched and any(a.cls is ActionClass.TRANSACTION for a in statement.actions):
            return True
    return False


def _hides_quotes(classification: Classification) -> bool:
    """Not something to ask a human: whatever followed could not be read, and would be `unknown`."""
    return any(a.verb == HIDES_QUOTES for s in classification.statements for a in s.actions)


def _names_are_ascii(classification: Classification) -> bool:
    return all(
        name.isascii()
        for s in classification.statements
        for name in (*s.executes, s.prepares or "", s.deallocates or "")
    )


def _join(first: Classification, second: Classification) -> Classification:
    return replace(
        first,
        privileged=first.privileged or second.privileged,
        risk=max(first.risk, second.risk, key=_RISKS.index),
        statements=first.statements + second.statements,
    )
