"""A Debian PostgreSQL 15 with pgaudit that runs PostgreSQL's own regression suite and tells what it saw.

Everything is made below one work directory from Debian's packages (root needed): the server, its user, the suite's
scripts out of the source package and the C module they load. Nothing of it is kept in the repository.

Three runs of the suite give three oracles: `log_statement = ddl`, `log_statement = mod` (which statements the
server itself logs at these levels, "Error Reporting and Logging") and `log_statement = all` with
`pgaudit.log = 'all'`, whose log tells every text and the class pgaudit gives each of its effects.
"""

from __future__ import annotations

import csv
import os
import pwd
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pgproxy.embedded import bin_dir

PACKAGES = ("postgresql-15", "postgresql-15-pgaudit", "dpkg-dev", "gcc", "libc6-dev")
BIN = Path("/usr/lib/postgresql/15/bin")
USER = "pgconformance"
SUPERUSER = "suite"
PORT = 55615
_DATABASE = "regression"
_FILE_LIMIT_S = 120
_SUITE = ("*/src/test/regress/*",)
# pg_regress sets these on its database; the last is one of its start-up options
_DATABASE_SETTINGS = (
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("bytea_output", "hex"),
    ("timezone_abbreviations", "Default"),
    ("intervalstyle", "postgres_verbose"),
)
csv.field_size_limit(1 << 30)


@dataclass
class Seen:
    """What the server did with one text: pgaudit's class and command of its own effects, and those of effects
    that happened only inside a function, trigger, rule or DO block of it."""

    texts: int = 0
    own: set[tuple[str, str]] = field(default_factory=set)
    inside: set[tuple[str, str]] = field(default_factory=set)
    failed: int = 0
    sqlstates: set[str] = field(default_factory=set)


def run(*command: str | Path, quiet: bool = True, check: bool = True, **more: object) -> str:
    """A program's standard output; its error output is shown when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", **more)  # type: ignore[call-overload]
    if check and done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return str(done.stdout)


def embedded_copy(work: Path) -> Path:
    """The programs of the embedded PostgreSQL where the server's user may run them."""
    source = bin_dir().parent.parent
    target = work / "embedded" / source.name
    if not target.exists():
        shutil.copytree(source, target)
        shutil.copytree(source.with_name(f"{source.name}.libs"), target.with_name(f"{source.name}.libs"))
        run("chmod", "-R", "a+rX", target.parent)
        run("chmod", "a+rx", *(target / "pginstall" / "bin").iterdir())
    return target / "pginstall" / "bin"


class Oracle:
    """The server and the suite in one work directory."""

    def __init__(self, work: Path, bin_dir: Path = BIN, port: int = PORT, audited: bool = True) -> None:
        self.work = work
        self.bin = bin_dir
        self.port = port
        self.audited = audited
        self.data = work / f"data{port}"
        self.suite = work / "suite" / "src" / "test" / "regress"
        self.library = work / "lib"
        self.build = work / "build"

    # making

    def prepare(self) -> None:
        """Packages, user, the suite's sources and the module its scripts load; what is there is kept."""
        if os.geteuid() != 0:
            raise SystemExit("installing Debian packages takes root")
        self.work.mkdir(parents=True, exist_ok=True)
        missing = [
            p
            for p in PACKAGES
            if not Path(f"/var/lib/dpkg/info/{p}.list").exists()
            and not Path(f"/var/lib/dpkg/info/{p}:amd64.list").exists()
        ]
        if missing:
            os.environ["DEBIAN_FRONTEND"] = "noninteractive"
            run("apt-get", "update", "-qq")
            if "postgresql-15" in missing:  # no cluster of Debian's own
                run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "postgresql-common")
                settings = Path("/etc/postgresql-common/createcluster.conf")
                settings.write_text(settings.read_text() + "\ncreate_main_cluster = false\n")
            run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)
        try:
            pwd.getpwnam(USER)
        except KeyError:
            run("useradd", "-r", "-M", "-d", "/nonexistent", "-s", "/bin/bash", USER)
        if not (self.library / "regress.so").exists():
            self._fetch()

    def _fetch(self) -> None:
        """The source package with apt lists of its own: nothing of the machine's apt is changed."""
        apt = self.work / "apt"
        for name in ("lists/partial", "cache/archives/partial"):
            (apt / name).mkdir(parents=True, exist_ok=True)
        suites = ("debian bookworm", "debian-security bookworm-security")
        key = "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg"
        (apt / "sources.list").write_text(
            "".join(
                f"{kind} [{key}] http://deb.debian.org/{suite} main\n"
                for kind in ("deb", "deb-src")
                for suite in suites
            )
        )
        options = [
            "-qq",
            "-o",
            f"Dir::Etc::sourcelist={apt}/sources.list",
            "-o",
            "Dir::Etc::sourceparts=/dev/null",
            "-o",
            f"Dir::State::lists={apt}/lists",
            "-o",
            f"Dir::Cache={apt}/cache",
            "-o",
            "APT::Sandbox::User=root",
        ]
        version = run("dpkg-query", "-W", "-f", "${Version}", "postgresql-15")
        run("apt-get", *options, "update")
        run("apt-get", *options, "source", "--download-only", "--tar-only", f"postgresql-15={version}", cwd=apt)
        run("apt-get", *options, "download", f"postgresql-server-dev-15={version}", cwd=apt)
        suite = self.work / "suite"
        shutil.rmtree(suite, ignore_errors=True)
        suite.mkdir()
        (archive,) = apt.glob("postgresql-15_*.orig.tar.bz2")
        run("tar", "xjf", archive, "-C", suite, "--strip-components=1", "--wildcards", *_SUITE)
        (package,) = apt.glob("postgresql-server-dev-15_*.deb")
        run("dpkg", "-x", package, apt / "dev")
        self.library.mkdir(exist_ok=True)
        run(
            "gcc",
            "-O1",
            "-fPIC",
            "-shared",
            "-w",
            f"-I{apt}/dev/usr/include/postgresql/15/server",
            "-o",
            self.library / "regress.so",
            self.suite / "regress.c",
        )
        for name in ("refint.so", "autoinc.so"):
            shutil.copy(self.bin.parent / "lib" / name, self.library / name)

    # the server

    def _as_user(self, *command: str | Path, check: bool = True) -> str:
        return run(
            "runuser",
            "-u",
            USER,
            "--",
            "env",
            "-i",
            f"PATH={os.environ['PATH']}",
            "LC_ALL=C",
            "TZ=UTC",
            *command,
            check=check,
        )

    def start(self) -> None:
        """A new cluster each time."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir()
        shutil.chown(self.data, USER, USER)
        self.data.chmod(0o700)
        self._as_user(
            self.bin / "initdb", "-D", self.data, "-U", SUPERUSER, "--no-locale", "-E", "UTF8", "-A", "trust", "-N"
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "max_prepared_transactions": "16",
            "wal_level": "logical",
            "max_connections": "60",
            "log_destination": "csvlog",
            "logging_collector": "on",
            "log_rotation_age": "0",
            "log_rotation_size": "0",
            "log_filename": "server.log",
            "log_min_messages": "error",
            "log_min_error_statement": "panic",
            "lc_messages": "C",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        if self.audited:
            settings |= {"shared_preload_libraries": "pgaudit", "pgaudit.log": "none"}
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self._as_user(self.bin / "pg_ctl", "-D", self.data, "-l", self.data / "start.log", "-w", "-s", "start")

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self._as_user(self.bin / "pg_ctl", "-D", self.data, "-m", "immediate", "-s", "stop", check=False)

    def sql(self, text: str, database: str = "postgres") -> str:
        return run(
            BIN / "psql", "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-d", database, input=text
        )

    # the suite

    def scripts(self) -> list[str]:
        lines = (self.suite / "parallel_schedule").read_text().splitlines()
        return [name for line in lines if line.startswith("test:") for name in line[5:].split()]

    def run_suite(self, log_statement: str, pgaudit: str = "none") -> Path:
        """Runs every script in an empty database with this logging; returns the log."""
        self.sql(f"drop database if exists {_DATABASE} with (force)")
        self.sql(
            "select format('drop tablespace %I', spcname) from pg_tablespace where spcname like 'regress%' \\gexec\n"
            "select format('drop role %I', rolname) from pg_roles where rolname like 'regress%' \\gexec\n"
        )
        self.sql(f"create database {_DATABASE} template template0")
        self.sql("".join(f"alter database {_DATABASE} set {n} to '{v}';" for n, v in _DATABASE_SETTINGS))
        audit = f"alter system set pgaudit.log = '{pgaudit}';" if self.audited else ""
        for statement in (f"alter system set log_statement = '{log_statement}'", audit, "select pg_reload_conf()"):
            self.sql(statement)
        shutil.rmtree(self.build, ignore_errors=True)
        for directory in (self.build, self.build / "results", self.build / "testtablespace"):
            directory.mkdir()
            directory.chmod(0o777)
        log = self.data / "log" / "server.csv"
        start = log.stat().st_size
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))} | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGTZ": "PST8PDT",
            "PGDATESTYLE": "Postgres, MDY",
            "LANG": "C",
            "LC_MESSAGES": "C",
            "PG_ABS_SRCDIR": str(self.suite),
            "PG_ABS_BUILDDIR": str(self.build),
            "PG_LIBDIR": str(self.library),
            "PG_DLSUFFIX": ".so",
        }
        for name in self.scripts():
            script = self.suite / "sql" / f"{name}.sql"
            command = [
                str(BIN / "psql"),
                "-X",
                "-a",
                "-q",
                "-d",
                _DATABASE,
                "-v",
                "HIDE_TABLEAM=on",
                "-v",
                "HIDE_TOAST_COMPRESSION=on",
            ]
            with script.open("rb") as text:
                try:
                    subprocess.run(
                        command,
                        stdin=text,
                        env=environment,
                        cwd=self.build,
                        timeout=_FILE_LIMIT_S,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        check=False,
                    )
                except subprocess.TimeoutExpired:
                    print(f"{name}: took longer than {_FILE_LIMIT_S} s and was ended", file=sys.stderr)
        part = self.work / f"{log_statement}-{self.port}.csv"
        with log.open("rb") as source, part.open("wb") as target:
            source.seek(start)
            shutil.copyfileobj(source, target)
        return part


def statement_of(message: str) -> str | None:
    """The text of a `statement: …` or `execute name: …` entry."""
    if message.startswith("statement: "):
        return message[11:]
    if message.startswith("execute "):
        return message.split(": ", 1)[1]
    return None


def logged(log: Path) -> set[str]:
    """Every text a log of any level holds."""
    with log.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return {t for row in csv.reader(file) if row[2] == _DATABASE if (t := statement_of(row[13])) is not None}


def observed(log: Path) -> dict[str, Seen]:
    """Every text of an audited run with what pgaudit said of it."""
    seen: dict[str, Seen] = defaultdict(Seen)
    current: dict[str, str] = {}
    with log.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.reader(file):
            if row[2] != _DATABASE:
                continue
            session, level, sqlstate, message = row[5], row[11], row[12], row[13]
            text = statement_of(message)
            if text is not None:
                current[session] = text
                seen[text].texts += 1
            elif level in ("ERROR", "FATAL") and session in current:
                seen[current[session]].failed += 1
                seen[current[session]].sqlstates.add(sqlstate)
            elif message.startswith("AUDIT: SESSION,") and session in current:
                fields = next(csv.reader([message[15:]]))
                what = (fields[2], fields[3])
                target = seen[current[session]]
                (target.own if fields[1] == "1" else target.inside).add(what)
    return seen
