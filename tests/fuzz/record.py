"""Records the seeds: real clients talk to a real server, and what they send is written down.

    python -m tests.fuzz.record          (needs pg8000 beside the test extra: pip install pg8000)

The clients do what an agent might on any day; nothing of it is privileged by its marker (see `oracle`), which the
mutations put in.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
from psycopg import pq

from pgproxy.embedded import EmbeddedServer, psql_path
from tests.conftest import FAST, free_port
from tests.fuzz import seeds


class Recorder:
    """A forwarder that keeps what clients send, connection by connection."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.connections: list[list[bytes | None]] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._server_port))
            said: list[bytes | None] = []
            self.connections.append(said)
            for source, sink, kept in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._pump, args=(source, sink, said, kept), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, sink: socket.socket, said: list[bytes | None], kept: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if kept:
                    said.append(data)
                elif said and said[-1] is not None:
                    said.append(None)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def take(self) -> list[tuple[bytes, list[bytes | None]]]:
        """First packet and messages of each connection so far."""
        for thread in self._threads:
            thread.join(10)
        found = []
        for said in self.connections:
            first, messages, rest = b"", list[bytes | None](), b""
            for data in said:
                if data is None:
                    if not rest and messages and messages[-1] is not None:
                        messages.append(None)
                    continue
                rest += data
                while not first or first[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):
                    size = int.from_bytes(rest[:4], "big")
                    if not rest or len(rest) < size:
                        break
                    first, rest = rest[:size], rest[size:]
                while first and len(rest) >= 5 and len(rest) > int.from_bytes(rest[1:5], "big"):
                    size = 1 + int.from_bytes(rest[1:5], "big")
                    messages.append(rest[:size])
                    rest = rest[size:]
            found.append((first, messages))
        self.connections.clear()
        self._threads.clear()
        return found


def psql(script: str, *options: str) -> Callable[[int], None]:
    def work(port: int) -> None:
        dsn = f"host=127.0.0.1 port={port} user=agent dbname=postgres sslmode=disable gssencmode=disable"
        subprocess.run(
            [psql_path(), "-X", "-q", *options, dsn], input=script, text=True, capture_output=True, timeout=60
        )

    return work


def libpq(port: int, **more: str) -> pq.PGconn:
    extra = " ".join(f"{k}={v}" for k, v in more.items())
    dsn = f"host=127.0.0.1 port={port} user=agent dbname=postgres sslmode=disable gssencmode=disable {extra}"
    return pq.PGconn.connect(dsn.encode())


def psycopg_pipeline(port: int) -> None:
    dsn = f"host=127.0.0.1 port={port} user=agent dbname=postgres sslmode=disable"
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.pipeline():
            for i in range(4):
                connection.execute("select %s::int + 1", (i,))
            connection.execute("insert into t values (%s, %s)", (70, "pipelined"))
        with contextlib.suppress(psycopg.Error), connection.pipeline() as pipeline:
            connection.execute("select 1")
            connection.execute("select 1/0")
            connection.execute("select 3")
            pipeline.sync()
            connection.execute("select 4")


def psycopg_ordinary(port: int) -> None:
    dsn = f"host=127.0.0.1 port={port} user=agent dbname=postgres sslmode=disable"
    with psycopg.connect(dsn, options="-c work_mem=8MB") as connection:
        connection.execute("insert into t values (%s, %s)", (71, "x"))
        for _ in range(7):  # prepared after the fifth
            connection.execute("select a, b from t where a = %s", (71,), binary=True).fetchall()
        connection.commit()
        with connection.cursor("named", withhold=True) as cursor:
            cursor.execute("select generate_series(1, 30)")
            cursor.fetchmany(10)
            cursor.fetchmany(10)
        with connection.cursor().copy("copy t from stdin") as copy:
            copy.write_row((72, "copied"))
            copy.write(b"73\tand raw\n")
        with connection.cursor().copy("copy t (a, b) to stdout (format binary)") as copy:
            list(copy)
        with contextlib.suppress(psycopg.Error), connection.transaction():
            connection.execute("select 1/0")
        connection.rollback()


def asyncpg_session(port: int) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user="agent", database="postgres", ssl=False, server_settings={"jit": "off"}
        )
        await connection.fetch("select a, b from t where a = $1 and b <> $2", 1, "no")
        await connection.fetchval("select 1")
        statement = await connection.prepare("select $1::text || 'x'")
        await statement.fetchval("a")
        await connection.executemany("insert into t values ($1, $2)", [(i, str(i)) for i in range(80, 84)])
        async with connection.transaction():
            async for _ in connection.cursor("select generate_series(1, 20)", prefetch=6):
                pass
        with contextlib.suppress(asyncpg.PostgresError):
            async with connection.transaction():
                await connection.execute("savepoint s; select 1/0")
        await connection.copy_records_to_table("t", records=[(90, "ninety")])
        await connection.copy_from_query("select a from t", output=bytearray_sink)
        await connection.add_listener("news", lambda *_: None)
        await connection.execute("select pg_advisory_lock_shared(1); select pg_advisory_unlock_shared(1)")
        await connection.reset()
        await connection.close()

    asyncio.run(work())


async def bytearray_sink(data: bytes) -> None:
    del data


def pg8000_session(port: int) -> None:
    import pg8000.native  # type: ignore[import-not-found, unused-ignore]  # not in the test extra

    connection: Any = pg8000.native.Connection("agent", host="127.0.0.1", port=port, database="postgres")
    connection.run("start transaction")
    connection.run("insert into t values (:a, :b)", a=75, b="pg8000")
    connection.run("select a, b from t where a = :a", a=75)
    prepared = connection.prepare("select :v + 1")
    prepared.run(v=1)
    prepared.run(v=2)
    prepared.close()
    with contextlib.suppress(Exception):
        connection.run("select 1/0")
    connection.run("rollback")
    connection.close()


def libpq_pipeline_of_errors(port: int) -> None:
    connection = libpq(port)
    connection.enter_pipeline_mode()
    connection.send_prepare(b"one", b"select $1::int")
    connection.send_query_prepared(b"one", [b"7"])
    connection.send_query_prepared(b"missing", [b"7"])
    connection.send_query_params(b"select 1", None)
    connection.pipeline_sync()
    connection.send_describe_prepared(b"one")
    connection.send_query_prepared(b"one", [b"not a number"])
    connection.pipeline_sync()
    connection.send_query_prepared(b"one", [b"8"], result_format=1)
    connection.send_flush_request()
    connection.pipeline_sync()
    connection.nonblocking = 0
    connection.flush()
    for _ in range(30):  # results and the NULLs between them; none of them blocks, for everything was flushed
        if connection.get_result() is None and connection.transaction_status == pq.TransactionStatus.IDLE:
            break
    connection.finish()


def libpq_cancelled(port: int) -> None:
    connection = libpq(port)
    connection.send_query(b"select pg_sleep(30)")
    connection.get_cancel().cancel()
    while connection.get_result() is not None:
        pass
    connection.exec_(b"select 'after the cancel'")
    connection.finish()


def libpq_copy_fails(port: int) -> None:
    connection = libpq(port)
    connection.exec_(b"copy t from stdin")
    connection.put_copy_data(b"1\tx\n")
    connection.put_copy_end(b"changed my mind")
    connection.get_result()
    connection.get_result()
    connection.exec_params(b"copy t from stdin", None)
    connection.put_copy_data(b"not a number\tx\n")
    connection.put_copy_end()
    while connection.get_result() is not None:
        pass
    connection.finish()


SIMPLE = """
select 1; select 'a;b', $$d;q$$ -- a comment
\\;select 2 \\; select 3;
begin; insert into t values (1, 'x'); savepoint s; select 1/0; rollback to s; release s; commit;
prepare p (int) as select $1 + 1; execute p(1); execute p(2); deallocate p; execute p(3);
declare c cursor with hold for select generate_series(1, 9); fetch 3 c; move 2 c; fetch all c; close c;
set search_path to public, pg_catalog; show search_path; reset search_path; selct 1; discard all;
listen news; unlisten *; set client_encoding to latin1; select 'e'; set client_encoding to utf8;
"""
BIND = """
select $1, $2::int \\bind 'x' 2 \\g
select a from t where a = $1 \\parse by_name
\\bind_named by_name 1 \\g
\\bind_named by_name 2 \\g
\\close_prepared by_name
insert into t values ($1, $2) \\bind 5 'five' \\g
copy t to stdout \\bind \\g
select 1/0 \\bind \\g
\\startpipeline
select 1 \\bind \\sendpipeline
select 2 \\bind \\sendpipeline
\\syncpipeline
select 3 \\bind \\sendpipeline
\\flushrequest
\\getresults
\\endpipeline
"""

CLIENTS: dict[str, Callable[[int], None]] = {
    "psql-simple": psql(SIMPLE),
    "psql-strings": psql("begin \\; insert into t values (2, 'y') \\; select 1/0 \\; commit;\nrollback;\n" * 2),
    "psql-bind": psql(BIND),
    "psql-fetch-count": psql("\\set FETCH_COUNT 3\nselect generate_series(1, 10);\ntable t;\n"),
    "psql-copy-in": psql("\\copy t from pstdin\n50\tx\n51\ty\n\\.\nselect count(*) from t;\n"),
    "psql-copy-out": psql("\\copy t to /dev/null\ncopy (select 1, 2) to stdout csv;\n"),
    "psql-large-objects": psql("\\lo_import /etc/hostname\n\\lo_list\nselect lo_get(16400);\n\\lo_unlink 16400\n"),
    "psql-describe": psql("\\d t\n\\dt\n\\df now\n"),
    "psycopg-pipeline": psycopg_pipeline,
    "psycopg-ordinary": psycopg_ordinary,
    "asyncpg": asyncpg_session,
    "pg8000": pg8000_session,
    "libpq-pipeline-errors": libpq_pipeline_of_errors,
    "libpq-cancel": libpq_cancelled,
    "libpq-copy-fails": libpq_copy_fails,
    "startup-options": lambda port: libpq(port, options="'-c geqo=off\\ -c\\ pgproxy.reason=why'").finish(),
    "startup-encoding": lambda port: libpq(port, client_encoding="LATIN1", application_name="fuzz").finish(),
    "startup-tls": lambda port: libpq(port, sslmode="prefer").finish(),
    "startup-3.2": lambda port: libpq(port, max_protocol_version="3.2").finish(),
}


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    directory = Path(tempfile.mkdtemp(prefix="pgproxy-"))
    server = EmbeddedServer(directory, password="unused", tcp_port=free_port(), settings=FAST)
    asyncio.run(server.start())
    try:
        (server.data_dir / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
        asyncio.run(server.stop())
        asyncio.run(server.start())
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("create role agent login superuser")
            admin.execute("create table t (a int, b text)")
        port = server.tcp_port
        assert port is not None
        yield Recorder(port)
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    if len(sys.argv) == 3:
        CLIENTS[sys.argv[1]](int(sys.argv[2]))
        return
    with recording() as recorder:
        for name in CLIENTS:
            # In a process of its own: libpq's connect holds Python's lock, which the recorder needs to answer it.
            subprocess.run(
                [sys.executable, "-m", "tests.fuzz.record", name, str(recorder.port)], check=True, timeout=60
            )
            for number, (first, messages) in enumerate(recorder.take()):
                path = seeds.DIRECTORY / (f"{name}.txt" if not number else f"{name}-{number + 1}.txt")
                path.write_text(seeds.written(first, messages, f"recorded from {name}"), "ascii")
                print(path.name, sum(m is not None for m in messages), "messages")


if __name__ == "__main__":
    main()
