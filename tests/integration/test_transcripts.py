"""The protocol in full: what the server says through pgproxy is what it says directly, byte for byte."""

from __future__ import annotations

import select
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import pq

from pgproxy.dsn import Dsn
from tests.integration.system import PATIENCE_S, Person, System
from tests.integration.test_serve import serving
from tests.integration.transcripts import (
    COPY_DONE,
    FLUSH,
    SYNC,
    Step,
    approving,
    ask,
    bind,
    call,
    close,
    converse,
    copy_data,
    copy_fail,
    describe,
    execute,
    parse,
    q,
    run,
)

INT4 = 23
LO_CREAT, LO_CREATE, LO_OPEN, LO_CLOSE, LOREAD, LOWRITE, LO_UNLINK = 957, 715, 952, 953, 954, 955, 964


def int4(value: int) -> bytes:
    return struct.pack("!i", value)


@dataclass(frozen=True)
class Script:
    """`approvals` is how often a human is asked on the way."""

    name: str
    steps: list[Step]
    approvals: int = 0
    encoding: str = "UTF8"


BINARY_COPY = (
    b"PGCOPY\n\xff\r\n\0"
    + struct.pack("!II", 0, 0)
    + struct.pack("!HI", 2, 4)
    + int4(90)
    + struct.pack("!I", 6)
    + b"ninety"
    + b"\xff\xff"
)

SCRIPTS = [
    Script("empty query", [ask(q("")), ask(q(" ; ;")), ask(run(""), SYNC), ask(q("-- nothing"))]),
    Script("simple results", [ask(q("select 1 as a, null as b; values (2), (3); select 'é'"))]),
    Script(
        "error in the middle of a string",
        [
            ask(q("select 1; select 1/0; select 3")),
            ask(q("insert into t values (7, 'x'); select 1/0")),
            ask(q("table t")),
        ],
    ),
    Script(
        "syntax errors", [ask(q("selct 1")), ask(q("select 1 from")), ask(run("select ("), SYNC), ask(q("select 1"))]
    ),
    Script(
        "missing objects",
        [ask(q("select * from nowhere")), ask(run("select nothing()"), SYNC), ask(q("selec 'é', 1"))],
        1,
    ),
    Script(
        "third of five is privileged",
        [
            ask(q("select 1; insert into t values (8, 'y'); copy t to stdout; select 4; select 5")),
            ask(q("select count(*) from t")),
        ],
        approvals=1,
    ),
    Script(
        "third of five is privileged, as a pipeline",
        [
            ask(
                *(run("select 1"), run("insert into t values (9, 'z')"), run("copy t to stdout"), run("select 4")),
                *(run("select 5"), SYNC),
            )
        ],
        approvals=1,
    ),
    Script(
        "privileged in a pipeline after an error",
        [ask(run("select 1/0"), run("copy t to stdout"), SYNC, run("select 2"), SYNC, times=2), ask(q("select 1"))],
    ),
    Script(
        "named statements",
        [
            ask(parse("select $1::int + a from t order by a", "one", (INT4,)), describe("S", "one"), SYNC),
            ask(
                bind(b"1", name="one"),
                execute(),
                bind(int4(2), name="one", formats=(1,), results=(1,)),
                execute(),
                SYNC,
            ),
            ask(parse("select 2", "one"), SYNC),
            ask(close("S", "one"), close("S", "never"), SYNC),
            ask(bind(b"1", name="one"), execute(), SYNC),
            ask(parse("select 2", "one"), bind(name="one"), execute(), SYNC),
        ],
    ),
    Script(
        "the unnamed statement is replaced and survives",
        [
            ask(parse("select 1"), SYNC),
            ask(bind(), execute(), SYNC),
            ask(bind(), describe("P"), execute(), SYNC),
            ask(parse("select 2"), bind(), execute(), SYNC),
            ask(q("select 3"), bind(), execute(), SYNC, times=2),
        ],
    ),
    Script(
        "row-limited portals",
        [
            ask(q("begin")),
            ask(parse("select generate_series(1, 10)", "g"), bind(name="g", portal="p"), describe("P", "p"), SYNC),
            ask(execute("p", 3), FLUSH, until="s"),
            ask(execute("p", 3), execute("p", 3), FLUSH, until="s", times=2),
            ask(execute("p", 3), FLUSH, until="C"),
            ask(execute("p", 3), SYNC),
            ask(bind(name="g", portal="p"), SYNC),
            ask(close("P", "p"), execute("p"), SYNC),
            ask(q("rollback")),
        ],
    ),
    Script(
        "portals end with their transaction",
        [
            ask(parse("select generate_series(1, 5)"), bind(portal="p"), execute("p", 2), SYNC),
            ask(execute("p", 2), SYNC),
            ask(q("begin"), parse("select 1"), bind(portal="p"), SYNC, times=2),
            ask(q("commit"), describe("P", "p"), SYNC, times=2),
        ],
    ),
    Script(
        "Flush after every message",
        [
            ask(parse("select $1::text"), FLUSH, until="1"),
            ask(describe("S"), FLUSH, until="T"),
            ask(bind(b"x"), FLUSH, until="2"),
            ask(describe("P"), FLUSH, until="T"),
            ask(execute(), FLUSH, until="C"),
            ask(close("P"), FLUSH, until="3"),
            ask(SYNC),
        ],
    ),
    Script(
        "several Syncs in one write, errors in between",
        [
            ask(
                *(run("select 1"), SYNC, run("select 1/0"), run("select 2"), SYNC, SYNC, run("select 3"), SYNC),
                *(bind(name="missing"), execute(), SYNC, run("select 4"), SYNC),
                times=6,
            )
        ],
    ),
    Script(
        "a pipeline is one transaction until its Sync",
        [
            ask(run("insert into t values (10, 'gone')"), run("select 1/0"), SYNC),
            ask(run("insert into t values (11, 'kept')"), SYNC, run("select 1/0"), SYNC, times=2),
            ask(q("select a from t where a in (10, 11)")),
        ],
    ),
    Script(
        "wrong number of parameters",
        [
            ask(parse("select $1::int", "p1"), SYNC),
            ask(bind(name="p1"), execute(), SYNC),
            ask(bind(b"1", b"2", name="p1"), SYNC),
            ask(bind(b"abc", name="p1"), SYNC),
            ask(bind(None, name="p1"), execute(), SYNC),
        ],
    ),
    Script(
        "SQL and protocol share names",
        [
            ask(q("prepare both as select 1 as by_sql")),
            ask(parse("select 2", "both"), SYNC),
            ask(bind(name="both"), describe("P"), execute(), SYNC),
            ask(q("deallocate both")),
            ask(parse("select 3 as by_protocol", "both"), SYNC),
            ask(q("execute both")),
            ask(q("prepare both as select 4")),
            ask(close("S", "both"), SYNC),
            ask(q("prepare both (int) as select $1 * 5; execute both(2)")),
            ask(q("execute both('x')")),
            ask(q("deallocate all")),
            ask(parse("select 6", "both"), bind(name="both"), execute(), SYNC),
        ],
        approvals=1,  # of EXECUTE in the string that prepares: the name stands for nothing yet when that is judged
    ),
    Script("EXECUTE of what was never prepared", [ask(q("begin")), ask(q("rollback")), ask(q("deallocate never"))]),
    Script(
        "DISCARD ALL",
        [
            ask(parse("select 1", "gone"), SYNC),
            ask(q("set datestyle = 'SQL, DMY'"), q("discard all"), times=2),
            ask(bind(name="gone"), SYNC),
            ask(q("begin")),
            ask(q("discard all")),
            ask(q("rollback")),
        ],
    ),
    Script(
        "a prepared statement that is privileged when executed",
        [
            ask(parse("copy t to stdout", "dump"), SYNC),
            ask(bind(name="dump"), execute(), SYNC),
            ask(bind(name="dump"), execute(), SYNC),
            ask(q("prepare d as select lo_get($1)"), q("execute d(999999)"), times=2),
        ],
        approvals=4,
    ),
    Script(
        "large objects by FunctionCall, as psql's \\lo_import does",
        [
            ask(q("begin")),
            ask(call(LO_CREATE, int4(777001))),
            ask(call(LO_OPEN, int4(777001), int4(0x60000))),
            ask(call(LOWRITE, int4(0), b"hello large world")),
            ask(call(LO_CLOSE, int4(0))),
            ask(call(LO_OPEN, int4(777001), int4(0x40000))),
            ask(call(LOREAD, int4(0), int4(100))),
            ask(call(LO_UNLINK, int4(777001))),
            ask(q("commit")),
            ask(call(LO_OPEN, int4(777002), int4(0x40000))),
        ],
        approvals=8,
    ),
    Script(
        "COPY FROM STDIN, text and csv, simple protocol",
        [
            ask(q("copy t from stdin"), until="G"),
            ask(copy_data(b"20\ttwen"), copy_data(b"ty\n21\t\\N\n"), COPY_DONE),
            ask(q("copy t from stdin (format csv, header)"), until="G"),
            ask(copy_data(b'a,b\n22,"q""uote"\n'), COPY_DONE),
            ask(q("copy t from stdin"), copy_data(b"23\tsent at once\n"), COPY_DONE),
            ask(q("select * from t where a between 20 and 29 order by a")),
        ],
    ),
    Script(
        "COPY FROM STDIN, binary",
        [
            ask(q("copy t from stdin binary"), until="G"),
            ask(copy_data(BINARY_COPY), COPY_DONE),
            ask(q("select b from t where a = 90")),
        ],
    ),
    Script(
        "COPY FROM STDIN, extended protocol",
        [
            ask(parse("copy t from stdin"), bind(), describe("P"), execute(), FLUSH, until="G"),
            ask(copy_data(b"30\tx\n"), COPY_DONE, SYNC),
            ask(run("copy t from stdin"), copy_data(b"31\ty\n"), COPY_DONE, SYNC),
            ask(q("select * from t where a in (30, 31) order by a")),
        ],
    ),
    Script(
        "CopyFail and bad data",
        [
            ask(q("copy t from stdin"), until="G"),
            ask(copy_data(b"40\tx\n"), copy_fail("changed my mind")),
            ask(q("copy t from stdin"), until="G"),
            ask(copy_data(b"not a number\tx\n"), COPY_DONE),
            ask(parse("copy t from stdin"), bind(), execute(), FLUSH, until="G"),
            ask(copy_fail("again"), SYNC),
            ask(q("copy nowhere from stdin")),
            ask(q("select count(*) from t where a = 40")),
        ],
    ),
    Script(
        "two COPYs in one string",
        [
            ask(q("copy t from stdin; copy t from stdin; select 1"), until="G"),
            ask(copy_data(b"50\tx\n"), COPY_DONE, until="G"),
            ask(copy_data(b"51\ty\n"), COPY_DONE),
        ],
    ),
    Script(
        "COPY TO STDOUT, every format",
        [
            ask(q("copy t to stdout")),
            ask(q("copy t (b) to stdout (format csv, header, force_quote *)")),
            ask(q("copy (select 1, 'x'::text) to stdout (format binary)")),
            ask(run("copy t to stdout"), SYNC),
            ask(q("copy nowhere to stdout")),
            ask(q("copy (select 1/0) to stdout")),
        ],
        approvals=6,
    ),
    Script(
        "cursors",
        [
            ask(q("begin; declare c scroll cursor for select generate_series(1, 9)")),
            ask(q("fetch 2 c; move 3 c; fetch backward 1 c")),
            ask(run("fetch 2 from c"), SYNC),
            ask(bind(name="nothing"), SYNC),
            ask(q("rollback")),
            ask(q("declare h cursor with hold for select a from t order by a limit 3")),
            ask(q("fetch all h")),
            ask(run("move backward all in h"), run("fetch 1 h"), SYNC),
            ask(describe("P", "h"), execute("h", 1), SYNC),
            ask(q("close h")),
            ask(q("fetch h")),
        ],
    ),
    Script(
        "transactions",
        [
            ask(q("begin; insert into t values (60, 'a'); savepoint s")),
            ask(q("select 1/0")),
            ask(q("select 2")),
            ask(run("select 2"), SYNC),
            ask(q("copy t to stdout")),
            ask(run("copy t to stdout"), SYNC),
            ask(q("rollback to s; release s; commit and chain")),
            ask(q("select a from t where a = 60; commit; commit")),
            ask(q("begin; begin; rollback; rollback")),
        ],
    ),
    Script(
        "notices and settings",
        [
            ask(q("set client_min_messages = debug1; reset client_min_messages")),
            ask(q("drop table if exists nowhere_at_all")),
            ask(q("set timezone = 'Asia/Tokyo'; set application_name = 'a name'; set datestyle = german")),
            ask(q("select set_config('intervalstyle', 'iso_8601', false)")),
            ask(q("set nonsense = 1")),
            ask(q("set a.b = 'c'; show a.b")),
        ],
        approvals=2,
    ),
    Script(
        "LISTEN and NOTIFY to oneself",
        [
            ask(q("listen news")),
            ask(q("notify news, 'hello'")),
            ask(run("select pg_notify('news', 'again')"), SYNC),
            ask(q("begin; notify news; notify news; notify news, 'other'")),
            ask(q("commit")),
            ask(q("unlisten *; notify news")),
        ],
        approvals=4,
    ),
    Script(
        "latin1", [ask(q("select 'é'".encode("latin-1"))), ask(q(b"select '\xe9' as \xe9, 1/0"))], encoding="LATIN1"
    ),
    Script(
        "euc_jp",
        [ask(q("select '日本' as 本".encode("euc-jp"))), ask(q("selec '日本'".encode("euc-jp")))],
        encoding="EUC_JP",
    ),
    Script(
        "other encoding on the way",
        [
            ask(q("set client_encoding = 'WIN1252'")),
            ask(q("select '€'".encode("cp1252"))),
            ask(q("set names 'UTF8'; select 1")),
            ask(q("select '€'")),
        ],
    ),
    Script(
        "wide rows",
        [ask(q("select repeat('x', 3000000), generate_series(1, 3)")), ask(run("select repeat('y', 70000)"), SYNC)],
    ),
]


@dataclass(frozen=True)
class Both:
    direct: str
    through: str
    reviewer: Person


@pytest.fixture(scope="module")
def both(system: System) -> Iterator[Both]:
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-both-"))
    with serving(directory, system, notice=False) as (through, reviewer):
        upstream = Dsn.parse(system.upstream_dsn).model_copy(update={"host": "127.0.0.1"}).uri()
        with psycopg.connect(upstream, autocommit=True) as connection:
            connection.execute("drop table if exists t")
            connection.execute("create table t (a int, b text)")
        yield Both(upstream, through, reviewer)
    shutil.rmtree(directory, ignore_errors=True)


def reset(both: Both) -> None:
    with psycopg.connect(both.direct, autocommit=True) as connection:
        connection.execute("truncate t")
        connection.execute("insert into t values (1, 'one'), (2, null), (3, 'drei')")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_same_bytes(both: Both, script: Script) -> None:
    reset(both)
    expected = converse(both.direct, script.steps, encoding=script.encoding)
    reset(both)
    with approving(both.reviewer) as approved:
        heard = converse(both.through, script.steps, encoding=script.encoding)
    assert heard == expected
    assert len(approved) == script.approvals, approved


def test_a_notification_reaches_a_parked_session_at_once(both: Both) -> None:
    """In any state but the middle of a message, as the server sends it to an idle one."""
    connection = pq.PGconn.connect(both.through.encode())
    assert connection.exec_(b"listen while_parked").status == pq.ExecStatus.COMMAND_OK
    connection.send_query(b"create table made_while_parked (a int)")
    request = both.reviewer.pending("made_while_parked")
    with psycopg.connect(both.direct, autocommit=True) as other:
        other.execute("notify while_parked, 'you wait'")
    readable, _, _ = select.select([connection.socket], [], [], PATIENCE_S)
    assert readable, "nothing came while the statement was parked"
    connection.consume_input()
    heard = connection.notifies()
    assert heard is not None and heard.extra == b"you wait"
    assert both.reviewer.approval(request["id"])["status"] == "pending"
    connection.finish()
    both.reviewer.status(request["id"], "withdrawn")


@pytest.mark.parametrize(
    ("encoding", "heard"),
    [
        ("UTF8", "naïve € 日本".encode()),
        ("LATIN1", b"na\xefve \\u20ac \\u65e5\\u672c"),
        ("WIN1252", b"na\xefve \x80 \\u65e5\\u672c"),
        ("EUC_JP", b"na\x8f\xab\xc1ve \\u20ac " + "日本".encode("euc-jp")),
        ("SQL_ASCII", "naïve € 日本".encode()),
    ],
)
def test_what_pgproxy_says_is_in_the_clients_encoding(both: Both, encoding: str, heard: bytes) -> None:
    connection = pq.PGconn.connect(f"{both.through}?client_encoding={encoding}".encode())
    assert connection.exec_(b"set application_name = 'encodings'").status == pq.ExecStatus.COMMAND_OK
    table = f"never_made_{encoding.lower()}"
    connection.send_query(f"create table {table} (a int)".encode())
    both.reviewer.deny(table, "naïve € 日本")
    result = connection.get_result()
    assert result is not None
    detail = result.error_field(pq.DiagnosticField.MESSAGE_DETAIL)
    assert detail is not None and detail.startswith(heard + b"; approval ")
    connection.finish()


@pytest.mark.parametrize(
    "sql",
    [
        "set client_encoding = 'SJIS'",
        "set names 'big5'",
        "select set_config('client_encoding', 'GBK', false)",
        "begin; set local client_encoding = 'uhc'; commit",
    ],
)
def test_an_encoding_that_hides_quotes_is_refused_without_asking(both: Both, sql: str) -> None:
    with psycopg.connect(both.through, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="this client_encoding is not supported"):
            connection.execute(sql)
        assert connection.execute("show client_encoding").fetchone() == ("UTF8",)
    assert both.reviewer.approvals(status="pending") == []
