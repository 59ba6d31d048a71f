"""People with static tokens. The configuration is the truth; the store holds hashes for every process to
look up."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from approvals.model import Reviewer, person_key
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Pool

log = logging.getLogger("pgproxy.approvals")

ROLES = frozenset({"reviewer", "auditor", "admin"})
_SYNC_LOCK = 0x6170_7072_6F76_0001


@dataclass(frozen=True, slots=True)
class ReviewerSpec:
    """One entry of the configuration. `machine` marks an identity of software, which may read but never
    decide."""

    name: str
    token: str
    groups: Collection[str] = ()
    roles: Collection[str] = ("reviewer",)
    machine: bool = False


def token_sha256(token: str) -> bytes:
    """What is stored and compared. Tokens are high-entropy, so no salt and no slow hash; and as the hash is
    what the index compares, the time of a look-up tells nothing about a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


async def sync_reviewers(pool: Pool, specs: Sequence[ReviewerSpec]) -> None:
    """Makes the store's reviewers those of the configuration; others are disabled and their tokens forgotten.

    Raises:
        ValueError: two entries for one person, one token for two, an empty name or token, an unknown role.
    """
    _check(specs)
    async with store_connection(pool) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SYNC_LOCK)
        # Tokens first all go, so that a token may move from one person to another within one change.
        await connection.execute("UPDATE approvals.reviewers SET token_sha256 = NULL, disabled = true")
        for spec in specs:
            await connection.execute(
                """INSERT INTO approvals.reviewers (name, token_sha256, groups, roles, machine)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (name) DO UPDATE SET token_sha256 = excluded.token_sha256,
                    groups = excluded.groups, roles = excluded.roles, machine = excluded.machine,
                    disabled = false, synced_at = now()""",
                spec.name,
                token_sha256(spec.token),
                sorted(set(spec.groups)),
                sorted(set(spec.roles)),
                spec.machine,
            )
    log.info("reviewers synchronised count=%d", len(specs))


def _check(specs: Sequence[ReviewerSpec]) -> None:
    people: dict[str, str] = {}
    tokens: dict[bytes, str] = {}
    for spec in specs:
        key = person_key(spec.name)
        if not key or not spec.token:
            raise ValueError("a reviewer needs a name and a token")
        if unknown := set(spec.roles) - ROLES:
            raise ValueError(f"reviewer {spec.name!r} has unknown roles: {', '.join(sorted(unknown))}")
        if key in people:
            raise ValueError(f"reviewers {people[key]!r} and {spec.name!r} are the same person")
        digest = token_sha256(spec.token)
        if digest in tokens:
            raise ValueError(f"reviewers {tokens[digest]!r} and {spec.name!r} have the same token")
        people[key] = spec.name
        tokens[digest] = spec.name


async def authenticate(pool: Pool, token: str) -> Reviewer | None:
    """Whose token this is; `None` for nobody's.

    Raises:
        StoreUnavailable
    """
    async with store_connection(pool) as connection:
        row = await connection.fetchrow(
            "SELECT name, groups, roles, machine FROM approvals.reviewers WHERE token_sha256 = $1 AND NOT disabled",
            token_sha256(token),
        )
    if row is None:
        return None
    return Reviewer(row["name"], frozenset(row["groups"]), frozenset(row["roles"]), row["machine"])
