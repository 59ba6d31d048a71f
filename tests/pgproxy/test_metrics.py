"""Counts of every process, the dead ones' included; the names and labels of the contract, from the first scrape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgproxy import metrics

WORKER = """
import sys
from pgproxy.metrics import WorkerMetrics
metrics = WorkerMetrics()
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
CONTROL = """
import sys
from pgproxy.metrics import ControlMetrics, mark_process_dead
metrics = ControlMetrics()
for line in sys.stdin:
    exec(line)
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    print(len(text), flush=True)
    print(text.decode(), end="", flush=True)
"""
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Process:
    """A process of the run, told what to do a line at a time."""

    def __init__(self, program: str, directory: Path | None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != metrics.DIRECTORY_VARIABLE}
        if directory is not None:
            environment[metrics.DIRECTORY_VARIABLE] = str(directory)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self) -> int:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.close()
        return self.process.pid

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(10)


class Control(Process):
    def __init__(self, program: str, directory: Path) -> None:
        super().__init__(program, directory)
        self.types: dict[str, set[str]] = {}

    def scrape(self, line: str = "pass") -> Series:
        length = int(self.tell(line))
        assert self.process.stdout is not None
        text = self.process.stdout.read(length)
        for family in text_string_to_metric_families(text):
            self.types.setdefault(family.name, set()).add(family.type)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(metrics.DIRECTORY_VARIABLE, "to be restored")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "counter_1.db").write_bytes(b"of an earlier run")
    metrics.prepare(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    control = Control(CONTROL, directory)
    yield control
    control.close()


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_totals_survive_a_killed_worker_and_gauges_do_not(directory: Path, control: Control) -> None:
    first, second = Process(WORKER, directory), Process(WORKER, directory)
    for worker, sessions in ((first, 3), (second, 2)):
        for _ in range(sessions):
            worker.tell("metrics.session_opened()")
        worker.tell("metrics.session_parked()")
        worker.tell("metrics.statement(('read', 'export'), 'approved'); metrics.overhead(0.00001)")
        worker.tell("metrics.bytes_transferred('server_to_client', 100); metrics.rows(7)")
        worker.tell("metrics.audit_entry(); metrics.audit_backlog(4)")
    before = control.scrape()
    assert value(before, "pgproxy_sessions", state="active") == 3
    assert value(before, "pgproxy_sessions", state="parked") == 2
    assert value(before, "pgproxy_audit_backlog_entries") == 8

    pid = first.kill()
    after = control.scrape(f"mark_process_dead({pid})")
    second.close()
    assert value(after, "pgproxy_sessions", state="active") == 1
    assert value(after, "pgproxy_sessions", state="parked") == 1
    assert value(after, "pgproxy_audit_backlog_entries") == 4
    for name, labels, expected in (
        ("pgproxy_sessions_total", {}, 5),
        ("pgproxy_statements_total", {"class": "export", "decision": "approved"}, 2),
        ("pgproxy_statements_total", {"class": "read", "decision": "approved"}, 2),
        ("pgproxy_statement_overhead_seconds_count", {}, 2),
        ("pgproxy_statement_overhead_seconds_bucket", {"le": "1e-05"}, 2),
        ("pgproxy_statement_overhead_seconds_bucket", {"le": "5e-06"}, 0),
        ("pgproxy_bytes_total", {"direction": "server_to_client"}, 200),
        ("pgproxy_rows_total", {}, 14),
        ("pgproxy_audit_entries_total", {}, 2),
    ):
        assert value(before, name, **labels) == expected
        assert value(after, name, **labels) == expected


def test_every_series_of_the_contract_is_there_from_the_first_scrape(control: Control) -> None:
    series = control.scrape()
    assert control.types["pgproxy_sessions"] == {"gauge", "counter"}
    labels_of: dict[str, set[tuple[str, ...]]] = {}
    for name, labels in series:
        labels_of.setdefault(name, set()).add(tuple(key for key, _ in labels))
    histograms = ("pgproxy_statement_overhead_seconds", "pgproxy_classify_seconds", "pgproxy_approval_wait_seconds")
    assert labels_of == {
        "pgproxy_sessions": {("state",)},
        "pgproxy_sessions_total": {()},
        "pgproxy_statements_total": {("class", "decision")},
        "pgproxy_classify_cache_total": {("result",)},
        "pgproxy_approvals_pending": {()},
        "pgproxy_approvals_total": {("status",)},
        "pgproxy_audit_entries_total": {()},
        "pgproxy_audit_backlog_entries": {()},
        "pgproxy_upstream_errors_total": {("kind",)},
        "pgproxy_bytes_total": {("direction",)},
        "pgproxy_notifications_total": {("channel_kind", "result")},
        "pgproxy_notification_backlog": {("channel_kind",)},
        "pgproxy_rows_total": {()},
        **{f"{name}_{part}": {()} for name in histograms for part in ("count", "sum")},
        **{f"{name}_bucket": {("le",)} for name in histograms},
    }
    assert set(series.values()) == {0.0}
    assert len([name for name, _ in series if name == "pgproxy_statements_total"]) == 15 * 7
    for name, least, most in (
        ("pgproxy_statement_overhead_seconds", "5e-06", "1.0"),
        ("pgproxy_classify_seconds", "5e-05", "5.0"),
        ("pgproxy_approval_wait_seconds", "1.0", "3600.0"),
    ):
        for bound in (least, most, "+Inf"):
            assert value(series, f"{name}_bucket", le=bound) == 0


def test_the_control_process_counts_approvals(control: Control) -> None:
    control.scrape("metrics.approvals_pending(3); metrics.approval('denied')")
    series = control.scrape("metrics.approvals_pending(2); metrics.approval_wait(45)")
    assert value(series, "pgproxy_approvals_pending") == 2
    assert value(series, "pgproxy_approvals_total", status="denied") == 1
    assert value(series, "pgproxy_approval_wait_seconds_bucket", le="30.0") == 0
    assert value(series, "pgproxy_approval_wait_seconds_bucket", le="60.0") == 1


def test_parked_sessions_are_not_active(directory: Path, control: Control) -> None:
    worker = Process(WORKER, directory)
    worker.tell("metrics.session_opened(); metrics.session_parked(); metrics.session_unparked()")
    worker.tell("metrics.session_opened(); metrics.session_closed()")
    worker.tell("metrics.statement((), 'allowed'); metrics.classify_miss(0.01)")
    worker.tell("metrics.classify_cache('exact'); metrics.upstream_error('lost')")
    series = control.scrape()
    worker.close()
    assert value(series, "pgproxy_sessions", state="active") == 1
    assert value(series, "pgproxy_sessions", state="parked") == 0
    assert value(series, "pgproxy_statements_total", **{"class": "read", "decision": "allowed"}) == 1
    assert value(series, "pgproxy_classify_seconds_sum") == 0.01
    assert value(series, "pgproxy_classify_cache_total", result="exact") == 1
    assert value(series, "pgproxy_upstream_errors_total", kind="lost") == 1


BAD_CALLS = [
    "metrics.statement(('select 1',), 'allowed')",
    "metrics.statement(('read',), 'perhaps')",
    "metrics.classify_cache('maybe')",
    "metrics.bytes_transferred('up', 1)",
    "metrics.upstream_error('host db7 is away')",
]


def test_label_values_come_from_closed_sets(directory: Path) -> None:
    program = "from pgproxy.metrics import WorkerMetrics, ControlMetrics\nmetrics = WorkerMetrics()\n"
    for call in [*BAD_CALLS, "ControlMetrics().approval('gone')"]:
        program += f"try:\n    {call}\nexcept KeyError:\n    print('refused')\n"
    environment = {**os.environ, metrics.DIRECTORY_VARIABLE: str(directory)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("refused") == len(BAD_CALLS) + 1


@pytest.mark.parametrize("call", BAD_CALLS)
def test_null_metrics_refuse_the_same_values(call: str) -> None:
    with pytest.raises(KeyError):
        eval(call, {"metrics": metrics.NullMetrics()})


def test_null_metrics_take_what_worker_metrics_take() -> None:
    null = metrics.NullMetrics()
    null.statement(("read",), "allowed")
    null.bytes_transferred("client_to_server", 5)
    null.classify_cache("miss")
    null.upstream_error("connect")
    public = {name for name in vars(metrics.WorkerMetrics) if not name.startswith("_")}
    assert {name for name in vars(metrics.NullMetrics) if not name.startswith("_")} == public


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("from pgproxy.metrics import WorkerMetrics; WorkerMetrics()", "must name a directory"),
        ("from pgproxy.metrics import ControlMetrics; ControlMetrics()", "must name a directory"),
        (
            "import os, pathlib, prometheus_client; from pgproxy.metrics import *\n"
            "prepare(pathlib.Path(os.environ['WANTED'])); WorkerMetrics()",
            "imported before",
        ),
    ],
)
def test_a_process_whose_counts_would_be_lost_refuses(tmp_path: Path, program: str, says: str) -> None:
    environment = {name: each for name, each in os.environ.items() if name != metrics.DIRECTORY_VARIABLE}
    environment["WANTED"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert says in done.stderr
