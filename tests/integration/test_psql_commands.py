"""psql's own commands print the same directly and through pgproxy."""

from __future__ import annotations

import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgproxy.dsn import Dsn
from tests.integration.system import Person, System, eventually
from tests.integration.test_serve import serving
from tests.integration.transcripts import approving

DATA = bytes(range(256)) * 700  # several lowrite calls, and nothing that is text


@pytest.fixture(scope="module")
def ways(system: System) -> Iterator[tuple[str, str, Person]]:
    """The server itself and the way through pgproxy, as the same user."""
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-psql-"))
    with serving(directory, system, notice=False) as (through, reviewer):
        direct = Dsn.parse(system.upstream_dsn).model_copy(update={"host": "127.0.0.1"})
        yield direct.uri(), through, reviewer
    shutil.rmtree(directory, ignore_errors=True)


def talk(system: System, dsn: str, script: str) -> tuple[str, str, int]:
    done = system.run_psql("-At", dsn=dsn, text=script)
    return done.stdout, done.stderr, done.returncode


SCRIPTS = {
    "bind": r"""
        select $1::int + $2::int \bind 40 2 \g
        \set name 'it''s'
        select $1, length($2) \bind :'name' '' \g
        select $1::int \bind x \g
        select 'goes on' \parse kept
        select $1::text as one \parse named
        \bind_named named 'again' \g
        \bind_named named 'and again' \gx
        \close_prepared named
        \bind_named named 'gone' \g
        create temp table bound (a int) \bind \g
        insert into bound values ($1), ($2) returning a \bind 1 2 \g
        select $1::int \gdesc
    """,
    "pipeline": r"""
        \startpipeline
        select $1 \bind one \sendpipeline
        create temp table piped (a int) \bind \sendpipeline
        insert into piped select generate_series(1, $1) \bind 3 \sendpipeline
        \flushrequest
        \getresults 1
        select count(*) from piped \bind \sendpipeline
        \syncpipeline
        select 1/0 \bind \sendpipeline
        select 'skipped' \bind \sendpipeline
        \syncpipeline
        select 'after' \bind \sendpipeline
        \endpipeline
        select 'ordinary again';
    """,
    "watch": r"""
        create temp sequence ticks;
        select nextval('ticks') \watch interval=0.01 count=5
        select 1/(3 - nextval('ticks')) \watch i=0.01 c=3
        copy (select nextval('ticks')) to stdout \watch i=0.01 c=2
        select 'after';
    """,
    "copy": r"""
        create temp table copied (a int, b text);
        \copy copied from pstdin csv
1,"a ""quoted"" one
over lines"
2,
\.
        \copy copied (b) from program 'printf "x\\ny\\n"'
        \copy copied to pstdout
        \copy (select a, b from copied where a is null) to pstdout with (format csv, header, force_quote *)
        \copy copied from program 'echo not a number'
        \copy no_such_table to pstdout
        select count(*) from copied;
    """,
    "others": r"""
        select 'select ' || i || ' * 7' from generate_series(1, 3) i \gexec
        select 6 as x, 'seven' as y \gset seen_
        select :seen_x, :'seen_y';
        \set FETCH_COUNT 3
        select i from generate_series(1, 8) i;
        \unset FETCH_COUNT
        \set ON_ERROR_ROLLBACK on
        begin;
        select 1/0;
        select 'transaction goes on';
        commit;
        \d customers
        \df+ pg_sleep
        \crosstabview
        \errverbose
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_psql_says_the_same(system: System, ways: tuple[str, str, Person], name: str) -> None:
    direct, through, reviewer = ways
    expected = talk(system, direct, SCRIPTS[name])
    with approving(reviewer) as approved:
        heard = talk(system, through, SCRIPTS[name])
    assert heard == expected
    assert approved or name == "others"


def test_large_objects_by_psqls_commands(system: System, ways: tuple[str, str, Person], tmp_path: Path) -> None:
    direct, through, reviewer = ways
    source = tmp_path / "source"
    source.write_bytes(DATA)

    def script(target: Path) -> str:
        return f"""
            \\lo_import {source} 'a comment'
            \\lo_export :LASTOID {target}
            select length(lo_get(:LASTOID)), obj_description(:LASTOID, 'pg_largeobject');
            \\lo_list
            \\lo_unlink :LASTOID
            \\lo_unlink 4294967295
        """

    def without_oids(said: tuple[str, str, int]) -> tuple[str, str, int]:
        out, err, status = said
        oids = set(re.findall(r"lo_import (\d+)", out))
        assert len(oids) == 1
        return out.replace(oids.pop(), "OID"), err, status

    expected = without_oids(talk(system, direct, script(tmp_path / "direct")))
    with approving(reviewer) as approved:
        heard = without_oids(talk(system, through, script(tmp_path / "through")))
    assert heard == expected
    assert (tmp_path / "direct").read_bytes() == (tmp_path / "through").read_bytes() == DATA
    calls = [sql for sql in approved if sql.startswith("FUNCTION CALL")]
    assert len(calls) > 4


def test_control_c_stops_a_running_statement(system: System, ways: tuple[str, str, Person]) -> None:
    """Not parked: the CancelRequest goes on to the server, whose own error comes back."""

    def stopped(dsn: str) -> tuple[tuple[str, str], int]:
        psql = system.start_psql("-At", dsn=dsn)
        assert psql.stdin is not None
        psql.stdin.write("select 'before';\nselect pg_sleep(3600) \\watch 0.01\nselect 'behind it';\n")
        psql.stdin.close()
        psql.stdin = None
        sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        eventually(lambda: system.direct(sleeping) == "1", "the statement runs on the server")
        psql.send_signal(signal.SIGINT)
        said = psql.communicate(timeout=30)
        assert system.direct(sleeping) == "0"
        return said, psql.returncode

    direct, through, _ = ways
    expected = stopped(direct)
    assert "canceling statement due to user request" in expected[0][1]
    assert stopped(through) == expected
