"""Requests from before a migration are what they were after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from approvals.decisions import decide
from approvals.outbox import events_after
from approvals.reading import load
from approvals.store import migrations
from pgproxy.store import migrate, open_pool
from tests.approvals.conftest import BOB, REQUEST, running_store
from tests.approvals.conftest import reviewer as person


@pytest.fixture
async def old_database(postgres_server: Any) -> Any:
    admin = await asyncpg.connect(postgres_server.get_uri())
    await admin.execute("CREATE DATABASE approvals_old")
    yield postgres_server.get_uri(database="approvals_old")
    await admin.execute("DROP DATABASE approvals_old WITH (FORCE)")
    await admin.close()


async def test_a_pending_request_of_the_first_version_can_be_decided_and_claimed(
    old_database: str, tmp_path: Path
) -> None:
    first = tmp_path / "0001_approvals.sql"
    first.write_text((migrations() / "0001_approvals.sql").read_text())
    pool = await open_pool(old_database)
    await migrate(pool, "approvals", tmp_path)
    # NUL, which operators on json refuse, and text that looks like the key behind it
    sql = 'SELECT \'\0\', \'", "sha256": "' + "0" * 64 + "\"'"
    await pool.execute(
        """INSERT INTO approvals.requests (id, created_at, expires_at, node, instance, agent, binding, risk, rule,
            required_approvals, approver_groups, requester, statement, classification, context)
        VALUES ('a00000000000000a', now(), now() + interval '1 h', 'n1', 'w1', 'etl-bot', 'b1', 'high', 'exports', 2,
            '{dba}', $1, $2, $3, '{}')""",
        json.dumps(REQUEST.requester),
        json.dumps({"sql": sql, "sha256": "ef" * 32, "params": []}),
        json.dumps(REQUEST.classification),
    )
    await pool.execute("INSERT INTO approvals.reviewers (name, groups, roles) VALUES ('carl', '{dba}', '{reviewer}')")
    await pool.execute(
        "INSERT INTO approvals.decisions (approval_id, reviewer_key, reviewer, decision, via) "
        "VALUES ('a00000000000000a', 'carl', 'carl', 'approve', 'api')"
    )
    assert await migrate(pool, "approvals", migrations()) != []
    await pool.close()
    async with running_store(old_database) as store:
        done = await decide(store.pool, "a00000000000000a", person(BOB), "approve")
        assert (done["status"], done["required_approvals"]) == ("approved", 2)
        assert done["requirements"] == [{"rule": "exports", "groups": ["dba"], "count": 2, "approvals": 2}]
        assert done["grant_scopes"] == []
        assert await store.gateway.claim("a00000000000000a", "b1", "ef" * 32)
        assert (await events_after(store.pool, 0))[0].sql == sql
        async with store.pool.acquire() as connection:
            found = await load(connection, "a00000000000000a")
        assert found is not None
        assert found["statement"]["sha256"] == "ef" * 32
