"""Static tokens: only hashes are stored, and the configuration is the truth."""

from __future__ import annotations

import pytest

from approvals.reviewers import ReviewerSpec, authenticate, linked_reviewer, sync_reviewers
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


async def test_a_chat_identity_is_its_reviewer_until_it_is_unlinked(store: Store) -> None:
    zoe = ReviewerSpec("zoe", None, ["dba"], identities={"slack": "U1", "teams": "t-1", "oidc": "zoe@x.org"})
    await sync_reviewers(store.pool, [BOB, zoe])
    for channel, identity in (("slack", "U1"), ("teams", "t-1")):
        found = await linked_reviewer(store.pool, channel, identity)
        assert found is not None
        assert (found.name, found.groups) == ("zoe", frozenset({"dba"}))
        assert found.aliases == {"U1", "t-1", "zoe@x.org"}
    for channel, identity in (("slack", "u1"), ("slack", "t-1"), ("teams", ""), ("slack", "zoe@x.org")):
        assert await linked_reviewer(store.pool, channel, identity) is None
    moved = ReviewerSpec(BOB.name, BOB.token, identities={"slack": "U1"})
    await sync_reviewers(store.pool, [moved, ReviewerSpec("zoe", None, identities={"teams": "t-1"})])
    found = await linked_reviewer(store.pool, "slack", "U1")
    assert found is not None and found.name == BOB.name
    await sync_reviewers(store.pool, [BOB])
    assert await linked_reviewer(store.pool, "teams", "t-1") is None


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([ALICE, ReviewerSpec("ALICE@example.com", "other")], "same person"),
        ([ALICE, ReviewerSpec("zoe", ALICE.token)], "same token"),
        ([ReviewerSpec("", "t")], "name and a token"),
        ([ReviewerSpec("zoe", None)], "name and a token or a linked identity"),
        ([ReviewerSpec("zoe", None, identities={"irc": "z"})], "cannot be linked: irc"),
        ([ReviewerSpec("zoe", None, identities={"slack": " "})], "cannot be linked: slack"),
        (
            [
                ReviewerSpec("zoe", None, identities={"oidc": "Z@x.org"}),
                ReviewerSpec("yan", None, identities={"oidc": "z@X.org"}),
            ],
            "same identity",
        ),
        ([ReviewerSpec("zoe", "")], "name and a token"),
        ([ReviewerSpec("zoe", "t", (), ["owner"])], "unknown roles: owner"),
    ],
)
async def test_a_bad_configuration_changes_nothing(store: Store, specs: list[ReviewerSpec], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await sync_reviewers(store.pool, specs)
    assert await authenticate(store.pool, ALICE.token) is not None
