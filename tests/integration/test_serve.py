"""`pgproxy serve` with a configuration file: passthrough, observe mode, expiry, what it refuses to start with."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from pgproxy.dsn import Dsn
from tests.conftest import free_port
from tests.integration.system import Person, System, clean_environment, eventually

TOKEN = "a-token-of-more-than-twenty-characters"


@contextmanager
def serving(directory: Path, system: System, **changes: Any) -> Iterator[tuple[str, Person]]:
    """A proxy before the demo's server, in passthrough mode; gives its DSN (as the superuser) and a reviewer."""
    upstream = Dsn.parse(system.upstream_dsn)
    listen, api = free_port(), free_port()
    document: dict[str, Any] = {
        "listen": f"127.0.0.1:{listen}",
        "api": {"listen": f"127.0.0.1:{api}"},
        "upstream": {"dsn": f"postgresql://{upstream.host}:{upstream.port}"},
        "auth": {"mode": "passthrough", "default_owner": "alice@example.com"},
        "reviewers": [{"name": "bob@example.com", "token": {"env": "BOB_TOKEN"}}],
        "data_dir": str(directory / "data"),
        **changes,
    }
    config = directory / "pgproxy.yaml"
    config.write_text(yaml.safe_dump(document))
    with (directory / "out").open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgproxy", "serve", "--config", str(config)],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=clean_environment() | {"BOB_TOKEN": TOKEN},
        )
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{api}", headers=headers, timeout=20) as client:

            def ready() -> bool:
                assert process.poll() is None, (directory / "out").read_text()
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            eventually(ready, "pgproxy serve is ready")
            dsn = upstream.model_copy(update={"host": "127.0.0.1", "port": listen}).uri()
            yield dsn, Person("bob@example.com", client)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (directory / "out").read_text()


def test_passthrough_parks_and_the_server_authenticates(system: System, short_directory: Path) -> None:
    with serving(short_directory, system) as (dsn, reviewer):
        done = system.run_psql("-At", "-c", "select current_user", dsn=dsn)
        assert done.stdout == "postgres\n", done.stderr
        wrong = Dsn.parse(dsn).model_copy(update={"password": None}).uri().replace("postgres@", "postgres:wrong@")
        refused = system.run_psql("-c", "select 1", dsn=wrong)
        assert 'password authentication failed for user "postgres"' in refused.stderr
        psql = system.start_psql("-c", "create role passed_through", dsn=dsn)
        request = reviewer.approve("passed_through")
        assert request["requester"]["agent"] == "postgres"
        assert request["requester"]["owner"] == "alice@example.com"
        assert psql.communicate(timeout=30)[0] == "CREATE ROLE\n"


def test_without_an_owner_a_privileged_statement_is_denied(system: System, short_directory: Path) -> None:
    with serving(short_directory, system, auth={"mode": "passthrough"}) as (dsn, _):
        done = system.run_psql("-At", "-c", "create role nobodys", "-c", "select 'goes on'", dsn=dsn)
        assert "pgproxy: denied by policy" in done.stderr
        assert "auth.default_owner" in done.stderr
        assert done.stdout == "goes on\n"
        assert system.direct("select count(*) from pg_roles where rolname = 'nobodys'") == "0"


def test_expiry_ends_the_wait(system: System, short_directory: Path) -> None:
    with serving(short_directory, system, limits={"approval_timeout_s": 1}) as (dsn, reviewer):
        done = system.run_psql("-At", "-c", "create role too_late", "-c", "select 'goes on'", dsn=dsn)
        assert "expired" in done.stderr
        assert done.stdout == "goes on\n"
        (request,) = reviewer.approvals(status="expired")
        assert reviewer.decide(request["id"], "approve").status_code == 409
        assert system.direct("select count(*) from pg_roles where rolname = 'too_late'") == "0"


def test_observe_stops_nothing_and_says_what_it_saw(system: System, short_directory: Path) -> None:
    with serving(short_directory, system, mode="observe") as (dsn, reviewer):
        done = system.run_psql("-c", "create role observed", "-c", "drop role observed", dsn=dsn)
        assert (done.stdout, done.stderr) == ("CREATE ROLE\nDROP ROLE\n", "")
        assert reviewer.approvals() == []
        entries = [e for e in reviewer.audit(decision="observed") if e["kind"] == "statement"]
        assert [e["sql"] for e in entries] == ["drop role observed", "create role observed"]
        assert all("role" in e["classes"] for e in entries)


def test_two_workers_share_sessions_and_find_each_others_cancel_keys(system: System, short_directory: Path) -> None:
    with serving(short_directory, system, workers=2) as (dsn, reviewer):
        for attempt in range(4):  # the kernel spreads connections: some cancel reaches the other worker
            with psycopg.connect(dsn, autocommit=True) as connection:
                name = f"cancelled_{attempt}"
                psql = system.start_psql("-c", f"create role {name}", dsn=dsn)
                request = reviewer.pending(name)
                psql.send_signal(signal.SIGINT)
                assert "canceling statement due to user request" in psql.communicate(timeout=30)[1]
                reviewer.status(request["id"], "withdrawn")
                assert connection.execute("select 1").fetchone() == (1,)


def test_a_reload_takes_up_what_it_can_and_says_what_it_cannot(system: System, short_directory: Path) -> None:
    """SIGHUP, and the same over HTTP: mode, reviewers and their open streams, limits; a broken file; the trail."""
    extra = [{"name": "carol@example.com", "token": "c" * 30, "roles": ["admin", "reviewer"]}]
    bob = {"name": "bob@example.com", "token": TOKEN}
    with serving(short_directory, system, reviewers=[bob, *extra]) as (dsn, reviewer):
        config, out = short_directory / "pgproxy.yaml", short_directory / "out"
        document = yaml.safe_load(config.read_text())
        carol = httpx.Client(
            base_url=reviewer.api.base_url, headers={"Authorization": f"Bearer {'c' * 30}"}, timeout=60
        )

        def reload(**changes: Any) -> httpx.Response:
            config.write_text(yaml.safe_dump({**document, **changes}))
            return carol.post("/v1/reload")

        with carol, psycopg.connect(dsn, autocommit=True) as live:
            assert live.execute("select 1").fetchone() == (1,)
            answer = reload(workers=3, limits={"approval_timeout_s": 1})
            assert answer.json() == {
                "reloaded": True,
                "changed": ["limits.approval_timeout_s"],
                "needs_restart": ["workers"],
                "problems": [],
            }  # fmt: skip
            with pytest.raises(psycopg.errors.QueryCanceled, match="expired"):
                live.execute("create role never_made")
            broken = reload(limits={"parcked": 1})
            assert broken.status_code == 409 and "limits.parcked: unknown key" in broken.json()["problems"][0]
            assert "pgproxy.yaml:" in broken.json()["problems"][0] and "limits.parcked: unknown key" in out.read_text()
            assert reviewer.api.post("/v1/reload").status_code == 403
            with carol.stream("GET", "/v1/approvals/events") as stream:
                lines = stream.iter_lines()
                assert next(lines) == "retry: 2000"
                config.write_text(yaml.safe_dump({**document, "reviewers": [bob], "mode": "observe"}))
                os.kill(serving_pid(config), signal.SIGHUP)
                assert not [line for line in lines if line.startswith("event")]  # it ends
            assert carol.get("/v1/approvals").status_code == 401
            eventually(lambda: "configuration reloaded by=SIGHUP" in out.read_text(), "it is reloaded")
            live.execute("create role made_in_observe")
            live.execute("drop role made_in_observe")

        def entries() -> list[dict[str, Any]] | None:
            found = [e for e in reviewer.audit(limit=200) if e["kind"] == "config"]
            return found[::-1] if len(found) == 4 else None

        found = eventually(entries, "the trail has the start and each reload")
        assert [(e["event"], e["detail"]["by"]) for e in found] == [
            ("start", "the operator"),
            ("reload", "carol@example.com"),
            ("reload_refused", "carol@example.com"),
            ("reload", "SIGHUP"),
        ]
        assert found[3]["detail"]["changed"] == ["mode", "reviewers[carol@example.com]", "limits.approval_timeout_s"]
        assert TOKEN not in str(found)


def serving_pid(config: Path) -> int:
    """The process that was started with this configuration."""
    return int(subprocess.run(["pgrep", "-f", str(config)], capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"policy": "policy.yaml"}, "policy"),
        ({"tls": {"mode": "require"}}, "tls"),
        ({"api": {"listen": "0.0.0.0:8432"}}, "api"),
        ({"modus": "enforce"}, "modus"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(short_directory: Path, changes: dict[str, Any], key: str) -> None:
    config = short_directory / "pgproxy.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(short_directory / "data"), **changes}))
    done = start_and_fail(config)
    assert done.returncode == 2
    assert key in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_inside_the_audited_cluster_is_refused(system: System, short_directory: Path) -> None:
    """Reached another way than the upstream, the cluster gives itself away by its system identifier."""
    upstream = Dsn.parse(system.upstream_dsn)
    assert upstream.password is not None
    by_socket = upstream.model_copy(update={"host": str(system.directory / "upstream" / "socket")})
    agent = {
        "name": "bot",
        "owner": "alice@example.com",
        "password": "a password",
        "upstream": {"user": "postgres", "password": upstream.password.get_secret_value()},
    }
    config = short_directory / "pgproxy.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "listen": f"127.0.0.1:{free_port()}",
                "api": {"listen": f"127.0.0.1:{free_port()}"},
                "upstream": {"dsn": f"postgresql://{upstream.host}:{upstream.port}/shop"},
                "store": {"dsn": by_socket.uri()},
                "auth": {"mode": "broker"},
                "agents": [agent],
                "data_dir": str(short_directory / "data"),
            }
        )
    )
    done = start_and_fail(config)
    assert done.returncode == 1
    assert "same PostgreSQL cluster" in done.stderr


def start_and_fail(config: Path) -> subprocess.CompletedProcess[str]:
    """`pgproxy serve` with a file it must refuse."""
    return subprocess.run(
        [sys.executable, "-m", "pgproxy", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        check=False,
    )


def test_a_taken_port_is_one_clear_line(short_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up_and_fail("--api", f"127.0.0.1:{port}", "--data-dir", str(short_directory / "data"))
    assert done.returncode == 1
    assert f"api.listen 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_upstream_that_does_not_answer_is_told_at_once(short_directory: Path) -> None:
    dsn = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    done = up_and_fail("--upstream", dsn, "--data-dir", str(short_directory / "data"))
    assert done.returncode == 1
    assert "--upstream: cannot log in there" in done.stderr


def up_and_fail(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgproxy", "up", "--listen", f"127.0.0.1:{free_port()}", *options],
        capture_output=True,
        text=True,
        timeout=90,
        env=clean_environment(),
        check=False,
    )


def test_a_cancel_key_finds_its_session_in_whichever_worker(system: System, short_directory: Path) -> None:
    """A CancelRequest comes on a connection of its own, which the kernel may give to the other worker: that it never
    did in ten tries is one chance in a thousand."""
    with serving(short_directory, system, workers=2) as (dsn, _):
        for number in range(10):
            version = ("3.0", "3.2")[number % 2]
            with psycopg.connect(dsn, max_protocol_version=version) as session:
                assert session.pgconn.full_protocol_version == {"3.0": 30000, "3.2": 30002}[version]
                assert session.execute("select pg_backend_pid()").fetchone() == (session.info.backend_pid,)
                canceller = threading.Thread(target=cancel_once_asleep, args=(system, session))
                canceller.start()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    session.execute("select pg_sleep(60)")
                canceller.join()


def cancel_once_asleep(system: System, session: psycopg.Connection[Any]) -> None:
    asleep = f"select wait_event = 'PgSleep' from pg_stat_activity where pid = {session.info.backend_pid}"
    eventually(lambda: system.direct(asleep) == "t", "the server sleeps")
    session.cancel_safe(timeout=20)


def test_sigterm_drains(system: System, short_directory: Path) -> None:
    """A running statement is finished, an idle session and a parked one are ended; nobody is let in meanwhile."""
    with serving(short_directory, system) as (dsn, reviewer), psycopg.connect(dsn, autocommit=True) as idle:
        inside = psycopg.connect(dsn)
        inside.execute("select 1")
        waiting = system.start_psql("-c", "create role never_made", dsn=dsn)
        request = reviewer.pending("never_made")
        os.kill(serving_pid(short_directory / "pgproxy.yaml"), signal.SIGTERM)
        assert "terminating connection because pgproxy is shutting down" in waiting.communicate(timeout=60)[1]
        with pytest.raises(psycopg.errors.AdminShutdown):
            idle.execute("select 1")
        assert "Connection refused" in system.run_psql("-c", "select 1", dsn=dsn).stderr
        ready = reviewer.api.get("/readyz")
        assert ready.status_code == 503 and "shutting down: no new sessions" in ready.json()["problems"]
        reviewer.status(request["id"], "withdrawn")
        assert reviewer.decide(request["id"], "approve").status_code == 409
        told: list[str | None] = []
        inside.add_notice_handler(lambda notice: told.append(notice.message_primary))
        assert inside.execute("select 7").fetchone() == (7,)
        inside.commit()
        # libpq takes an error that comes behind the commit's own answer, in one read with it, for a notice.
        with pytest.raises(psycopg.OperationalError) as ended:
            inside.execute("select 1")
        assert isinstance(ended.value, psycopg.errors.AdminShutdown) or any("is shutting down" in str(t) for t in told)
        inside.close()
