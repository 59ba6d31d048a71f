"""How much of results may pass unasked: what each budget has counted, and how far the nearest one is.

A row is a DataRow, or a CopyData message of COPY TO STDOUT; bytes are those of these messages. Counting costs the
ordinary read nothing but one comparison: `Meters.fuse` is the least number of bytes the server must send before any
budget can be exceeded (a row has five bytes at least), and only a read beyond it is looked at message by message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from classifier.model import Classification
from pgproxy.policy import Budget, Park, Per
from pgproxy.protocol.cut import cut
from pgproxy.session.hourly import HourlyUse
from pgproxy.session.runs import StatementRun
from pgproxy.session.statements import Statements, sql_name
from pgproxy.session.units import Unit, UnitKind

FAR = 1 << 62
_HEADER_BYTES = 5
# While an hour that other sessions share is counted, no more than this passes unlooked at.
_SHARED_STEP_BYTES = 256 << 10
# Cursors of one session that are told apart; the names beyond share one count.
MAX_CURSORS = 1_000
_OTHER_CURSORS = b""
_WIDER = (Per.SESSION, Per.HOUR)  # counted by rule, whatever the budget


@dataclass(eq=False, slots=True)
class Meter:
    """One budget that counts over more than one execution. Rows and bytes are a cursor's; those of a session and of an
    agent's hour are kept by rule."""

    budget: Budget
    rows: int = 0
    bytes: int = 0


@dataclass(eq=False, slots=True)
class Cursor:
    """A cursor that SQL declared, or a named portal, which a FETCH can name as well: over all its FETCHes and
    Executes. `free`: its rest was approved."""

    unit: Unit
    budgets: tuple[Budget, ...]
    holds: bool
    meters: list[Meter]
    free: bool = False


@dataclass(eq=False, slots=True)
class Allowance:
    """What one execution may send: a string of a Query, a portal over all its Executes, one FETCH. `own` budgets
    are counted over it alone, `shared` ones beyond it."""

    unit: Unit
    run: StatementRun
    own: tuple[Budget, ...]
    shared: tuple[Meter, ...]
    cursors: tuple[Cursor, ...] = ()
    rows: int = 0
    bytes: int = 0
    _told_rows: int = 0
    _told_bytes: int = 0

    def untold(self) -> tuple[int, int]:
        """Rows and bytes since the last call."""
        rows, size = self.rows - self._told_rows, self.bytes - self._told_bytes
        self._told_rows, self._told_bytes = self.rows, self.bytes
        return rows, size

    def lift(self, rule: str, park: Park, row_cap: int | None) -> None:
        """The rest was approved, up to so many rows in all, and counts towards nothing else."""
        cap = () if row_cap is None else (Budget(rule, Per.PORTAL, park, rows=row_cap),)
        if self.cursors:
            for cursor in self.cursors:
                counted = max((m.rows for m in cursor.meters), default=self.rows)
                cursor.free = True
                cursor.meters = [Meter(b, rows=counted) for b in cap]
            self.own, self.shared = (), tuple(m for cursor in self.cursors for m in cursor.meters)
        else:
            self.own, self.shared = cap, ()
        self.untold()


@dataclass(slots=True)
class Meters:
    """The budgets of one session."""

    agent: str
    hourly: HourlyUse
    statements: Statements
    seen: int = 0  # bytes the server has sent
    fuse: int = FAR  # of these; beyond it a budget may be exceeded
    cursors: dict[bytes, Cursor] = field(default_factory=dict)
    _active: Allowance | None = None
    _session: dict[str, list[int]] = field(default_factory=dict)  # rows and bytes, by rule
    _plan: tuple[tuple[Budget, ...], tuple[Budget, ...], tuple[Meter, ...]] = ((), (), ())

    # allowances

    def allowance(self, unit: Unit, run: StatementRun, classification: Classification) -> Allowance | None:
        """Of a statement that is about to go to the server; None where nothing is counted."""
        if unit.row_cap is not None:
            if unit.portal:
                return self._named(unit, run, (), [Meter(_cap_of(unit))], ())
            return Allowance(unit, run, (_cap_of(unit),), ())
        statements = classification.statements
        for statement in statements:
            if statement.kind == "FetchStmt":
                names = [s.cursor or "" for s in statements if s.kind == "FetchStmt"]
                return self._fetch(unit, run, names, alone=len(names) == len(statements))
        if not unit.budgets:
            return None
        own, shared = self._planned(unit.budgets)
        if unit.portal and unit.kind is UnitKind.BIND:
            single = tuple(b for b in own if b.per is Per.STATEMENT)
            return self._named(unit, run, single, [Meter(b) for b in own if b.per is Per.PORTAL], shared)
        return Allowance(unit, run, own, shared)

    def _named(
        self, unit: Unit, run: StatementRun, own: tuple[Budget, ...], meters: list[Meter], wider: tuple[Meter, ...]
    ) -> Allowance:
        """Of a portal that has a name."""
        cursor = Cursor(unit, unit.budgets, False, meters, free=unit.row_cap is not None)
        return Allowance(unit, run, own, (*meters, *wider), (cursor,))

    def _planned(self, budgets: tuple[Budget, ...]) -> tuple[tuple[Budget, ...], tuple[Meter, ...]]:
        if self._plan[0] is not budgets:  # rules give the same tuple each time
            own = tuple(b for b in budgets if b.per in (Per.STATEMENT, Per.PORTAL))
            shared = tuple(Meter(b) for b in budgets if b.per in _WIDER)
            self._plan = (budgets, own, shared)
        return self._plan[1:]

    def _fetch(self, unit: Unit, run: StatementRun, names: list[str], *, alone: bool) -> Allowance | None:
        """FETCH counts towards its cursor, by the budgets of the cursor's query and by its own. (Not `alone`: other
        statements stand in the same string, and all its rows count for all of them.)"""
        cursors = tuple(dict.fromkeys(cursor for name in names for cursor in self._cursors(name, unit)))
        if alone and all(c.free for c in cursors):
            meters = tuple(m for c in cursors for m in c.meters)
            return Allowance(unit, run, (), meters, cursors) if meters else None
        budgets = tuple(dict.fromkeys((*unit.budgets, *(b for c in cursors for b in c.budgets))))
        own = tuple(b for b in budgets if b.per is Per.STATEMENT or (b.per is Per.PORTAL and not alone))
        wider = tuple(Meter(b) for b in budgets if b.per in _WIDER)
        of_cursors = tuple(m for c in cursors for m in c.meters)
        if not (own or wider or of_cursors):
            return None
        return Allowance(unit, run, own, (*of_cursors, *wider), cursors)

    def _cursors(self, name: str, unit: Unit) -> tuple[Cursor, ...]:
        """What a FETCH of that name may reach; one that was made where nobody saw it (by a function) is counted from
        here on."""
        known = self._known(sql_name(name))
        if not known:
            known = (Cursor(unit, unit.budgets, True, [Meter(b) for b in unit.budgets if b.per is Per.PORTAL]),)
            self._keep(name, known[0])
        return known

    def _known(self, name: bytes) -> tuple[Cursor, ...]:
        declared = self.cursors.get(name) or self.cursors.get(_OTHER_CURSORS)
        run = self.statements.portal(name)
        bound = run.allowance.cursors if run is not None and run.allowance is not None else ()
        return bound if declared is None else (declared, *bound)

    def of_cursor(self, name: bytes, now: float) -> Allowance | None:
        """Of an Execute whose portal is a cursor. Its run is the DECLARE's once more, and reported only if its rows
        come to be refused."""
        cursor = self.cursors.get(name) or self.cursors.get(_OTHER_CURSORS)
        if cursor is None:
            return None
        own, wider = ((), ()) if cursor.free else self._planned(cursor.budgets)
        own = tuple(b for b in own if b.per is Per.STATEMENT)
        shared = (*cursor.meters, *wider)
        unit = cursor.unit
        if not (own or shared) or unit.classification is None:
            return None
        run = StatementRun(
            unit.statement_id, unit.classification, now, decision=unit.decision, reviewers=unit.reviewers, reported=True
        )
        return Allowance(unit, run, own, shared, (cursor,))

    # cursors

    def declared(self, unit: Unit, classification: Classification) -> None:
        """DECLAREs have completed."""
        for statement in classification.statements:
            if statement.kind != "DeclareCursorStmt" or statement.cursor is None:
                continue
            budgets = unit.budgets
            meters = [Meter(b) for b in budgets if b.per is Per.PORTAL]
            free = unit.approval_id is not None
            if free and unit.row_cap is not None:
                meters = [Meter(_cap_of(unit))]
            self._keep(statement.cursor, Cursor(unit, budgets, statement.cursor_holds, meters, free))

    def closed(self, name: str) -> None:
        """CLOSE has completed; `""` is ALL."""
        if name:
            self.cursors.pop(sql_name(name), None)
        else:
            self.cursors.clear()

    def _keep(self, name: str, cursor: Cursor) -> None:
        key = sql_name(name)
        if key in self.cursors or len(self.cursors) < MAX_CURSORS:
            self.cursors[key] = cursor
        elif _OTHER_CURSORS not in self.cursors:
            cursor.free, cursor.holds = False, True
            self.cursors[_OTHER_CURSORS] = cursor

    def transaction_ended(self) -> None:
        """Only cursors WITH HOLD are left."""
        if self.cursors:
            self.cursors = {name: c for name, c in self.cursors.items() if c.holds}

    # counting

    def arm(self, allowance: Allowance, now: float) -> None:
        """Its rows come next."""
        if self._active is not allowance:
            self.settle(now)
            self._active = allowance
        rows, size = self._left(allowance, now)
        step = _SHARED_STEP_BYTES if any(m.budget.per is Per.HOUR for m in allowance.shared) else FAR
        self.fuse = self.seen + min(_HEADER_BYTES * rows, size, step)

    def disarm(self, now: float) -> None:
        """No rows are expected."""
        self.settle(now)
        self._active = None
        self.fuse = FAR

    def settle(self, now: float) -> None:
        """Tells the wider counts what has passed since the last time."""
        allowance = self._active
        if allowance is None:
            return
        rows, size = allowance.untold()
        if not (rows or size):
            return
        wider = {(m.budget.per, m.budget.rule) for m in allowance.shared if m.budget.per in _WIDER}
        for per, rule in wider:
            if per is Per.HOUR:
                self.hourly.add(self.agent, rule, rows, size, now)
            else:
                counted = self._session.setdefault(rule, [0, 0])
                counted[0] += rows
                counted[1] += size
        for meter in allowance.shared:
            if meter.budget.per not in _WIDER:
                meter.rows += rows
                meter.bytes += size

    def _left(self, allowance: Allowance, now: float) -> tuple[int, int]:
        """Rows and bytes until the nearest budget."""
        rows, size = FAR, FAR
        for budget, used_rows, used_bytes in self._counts(allowance, now):
            if budget.rows is not None:
                rows = min(rows, max(0, budget.rows - used_rows))
            if budget.bytes is not None:
                size = min(size, max(0, budget.bytes - used_bytes))
        return rows, size

    def _counts(self, allowance: Allowance, now: float) -> list[tuple[Budget, int, int]]:
        """Each budget and what it has counted."""
        counts = [(budget, allowance.rows, allowance.bytes) for budget in allowance.own]
        if allowance.shared:
            self.settle(now)
            for meter in allowance.shared:
                budget = meter.budget
                if budget.per is Per.HOUR:
                    counts.append((budget, *self.hourly.used(self.agent, budget.rule, now)))
                elif budget.per is Per.SESSION:
                    rows, size = self._session.get(budget.rule, (0, 0))
                    counts.append((budget, rows, size))
                else:
                    counts.append((budget, meter.rows, meter.bytes))
        return counts

    def admit(self, allowance: Allowance, data: bytes, skip: int, now: float) -> tuple[int, int, int]:
        """Where to cut a stretch of rows; see `protocol.cut`."""
        if self._active is not allowance:
            self.settle(now)
            self._active = allowance
        rows, size = self._left(allowance, now)
        return cut(data, skip, rows, size - skip)

    def reached(self, allowance: Allowance, next_bytes: int, now: float) -> tuple[Budget, int, int]:
        """The budget that the next row, of so many bytes, would exceed, and what it has counted."""
        for budget, rows, size in self._counts(allowance, now):
            if (budget.rows is not None and rows >= budget.rows) or (
                budget.bytes is not None and size + next_bytes > budget.bytes
            ):
                return budget, rows, size
        raise AssertionError("no budget was reached")


def _cap_of(unit: Unit) -> Budget:
    """The reviewer's row cap as a budget, beyond which they are asked again."""
    assert unit.park is not None
    return Budget(unit.rule, Per.PORTAL, unit.park, rows=unit.row_cap)


def describe(budget: Budget, passed_rows: int, passed_bytes: int) -> dict[str, object]:
    """The `budget` of a request for approval."""
    return {
        "rule": budget.rule,
        "per": str(budget.per),
        "rows": budget.rows,
        "bytes": budget.bytes,
        "passed_rows": passed_rows,
        "passed_bytes": passed_bytes,
    }


def in_words(budget: Budget) -> str:
    """`10000 rows a portal`, for the client."""
    parts = []
    if budget.rows is not None:
        parts.append(f"{budget.rows} rows")
    if budget.bytes is not None:
        parts.append(f"{budget.bytes} bytes")
    return f"{' or '.join(parts)} a {budget.per}"
