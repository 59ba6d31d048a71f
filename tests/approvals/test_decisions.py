"""Who may decide, quorum, and races: exactly one outcome."""

from __future__ import annotations

import asyncio

import pytest

from approvals.decisions import add_comment, decide
from approvals.errors import ApprovalError, Conflict, Forbidden, NotFound
from approvals.lifecycle import expire_due
from approvals.model import Requirement, Reviewer
from tests.approvals.conftest import ADMIN, ALICE, BOB, CAROL, DAVE, ROBOT, Store, request, reviewer


def person(name: str, *groups: str) -> Reviewer:
    return Reviewer(name, frozenset(groups or ("dba",)), frozenset({"reviewer"}))


@pytest.mark.parametrize(
    ("who", "changes"),
    [
        (reviewer(ALICE), {}),
        (person("ALICE@Example.com"), {}),
        (person(" alice@example.com\u00a0"), {}),
        (person("\uff41lice@example.com"), {}),
        (person("etl-bot"), {}),
        (person("ETL-BOT"), {}),
        (person("App"), {}),
        (person("bob"), {"owner": None}),
        (person("bob"), {"owner": ""}),
        (reviewer(CAROL), {}),
        (reviewer(ADMIN), {}),
        (reviewer(DAVE), {"approver_groups": []}),
        (reviewer(ROBOT), {}),
        (Reviewer("zoe", frozenset(), frozenset({"reviewer", "admin"})), {}),
    ],
)
@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_who_may_not_decide(store: Store, who: Reviewer, changes: dict[str, object], decision: str) -> None:
    opened = await store.gateway.open(request(**changes))
    with pytest.raises(Forbidden):
        await decide(store.pool, opened.id, who, decision)  # type: ignore[arg-type]
    assert await store.status(opened.id) == "pending"
    assert await store.pool.fetchval("SELECT count(*) FROM approvals.decisions") == 0


async def test_a_rule_without_groups_takes_any_reviewer(store: Store) -> None:
    opened = await store.gateway.open(request(approver_groups=[]))
    assert (await decide(store.pool, opened.id, person("zoe", "other"), "approve"))["status"] == "approved"


async def test_quorum_counts_distinct_people(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=3))
    assert (await decide(store.pool, opened.id, person("bob"), "approve"))["status"] == "pending"
    for again in ("bob", "BOB", "\uff42ob "):
        with pytest.raises(Conflict, match="already voted"):
            await decide(store.pool, opened.id, person(again), "approve")
    assert (await decide(store.pool, opened.id, person("carl"), "approve"))["status"] == "pending"
    done = await decide(store.pool, opened.id, person("dora"), "approve", "ok", "slack")
    assert done["status"] == "approved"
    assert [(vote["reviewer"], vote["via"]) for vote in done["decisions"]] == [
        ("bob", "api"),
        ("carl", "api"),
        ("dora", "slack"),
    ]
    assert (await store.gateway.wait(opened.id)).reviewers == ("bob", "carl", "dora")


async def test_every_requirement_is_met_and_one_person_may_meet_several(store: Store) -> None:
    both = [Requirement("exports", ("dba",), 1), Requirement("secrets", ("security",), 2)]
    opened = await store.gateway.open(request(requirements=both))
    after = await decide(store.pool, opened.id, person("bob", "dba", "security"), "approve")
    assert [(each["rule"], each["approvals"]) for each in after["requirements"]] == [("exports", 1), ("secrets", 1)]
    assert after["required_approvals"] == 2
    with pytest.raises(Forbidden, match="still missing are those of security"):
        await decide(store.pool, opened.id, person("carl", "dba"), "approve")
    with pytest.raises(Forbidden, match="group"):
        await decide(store.pool, opened.id, person("dora", "interns"), "approve")
    assert (await decide(store.pool, opened.id, person("erin", "security"), "approve"))["status"] == "approved"


async def test_who_is_asked_by_a_rule_may_deny_though_its_approvals_are_there(store: Store) -> None:
    both = [Requirement("exports", ("dba",), 1), Requirement("secrets", ("security",), 1)]
    opened = await store.gateway.open(request(requirements=both))
    await decide(store.pool, opened.id, person("bob", "dba"), "approve")
    assert (await decide(store.pool, opened.id, person("carl", "dba"), "deny"))["status"] == "denied"


async def test_a_decision_comes_from_where_the_request_allows(store: Store) -> None:
    opened = await store.gateway.open(request(channels=("console", "terminal")))
    for decision in ("approve", "deny"):
        with pytest.raises(Forbidden, match="console or terminal only, not by slack"):
            await decide(store.pool, opened.id, reviewer(BOB), decision, via="slack")  # type: ignore[arg-type]
    done = await decide(store.pool, opened.id, reviewer(BOB), "approve", via="console")
    assert done["decisions"][0]["via"] == "console"


async def test_one_denial_denies_whatever_the_quorum(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=3))
    await decide(store.pool, opened.id, person("bob"), "approve")
    with pytest.raises(Conflict, match="already voted"):
        await decide(store.pool, opened.id, person("bob"), "deny")
    denied = await decide(store.pool, opened.id, person("carl"), "deny", "no")
    assert denied["status"] == "denied"
    resolved = await store.gateway.wait(opened.id)
    assert (resolved.reviewer, resolved.comment, resolved.reviewers) == ("carl", "no", ("bob", "carl"))


async def test_what_is_overdue_is_a_conflict_and_expires(store: Store) -> None:
    opened = await store.gateway.open(request())
    await store.make_due(opened.id)
    with pytest.raises(Conflict, match="expired"):
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
    assert await store.status(opened.id) == "expired"
    assert await store.pool.fetchval("SELECT count(*) FROM approvals.decisions") == 0


@pytest.mark.parametrize("approval_id", ["a00000000000000a", "", "\0", "x" * 100])
async def test_what_is_not_there(store: Store, approval_id: str) -> None:
    with pytest.raises(NotFound):
        await decide(store.pool, approval_id, reviewer(BOB), "approve")
    with pytest.raises(NotFound):
        await add_comment(store.pool, approval_id, reviewer(BOB), "hm")


async def test_comments_do_not_decide_and_are_kept_after_the_decision(store: Store) -> None:
    opened = await store.gateway.open(request())
    await add_comment(store.pool, opened.id, reviewer(BOB), "why?")
    assert await store.status(opened.id) == "pending"
    await decide(store.pool, opened.id, reviewer(BOB), "deny")
    commented = await add_comment(store.pool, opened.id, reviewer(ADMIN), "agreed")
    assert [(item["reviewer"], item["text"]) for item in commented["comments"]] == [
        (BOB.name, "why?"),
        (ADMIN.name, "agreed"),
    ]


async def test_two_hundred_racing_decisions_have_one_winner(store: Store) -> None:
    opened = await store.gateway.open(request())

    async def vote(number: int) -> str | None:
        try:
            result = await decide(store.pool, opened.id, person(f"person{number}"), "approve" if number % 2 else "deny")
        except Conflict:
            return None
        return str(result["status"])

    results = await asyncio.gather(*(vote(number) for number in range(200)))
    winners = [result for result in results if result is not None]
    assert len(winners) == 1
    history = await store.statuses(opened.id)
    assert history == ["pending", winners[0]]
    assert await store.pool.fetchval("SELECT count(*) FROM approvals.decisions") == 1


async def test_decision_withdrawal_and_expiry_race_to_one_outcome(store: Store) -> None:
    seen = set()
    for round_ in range(40):
        opened = await store.gateway.open(request(timeout_s=0.02))
        await asyncio.sleep(0.012 + 0.0005 * round_ % 0.01)
        await asyncio.gather(
            decide(store.pool, opened.id, person("bob"), "approve"),
            decide(store.pool, opened.id, person("carl"), "deny"),
            store.gateway.withdraw(opened.id, "the client left"),
            expire_due(store.pool),
            return_exceptions=True,
        )
        await asyncio.sleep(0.02)
        await expire_due(store.pool)
        history = await store.statuses(opened.id)
        assert history[0] == "pending"
        outcome = history[1:]
        assert outcome in (["denied"], ["withdrawn"], ["expired"], ["approved", "withdrawn"], ["approved", "expired"])
        seen.add(tuple(outcome))
    assert seen


async def test_a_quorum_reached_by_a_race_is_reached_once(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2))

    async def vote(name: str) -> bool:
        try:
            await decide(store.pool, opened.id, person(name), "approve")
        except ApprovalError:
            return False
        return True

    cast = await asyncio.gather(*(vote(f"person{number}") for number in range(20)))
    assert cast.count(True) == 2
    assert await store.statuses(opened.id) == ["pending", "approved"]
