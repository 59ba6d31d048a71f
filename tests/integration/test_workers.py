"""What survives the sudden end of a worker, and of the whole run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.integration.system import System, eventually, running


def replaced(system: System, old: int) -> int:
    return eventually(
        lambda: next((pid for pid in system.workers() if pid != old), None), "the supervisor brings the worker back"
    )


def test_kill_9_while_parked_withdraws_and_runs_nothing(fresh_system: System) -> None:
    system = fresh_system
    psql = system.start_psql("-c", "create table unasked (a int)")
    request = system.reviewer.pending("unasked")
    (worker,) = system.workers()
    os.kill(worker, signal.SIGKILL)
    psql.communicate(timeout=30)
    assert psql.returncode != 0
    system.reviewer.status(request["id"], "withdrawn")
    assert system.reviewer.decide(request["id"], "approve").status_code == 409
    replaced(system, worker)
    eventually(lambda: system.run_psql("-At", "-c", "select 1").stdout == "1\n", "sessions are served again")
    assert system.direct("select to_regclass('unasked') is null") == "t"


def test_kill_9_while_executing_leaves_unknown(fresh_system: System) -> None:
    system = fresh_system
    psql = system.start_psql("-c", "copy (select pg_sleep(30)) to stdout")
    request = system.reviewer.approve("pg_sleep(30)")
    system.reviewer.status(request["id"], "executing")
    (worker,) = system.workers()
    os.kill(worker, signal.SIGKILL)
    psql.communicate(timeout=30)
    system.reviewer.status(request["id"], "unknown")
    entries = system.reviewer.audit(limit=200)
    known = {e.get("event") for e in entries if e["kind"] == "approval" and e["approval_id"] == request["id"]}
    assert {"approved", "executing"} <= known
    assert any(e["kind"] == "statement" and e["approval_id"] == request["id"] for e in entries)
    replaced(system, worker)


def test_a_second_start_finds_its_data_again(short_directory: Path) -> None:
    directory = short_directory / "data"
    with running(directory) as first:
        dsn = first.facts["agents"][0]["dsn"].rpartition("@")[0]
        psql = first.start_psql("-c", "create table kept (a int)")
        request = first.reviewer.approve("create table kept")
        psql.communicate(timeout=30)
        first.reviewer.status(request["id"], "executed")
    assert subprocess.run(["pgrep", "-f", str(directory)], capture_output=True, check=False).stdout == b""
    with running(directory) as second:
        assert second.facts["agents"][0]["dsn"].rpartition("@")[0] == dsn
        assert second.direct("select to_regclass('kept') is not null") == "t"
        assert second.reviewer.approval(request["id"])["status"] == "executed"


def test_a_dead_store_refuses_statements_and_comes_back(fresh_system: System) -> None:
    """The evidence first: without a store nothing passes; with it again, everything does, the parked one too."""
    system = fresh_system
    psql = system.start_psql("-c", "create table outlived (a int)")
    request = system.reviewer.pending("outlived")
    postmaster = int((system.directory / "store" / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)

    def answer() -> str | None:
        done = system.run_psql("-At", "-c", "select 'passed'")
        return done.stdout.strip() or None

    assert eventually(answer, "statements pass again") == "passed"
    assert eventually(lambda: system.reviewer.decide(request["id"], "approve").status_code == 200, "approved")
    assert psql.communicate(timeout=30)[0] == "CREATE TABLE\n"
    system.reviewer.status(request["id"], "executed")
