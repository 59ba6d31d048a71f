"""Entries into the store, while the statement waits: group commit on one connection of its own.

`append` returns once the entry's transaction has committed. Appends that arrive while a batch is on its way
form the next batch, so the price of a commit is shared by the sessions that wait for it, and a lone session
pays one round trip. One connection and one line of entries: an entry is never stored before one that was
handed in earlier.

**An append that failed must not stand there as permission.** Its statement was refused, yet the store may
have committed the entry without our hearing of it, or may still do so. Hence every entry has an id, unique in
the table, and a failed append leaves a *retraction* in the line: the same entry under the same id with
decision `blocked`. Inserts skip ids that exist, and a unique index makes an insert wait for another
transaction that holds the same key, so exactly one of the two versions gets in, however late the lost
transaction finishes ("Index Uniqueness Checks"). When it was the first one, the retraction finds it there and
adds an entry of kind `outcome`, decision `blocked`, that names the same statement; the reader shows the
statement as `blocked` then. The refused statement is evidence too.

**Memory is bounded.** Entries that nobody waits for (outcomes, session ends) stay in the line until the store
takes them. When there are `backlog_limit` of them, or `backlog_bytes`, no new statement can add an outcome: an
append waits for room while the store goes on taking entries (a transaction of 100,000 statements in one pipeline
ends with as many outcomes at once), and is refused when it does not. The line can still grow by the outcomes of
statements under way, not more. Refusals beyond the limit are counted (`refused_unrecorded`) and logged; each is an
entry missing for a statement that did not run.

A backlog lives in memory: what the process holds when it is killed while the store is away is lost with it.
That is what the spool is for, which will sit behind the same port.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from uuid import uuid5

from pgproxy.audit import encoding
from pgproxy.audit.connection import StoreConnection, is_about_the_entries, name_of
from pgproxy.records import Decision, Entry, Outcome, outcome_entry
from pgproxy.session.ports import AuditUnavailable

log = logging.getLogger("pgproxy.audit")

# Free text: what is left out of an entry that the store cannot take whole. `sha256` stays.
_OMITTED = ("sql", "params", "reason", "application_name")

BATCH_ENTRIES = 512
BATCH_BYTES = 16 << 20
_RETRY_FIRST_S, _RETRY_MOST_S = 0.05, 1.0
_UNSTORED = "audit: the store did not confirm the entry"


class _Place(Enum):
    IN_LINE = auto()
    IN_FLIGHT = auto()
    STORED = auto()
    GONE = auto()  # refused by the store, or never to be sent


@dataclass(slots=True, eq=False)
class _Item:
    """One place in the line. `waiter` is the append that waits, None when nobody does (any more)."""

    entry: Entry
    row: encoding.Row
    waiter: asyncio.Future[None] | None
    place: _Place = _Place.IN_LINE
    was_sent: bool = False
    is_abandoned: bool = False  # given up by its append while in flight
    is_retraction: bool = False


class StoreWriter:
    """`session.ports.AuditWriter` onto the store. Belongs to the loop that called `start`.

    `on_stored(count)` and `on_backlog(count)` are for metrics; they must not raise.
    """

    def __init__(
        self,
        dsn: str,
        *,
        node: str,
        timeout_s: float = 5.0,
        backlog_limit: int = 10_000,
        backlog_bytes: int = 64 << 20,
        on_stored: Callable[[int], None] = lambda count: None,
        on_backlog: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._store_connection = StoreConnection(dsn, application_name=f"pgproxy audit {node}", timeout_s=timeout_s)
        self._node = node
        self._timeout_s = timeout_s
        self._backlog_limit = backlog_limit
        self._backlog_bytes = backlog_bytes
        self._on_stored = on_stored
        self._on_backlog = on_backlog
        self._line: deque[_Item] = deque()
        self._unawaited = self._unawaited_bytes = 0
        self._refused_unrecorded = 0
        self._taken = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()  # the backlog is not full
        self._room.set()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._failing = False

    @property
    def backlog(self) -> int:
        """Entries nobody waits for that the store does not have yet."""
        return self._unawaited

    @property
    def refused_unrecorded(self) -> int:
        """Refused appends that left no `blocked` entry because the backlog was full."""
        return self._refused_unrecorded

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to store something failed; an idle writer without a connection is well."""
        return self._failing

    async def start(self) -> None:
        """Begin writing; does not wait for the store, which may come up later."""
        if self._task is None:
            self._closing = False
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audit-writer")

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop taking entries, store what is in line, disconnect.

        Entries that the store has not taken after `timeout_s` are lost, and that is logged.
        """
        self._closing = True
        self._wake.set()
        if self._task is not None:
            _, running = await asyncio.wait([self._task], timeout=timeout_s)
            if running:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._line:
            log.error("audit entries lost at shutdown, the store is away: entries=%d", len(self._line))
        for item in self._line:
            if item.waiter is not None and not item.waiter.done():
                item.waiter.set_exception(AuditUnavailable("audit: shutting down"))
        self._store_connection.disconnect()

    async def append(self, entry: Entry) -> None:
        """Store an entry; what it permits may go on when this returns, and only then.

        A cancelled append counts as failed: whoever waited did not learn that the entry is safe.

        Raises:
            AuditUnavailable: not confirmed in time, or the backlog is and stays full.
            ValueError, TypeError: the entry is no JSON.
        """
        has_room = await self._has_room()
        if self._closing or self._task is None:
            raise AuditUnavailable("audit: the writer is not running")
        if not has_room:
            self._count_unrecorded()
            raise AuditUnavailable("audit: the backlog is full")
        waiter = asyncio.get_running_loop().create_future()
        item = self._enqueue(entry, waiter)
        try:
            async with asyncio.timeout(self._timeout_s):
                await waiter
        except TimeoutError:
            self._abandon(item)
            raise AuditUnavailable(_UNSTORED) from None
        except asyncio.CancelledError:
            self._abandon(item)
            raise

    def append_soon(self, entry: Entry) -> None:
        """Store an entry nobody waits for, in its turn, however long the store is away."""
        item = self._enqueue(entry, None)
        self._count(item, 1)
        if self._closing and self._task is None:
            log.error("audit entry after shutdown, it is lost: kind=%s", item.row.kind)

    def _enqueue(self, entry: Entry, waiter: asyncio.Future[None] | None) -> _Item:
        item = _Item(entry, encoding.encode(entry, entry_id=encoding.new_entry_id(), node=self._node), waiter)
        self._line.append(item)
        self._wake.set()
        return item

    def _abandon(self, item: _Item) -> None:
        """Its append has failed; see to it that the entry does not stand as permission."""
        item.waiter = None
        match item.place:
            case _Place.STORED:
                self._mark_blocked(item)
            case _Place.IN_FLIGHT:
                item.is_abandoned = True  # settled with its batch
            case _Place.IN_LINE if self._is_full() and not item.was_sent:
                item.place = _Place.GONE
                self._line.remove(item)
                self._count_unrecorded()
            case _Place.IN_LINE:
                self._retract(item)
            case _Place.GONE:
                pass

    def _retract(self, item: _Item) -> None:
        """In its place in the line, the same entry as `blocked`."""
        item.entry = {**item.entry, "decision": Decision.BLOCKED.value}
        item.row = encoding.encode(item.entry, entry_id=item.row.entry_id, node=self._node)
        item.is_abandoned = False
        item.is_retraction = True
        self._count(item, 1)

    def _mark_blocked(self, item: _Item) -> None:
        """The entry is in the store though its append failed: an entry behind it says that it did not run."""
        marker = outcome_entry(item.entry, time=datetime.now(UTC), outcome=Outcome(sqlstate="58030"))
        if item.entry.get("statement_id") is None:
            marker["kind"] = item.entry["kind"]
        marker["decision"] = Decision.BLOCKED.value
        entry_id = uuid5(item.row.entry_id, Decision.BLOCKED.value)
        row = encoding.encode(marker, entry_id=entry_id, node=self._node)
        self._line.append(_Item(marker, row, None))
        self._count(self._line[-1], 1)
        self._wake.set()

    async def _has_room(self) -> bool:
        """Waits for it as long as the store takes something within each `timeout_s`."""
        taken = -1
        while not self._room.is_set() and taken != self._taken:
            taken = self._taken
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await self._room.wait()
        return self._room.is_set()

    def _is_full(self) -> bool:
        return self._unawaited >= self._backlog_limit or self._unawaited_bytes >= self._backlog_bytes

    def _count(self, item: _Item, change: int) -> None:
        """An item that nobody waits for came (1) or left (-1)."""
        self._unawaited += change
        self._unawaited_bytes += change * item.row.size_bytes
        if self._is_full():
            self._room.clear()
        else:
            self._room.set()
        self._on_backlog(self._unawaited)

    def _count_unrecorded(self) -> None:
        self._refused_unrecorded += 1
        count = self._refused_unrecorded
        if count & (count - 1) == 0:  # not one line a refusal
            log.warning("audit backlog full, statements refused without a record: refused=%d", count)

    async def _run(self) -> None:
        pause_s = _RETRY_FIRST_S
        while True:
            await self._wake.wait()
            if not self._line:
                if self._closing:
                    return
                self._wake.clear()
                continue
            batch = self._take()
            try:
                await self._store(batch)
            except asyncio.CancelledError:
                self._put_back(batch)
                raise
            except Exception as error:
                if pause_s == _RETRY_FIRST_S:
                    log.warning("audit store did not take a batch: entries=%d error=%s", len(batch), name_of(error))
                self._put_back(batch)
                self._failing = True
                if is_about_the_entries(error):
                    await self._store_singly(len(batch))
                else:
                    self._store_connection.disconnect()
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _RETRY_MOST_S)
            else:
                if pause_s != _RETRY_FIRST_S:
                    log.info("audit store is back: backlog=%d", self._unawaited)
                pause_s = _RETRY_FIRST_S
                self._failing = False

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        size_bytes = 0
        while self._line and len(batch) < BATCH_ENTRIES:
            size_bytes += self._line[0].row.size_bytes
            if batch and size_bytes > BATCH_BYTES:
                break
            item = self._line.popleft()
            item.place = _Place.IN_FLIGHT
            batch.append(item)
        return batch

    def _put_back(self, batch: list[_Item]) -> None:
        """To the head of the line, in order; what was given up meanwhile as its retraction."""
        for item in reversed(batch):
            item.place = _Place.IN_LINE
            if item.is_abandoned:
                self._retract(item)
            self._line.appendleft(item)

    async def _store(self, batch: list[_Item]) -> None:
        for item in batch:
            item.was_sent = True
        await self._store_connection.insert([item.row for item in batch])
        retracted = {item.row.entry_id: item for item in batch if item.is_retraction}
        standing = await self._store_connection.find_standing(list(retracted)) if retracted else []
        self._settle(batch)
        for entry_id in standing:
            self._mark_blocked(retracted[entry_id])

    def _settle(self, batch: list[_Item]) -> None:
        for item in batch:
            item.place = _Place.STORED
            if item.is_abandoned:
                self._mark_blocked(item)
            elif item.waiter is None:
                self._count(item, -1)
            elif not item.waiter.done():
                item.waiter.set_result(None)
        self._taken += len(batch)
        self._on_stored(len(batch))

    async def _store_singly(self, count: int) -> None:
        """A batch holds an entry that the store will never take: find it, so that it fails alone."""
        for _ in range(min(count, len(self._line))):
            item = self._line.popleft()
            item.place = _Place.IN_FLIGHT
            try:
                await self._store([item])
            except asyncio.CancelledError:
                self._put_back([item])
                raise
            except Exception as error:
                if not is_about_the_entries(error):
                    self._put_back([item])
                    return  # the store went away meanwhile; the line is as before
                log.error("audit store refuses an entry: kind=%s error=%s", item.row.kind, name_of(error))
                self._give_up(item)

    def _give_up(self, item: _Item) -> None:
        """The store has definitely refused it. Its append fails; the facts that it can take are kept."""
        item.place = _Place.GONE
        was_awaited = item.waiter is not None or item.is_abandoned
        if item.waiter is not None and not item.waiter.done():
            item.waiter.set_exception(AuditUnavailable("audit: the store refuses the entry"))
        if not was_awaited:
            self._count(item, -1)
        if "omitted" in item.entry:
            return
        entry = {**item.entry, **dict.fromkeys(_OMITTED), "omitted": list(_OMITTED)}
        if was_awaited:
            entry["decision"] = Decision.BLOCKED.value
        row = encoding.encode(entry, entry_id=item.row.entry_id, node=self._node)
        self._line.appendleft(_Item(entry, row, None))
        self._count(self._line[0], 1)


__all__ = ["BATCH_BYTES", "BATCH_ENTRIES", "StoreWriter"]
