"""node-postgres, JDBC, libpq's pipeline mode and pg_dump with pg_restore: the same directly and through pgproxy.

They need what `make clients` installs, so `make test` leaves them out (pyproject.toml, `addopts`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgproxy.dsn import Dsn
from pgproxy.embedded import psql_path
from tests.integration.system import Person, System, clean_environment, eventually
from tests.integration.test_serve import serving
from tests.integration.transcripts import approving

HERE = Path(__file__).parent
# Their order of sending and receiving is the socket's; PostgreSQL keeps no traces of them either.
_UNTRACED = ("pipelined_insert", "uniqviol")
JAR = Path("/usr/share/java/postgresql.jar")


@pytest.fixture(scope="module")
def ways(system: System) -> Iterator[tuple[Dsn, Dsn, Person]]:
    """The server itself and the way through pgproxy, as the same user."""
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-clients-"))
    with serving(directory, system, notice=False) as (through, reviewer):
        direct = Dsn.parse(system.upstream_dsn).model_copy(update={"host": "127.0.0.1"})
        yield direct, Dsn.parse(through), reviewer
    shutil.rmtree(directory, ignore_errors=True)


def said(command: list[str], timeout: float = 120, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=clean_environment() | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_node_postgres(ways: tuple[Dsn, Dsn, Person]) -> None:
    direct, through, reviewer = ways
    modules = os.environ["CLIENTS_NODE_PATH"]
    command = ["node", str(HERE / "node_client.js")]
    expected = said([*command, direct.uri()], NODE_PATH=modules)
    with approving(reviewer) as approved:
        heard = said([*command, through.uri()], NODE_PATH=modules)
    assert heard == expected
    assert [sql.split()[0] for sql in approved] == ["create", "notify", "drop"]
    assert "heard" in heard and '"23505"' in heard


def test_jdbc(ways: tuple[Dsn, Dsn, Person], tmp_path: Path) -> None:
    direct, through, reviewer = ways
    said(["javac", "-cp", str(JAR), "-d", str(tmp_path), str(HERE / "JdbcClient.java")])

    def talk(dsn: Dsn) -> str:
        assert dsn.password is not None
        url = f"jdbc:postgresql://{dsn.host}:{dsn.port}/{dsn.database}"
        classes = f"{JAR}:{tmp_path}"
        return said(["java", "-cp", classes, "JdbcClient", url, str(dsn.user), dsn.password.get_secret_value()])

    expected = talk(direct)
    with approving(reviewer) as approved:
        heard = talk(through)
    assert heard == expected
    assert (
        sum(sql.startswith("FUNCTION CALL") for sql in approved) == 7
    )  # one large object made, written, read, removed
    assert "22012" in heard


# `uniqviol` sends until the socket is full, some 100,000 statements; each waits for the trail's store.
@pytest.mark.timeout(1200)
def test_libpqs_pipeline_mode(ways: tuple[Dsn, Dsn, Person], tmp_path: Path) -> None:
    """PostgreSQL's own tests of it pass, and the messages libpq traces are the same, to the letter."""
    direct, through, reviewer = ways
    program = os.environ["CLIENTS_LIBPQ_PIPELINE"]
    names = said([program, "tests"]).split()
    assert len(names) >= 11

    def clean() -> None:
        with psycopg.connect(direct.uri(), autocommit=True) as connection:
            connection.execute("drop table if exists pq_pipeline_demo, pq_pipeline_tst, ppln_uniqviol")

    def trace(name: str, dsn: Dsn) -> str:
        file = tmp_path / name
        clean()
        # Its messages to standard error show sizes of what was read at once, which are nobody's promise.
        said([program, "-r", "700", "-t", str(file), name, dsn.uri()])
        return file.read_text()

    for name in names:
        if name in _UNTRACED:
            said([program, "-r", "700", name, direct.uri()])
            with approving(reviewer):
                said([program, "-r", "700", name, through.uri()], timeout=1000)
            continue
        expected = trace(name, direct)
        with approving(reviewer):
            assert trace(name, through) == expected, name
        assert "Terminate" in expected
    clean()

    def drained() -> bool:
        """Until the outcomes of all those statements are stored, the trail takes no others."""
        text = reviewer.api.get("/metrics").text
        return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith("pgproxy_audit_backlog")) == 0

    eventually(drained, "the audit backlog is stored")


def test_a_dump_through_pgproxy_is_the_servers_and_can_be_restored_through_it(
    ways: tuple[Dsn, Dsn, Person], tmp_path: Path
) -> None:
    direct, through, reviewer = ways
    programs = psql_path().parent

    def dump(dsn: Dsn, *options: str) -> str:
        text = said([str(programs / "pg_dump"), *options, dsn.uri()])
        return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))

    expected = dump(direct)
    with approving(reviewer) as approved:
        assert dump(through) == expected
    tables = [sql for sql in approved if sql.startswith("COPY")]
    others = [sql for sql in approved if not sql.startswith("COPY")]
    assert len(tables) == 6
    # And a superuser's dump reads the subscriptions' connection strings, which may hold passwords.
    assert [others[0], len(others), "subconninfo" in others[1]] == ["SET row_security = off", 2, True]

    archive = tmp_path / "archive"
    said([str(programs / "pg_dump"), "-Fc", "-f", str(archive), direct.uri()])
    with psycopg.connect(direct.uri(), autocommit=True) as connection:
        connection.execute("create database restored")
    with approving(reviewer):
        restored = through.model_copy(update={"database": "restored"})
        said([str(programs / "pg_restore"), "--exit-on-error", "-d", restored.uri(), str(archive)])
    with psycopg.connect(direct.uri(), autocommit=True) as connection:
        try:
            assert dump(direct.model_copy(update={"database": "restored"})) == expected
        finally:
            connection.execute("drop database restored with (force)")
