"""A whole `pgproxy serve` in TLS on every side: agents, server, observer, API."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from tests import debian
from tests.conftest import free_port
from tests.debian import TlsServer
from tests.integration.system import Person, clean_environment, eventually
from tests.pki import Pair

TOKEN = "a-token-of-more-than-twenty-characters"


@pytest.fixture(scope="module")
def tls_server() -> Iterator[TlsServer]:
    with debian.running() as server:
        yield server


@contextmanager
def serving(directory: Path, server: TlsServer, pair: Pair, **changes: Any) -> Iterator[tuple[dict[str, Any], Person]]:
    """Gives what libpq needs to connect, beside a login, and a reviewer over HTTPS."""
    root = str(server.authority.path)
    listen, api = free_port(), free_port()
    document: dict[str, Any] = {
        "listen": f"127.0.0.1:{listen}",
        "api": {"listen": f"0.0.0.0:{api}", "tls": {"cert": str(pair.cert), "key": str(pair.key)}},
        "tls": {"mode": "require", "cert": str(pair.cert), "key": str(pair.key), "client_ca": root},
        "upstream": {
            "dsn": f"postgresql://127.0.0.1:{server.port}/?sslmode=verify-full&sslrootcert={root}",
            "observer": {"user": "observer", "password": "secret"},
        },
        "auth": {"mode": "broker"},
        "agents": [
            {
                "name": "etl-bot",
                "owner": "alice@example.com",
                "certificate": {"dn": "CN=etl-bot,O=Example"},
                "upstream": {"user": "app", "password": "secret"},
            },
            {
                "name": "bot",
                "owner": "alice@example.com",
                "password": "pw",
                "upstream": {"user": "app", "password": "secret"},
            },
        ],
        "reviewers": [{"name": "bob@example.com", "token": TOKEN, "roles": ["reviewer", "admin", "auditor"]}],
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
            env=clean_environment(),
        )
    try:
        context = ssl.create_default_context(cafile=root)
        with httpx.Client(
            base_url=f"https://127.0.0.1:{api}",
            headers={"Authorization": f"Bearer {TOKEN}"},
            verify=context,
            timeout=20,
        ) as client:

            def ready() -> bool:
                assert process.poll() is None, (directory / "out").read_text()
                try:
                    return client.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            eventually(ready, "pgproxy serve is ready")
            libpq = {"host": "127.0.0.1", "port": listen, "dbname": "postgres"}
            yield {**libpq, "sslmode": "verify-full", "sslrootcert": root, "autocommit": True}, Person("bob", client)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
        print((directory / "out").read_text()[-10_000:])
        assert code == 0


def test_everything_in_tls(tls_server: TlsServer, short_directory: Path) -> None:
    pair = tls_server.authority.issue("proxy.test", hosts=["127.0.0.1"])
    agent = tls_server.authority.issue("etl-bot", organisation="Example")
    certificate = {"sslcert": str(agent.cert), "sslkey": str(agent.key)}
    with serving(short_directory, tls_server, pair) as (libpq, reviewer):
        with psycopg.connect(**libpq, user="bot", password="pw", channel_binding="require") as connection:
            assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)
        with psycopg.connect(**libpq, user="etl-bot", sslnegotiation="direct", **certificate) as connection:
            assert connection.execute("select current_user").fetchone() == ("app",)
            (session,) = [s for s in reviewer.api.get("/v1/sessions").json()["items"] if s["agent"] == "etl-bot"]
            assert session["tls"]["version"] == "TLSv1.3"
            assert session["tls"]["client_certificate"] == "CN=etl-bot,O=Example"
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(**{**libpq, "sslmode": "disable"}, user="bot", password="pw")
        with pytest.raises(psycopg.OperationalError, match="valid client certificate"):
            psycopg.connect(**libpq, user="etl-bot", password="pw")

        def started() -> list[dict[str, Any]]:
            entries = [e for e in reviewer.audit() if e["kind"] == "session_start"]
            return entries if len(entries) == 2 else []

        entries = eventually(started, "both sessions are in the trail")
        assert entries[0]["tls"]["client_certificate"] == "CN=etl-bot,O=Example"
        assert entries[1]["tls"] == {**entries[0]["tls"], "client_certificate": None}


def test_it_does_not_start_where_scram_cannot_work(tls_server: TlsServer, short_directory: Path) -> None:
    pair = tls_server.authority.issue("proxy.test", hosts=["127.0.0.1"])
    config = short_directory / "pgproxy.yaml"
    document = {
        "tls": {"mode": "prefer", "cert": str(pair.cert), "key": str(pair.key)},
        "upstream": {"dsn": f"postgresql://127.0.0.1:{tls_server.port}"},
    }
    config.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [sys.executable, "-m", "pgproxy", "serve", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 2, done
    assert f"{config}:4: tls.mode: with auth.mode passthrough, SCRAM fails" in done.stderr
    assert "Use auth.mode: broker, or a plaintext connection to the server" in done.stderr
