"""The configured people: their static tokens and the identities linked to them. The configuration is the
truth; the store holds it, tokens as hashes, for every process to look up."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from approvals.model import Reviewer, person_key
from approvals.store import store_connection

if TYPE_CHECKING:
    import asyncpg

    from approvals.store import Pool

log = logging.getLogger("pgproxy.approvals")

ROLES = frozenset({"reviewer", "auditor", "admin"})
CHANNELS = ("oidc", "slack", "teams")
"""Where an identity can be linked; each at most once, to one reviewer."""

_SYNC_LOCK = 0x6170_7072_6F76_0001


@dataclass(frozen=True, slots=True)
class ReviewerSpec:
    """One entry of the configuration. `machine` marks an identity of software, which may read but never
    decide. `identities`: who this is elsewhere, by `CHANNELS`; with one of them no token is needed."""

    name: str
    token: str | None
    groups: Collection[str] = ()
    roles: Collection[str] = ("reviewer",)
    machine: bool = False
    identities: Mapping[str, str] = field(default_factory=dict)


def token_sha256(token: str) -> bytes:
    """What is stored and compared. Tokens are high-entropy, so no salt and no slow hash; and as the hash is
    what the index compares, the time of a look-up tells nothing about a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


async def sync_reviewers(pool: Pool, specs: Sequence[ReviewerSpec]) -> None:
    """Makes the store's reviewers those of the configuration; others are disabled and their tokens forgotten.

    Raises:
        ValueError: two entries for one person, one token or identity for two, an empty name, nothing to log
            in with, an unknown role.
    """
    _check(specs)
    async with store_connection(pool) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SYNC_LOCK)
        # Tokens first all go, so that a token may move from one person to another within one change.
        await connection.execute(
            "UPDATE approvals.reviewers SET token_sha256 = NULL, disabled = true, "
            "oidc = NULL, oidc_key = NULL, slack = NULL, teams = NULL, aliases = '{}'"
        )
        for spec in specs:
            await connection.execute(
                """INSERT INTO approvals.reviewers (name, token_sha256, groups, roles, machine,
                    name_key, oidc, oidc_key, slack, teams, aliases)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                ON CONFLICT (name) DO UPDATE SET token_sha256 = excluded.token_sha256,
                    groups = excluded.groups, roles = excluded.roles, machine = excluded.machine,
                    name_key = excluded.name_key, oidc = excluded.oidc, oidc_key = excluded.oidc_key,
                    slack = excluded.slack, teams = excluded.teams, aliases = excluded.aliases,
                    disabled = false, synced_at = now()""",
                spec.name,
                None if spec.token is None else token_sha256(spec.token),
                sorted(set(spec.groups)),
                sorted(set(spec.roles)),
                spec.machine,
                person_key(spec.name),
                spec.identities.get("oidc"),
                person_key(spec.identities["oidc"]) if "oidc" in spec.identities else None,
                spec.identities.get("slack"),
                spec.identities.get("teams"),
                sorted(set(spec.identities.values())),
            )
    log.info("reviewers synchronised count=%d", len(specs))


def _check(specs: Sequence[ReviewerSpec]) -> None:
    people: dict[str, str] = {}
    tokens: dict[bytes, str] = {}
    identities: dict[tuple[str, str], str] = {}
    for spec in specs:
        key = person_key(spec.name)
        if not key or spec.token == "" or (spec.token is None and not spec.identities):
            raise ValueError("a reviewer needs a name and a token or a linked identity")
        if unknown := set(spec.roles) - ROLES:
            raise ValueError(f"reviewer {spec.name!r} has unknown roles: {', '.join(sorted(unknown))}")
        if key in people:
            raise ValueError(f"reviewers {people[key]!r} and {spec.name!r} are the same person")
        people[key] = spec.name
        if spec.token is not None:
            digest = token_sha256(spec.token)
            if digest in tokens:
                raise ValueError(f"reviewers {tokens[digest]!r} and {spec.name!r} have the same token")
            tokens[digest] = spec.name
        for channel, value in spec.identities.items():
            if channel not in CHANNELS or not person_key(value):
                raise ValueError(f"reviewer {spec.name!r} has an identity that cannot be linked: {channel}")
            other = identities.setdefault((channel, person_key(value)), spec.name)
            if other != spec.name:
                raise ValueError(f"reviewers {other!r} and {spec.name!r} have the same identity ({channel})")


async def authenticate(pool: Pool, token: str) -> Reviewer | None:
    """Whose token this is; `None` for nobody's.

    Raises:
        StoreUnavailable
    """
    async with store_connection(pool) as connection:
        row = await connection.fetchrow(
            "SELECT name, groups, roles, machine, aliases FROM approvals.reviewers "
            "WHERE token_sha256 = $1 AND NOT disabled",
            token_sha256(token),
        )
    return None if row is None else reviewer_of(row)


_LINKED = {
    "slack": "SELECT name, groups, roles, machine, aliases FROM approvals.reviewers WHERE slack = $1 AND NOT disabled",
    "teams": "SELECT name, groups, roles, machine, aliases FROM approvals.reviewers WHERE teams = $1 AND NOT disabled",
}


async def linked_reviewer(pool: Pool, channel: str, identity: str) -> Reviewer | None:
    """Whom an identity of a chat (`slack`, `teams`) is linked to, exactly as the configuration writes it;
    `None` for nobody. An OIDC identity is resolved from its claims instead.

    Raises:
        StoreUnavailable
    """
    async with store_connection(pool) as connection:
        row = await connection.fetchrow(_LINKED[channel], identity)
    return None if row is None else reviewer_of(row)


def reviewer_of(row: asyncpg.Record) -> Reviewer:
    """The person of a row of approvals.reviewers."""
    return Reviewer(
        row["name"], frozenset(row["groups"]), frozenset(row["roles"]), row["machine"], frozenset(row["aliases"])
    )
