"""The trail takes inserts and nothing else, whatever a session sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from pgproxy.store import Pool

INSERT = (
    "INSERT INTO audit.entries (entry_id, node, time, kind, size_bytes, body)"
    " VALUES (gen_random_uuid(), 'n1', now(), $1, 0, '{}')"
)


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit.entries SET decision = 'allowed'",
        "DELETE FROM audit.entries",
        "TRUNCATE audit.entries",
        "MERGE INTO audit.entries USING (VALUES (1)) AS v ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO audit.entries SELECT * FROM audit.entries"
        " ON CONFLICT (entry_id) DO UPDATE SET decision = 'allowed'",
    ],
)
async def test_entries_are_never_changed(pool: Pool, change: str, role: str) -> None:
    await pool.execute(INSERT, "config")
    async with pool.acquire() as connection:
        await connection.execute(f"SET session_replication_role = {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="never changed"):
            await connection.execute(change)
    assert await pool.fetchval("SELECT count(*) FROM audit.entries WHERE decision IS NULL") == 1


async def test_only_kinds_of_the_contract(pool: Pool) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute(INSERT, "note")
