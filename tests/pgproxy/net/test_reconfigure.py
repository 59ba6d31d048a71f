"""A new configuration under live sessions: what they keep, what they see, who is ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgproxy.embedded import EmbeddedServer
from pgproxy.net.admission import Places
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.startup import Access, AgentAccount
from pgproxy.policy import Mode, Policy, RuleSet
from pgproxy.protocol import frontend, startup
from tests.pgproxy.net.harness import Client, Proxy, errors, proxy, trusting, until, values

DROP = b"drop table if exists never"


def ends(p: Proxy) -> list[str]:
    return [e["detail"] for e in p.trail.entries if e["kind"] == "session_end"]


def statements(p: Proxy) -> list[tuple[str, str]]:
    return [(e["decision"], e["policy_version"]) for e in p.trail.entries if e["kind"] == "statement"]


async def test_a_session_sees_the_new_policy_at_its_next_statement(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        client = await p.start()
        client.send(frontend.query(DROP))
        await p.store.arrived.wait()
        p.listener.reconfigure(replace(p.terms, policy=Policy(Mode.OBSERVE, rules=RuleSet(version="new"))))
        await p.store.decide("a1", "approved")
        assert not errors(await client.until_ready())
        assert not errors(await client.query(DROP))
        # Parked by the one it began with, and judged again by the other before it ran.
        assert statements(p) == [("approved", "new"), ("observed", "new")]
        await client.close()


async def test_from_observe_to_enforce_sessions_are_guarded_at_once_and_end_soon(server: EmbeddedServer) -> None:
    async with proxy(trusting(server), mode=Mode.OBSERVE) as p:
        idle, inside = await p.start(), await p.start()
        await inside.query(b"begin")
        p.listener.reconfigure(replace(p.terms, access=replace(p.terms.access, mode=Mode.ENFORCE), policy=Policy()))
        assert (await idle.fatal())["C"] == "57P01"
        assert values(await inside.query(b"select 7")) == [b"7"]
        inside.send(frontend.query(DROP))
        assert (await inside.fatal())["C"] == "57P01"  # it would wait for a human, and is to end
        assert not p.store.requests
        await p.quiet()
        assert set(ends(p)) == {"mode changed to enforce, and it began in observe"}
        client = await p.start()
        client.send(frontend.query(DROP))
        await p.store.decide("a1", "denied")
        assert errors(await client.until_ready())[0]["C"] == "42501"
        for one in (idle, inside, client):
            await one.close()


async def test_another_owner_ends_the_sessions_of_an_agent(server: EmbeddedServer) -> None:
    """Whoever owns it now would otherwise decide requests that name the owner of before."""
    async with proxy(trusting(server)) as p:
        parked = await p.start()
        parked.send(frontend.query(DROP))
        await p.store.arrived.wait()
        await parked.message()
        p.listener.reconfigure(replace(p.terms, access=replace(p.terms.access, owners={"agent": "bob"})))
        assert (await parked.fatal())["C"] == "57P01"
        await until(lambda: p.store.status["a1"] == "withdrawn")
        await p.quiet()
        assert ends(p) == ["the agent's owner has changed"]
        await parked.close()


BOT = AgentAccount("bot", "alice", "app", "app secret", ("postgres",))


@pytest.mark.parametrize(
    ("account", "because"),
    [
        (None, "the agent is no longer configured"),
        (replace(BOT, owner="bob"), "the agent's owner has changed"),
        (replace(BOT, upstream_user="agent"), "the agent's login at the server has changed"),
        (replace(BOT, databases=("template1",)), "the agent may no longer connect to this database"),
        (replace(BOT, upstream_password="another"), None),
    ],
)  # fmt: skip
async def test_an_agent_that_could_not_begin_any_more_is_ended(
    server: EmbeddedServer, account: AgentAccount | None, because: str | None
) -> None:
    import asyncpg

    async with proxy(trusting(server), authenticator=AgentAuthenticator({"bot": "pw"}), accounts={"bot": BOT}) as p:
        dsn = f"postgresql://bot:pw@127.0.0.1:{p.port}/postgres?sslmode=disable"
        connection = await asyncpg.connect(dsn)
        known: dict[str, Any] = {} if account is None else {"bot": account}
        authenticator = AgentAuthenticator({"bot": "another"} if account else {})
        p.listener.reconfigure(replace(p.terms, access=Access(Mode.ENFORCE, authenticator, known)))
        if because is None:
            assert await connection.fetchval("select 7") == 7
            await connection.close()
        else:
            await until(connection.is_closed)
            await p.quiet()
            assert ends(p) == [because]
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn)


async def test_who_begins_meanwhile_is_looked_at_again(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        began = p.listener._settle_in

        def changed(live: Any) -> None:
            p.listener._terms = replace(p.terms, access=replace(p.terms.access, owners={"agent": "bob"}))
            began(live)

        p.listener._settle_in = changed  # type: ignore[method-assign]  # while it was starting up
        client = await p.connect()
        client.send(startup.startup_message([(b"user", b"agent"), (b"database", b"postgres")]))
        assert (await client.fatal())["C"] == "57P01"
        await client.close()


async def test_limits_hold_for_whoever_comes(server: EmbeddedServer) -> None:
    async with proxy(trusting(server)) as p:
        first: Client = await p.start()
        options = replace(p.terms.options, places=Places(sessions=1), idle_timeout_s=0.2)
        p.listener.reconfigure(replace(p.terms, options=options))
        assert (await p.refused())["C"] == "53300"
        assert (await first.fatal())["C"] == "57P05"
        await first.close()
