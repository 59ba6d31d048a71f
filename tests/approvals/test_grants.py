"""Grants: made by everybody's consent, used within every bound, revoked at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from approvals import grants
from approvals.decisions import decide
from approvals.errors import Forbidden, NotFound, Unsupported
from approvals.grants import MAX_GRANT_S, Terms, agreed
from approvals.model import GrantKey, NewRequest, Requirement, Reviewer
from approvals.outbox import events_after
from tests.approvals.conftest import ADMIN, BOB, CAROL, DAVE, ROBOT, SHA, Store, request, reviewer
from tests.approvals.fakes import classified

KEY = GrantKey(SHA, "env1", "shape1", "t1")


def dba(name: str, *aliases: str) -> Reviewer:
    return Reviewer(name, frozenset({"dba"}), frozenset({"reviewer"}), aliases=frozenset(aliases))


def asking(**changes: Any) -> NewRequest:
    return request(**({"grant_key": KEY} | changes))


async def grant(store: Store, terms: Terms, **changes: Any) -> str:
    """Approves a request with these terms; the grant's id."""
    opened = await store.gateway.open(asking(**changes))
    done = await decide(store.pool, opened.id, reviewer(BOB), "approve", "go on", terms=terms)
    assert done["status"] == "approved"
    assert done["made_grant_id"] is not None
    return str(done["made_grant_id"])


async def test_the_same_again_is_approved_at_once_and_says_by_whom(store: Store) -> None:
    grant_id = await grant(store, Terms("text", 900.0, uses=2, row_cap=50))
    opened = await store.gateway.open(asking(params=[{"type": "int4", "value": "7"}], binding="b2"))
    assert opened.status == "approved"
    resolved = await store.gateway.wait(opened.id)
    assert (resolved.status, resolved.reviewers, resolved.comment) == ("approved", (BOB.name,), "go on")
    assert resolved.row_cap == 50
    assert await store.statuses(opened.id) == ["approved"]
    async with store.pool.acquire() as connection:
        [found], _ = await grants.search(connection)
        from approvals.reading import load

        used = await load(connection, opened.id)
    assert (found["id"], found["uses"], found["uses_left"]) == (grant_id, 2, 1)
    assert used is not None
    assert (used["grant_id"], used["decisions"][0]["via"]) == (grant_id, "grant")
    assert used["decisions"][0]["grant"] == {"grant_id": grant_id}
    assert await store.gateway.claim(opened.id, "b2", SHA)


async def test_uses_run_out_and_are_never_spent_twice(store: Store) -> None:
    await grant(store, Terms("text", uses=5))
    opened = await asyncio.gather(*(store.gateway.open(asking(agent="etl-bot")) for _ in range(15)))
    assert [each.status for each in opened].count("approved") == 5
    async with store.pool.acquire() as connection:
        assert await grants.search(connection) == ([], None)


@pytest.mark.parametrize(
    "other",
    [
        {"agent": "other-bot"},
        {"owner": "mallory@example.com"},
        {"database": "billing"},
        {"db_user": "postgres"},
        {"grant_key": replace(KEY, environment="env2")},
        {"grant_key": None},
        {"requirements": [Requirement("exports", ("dba",), 2)]},
        {"requirements": [Requirement("exports", ("security",), 1)]},
        {"requirements": [Requirement("other", ("dba",), 1)]},
        {"channels": ("console",)},
        {"risk": "critical"},
        {"risk": "unheard of"},
        {"classification": classified("ddl", "customers")},
        {"budget": {"rule": "reads", "passed_rows": 10}},
    ],
)
@pytest.mark.parametrize("scope", ["exact", "text", "shape", "transaction"])
async def test_a_grant_helps_nothing_beyond_what_was_seen(store: Store, scope: Any, other: dict[str, Any]) -> None:
    await grant(store, Terms(scope))
    assert (await store.gateway.open(asking(**other))).status == "pending"
    assert (await store.gateway.open(asking())).status == "approved"


@pytest.mark.parametrize(
    ("scope", "other"),
    [
        ("exact", {"retry_binding": "r2"}),
        ("text", {"grant_key": replace(KEY, text_sha256="cd" * 32)}),
        ("shape", {"grant_key": replace(KEY, shape="shape2")}),
        ("shape", {"grant_key": replace(KEY, shape=None)}),
        ("transaction", {"grant_key": replace(KEY, transaction="t2")}),
        ("transaction", {"grant_key": replace(KEY, transaction=None)}),
        ("text", {"classification": classified("export", "customers", "salaries")}),
    ],
)
async def test_a_scope_is_what_it_says(store: Store, scope: Any, other: dict[str, Any]) -> None:
    await grant(store, Terms(scope))
    assert (await store.gateway.open(asking(**other))).status == "pending"


@pytest.mark.parametrize(
    ("scope", "other"),
    [
        ("text", {"retry_binding": "r2", "grant_key": replace(KEY, shape=None, transaction=None)}),
        ("shape", {"retry_binding": "r2", "grant_key": replace(KEY, text_sha256="cd" * 32)}),
        ("transaction", {"grant_key": GrantKey("cd" * 32, "env1", None, "t1"), "retry_binding": "r2"}),
        ("transaction", {"classification": classified("export", "orders")}),
        ("text", {"risk": "low"}),
    ],
)
async def test_a_scope_covers_what_it_says(store: Store, scope: Any, other: dict[str, Any]) -> None:
    await grant(store, Terms(scope))
    assert (await store.gateway.open(asking(**other))).status == "approved"


@pytest.mark.parametrize(
    ("scope", "changes"),
    [
        ("shape", {"grant_key": GrantKey(SHA, "env1", None, "t1")}),
        ("transaction", {"grant_key": GrantKey(SHA, "env1", "shape1", None)}),
        ("exact", {"retry_binding": ""}),
        ("text", {"grant_key": None}),
    ],
)
async def test_a_scope_that_the_request_cannot_have_is_refused_and_nothing_decided(
    store: Store, scope: Any, changes: dict[str, Any]
) -> None:
    opened = await store.gateway.open(asking(**changes))
    with pytest.raises(Unsupported, match=scope):
        await decide(store.pool, opened.id, reviewer(BOB), "approve", terms=Terms(scope))
    assert await store.status(opened.id) == "pending"
    assert await store.pool.fetchval("SELECT count(*) FROM approvals.decisions") == 0


async def test_once_is_a_plain_approval_with_a_cap(store: Store) -> None:
    opened = await store.gateway.open(asking())
    done = await decide(store.pool, opened.id, reviewer(BOB), "approve", terms=Terms("once", row_cap=10))
    assert (done["row_cap"], done["made_grant_id"]) == (10, None)
    assert (await store.gateway.wait(opened.id)).row_cap == 10
    assert (await store.gateway.open(asking())).status == "pending"


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([None, Terms("text")], "once"),
        ([Terms("text"), None], "once"),
        ([Terms("text"), Terms("shape")], "once"),
        ([Terms("text", 60.0, 5, None), Terms("text", 600.0, None, 10)], Terms("text", 60.0, 5, 10)),
        ([Terms("text"), Terms("text")], Terms("text")),
        ([Terms("once", row_cap=3), Terms("text", row_cap=9)], "once"),
    ],
)
def test_a_grant_is_the_narrowest_that_all_agreed_to(terms: list[Terms | None], expected: Any) -> None:
    found = agreed(terms)
    assert (found.scope if isinstance(expected, str) else found) == expected
    caps = [each.row_cap for each in terms if each is not None and each.row_cap is not None]
    assert found.row_cap == min(caps, default=None)


async def test_a_quorum_makes_a_grant_only_together(store: Store) -> None:
    two = {"requirements": [Requirement("exports", ("dba",), 2)]}
    first = await store.gateway.open(asking(**two))
    await decide(store.pool, first.id, dba("bob"), "approve", terms=Terms("text"))
    assert (await store.gateway.open(asking(**two))).status == "pending"  # not by one of two
    done = await decide(store.pool, first.id, dba("carl"), "approve")
    assert (done["status"], done["made_grant_id"]) == ("approved", None)
    second = await store.gateway.open(asking(**two))
    await decide(store.pool, second.id, dba("bob"), "approve", terms=Terms("text", uses=3))
    done = await decide(store.pool, second.id, dba("carl"), "approve", terms=Terms("text", 60.0))
    used = await store.gateway.open(asking(**two))
    assert (done["status"], used.status) == ("approved", "approved")
    assert (await store.gateway.wait(used.id)).reviewers == ("bob", "carl")


async def test_a_grant_ends_with_its_time_and_is_bounded(store: Store) -> None:
    grant_id = await grant(store, Terms("text", MAX_GRANT_S * 100))
    lasts = await store.pool.fetchval(
        "SELECT extract(epoch FROM expires_at - created_at)::float8 FROM approvals.grants"
    )
    assert lasts == MAX_GRANT_S
    await store.pool.execute(
        "UPDATE approvals.grants SET created_at = now() - interval '2 h', expires_at = now() - interval '1 s'"
    )
    assert (await store.gateway.open(asking())).status == "pending"
    with pytest.raises(NotFound):
        await grants.revoke(store.pool, grant_id, reviewer(ADMIN))


async def test_a_cap_above_what_has_passed_helps_a_budget(store: Store) -> None:
    budget = {"rule": "reads", "per": "portal", "rows": 10, "passed_rows": 10}
    await grant(store, Terms("text", row_cap=100), budget=budget)
    assert (await store.gateway.open(asking(budget=budget))).status == "approved"
    assert (await store.gateway.open(asking(budget=budget | {"passed_rows": 100}))).status == "pending"


async def test_revoking_ends_it_and_what_it_let_through(store: Store) -> None:
    grant_id = await grant(store, Terms("text"))
    waiting, running = await store.gateway.open(asking()), await store.gateway.open(asking(binding="b2"))
    assert await store.gateway.claim(running.id, "b2", SHA)
    await grants.revoke(store.pool, grant_id, reviewer(BOB))
    assert await store.status(waiting.id) == "withdrawn"
    assert await store.status(running.id) == "executing"
    assert not await store.gateway.claim(waiting.id, "b1", SHA)
    assert (await store.gateway.open(asking())).status == "pending"
    with pytest.raises(NotFound):
        await grants.revoke(store.pool, grant_id, reviewer(BOB))
    async with store.pool.acquire() as connection:
        assert await grants.search(connection) == ([], None)
        [found], _ = await grants.search(connection, every=True)
    assert (found["in_force"], found["revoked_by"]) == (False, BOB.name)


async def test_the_claim_itself_looks_whether_the_grant_still_holds(store: Store) -> None:
    for spoiled in ("revoked_at = now()", "created_at = now() - interval '2 h', expires_at = now() - interval '1 s'"):
        await grant(store, Terms("text"))
        opened = await store.gateway.open(asking())
        assert opened.status == "approved"
        await store.pool.execute(f"UPDATE approvals.grants SET {spoiled}")
        assert not await store.gateway.claim(opened.id, "b1", SHA)
        assert await store.status(opened.id) == "approved"


async def test_using_claiming_and_revoking_race_to_one_story(store: Store) -> None:
    for _ in range(15):
        grant_id = await grant(store, Terms("text"))
        before = await store.gateway.open(asking())

        async def use_one() -> bool:
            opened = await store.gateway.open(asking(binding="b2"))
            return opened.status == "approved" and await store.gateway.claim(opened.id, "b2", SHA)

        await asyncio.gather(
            use_one(),
            store.gateway.claim(before.id, "b1", SHA),
            grants.revoke(store.pool, grant_id, reviewer(BOB)),
            use_one(),
        )
        left = await store.pool.fetchval(
            "SELECT count(*) FROM approvals.requests WHERE grant_id = $1 AND status = 'approved'", grant_id
        )
        assert left == 0  # claimed before, or withdrawn: nothing of a revoked grant can still start
        late = await store.pool.fetchval(
            "SELECT count(*) FROM approvals.requests JOIN approvals.grants ON grants.id = grant_id "
            "WHERE grants.id = $1 AND requests.created_at > revoked_at",
            grant_id,
        )
        assert late == 0


@pytest.mark.parametrize(
    ("who", "may"),
    [
        (reviewer(BOB), True),
        (dba("robert", BOB.name), True),
        (reviewer(ADMIN), True),
        (reviewer(CAROL), True),  # an administrator, too
        (dba("carl"), False),
        (reviewer(DAVE), False),
        (reviewer(ROBOT), False),
    ],
)
async def test_who_may_revoke(store: Store, who: Reviewer, may: bool) -> None:
    grant_id = await grant(store, Terms("text"))
    if may:
        await grants.revoke(store.pool, grant_id, who)
    else:
        with pytest.raises(Forbidden):
            await grants.revoke(store.pool, grant_id, who)
    assert (await store.gateway.open(asking())).status == ("pending" if may else "approved")


async def test_everything_about_a_grant_is_an_event(store: Store) -> None:
    grant_id = await grant(store, Terms("text", uses=2))
    opened = await store.gateway.open(asking())
    await grants.revoke(store.pool, grant_id, reviewer(ADMIN))
    events = [event for event in await events_after(store.pool, 0) if event.kind == "grant"]
    assert [(event.detail["event"], event.detail["uses_left"], event.detail["by"]) for event in events] == [
        ("made", 2, None),
        ("used", 1, None),
        ("revoked", 1, ADMIN.name),
    ]
    assert {event.detail["grant_id"] for event in events} == {grant_id}
    assert events[1].approval_id == opened.id
    approved = [e for e in await events_after(store.pool, 0) if e.approval_id == opened.id and e.status == "approved"]
    assert approved[0].reviewers == (BOB.name,)
    assert approved[0].wait_s == 0.0


async def test_pages_of_grants(store: Store) -> None:
    made = [await grant(store, Terms("text"), grant_key=GrantKey(f"{n:064x}", "env1")) for n in range(5)]
    async with store.pool.acquire() as connection:
        first, cursor = await grants.search(connection, limit=3)
        second, end = await grants.search(connection, limit=3, cursor=cursor)
        assert await grants.search(connection, agent="nobody") == ([], None)
    assert [each["id"] for each in first + second] == made[::-1]
    assert end is None
