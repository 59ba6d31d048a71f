"""Static tokens: only hashes are stored, and the configuration is the truth."""

from __future__ import annotations

import pytest

from approvals.reviewers import ReviewerSpec, authenticate, sync_reviewers
from tests.approvals.conftest import ALICE, BOB, CAROL, ROBOT, Store


async def test_a_token_names_its_person(store: Store) -> None:
    carol = await authenticate(store.pool, CAROL.token)
    assert carol is not None
    assert (carol.name, carol.groups, carol.roles) == (
        CAROL.name,
        frozenset({"security"}),
        frozenset({"reviewer", "admin"}),
    )
    robot = await authenticate(store.pool, ROBOT.token)
    assert robot is not None
    assert robot.machine
    for token in ("", "nobody", CAROL.token.upper(), CAROL.token + "\0", "\udcff"):
        assert await authenticate(store.pool, token) is None


async def test_tokens_are_not_stored(store: Store) -> None:
    dump = str(await store.pool.fetch("SELECT reviewers::text FROM approvals.reviewers"))
    assert ALICE.name in dump
    assert ALICE.token not in dump
    assert ALICE.token.encode().hex() not in dump


async def test_who_is_gone_from_the_configuration_is_locked_out(store: Store) -> None:
    await sync_reviewers(store.pool, [BOB])
    assert await authenticate(store.pool, CAROL.token) is None
    assert await authenticate(store.pool, BOB.token) is not None
    await store.pool.execute("UPDATE approvals.reviewers SET disabled = true WHERE name = $1", BOB.name)
    assert await authenticate(store.pool, BOB.token) is None
    await sync_reviewers(store.pool, [BOB, CAROL])
    assert await authenticate(store.pool, CAROL.token) is not None


async def test_tokens_may_be_swapped_and_roles_changed(store: Store) -> None:
    await sync_reviewers(
        store.pool, [ReviewerSpec(BOB.name, CAROL.token, [], ["auditor"]), ReviewerSpec(CAROL.name, BOB.token)]
    )
    bob = await authenticate(store.pool, CAROL.token)
    assert bob is not None
    assert (bob.name, bob.roles, bob.groups) == (BOB.name, frozenset({"auditor"}), frozenset())


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([ALICE, ReviewerSpec("ALICE@example.com", "other")], "same person"),
        ([ALICE, ReviewerSpec("zoe", ALICE.token)], "same token"),
        ([ReviewerSpec("", "t")], "name and a token"),
        ([ReviewerSpec("zoe", "")], "name and a token"),
        ([ReviewerSpec("zoe", "t", (), ["owner"])], "unknown roles: owner"),
    ],
)
async def test_a_bad_configuration_changes_nothing(store: Store, specs: list[ReviewerSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await sync_reviewers(store.pool, specs)
    assert await authenticate(store.pool, ALICE.token) is not None
