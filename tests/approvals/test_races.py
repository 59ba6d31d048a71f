"""A hundred rounds of everybody at once; `tests.approvals.races` has the rules and runs a thousand."""

from __future__ import annotations

from approvals.reviewers import sync_reviewers
from tests.approvals.conftest import BOB, Store
from tests.approvals.races import ERIN, run, two_servers


async def test_a_hundred_rounds_have_one_winner_each(store: Store) -> None:
    await sync_reviewers(store.pool, [BOB, ERIN])
    async with two_servers(store) as servers:
        stories = await run(store, servers, 100)
    assert stories.total() == 100
    # The rounds would prove nothing if one side always came first.
    for story in ("pending > denied", "pending > approved > executing", "pending > withdrawn", "pending > expired"):
        assert stories[story] > 0, stories
