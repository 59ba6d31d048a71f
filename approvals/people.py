"""Who is whom: one person may be known by several names, and each of them is that person.

Names are compared as keys (`model.person_key`). Links come from the reviewers of the configuration: an entry's name and
its aliases are one person, and so is whoever shares a name with them, over any number of steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from approvals.model import Reviewer, person_key

if TYPE_CHECKING:
    from approvals.store import Connection


async def links(connection: Connection) -> list[frozenset[str]]:
    """The keys of each person who is known by more than one name; disabled ones too, for they are still who they
    are."""
    rows = await connection.fetch("SELECT name, aliases FROM approvals.reviewers WHERE aliases <> '{}'")
    return [_keys([row["name"], *row["aliases"]]) for row in rows]


def keys_of(reviewer: Reviewer, linked: Sequence[frozenset[str]]) -> frozenset[str]:
    """Every name of an authenticated person, as keys."""
    return closure(_keys([reviewer.name, *reviewer.aliases]), linked)


def closure(keys: frozenset[str], linked: Sequence[frozenset[str]]) -> frozenset[str]:
    """`keys` and every other name of the same person."""
    while True:
        grown = keys.union(*(names for names in linked if names & keys))
        if grown == keys:
            return keys
        keys = grown


def _keys(names: Iterable[str]) -> frozenset[str]:
    return frozenset(person_key(name) for name in names) - {""}
