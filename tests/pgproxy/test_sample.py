"""The sample database: made once, the same everywhere, and never put back over what people changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.sample import SampleLogin, ensure_sample


@pytest.fixture
async def server(short_directory: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(short_directory / "pg", password="x", settings={"fsync": "off"})
    await server.start()
    yield server
    await server.stop()


async def connect(server: EmbeddedServer, login: SampleLogin) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(server.dsn_for(login.user, login.password, login.database))


async def test_shop_is_whole_and_the_same_on_every_machine(server: EmbeddedServer) -> None:
    login = await ensure_sample(server)
    assert (login.user, login.database) == ("shop_app", "shop")
    shop = await connect(server, login)
    counts = {
        table: await shop.fetchval(f"SELECT count(*) FROM {table}")
        for table in ("customers", "products", "orders", "order_items", "payments", "audit_log", "order_totals")
    }
    assert counts == {
        "customers": 500,
        "products": 24,
        "orders": 1500,
        "order_items": 3750,
        "payments": 1193,
        "audit_log": 467,
        "order_totals": 1500,
    }
    first = await shop.fetchrow("SELECT first_name, email FROM customers ORDER BY id LIMIT 1")
    assert first is not None
    assert tuple(first) == ("Lucía", "lucia.haddad1@post.example")
    wrong = "SELECT count(*) FROM payments p JOIN order_totals t ON t.id = p.order_id WHERE p.amount <> t.total"
    assert await shop.fetchval(wrong) == 0
    assert await shop.fetchval("SELECT count(*) FROM customers WHERE email ~ '[^a-z0-9.@]'") == 0
    await shop.close()


async def test_owner_can_do_what_is_worth_guarding_but_is_no_superuser(server: EmbeddedServer) -> None:
    shop = await connect(server, await ensure_sample(server))
    role = await shop.fetchrow("SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user")
    assert role is not None
    assert tuple(role) == (False, True, True)
    assert await shop.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 6
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert await shop.fetchval(owners) == "shop_app"
    await shop.execute("CREATE ROLE someone; GRANT shop_readonly TO someone; DROP ROLE someone")
    await shop.execute("CREATE TABLE mine (); DROP TABLE mine; ALTER TABLE customers ADD note text")
    await shop.close()


async def test_second_start_changes_nothing_people_did(server: EmbeddedServer) -> None:
    login = await ensure_sample(server)
    shop = await connect(server, login)
    await shop.execute("DROP TABLE audit_log; DELETE FROM payments; ALTER ROLE shop_app PASSWORD 'forgotten'")
    await shop.close()
    assert await ensure_sample(server) == login
    shop = await connect(server, login)
    assert await shop.fetchval("SELECT to_regclass('audit_log')") is None
    assert await shop.fetchval("SELECT count(*) FROM payments") == 0
    await shop.close()


async def test_start_killed_in_the_midst_is_made_good(server: EmbeddedServer) -> None:
    """Roles and an empty database are there, the tables' transaction never ended."""
    login = await ensure_sample(server)
    admin = await asyncpg.connect(server.dsn)
    await admin.execute("DROP DATABASE shop")
    await admin.execute("CREATE DATABASE shop OWNER shop_app")
    await admin.close()
    await ensure_sample(server)
    shop = await connect(server, login)
    assert await shop.fetchval("SELECT count(*) FROM customers") == 500
    await shop.close()
