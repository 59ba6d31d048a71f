"""A running pgproxy, as a user has it: started by its command, reached by psql and HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from pgproxy.embedded import psql_path
from tests.conftest import free_port

T = TypeVar("T")
PATIENCE_S = 30.0


def eventually(look: Callable[[], T | None], what: str) -> T:
    """Asks until there is an answer; waits for behaviour, never for a time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"did not happen within {PATIENCE_S:.0f} s: {what}")


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would steer psql or pgproxy."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PGPROXY_", "PROMETHEUS_"))}


@dataclass
class Person:
    """A reviewer with a token, over HTTP."""

    name: str
    api: httpx.Client

    def approvals(self, **filters: Any) -> list[dict[str, Any]]:
        answer = self.api.get("/v1/approvals", params=filters)
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    def approval(self, approval_id: str) -> dict[str, Any]:
        answer = self.api.get(f"/v1/approvals/{approval_id}")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def pending(self, text: str) -> dict[str, Any]:
        """The one pending request whose statement holds `text`; waits for it."""

        def look() -> dict[str, Any] | None:
            found = [a for a in self.approvals(status="pending") if text in a["statement"]["sql"]]
            return found[0] if found else None

        return eventually(look, f"a pending request for {text!r}")

    def decide(self, approval_id: str, decision: str, comment: str = "") -> httpx.Response:
        return self.api.post(f"/v1/approvals/{approval_id}/decision", json={"decision": decision, "comment": comment})

    def approve(self, text: str, comment: str = "looked at it") -> dict[str, Any]:
        request = self.pending(text)
        answer = self.decide(request["id"], "approve", comment)
        assert answer.status_code == 200, answer.text
        return request

    def deny(self, text: str, comment: str) -> dict[str, Any]:
        request = self.pending(text)
        answer = self.decide(request["id"], "deny", comment)
        assert answer.status_code == 200, answer.text
        return request

    def status(self, approval_id: str, wanted: str) -> dict[str, Any]:
        """The request once it has that status; waits for it."""

        def look() -> dict[str, Any] | None:
            found = self.approval(approval_id)
            return found if found["status"] == wanted else None

        return eventually(look, f"approval {approval_id} becomes {wanted}")

    def audit(self, **filters: Any) -> list[dict[str, Any]]:
        answer = self.api.get("/v1/audit", params=filters)
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


@dataclass
class System:
    """`pgproxy up` in a directory of its own."""

    directory: Path
    process: subprocess.Popen[str]
    facts: dict[str, Any]
    output: Path
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def dsn(self) -> str:
        """The demo agent's connection string."""
        text: str = self.facts["agents"][0]["dsn"]
        return text

    @property
    def upstream_dsn(self) -> str:
        text: str = self.facts["upstream_dsn"]
        return text

    @property
    def api(self) -> str:
        text: str = self.facts["api"]
        return text if text.startswith("http") else f"http://{text}"

    @property
    def owner(self) -> Person:
        """The agent's owner, who may never approve for it."""
        return self.people[self.facts["agents"][0]["owner"]]

    @property
    def reviewer(self) -> Person:
        """Somebody else."""
        return next(p for p in self.people.values() if p is not self.owner)

    def psql(self, *arguments: str, dsn: str | None = None) -> list[str]:
        return [str(psql_path()), "-X", *arguments, dsn or self.dsn]

    def run_psql(
        self, *arguments: str, dsn: str | None = None, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.psql(*arguments, dsn=dsn),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
            check=False,
        )

    def start_psql(self, *arguments: str, dsn: str | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.psql(*arguments, dsn=dsn),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )

    def direct(self, sql: str) -> str:
        """At the server itself, as its administrator: unaligned output."""
        done = self.run_psql("-At", "-c", sql, dsn=self.upstream_dsn)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def pgproxy(self, *arguments: str, person: Person | None = None) -> subprocess.CompletedProcess[str]:
        """One of the terminal commands, as that person."""
        environment = clean_environment() | {"PGPROXY_API": self.api}
        if person is not None:
            environment["PGPROXY_TOKEN"] = person.api.headers["Authorization"].removeprefix("Bearer ")
        return subprocess.run(
            [sys.executable, "-m", "pgproxy", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )

    def workers(self) -> list[int]:
        """Process ids of the data-plane processes."""
        return children_of(self.process.pid, "worker")


def children_of(pid: int, role: str) -> list[int]:
    """Direct children of a process whose command line names the role."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split(None, 1)[0]) for line in listed.splitlines() if "pgproxy.app" in line and f" {role}" in line]


@contextmanager
def running(directory: Path, *extra: str, listen: int | None = None, api: int | None = None) -> Iterator[System]:
    """`pgproxy up` until the block ends; its output is shown when it does not come up."""
    listen, api = listen or free_port(), api or free_port()
    output = directory.parent / f"{directory.name}.out"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pgproxy", "up"),
                *("--listen", f"127.0.0.1:{listen}", "--api", f"127.0.0.1:{api}", "--data-dir", str(directory)),
                *extra,
            ],
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment(),
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, f"pgproxy up ended:\n{output.read_text()}"
            return "\nready\n" in "\n" + output.read_text()

        eventually(ready, "pgproxy up prints ready")
        facts = json.loads((directory / "up.json").read_text())
        system = System(directory, process, facts, output)
        clients = []
        for person in facts["reviewers"]:
            client = httpx.Client(
                base_url=system.api, headers={"Authorization": f"Bearer {person['token']}"}, timeout=20
            )
            clients.append(client)
            system.people[person["name"]] = Person(person["name"], client)
        try:
            yield system
        finally:
            print(f"--- what pgproxy said\n{output.read_text()[-20_000:]}")  # shown by pytest when a test failed
            for client in clients:
                client.close()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"pgproxy up did not stop:\n{output.read_text()}") from None
