"""Real client suites, directly and through pgproxy: `SUITES=DIR python -m tests.conformance.suites [SUITE...]`.

`SUITES` is a scratch copy of the suites' folder after its `setup.sh`; its `run_suite.sh` runs one suite against one
port and writes `{test: outcome}`. Each suite runs directly, through pgproxy in `observe`, and in `enforce` (with
`notice: off`) before a robot that approves everything over HTTP. A test that passes directly and not through pgproxy
is a regression, unless `suites_excused.txt` names it and says why, or the folder's `flaky/` lists it as differing
between direct runs. Exit status 0 when there is none.

`--store DSN` puts the store elsewhere than into the embedded, durable PostgreSQL: every statement then waits for that
server's commit instead of this machine's disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import free_port
from tests.integration.system import children_of, clean_environment, eventually

NAMES = ("pgbench-scripts", "asyncpg", "pg8000", "psycopg2", "pgisolation", "pgregress", "sqlalchemy")
MODES = ("direct", "observe", "enforce")
FILE_LIMIT_S = "600"  # one file of PostgreSQL's suites; each statement waits for the trail, and hundreds for the robot
PORTS = {"15": 15, "18": 18}  # added to the folder's PORT_BASE
TOKEN = "the-robot-of-the-client-suites"
EXCUSED = Path(__file__).with_name("suites_excused.txt")


@dataclass(frozen=True)
class Result:
    suite: str
    mode: str
    outcomes: dict[str, str]
    seconds: float

    @property
    def passed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome == "passed"}


@dataclass(frozen=True)
class Comparison:
    """What passed directly, and what became of it."""

    regressions: list[str]
    excused: list[str]


def compare(
    direct: Result, through: Result, excused: Iterable[tuple[str, str]], unstable: Iterable[str] = ()
) -> Comparison:
    """A test that the proxy's run did not reach counts as a regression: nothing was shown. `unstable` says nothing."""
    lost = sorted(direct.passed - through.passed - set(unstable))
    names = {test for mode, test in excused if mode in (through.mode, "*")}
    key = f"{through.suite}:"
    return Comparison(
        regressions=[test for test in lost if key + test not in names],
        excused=[test for test in lost if key + test in names],
    )


def read_excused(text: str) -> list[tuple[str, str]]:
    """`MODE SUITE:TEST  # why`, one a line; MODE `*` for both. A line without a reason is an error."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        entry, mark, reason = line.partition("  # ")
        mode, _, test = entry.strip().partition(" ")
        if mode not in ("*", *MODES[1:]) or ":" not in test or not mark or not reason.strip():
            raise ValueError(f"{EXCUSED.name}:{number}: not `MODE SUITE:TEST  # why`")
        found.append((mode, test))
    return found


def flaky(folder: Path, suite: str) -> set[str]:
    """Tests that differ between two direct runs, as the folder's own measurements list them."""
    listed = folder / "flaky" / f"{suite}.txt"
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return {test for line in lines if (test := line.split("  #", 1)[0].strip()) and not test.startswith("#")}


def run_suite(folder: Path, suite: str, mode: str, port: int, server: str) -> Result:
    out = folder / "results" / f"{suite}.{server}.{mode}.json"
    started = time.monotonic()
    done = subprocess.run(
        ["./run_suite.sh", suite, "127.0.0.1", str(port), "suite", "suite", str(out)],
        cwd=folder,
        env=clean_environment() | {"SERVER": server, "PGREGRESS_FILE_LIMIT": FILE_LIMIT_S},
        capture_output=True,
        text=True,
        check=False,
    )
    if not out.is_file() or not out.stat().st_size:
        sys.exit(f"{suite} ({mode}) gave no result:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return Result(suite, mode, json.loads(out.read_text()), time.monotonic() - started)


def resident_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1024


@dataclass(frozen=True)
class Proxy:
    port: int
    api: str
    process: subprocess.Popen[bytes]

    def resident(self) -> list[int]:
        """Megabytes of each worker."""
        return [resident_mb(pid) for pid in children_of(self.process.pid, "worker")]


@contextmanager
def proxy(mode: str, upstream: int, store: str | None) -> Iterator[Proxy]:
    """`pgproxy serve` before the server, its trail and approvals in a directory of its own."""
    # Short, and not below /tmp/pytest: an embedded server run by root's helper user could not reach it.
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-suites-"))
    listen, api = free_port(), free_port()
    document: dict[str, Any] = {
        "listen": f"127.0.0.1:{listen}",
        "api": {"listen": f"127.0.0.1:{api}"},
        "mode": mode,
        "notice": mode == "observe",
        "replication": "approve",
        "upstream": {"dsn": f"postgresql://127.0.0.1:{upstream}"},
        "auth": {"mode": "passthrough", "default_owner": "alice@example.com"},
        "reviewers": [{"name": "robot@example.com", "token": TOKEN}],
        "data_dir": str(directory / "data"),
        # psycopg2 sends statements of up to 50 MB; what is larger than the limit is refused, as it says.
        "limits": {"sessions": 500, "parked": 500, "parked_per_agent": 500, "statement_bytes": 64 << 20},
    }
    if store:
        document["store"] = {"dsn": store}
    config, log = directory / "pgproxy.yaml", directory / "log"
    config.touch(mode=0o600)
    config.write_text(yaml.safe_dump(document))
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgproxy", "serve", "--config", str(config)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        )
    url = f"http://127.0.0.1:{api}"

    def ready() -> bool:
        if process.poll() is not None:
            sys.exit(log.read_text())
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(ready, "pgproxy serve is ready")
        yield Proxy(listen, url, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def robot(api: str) -> Iterator[None]:
    """Approves everything meanwhile; says what it did at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.robot", api], env=clean_environment() | {"PGPROXY_TOKEN": TOKEN}
    )
    try:
        yield
        if process.poll() is not None:
            sys.exit("the robot ended before the suites")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def run_mode(
    folder: Path, mode: str, suites: Iterable[str], server: str, upstream: int, store: str | None
) -> list[Result]:
    if mode == "direct":
        return [run_suite(folder, suite, mode, upstream, server) for suite in suites]
    results = []
    with proxy(mode, upstream, store) as started:
        before = started.resident()
        if mode == "enforce":
            with robot(started.api):
                results = [run_suite(folder, suite, mode, started.port, server) for suite in suites]
        else:
            results = [run_suite(folder, suite, mode, started.port, server) for suite in suites]
        print(f"{mode}: workers' resident memory {before} MB before, {started.resident()} MB after", flush=True)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="Client suites directly and through pgproxy.")
    parser.add_argument("suites", nargs="*", default=NAMES, metavar="SUITE", help=" ".join(NAMES))
    parser.add_argument("--server", choices=PORTS, default="15")
    parser.add_argument("--modes", default=",".join(MODES[1:]), help="observe,enforce")
    parser.add_argument("--store")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(NAMES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    if not (modes := arguments.modes.split(",")) or set(modes) - set(MODES[1:]):
        parser.error("--modes is one or both of observe,enforce")
    if "SUITES" not in os.environ:
        parser.error("SUITES names the folder with run_suite.sh, after its setup.sh")
    folder = Path(os.environ["SUITES"]).resolve()
    base = subprocess.run(
        ["bash", "-c", ". ./config.sh && echo $PORT_BASE"], cwd=folder, capture_output=True, text=True, check=True
    )
    upstream = int(base.stdout) + PORTS[arguments.server]
    excused = read_excused(EXCUSED.read_text())
    options = (arguments.server, upstream, arguments.store)
    direct = {one.suite: one for one in run_mode(folder, "direct", arguments.suites, *options)}
    bad = 0
    lines = [f"{'suite':16} {'mode':8} {'passed':>7} {'of':>7} {'excused':>8} {'lost':>5} {'seconds':>8} {'direct':>7}"]
    for mode in modes:
        for one in run_mode(folder, mode, arguments.suites, *options):
            against = direct[one.suite]
            found = compare(against, one, excused, flaky(folder, one.suite))
            bad += len(found.regressions)
            lines.append(
                f"{one.suite:16} {mode:8} {len(one.passed):7} {len(against.passed):7} {len(found.excused):8}"
                f" {len(found.regressions):5} {one.seconds:8.0f} {against.seconds:7.0f}"
            )
            lines += [f"    lost: {test}" for test in found.regressions]
    print("\n".join(lines))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
