"""Another statement in the place of the agent's: judged, voted on anew, and never approved alone by who wrote more."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from approvals.decisions import decide
from approvals.errors import ApprovalError, Conflict, Forbidden, Unsupported
from approvals.grants import Terms
from approvals.model import Requirement, Reviewer
from approvals.outbox import as_of, events_after
from approvals.reading import load
from tests.approvals.conftest import ALICE, BOB, CAROL, REQUEST, ROBOT, SHA, Store, request, reviewer
from tests.approvals.fakes import FakeJudge, classified

SMALLER = "COPY (SELECT id FROM customers LIMIT 10) TO STDOUT"
SMALLER_SHA = hashlib.sha256(SMALLER.encode()).hexdigest()


def dba(name: str) -> Reviewer:
    return Reviewer(name, frozenset({"dba"}), frozenset({"reviewer"}))


async def modify(
    store: Store, approval_id: str, judge: FakeJudge, who: Reviewer | None = None, sql: str = SMALLER, via: str = "api"
) -> dict[str, Any]:
    who = who or reviewer(BOB)
    return await decide(store.pool, approval_id, who, "modify", "smaller", via, sql=sql, judge=judge)


async def test_a_smaller_statement_is_approved_by_its_author_and_both_texts_are_kept(store: Store) -> None:
    opened = await store.gateway.open(request())
    done = await modify(store, opened.id, FakeJudge())
    assert (done["status"], done["revision"], done["modified_by"]) == ("approved", 2, BOB.name)
    assert done["statement"] == {"sql": SMALLER, "sha256": SMALLER_SHA, "params": []}
    assert done["original"] == {"sql": REQUEST.sql, "sha256": SHA, "params": []}
    assert (done["policy_version"], done["grant_scopes"]) == ("p2", [])
    [vote] = done["decisions"]
    assert (vote["decision"], vote["revision"], vote["voided"], vote["counts"]) == ("modify", 2, False, True)
    resolved = await store.gateway.wait(opened.id)
    assert (resolved.status, resolved.sql, resolved.modified_by) == ("approved", SMALLER, BOB.name)
    assert (resolved.reviewer, resolved.comment) == (BOB.name, "smaller")


async def test_only_the_text_that_was_voted_on_can_be_claimed(store: Store) -> None:
    opened = await store.gateway.open(request())
    await modify(store, opened.id, FakeJudge())
    assert not await store.gateway.claim(opened.id, "b1", SHA)
    assert await store.gateway.claim(opened.id, "b1", SMALLER_SHA)


async def test_earlier_votes_are_void_and_kept(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2))
    await decide(store.pool, opened.id, dba("carl"), "approve")
    judge = FakeJudge().answers(requirements=[Requirement("exports", ("dba",), 2)])
    changed = await modify(store, opened.id, judge)
    assert changed["status"] == "pending"
    assert [(vote["reviewer"], vote["voided"]) for vote in changed["decisions"]] == [("carl", True), (BOB.name, False)]
    assert changed["requirements"] == [{"rule": "exports", "groups": ["dba"], "count": 2, "approvals": 1}]
    with pytest.raises(Conflict, match="already voted"):
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
    again = await decide(store.pool, opened.id, dba("carl"), "approve")  # for the new text, which carl may approve
    assert again["status"] == "approved"
    assert (await store.gateway.wait(opened.id)).reviewers == (BOB.name, "carl")


@pytest.mark.parametrize(
    "more",
    [
        {"classification": classified("ddl", "customers")},
        {"classification": classified("export", "customers", "salaries")},
        {"classification": classified("export", "customers", verb="copy_to_program")},
        {"risk": "critical"},
        {"risk": "unheard of"},
        {"classification": classified("write", "customers"), "decision": "allow", "requirements": []},
    ],
)
async def test_what_does_more_than_the_agents_own_needs_somebody_else(store: Store, more: dict[str, Any]) -> None:
    opened = await store.gateway.open(request())
    changed = await modify(store, opened.id, FakeJudge().answers(**more))
    assert (changed["status"], changed["decisions"][-1]["counts"]) == ("pending", False)
    with pytest.raises(Conflict, match="already voted"):
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
    assert (await decide(store.pool, opened.id, dba("carl"), "approve"))["status"] == "approved"


async def test_two_steps_do_not_get_further_than_one(store: Store) -> None:
    """The attack: first a text that does more, then a trifle changed in it, which does no more than the text before."""
    opened = await store.gateway.open(request())
    judge = FakeJudge().answers(classification=classified("ddl", "customers"))
    await modify(store, opened.id, judge, sql="DROP TABLE customers")
    again = await modify(store, opened.id, judge, sql="DROP TABLE  customers")
    assert (again["status"], again["revision"]) == ("pending", 3)
    assert again["original"]["sql"] == REQUEST.sql
    back = await modify(store, opened.id, FakeJudge())
    assert back["status"] == "approved"


@pytest.mark.parametrize("class_", ["grant", "role", "code", "unknown"])
async def test_where_constants_are_all_that_matters_the_author_never_counts(store: Store, class_: str) -> None:
    same = classified(class_, "customers")
    opened = await store.gateway.open(request(classification=same))
    changed = await modify(store, opened.id, FakeJudge().answers(classification=same), sql="GRANT ALL ON t TO bob")
    assert (changed["status"], changed["decisions"][-1]["counts"]) == ("pending", False)


async def test_an_allowed_statement_needs_the_authors_vote_and_no_more(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2))
    read = classified("export", "customers") | {"privileged": False}
    done = await modify(
        store, opened.id, FakeJudge().answers(decision="allow", classification=read, requirements=[], rule="reads")
    )
    assert (done["status"], done["rule"]) == ("approved", "reads")


async def test_the_authors_vote_counts_only_where_they_are_asked(store: Store) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge().answers(requirements=[Requirement("secrets", ("security",), 1)])
    changed = await modify(store, opened.id, judge)
    assert changed["status"] == "pending"
    with pytest.raises(Forbidden, match="group"):
        await decide(store.pool, opened.id, dba("carl"), "approve")
    assert (await decide(store.pool, opened.id, reviewer(CAROL), "approve"))["status"] == "approved"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decision": "deny", "message": "never on Fridays"}, "never on Fridays"),
        ({"decision": "deny", "rule": "no-ddl"}, "no-ddl"),
    ],
)
async def test_what_policy_denies_is_not_put_in_place(store: Store, changes: dict[str, Any], words: str) -> None:
    opened = await store.gateway.open(request())
    with pytest.raises(Unsupported, match=words):
        await modify(store, opened.id, FakeJudge().answers(**changes))
    await untouched(store, opened.id)


@pytest.mark.parametrize("sql", ["", " \n", "SELECT '\0'", "SELECT '\ud800'", REQUEST.sql])
async def test_what_is_no_statement_or_no_change_is_refused_unasked(store: Store, sql: str) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge()
    with pytest.raises(Unsupported):
        await modify(store, opened.id, judge, sql=sql)
    assert judge.asked == []
    await untouched(store, opened.id)


async def test_what_the_judge_cannot_read_is_refused_with_its_words(store: Store) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge()
    judge.refuse = "one statement is approved, not 2"
    with pytest.raises(Unsupported, match="not 2"):
        await modify(store, opened.id, judge)
    await untouched(store, opened.id)


@pytest.mark.parametrize("who", [reviewer(ALICE), reviewer(CAROL), reviewer(ROBOT)])
async def test_who_may_not_decide_may_not_modify_either_and_nothing_is_judged(store: Store, who: Reviewer) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge()
    with pytest.raises(Forbidden):
        await modify(store, opened.id, judge, who)
    assert judge.asked == []
    await untouched(store, opened.id)


async def test_the_new_texts_channels_hold_for_the_modification_itself(store: Store) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge().answers(channels=("console",))
    with pytest.raises(Forbidden, match="console"):
        await modify(store, opened.id, judge)
    await untouched(store, opened.id)
    assert (await modify(store, opened.id, judge, via="console"))["status"] == "approved"


async def test_a_result_that_is_already_running_is_not_modified(store: Store) -> None:
    opened = await store.gateway.open(request(budget={"rule": "reads", "passed_rows": 10_000}))
    with pytest.raises(Unsupported, match="running"):
        await modify(store, opened.id, FakeJudge())
    await untouched(store, opened.id)


async def test_no_grant_goes_with_a_modification_nor_onto_a_modified_statement(store: Store) -> None:
    opened = await store.gateway.open(request())
    with pytest.raises(Unsupported, match="grant"):
        await decide(
            store.pool, opened.id, reviewer(BOB), "modify", sql=SMALLER, judge=FakeJudge(), terms=Terms("text")
        )
    await untouched(store, opened.id)
    await modify(store, opened.id, FakeJudge().answers(requirements=[Requirement("exports", ("dba",), 2)]))
    with pytest.raises(Unsupported, match="modified"):
        await decide(store.pool, opened.id, dba("carl"), "approve", terms=Terms("text"))


async def test_of_two_modifications_at_once_one_is_in_place(store: Store) -> None:
    opened = await store.gateway.open(request())
    judge = FakeJudge().answers(requirements=[Requirement("exports", ("dba",), 9)])

    async def attempt(number: int) -> bool:
        try:
            await modify(store, opened.id, judge, dba(f"p{number}"), sql=f"SELECT {number}")
        except ApprovalError:
            return False
        return True

    won = await asyncio.gather(*(attempt(number) for number in range(10)))
    async with store.pool.acquire() as connection:
        found = await load(connection, opened.id)
    assert found is not None
    assert found["revision"] == 1 + won.count(True) >= 2
    current = [vote for vote in found["decisions"] if not vote["voided"]]
    assert len(current) == 1
    assert found["statement"]["sql"] == f"SELECT {current[0]['reviewer'].removeprefix('p')}"


@pytest.mark.parametrize("decision", ["approve", "deny", "modify"])
async def test_a_vote_for_the_text_that_was_read_is_none_for_another(store: Store, decision: Any) -> None:
    opened = await store.gateway.open(request())
    two = FakeJudge().answers(requirements=[Requirement("exports", ("dba",), 2)])
    await modify(store, opened.id, two)
    sql = {"sql": "SELECT 3", "judge": FakeJudge()} if decision == "modify" else {}
    with pytest.raises(Conflict, match="read it again"):
        await decide(store.pool, opened.id, dba("carl"), decision, sha256=SHA, **sql)
    assert await store.status(opened.id) == "pending"
    done = await decide(store.pool, opened.id, dba("carl"), decision, sha256=SMALLER_SHA, **sql)
    assert done["status"] == ("denied" if decision == "deny" else "approved")


async def test_events_of_an_earlier_revision_keep_its_text_however_late_they_are_read(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2))
    await decide(store.pool, opened.id, dba("carl"), "approve")
    two = FakeJudge().answers(requirements=[Requirement("exports", ("dba",), 2)])
    await modify(store, opened.id, two, sql="SELECT 2")
    await modify(store, opened.id, FakeJudge(), sql="SELECT 3")
    events = await events_after(store.pool, 0)
    assert [(event.kind, event.revision, event.sql) for event in events] == [
        ("status", 1, REQUEST.sql),
        ("vote", 1, REQUEST.sql),
        ("modify", 2, "SELECT 2"),
        ("vote", 2, "SELECT 2"),
        ("modify", 3, "SELECT 3"),
        ("vote", 3, "SELECT 3"),
        ("status", 3, "SELECT 3"),
    ]
    assert [event.reviewers for event in events][-1] == (BOB.name,)
    assert events[1].reviewers == ("carl",)
    assert events[0].sha256 == SHA
    async with store.pool.acquire() as connection:
        found = await load(connection, opened.id)
    assert found is not None
    then = as_of(found, events[1])
    assert (then["statement"]["sql"], then["original"], then["modified_by"]) == (REQUEST.sql, None, None)
    assert [(vote["reviewer"], vote["voided"]) for vote in then["decisions"]] == [("carl", False)]


async def untouched(store: Store, approval_id: str) -> None:
    async with store.pool.acquire() as connection:
        found = await load(connection, approval_id)
    assert found is not None
    assert (found["status"], found["revision"], found["decisions"]) == ("pending", 1, [])
    assert found["statement"]["sql"] == REQUEST.sql
