"""The sample database of `pgproxy up`: a shop, believable and the same on every machine.

What people change in it stays changed: it is made once, and a mark on the database (a comment, written in the same
transaction) says that this has happened. Only the role that owns it is looked after at each start.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from pgproxy.embedded import EmbeddedServer, kept_password

DATABASE = "shop"
OWNER = "shop_app"
_MARK = "pgproxy's sample database, version 1"


@dataclass(frozen=True, slots=True)
class SampleLogin:
    """The credentials of the database's owner, which the demo agent's statements run with."""

    user: str
    password: str
    database: str


async def ensure_sample(server: EmbeddedServer) -> SampleLogin:
    """Makes the sample database unless it is there, and returns its owner's login. The server must be running."""
    login = SampleLogin(OWNER, kept_password(server.directory / f"{OWNER}.password"), DATABASE)
    admin = await asyncpg.connect(server.dsn)
    try:
        await _ensure_roles(admin, login.password)
        if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
            await admin.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    finally:
        await admin.close()
    shop = await asyncpg.connect(server.dsn_for(OWNER, login.password, DATABASE))
    try:
        mark = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        if await shop.fetchval(mark) != _MARK:
            async with shop.transaction():
                await shop.execute(files(__package__).joinpath("shop.sql").read_text(encoding="utf-8"))
                await shop.execute(f"COMMENT ON DATABASE {DATABASE} IS '{_MARK.replace(chr(39), chr(39) * 2)}'")
            await shop.execute("ANALYZE")
    finally:
        await shop.close()
    return login


async def _ensure_roles(admin: asyncpg.Connection[asyncpg.Record], password: str) -> None:
    """The owner may make roles and databases, so that there is something to guard, but is no superuser."""
    for role in (OWNER, "shop_readonly", "shop_support"):
        if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
            await admin.execute(f"CREATE ROLE {role} NOLOGIN")
            if role != OWNER:
                await admin.execute(f"GRANT {role} TO {OWNER} WITH ADMIN TRUE, INHERIT FALSE")
    statement: str = await admin.fetchval(
        f"SELECT format('ALTER ROLE {OWNER} LOGIN NOSUPERUSER CREATEROLE CREATEDB PASSWORD %L', $1::text)", password
    )
    await admin.execute(statement)
