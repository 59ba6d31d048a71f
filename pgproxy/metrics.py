"""The metrics of the public contract, counted in every process, told by one.

Workers and the control process write into memory-mapped files of one directory (prometheus_client's
multiprocess mode); the control process reads them all when it is asked for `/metrics`. So a worker that was
killed has counted what it had counted, and its successor adds to that.

1. The mode is chosen when `prometheus_client` is first imported, by `PROMETHEUS_MULTIPROC_DIR` in the
   environment. The supervisor sets it (`prepare`) before it starts anything, to a directory emptied for the run:
   files of an earlier run would be summed in. A worker or control process without it refuses to start, for its
   counts would be lost.
2. Every series is there from the first scrape with value 0: label values come from closed sets, and children
   are made beforehand. A value outside its set is a bug and raises KeyError; no label carries users' data.
3. Gauges of a dead process go with it (`mark_process_dead`, called by the supervisor); counters and histograms
   stay.

The data plane calls plain methods whose label children are attributes or one dictionary look-up away.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from classifier.model import ActionClass

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram, Metric

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

CLASSES = tuple(each.value for each in ActionClass)
DECISIONS = ("allowed", "observed", "approved", "denied", "expired", "withdrawn", "blocked")
STATES = ("active", "parked")
CACHE_RESULTS = ("exact", "normalized", "miss")
APPROVAL_STATUSES = (
    "pending",
    "approved",
    "denied",
    "expired",
    "withdrawn",
    "executing",
    "executed",
    "failed",
    "unknown",
)
DIRECTIONS = ("client_to_server", "server_to_client")
CHANNEL_KINDS = ("slack", "teams", "webhook", "apprise")
NOTIFICATION_RESULTS = ("delivered", "retried", "dead", "skipped")
UPSTREAM_ERRORS = ("connect", "refused", "tls", "auth", "lost", "protocol", "timeout")
SESSIONS_TOTAL = "pgproxy_sessions_total"
_READ_ATTEMPTS = 5

OVERHEAD_BUCKETS_S = (
    *(5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4),
    *(1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0),
)
CLASSIFY_BUCKETS_S = (
    *(5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
APPROVAL_WAIT_BUCKETS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)


def prepare(directory: Path) -> None:
    """In the supervisor, before any process of the run starts: an empty directory, named in the environment."""
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob("*.db"):
        left_over.unlink()
    os.environ[DIRECTORY_VARIABLE] = str(directory)


def mark_process_dead(pid: int) -> None:
    """In whichever process noticed: the gauges of a process that has ended no longer count."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library's own gap


class _Instruments:
    """Every instrument of the contract, and their children with value 0. One set a process: a second one
    would write its own idea of each value into the same file."""

    _of_this_process: _Instruments | None = None

    @classmethod
    def get(cls) -> _Instruments:
        if cls._of_this_process is None:
            cls._of_this_process = cls()
        return cls._of_this_process

    def __init__(self) -> None:
        _require_multiprocess_mode()
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        # Not the default registry: nothing is collected from here, but from the files.
        registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        sessions = gauge("pgproxy_sessions", "Open sessions, by whether a statement of theirs is parked.", "state")
        self.sessions = {state: sessions.labels(state) for state in STATES}
        # A counter in all but the library's eyes, see _Families. `sum`: what a dead process counted stays.
        self.sessions_total = Gauge(SESSIONS_TOTAL, "Sessions opened.", registry=registry, multiprocess_mode="sum")
        statements = counter(
            "pgproxy_statements_total", "Statements, once for each of their classes.", "class", "decision"
        )
        self.statements = {pair: statements.labels(*pair) for pair in product(CLASSES, DECISIONS)}
        self.overhead = histogram(
            "pgproxy_statement_overhead_seconds",
            "Time the proxy itself adds to a statement.",
            OVERHEAD_BUCKETS_S,
        )
        self.classify = histogram(
            "pgproxy_classify_seconds", "Time to classify a text that no cache knew.", CLASSIFY_BUCKETS_S
        )
        cache = counter("pgproxy_classify_cache_total", "Look-ups of a classification, by level found.", "result")
        self.cache = {result: cache.labels(result) for result in CACHE_RESULTS}
        self.approvals_pending = gauge("pgproxy_approvals_pending", "Requests that wait for a human.")
        approvals = counter("pgproxy_approvals_total", "Requests that came to a status.", "status")
        self.approvals = {status: approvals.labels(status) for status in APPROVAL_STATUSES}
        self.approval_wait = histogram(
            "pgproxy_approval_wait_seconds", "Time from a request to its decision.", APPROVAL_WAIT_BUCKETS_S
        )
        notifications = counter(
            "pgproxy_notifications_total", "Attempts to tell somebody of a request.", "channel_kind", "result"
        )
        kinds = product(CHANNEL_KINDS, NOTIFICATION_RESULTS)
        self.notifications = {pair: notifications.labels(*pair) for pair in kinds}
        waiting = gauge("pgproxy_notification_backlog", "Messages that wait to be delivered.", "channel_kind")
        self.notification_backlog = {kind: waiting.labels(kind) for kind in CHANNEL_KINDS}
        self.audit_entries = counter("pgproxy_audit_entries_total", "Entries that the audit trail has taken.")
        self.audit_backlog = gauge("pgproxy_audit_backlog_entries", "Entries on their way to the audit trail.")
        errors = counter("pgproxy_upstream_errors_total", "Failures of the server's side of a session.", "kind")
        self.upstream_errors = {kind: errors.labels(kind) for kind in UPSTREAM_ERRORS}
        transferred = counter("pgproxy_bytes_total", "Bytes of sessions that passed through.", "direction")
        self.bytes = {direction: transferred.labels(direction) for direction in DIRECTIONS}
        self.rows = counter("pgproxy_rows_total", "Rows sent to clients.")


class WorkerMetrics:
    """What the data plane counts. A label value outside its set raises KeyError."""

    def __init__(self) -> None:
        instruments = _Instruments.get()
        self._active = instruments.sessions["active"]
        self._parked = instruments.sessions["parked"]
        self._sessions_total = instruments.sessions_total
        self._statements = instruments.statements
        self._overhead = instruments.overhead
        self._classify = instruments.classify
        self._cache = instruments.cache
        self._bytes = instruments.bytes
        self._rows = instruments.rows
        self._upstream_errors = instruments.upstream_errors
        self._audit_entries = instruments.audit_entries
        self._audit_backlog = instruments.audit_backlog

    def session_opened(self) -> None:
        self._active.inc()
        self._sessions_total.inc()

    def session_closed(self) -> None:
        """A session that is not parked (any more) has ended."""
        self._active.dec()

    def session_parked(self) -> None:
        self._active.dec()
        self._parked.inc()

    def session_unparked(self) -> None:
        self._parked.dec()
        self._active.inc()

    def statement(self, classes: Iterable[str], decision: str) -> None:
        """Once for each class; one without any (an empty query) as `read`, like other harmless ones."""
        counted = False
        for class_ in classes:
            self._statements[class_, decision].inc()
            counted = True
        if not counted:
            self._statements["read", decision].inc()

    def overhead(self, seconds: float) -> None:
        self._overhead.observe(seconds)

    def classify_miss(self, seconds: float) -> None:
        self._classify.observe(seconds)

    def classify_cache(self, result: str) -> None:
        self._cache[result].inc()

    def bytes_transferred(self, direction: str, n: int) -> None:
        self._bytes[direction].inc(n)

    def rows(self, n: int) -> None:
        self._rows.inc(n)

    def upstream_error(self, kind: str) -> None:
        self._upstream_errors[kind].inc()

    def audit_entry(self, n: int = 1) -> None:
        self._audit_entries.inc(n)

    def audit_backlog(self, n: int) -> None:
        self._audit_backlog.set(n)


class NullMetrics:
    """WorkerMetrics that count nothing, for tests; it too refuses label values outside their sets."""

    def session_opened(self) -> None: ...
    def session_closed(self) -> None: ...
    def session_parked(self) -> None: ...
    def session_unparked(self) -> None: ...

    def statement(self, classes: Iterable[str], decision: str) -> None:
        for class_ in classes:
            _require(class_, CLASSES)
        _require(decision, DECISIONS)

    def overhead(self, seconds: float) -> None: ...
    def classify_miss(self, seconds: float) -> None: ...

    def classify_cache(self, result: str) -> None:
        _require(result, CACHE_RESULTS)

    def bytes_transferred(self, direction: str, n: int) -> None:
        _require(direction, DIRECTIONS)

    def rows(self, n: int) -> None: ...

    def upstream_error(self, kind: str) -> None:
        _require(kind, UPSTREAM_ERRORS)

    def audit_entry(self, n: int = 1) -> None: ...
    def audit_backlog(self, n: int) -> None: ...


class _Families:
    """The families of all processes, for a registry.

    The contract has a gauge `pgproxy_sessions` and a counter `pgproxy_sessions_total`. In Prometheus' text format
    these are two families; the library takes `_total` off a counter's name and would merge them into one. So the
    counter is kept under its whole name as a gauge, and becomes a counter here.
    """

    def collect(self) -> Iterator[Metric]:
        from prometheus_client import Metric
        from prometheus_client.multiprocess import MultiProcessCollector

        for family in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]  # theirs
            if family.name == SESSIONS_TOTAL:
                counter = Metric(SESSIONS_TOTAL.removesuffix("_total"), family.documentation, "counter")
                counter.samples = family.samples
                yield counter
            else:
                yield family


class ControlMetrics:
    """What the control process counts, and every process's counts as text."""

    def __init__(self) -> None:
        instruments = _Instruments.get()
        self._pending = instruments.approvals_pending
        self._approvals = instruments.approvals
        self._wait = instruments.approval_wait
        self._notifications = instruments.notifications
        self._notification_backlog = instruments.notification_backlog

    def approvals_pending(self, n: int) -> None:
        self._pending.set(n)

    def approval(self, status: str) -> None:
        """A request has come to this status."""
        self._approvals[status].inc()

    def approval_wait(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def notification(self, channel_kind: str, result: str) -> None:
        self._notifications[channel_kind, result].inc()

    def notification_backlog(self, channel_kind: str, n: int) -> None:
        self._notification_backlog[channel_kind].set(n)

    def render(self) -> tuple[bytes, str]:
        """The exposition and its content type. Reads a few files: milliseconds."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Families())
        for _ in range(_READ_ATTEMPTS - 1):
            try:
                return generate_latest(registry), CONTENT_TYPE_LATEST
            except (struct.error, ValueError):
                time.sleep(0.001)  # a process that starts has made its file and not yet its header
        return generate_latest(registry), CONTENT_TYPE_LATEST


def _require_multiprocess_mode() -> None:
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory or not Path(directory).is_dir():
        raise RuntimeError(f"{DIRECTORY_VARIABLE} must name a directory before prometheus_client is imported")
    from prometheus_client import values

    if not values.ValueClass._multiprocess:
        raise RuntimeError(f"prometheus_client was imported before {DIRECTORY_VARIABLE} was set")


def _require(value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise KeyError(value)
