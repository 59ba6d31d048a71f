"""One person under several names."""

from __future__ import annotations

import pytest

from approvals.decisions import decide
from approvals.errors import Conflict, Forbidden
from approvals.model import Reviewer
from approvals.people import closure, keys_of
from tests.approvals.conftest import Store, request


def person(name: str, *aliases: str) -> Reviewer:
    return Reviewer(name, frozenset({"dba"}), frozenset({"reviewer", "admin"}), aliases=frozenset(aliases))


async def link(store: Store, name: str, *aliases: str) -> None:
    await store.pool.execute(
        "INSERT INTO approvals.reviewers (name, groups, roles, aliases) VALUES ($1, '{}', '{}', $2) "
        "ON CONFLICT (name) DO UPDATE SET aliases = excluded.aliases",
        name,
        list(aliases),
    )


def test_links_are_followed_over_any_number_of_steps() -> None:
    linked = [frozenset({"a", "b"}), frozenset({"c", "d"}), frozenset({"b", "c"}), frozenset({"x", "y"})]
    assert closure(frozenset({"a"}), linked) == {"a", "b", "c", "d"}
    assert keys_of(person("D"), linked) == {"a", "b", "c", "d"}
    assert keys_of(person("Z", "", " "), linked) == {"z"}


@pytest.mark.parametrize(
    "who",
    [
        person("alice-admin", "Alice@Example.com"),
        person("someone", "ETL-bot"),
        person("someone", "app"),
        person("00u1-subject"),
        person("someone", "U123"),
    ],
)
@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_a_linked_identity_of_the_requester_never_decides(store: Store, who: Reviewer, decision: str) -> None:
    await link(store, "alice@example.com", "00u1-subject", "U123")
    opened = await store.gateway.open(request())
    with pytest.raises(Forbidden, match="their own request"):
        await decide(store.pool, opened.id, who, decision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (person("bob"), person("BOB")),
        (person("bob", "u2"), person("u2")),
        (person("u2"), person("bob", "u2")),
        (person("bob", "u2"), person("robert", "u2")),
        (person("bob-at-console"), person("bob-at-slack")),
    ],
)
async def test_the_same_person_under_two_names_votes_once(store: Store, first: Reviewer, second: Reviewer) -> None:
    await link(store, "bob-main", "bob-at-console", "bob-at-slack")
    opened = await store.gateway.open(request(required_approvals=2))
    await decide(store.pool, opened.id, first, "approve")
    with pytest.raises(Conflict, match="already voted"):
        await decide(store.pool, opened.id, second, "approve")
    assert await store.status(opened.id) == "pending"


async def test_a_link_that_becomes_known_between_two_votes_counts(store: Store) -> None:
    opened = await store.gateway.open(request(required_approvals=2))
    await decide(store.pool, opened.id, person("bob-at-console"), "approve")
    await link(store, "bob", "bob-at-console", "bob-at-slack")
    with pytest.raises(Conflict, match="already voted"):
        await decide(store.pool, opened.id, person("bob-at-slack"), "approve")
