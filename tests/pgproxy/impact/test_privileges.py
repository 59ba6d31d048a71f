"""What a grantee may do before and after, compared with what the server itself says before and after."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.pgproxy.impact.conftest import World

ROLES = """
CREATE ROLE g_boss SUPERUSER; CREATE ROLE g_team; CREATE ROLE g_owner; CREATE ROLE g_bob LOGIN IN ROLE g_team;
CREATE ROLE g_lone NOINHERIT IN ROLE g_team; CREATE ROLE g_reader IN ROLE pg_read_all_data;
CREATE ROLE "g Odd""one"; CREATE ROLE g_root SUPERUSER;
"""
NAMES = ("g_boss", "g_team", "g_owner", "g_bob", "g_lone", "g_reader", 'g Odd"one', "g_root")


@pytest.fixture
async def roles(world: World) -> AsyncIterator[World]:
    await world.admin.execute(ROLES)
    await world.admin.execute(
        "CREATE SCHEMA app; CREATE TABLE app.t (a int, b int); CREATE SEQUENCE app.s;"
        "ALTER TABLE app.t OWNER TO g_owner;"
        "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "GRANT SELECT, INSERT ON app.t TO g_team; GRANT UPDATE ON app.t TO PUBLIC;"
        "GRANT SELECT, DELETE ON app.t TO g_bob"
    )
    yield world
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    await world.admin.execute(f"DROP OWNED BY {quoted} CASCADE; DROP ROLE {quoted}")


TABLE = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"]
CASES = [
    ("GRANT SELECT, TRUNCATE ON app.t TO {role}", "table", "app.t", TABLE),
    ("GRANT ALL ON app.t TO {role} WITH GRANT OPTION", "table", "app.t", TABLE),
    ("REVOKE SELECT, DELETE ON app.t FROM {role}", "table", "app.t", TABLE),
    ("REVOKE ALL ON app.t FROM {role}", "table", "app.t", TABLE),
    ("GRANT INSERT ON ALL TABLES IN SCHEMA app TO {role}", "table", "app.t", TABLE),
    ("GRANT USAGE ON SEQUENCE app.s TO {role}", "sequence", "app.s", ["USAGE", "SELECT", "UPDATE"]),
    ("GRANT CREATE ON SCHEMA app TO {role}", "schema", "app", ["USAGE", "CREATE"]),
    ("REVOKE EXECUTE ON FUNCTION app.f FROM {role}", "function", "app.f()", ["EXECUTE"]),
]


@pytest.mark.parametrize("role", ["g_bob", "g_lone", "g_reader", "g_owner", "g_root", 'g Odd"one'])
@pytest.mark.parametrize(("sql", "kind", "name", "every"), CASES)
async def test_it_is_what_the_server_says(
    roles: World, role: str, sql: str, kind: str, name: str, every: list[str]
) -> None:
    async def held() -> set[str]:
        query = f"SELECT has_{kind}_privilege($1::text, $2::text, $3)"
        return {each for each in every if await roles.admin.fetchval(query, role, name, each)}

    statement = sql.format(role='"' + role.replace('"', '""') + '"')
    before = await held()
    (entry,) = (await roles.impact(statement))["privileges"]
    assert set(entry["before"]) == before, entry
    await roles.admin.execute(statement)
    after = await held()
    assert set(entry["after"]) == after, entry
    assert (set(entry["gains"]), set(entry["loses"])) == (after - before, before - after)


async def test_it_says_by_what(roles: World) -> None:
    (entry,) = (await roles.impact("REVOKE ALL ON app.t FROM g_bob"))["privileges"]
    assert entry["object"] == "table app.t" and entry["flags"] == ["LOGIN"]
    assert entry["before"] == {
        "DELETE": "granted to it",
        "INSERT": "member of g_team",
        "SELECT": "granted to it",
        "UPDATE": "PUBLIC",
    }
    assert entry["after"] == {"INSERT": "member of g_team", "SELECT": "member of g_team", "UPDATE": "PUBLIC"}
    (everybody,) = (await roles.impact("GRANT SELECT ON app.t TO PUBLIC"))["privileges"]
    assert (everybody["grantee"], everybody["gains"]) == ("PUBLIC", ["SELECT"])
    (columns,) = (await roles.impact("GRANT SELECT (a), UPDATE (b) ON app.t TO g_bob"))["privileges"]
    assert columns["of_columns"] == {"SELECT": ["a"], "UPDATE": ["b"]} and columns["gains"] == []
    (nobody,) = (await roles.impact("GRANT SELECT ON app.t TO nobody_here"))["privileges"]
    assert nobody["error"] == "there is no such role"
    other = await roles.impact("GRANT USAGE ON LANGUAGE plpgsql TO g_bob")
    assert "not looked up" in other["privileges"]["unavailable"]


async def test_membership_shows_what_can_be_reached(roles: World) -> None:
    await roles.admin.execute("GRANT g_boss TO g_team")
    (entry,) = (await roles.impact('GRANT g_team TO "g Odd""one"'))["roles"]
    assert entry["before"] == {"flags": [], "reaches": [], "reaches_flags": []}
    assert entry["after"]["reaches"] == ["g_boss", "g_team"] and entry["after"]["reaches_flags"] == ["SUPERUSER"]
    (entry,) = (await roles.impact("REVOKE g_team FROM g_bob"))["roles"]
    assert entry["before"]["reaches"] == ["g_boss", "g_team"] and "other ways" in entry["note"]


async def test_attributes_before_and_after(roles: World) -> None:
    (entry,) = (await roles.impact("ALTER ROLE g_bob SUPERUSER NOLOGIN CREATEDB"))["roles"]
    assert entry["before"]["flags"] == ["LOGIN"]
    assert entry["after"]["flags"] == ["SUPERUSER", "CREATEDB"]
    (entry,) = (await roles.impact("CREATE USER g_new CREATEROLE IN ROLE g_team"))["roles"]
    assert entry["before"] is None
    assert entry["after"] == {"flags": ["CREATEROLE", "LOGIN"], "reaches": ["g_team"]}
    (entry,) = (await roles.impact("DROP ROLE g_root"))["roles"]
    assert entry["before"]["flags"] == ["SUPERUSER"] and entry["after"] is None
