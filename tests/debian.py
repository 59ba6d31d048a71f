"""Debian's PostgreSQL with TLS, for what the embedded one cannot do: that is built without OpenSSL."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import free_port
from tests.pki import Authority, Pair

# In the order of their numbers; the newest serves.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
PSQL = Path("/usr/bin/psql")

# `strict` only in TLS, `plain` only without: what sslmode allow and prefer try again for.
HBA = """
local     all postgres                    trust
hostssl   all cert      127.0.0.1/32      cert
hostnossl all strict    127.0.0.1/32      reject
hostssl   all plain     127.0.0.1/32      reject
host      all trusted   127.0.0.1/32      trust
host      all all       127.0.0.1/32      scram-sha-256
"""


@dataclass(frozen=True)
class TlsServer:
    """It listens on 127.0.0.1, as `localhost` its certificate is not good for."""

    port: int
    socket_dir: Path
    authority: Authority
    pair: Pair
    directory: Path

    def admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(f"host={self.socket_dir} port={self.port} user=postgres", autocommit=True)

    def uri(self, user: str = "app", *, host: str = "127.0.0.1", password: str = "secret", **options: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://{user}:{password}@{host}:{self.port}/postgres?{query}"

    async def reload(self) -> None:
        def run() -> None:
            with self.admin() as admin:
                admin.execute("select pg_reload_conf()")

        await asyncio.to_thread(run)


@contextmanager
def running(**settings: str) -> Iterator[TlsServer]:
    """A new cluster until the block ends. Raises when none is installed: a test of TLS without it tests nothing."""
    if not INSTALLED:
        raise AssertionError("no PostgreSQL below /usr/lib/postgresql: `make test` installs it (Debian: postgresql)")
    programs = INSTALLED[-1]
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-tls-"))
    directory.chmod(0o711)
    authority = Authority(directory, "the server's authority")
    pair = authority.issue("db.test", hosts=["127.0.0.1", "db.test"])
    data = directory / "data"
    data.mkdir(mode=0o700)
    as_user: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": "/"}
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        as_user |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        for path in (data, pair.key):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--no-locale"],
        check=True,
        **as_user,
    )
    (data / "pg_hba.conf").write_text(HBA)
    port = free_port()
    chosen = {
        "port": str(port),
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(data),
        "ssl": "on",
        "ssl_cert_file": str(pair.cert),
        "ssl_key_file": str(pair.key),
        "ssl_ca_file": str(authority.path),
        "fsync": "off",
        **settings,
    }
    options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
    as_user["stdout"] = (directory / "log").open("w")
    process = subprocess.Popen([programs / "postgres", "-D", data, *options], **as_user)
    as_user["stdout"].close()
    server = TlsServer(port, data, authority, pair, directory)
    try:
        _await_ready(server, process)
        with server.admin() as admin:
            admin.execute("set password_encryption = 'scram-sha-256'")
            for role in ("app", "strict", "plain"):
                admin.execute(f"create role {role} login password 'secret'")
            for role in ("trusted", "cert"):
                admin.execute(f"create role {role} login")
            admin.execute("create role observer login password 'secret'")
        yield server
    finally:
        process.terminate()  # smart shutdown would wait for sessions
        process.send_signal(2)
        process.wait(60)
        print(f"--- the server's log\n{(directory / 'log').read_text()[-10_000:]}")
        shutil.rmtree(directory, ignore_errors=True)


def _await_ready(server: TlsServer, process: subprocess.Popen[Any]) -> None:
    while True:
        assert process.poll() is None, (server.directory / "log").read_text()
        try:
            server.admin().close()
        except psycopg.OperationalError:
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
