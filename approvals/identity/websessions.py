"""The console's sessions: rows of the store, so that they can be seen and ended, and end with the person.

A session is known by a random 256-bit secret that only the browser has; every login makes a new one, so a
session cannot be fixed beforehand. It ends when idle for too long, at its absolute end, at logout, by an
administrator, and when its reviewer is removed, their token changed, or their identity linked otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from approvals.documents import decode, encode, storable
from approvals.errors import Forbidden
from approvals.identity.people import Claims, Identity, resolve
from approvals.model import Reviewer, rfc3339
from approvals.reviewers import reviewer_of
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Pool

log = logging.getLogger("pgproxy.approvals")

IDLE_S = 8 * 3600.0
ABSOLUTE_S = 24 * 3600.0
_TOUCH_S = 60
_KEEP = timedelta(days=7)
_USER_AGENT_LENGTH = 200
_SECRET_LENGTH = 43  # 32 bytes in Base64


@dataclass(frozen=True, slots=True)
class WebSession:
    """An open session and whose it is now. `auth_time`: when they last proved who they are; None when the
    provider did not say."""

    id: str
    reviewer: Reviewer
    auth_time: datetime | None
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Whence:
    """The browser that logs in: for the list of sessions, and its session until now, which ends."""

    address: str = ""
    user_agent: str = ""
    replacing: str | None = None


class WebSessions:
    """`claims` and `issuer` are those of the OIDC configuration in force; without one, its sessions are over."""

    def __init__(
        self,
        pool: Pool,
        *,
        issuer: str | None = None,
        claims: Claims | None = None,
        idle_s: float = IDLE_S,
        absolute_s: float = ABSOLUTE_S,
    ) -> None:
        self._pool = pool
        self._issuer = issuer
        self._claims = claims if claims is not None else Claims()
        self._idle = timedelta(seconds=idle_s)
        self._absolute = timedelta(seconds=absolute_s)

    async def begin(
        self,
        name: str,
        whence: Whence,
        *,
        token_sha256: bytes | None = None,
        identity: Identity | None = None,
        linked: bool = False,
        auth_time: datetime | None = None,
    ) -> str:
        """A new session; returns its secret.

        Without an identity the person has proved themselves now, so `auth_time` is now.
        """
        secret = secrets.token_urlsafe(32)
        async with store_connection(self._pool) as connection, connection.transaction():
            if whence.replacing is not None:
                await connection.execute(_END, _digest(whence.replacing), "replaced by a new login")
            session_id = await connection.fetchval(
                """INSERT INTO approvals.web_sessions
                    (id, secret_sha256, name, token_sha256, identity, linked, address, user_agent,
                    expires_at, auth_time)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp() + $9::interval,
                    CASE WHEN $5::json IS NULL THEN clock_timestamp() ELSE $10 END)
                RETURNING id""",
                "l" + secrets.token_hex(8),
                _digest(secret),
                name,
                token_sha256,
                None if identity is None else encode(identity.to_json()),
                linked,
                storable(whence.address),
                storable(whence.user_agent[:_USER_AGENT_LENGTH]),
                self._absolute,
                auth_time,
            )
            await connection.execute(
                "DELETE FROM approvals.web_sessions WHERE expires_at < clock_timestamp() - $1::interval", _KEEP
            )
        log.info("console login session=%s", session_id)
        return secret

    async def find(self, secret: str, *, touch: bool = True) -> WebSession | None:
        """The open session of this secret, and its person as they stand now; `None` when there is none.

        `touch`: this is the person's own doing, so the session isn't idle.

        Raises:
            StoreUnavailable
        """
        if len(secret) != _SECRET_LENGTH:
            return None
        digest = _digest(secret)
        async with store_connection(self._pool) as connection:
            row = await connection.fetchrow(
                """SELECT s.id, s.name, s.identity, s.linked, s.auth_time, s.expires_at,
                    s.last_seen_at < clock_timestamp() - make_interval(secs => $3) AS is_stale,
                    r.groups, r.roles, r.machine, r.aliases
                FROM approvals.web_sessions s
                LEFT JOIN approvals.reviewers r
                    ON r.name = s.name AND r.token_sha256 = s.token_sha256 AND NOT r.disabled
                WHERE s.secret_sha256 = $1 AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
                    AND s.last_seen_at > clock_timestamp() - $2::interval""",
                digest,
                self._idle,
                float(_TOUCH_S),
            )
            if row is None:
                return None
            if row["identity"] is None:
                if row["groups"] is None:
                    return None  # removed, or their token is another now
                reviewer = reviewer_of(row)
            else:
                identity = Identity.from_json(decode(row["identity"]))
                if identity.issuer != self._issuer:
                    return None
                try:
                    reviewer, linked = await resolve(connection, identity, self._claims)
                except Forbidden:
                    return None
                if (reviewer.name, linked) != (row["name"], row["linked"]):
                    return None
            if touch and row["is_stale"]:
                await connection.execute(
                    "UPDATE approvals.web_sessions SET last_seen_at = clock_timestamp() WHERE id = $1", row["id"]
                )
        return WebSession(row["id"], reviewer, row["auth_time"], row["expires_at"])

    async def end(self, secret: str, why: str = "logged out") -> None:
        async with store_connection(self._pool) as connection:
            await connection.execute(_END, _digest(secret), why)

    async def revoke(self, session_id: str, by: str) -> bool:
        """Ends one by its id; false when no such session is open."""
        async with store_connection(self._pool) as connection:
            done = await connection.execute(
                "UPDATE approvals.web_sessions SET revoked_at = clock_timestamp(), revoked_by = $2 "
                "WHERE id = $1 AND revoked_at IS NULL AND expires_at > clock_timestamp()",
                session_id,
                by,
            )
        log.info("console session revoked session=%s found=%s", session_id, done == "UPDATE 1")
        return bool(done == "UPDATE 1")

    async def list(self) -> Sequence[dict[str, Any]]:
        """The open sessions, newest first. One whose person is gone is among them until its time is over."""
        async with store_connection(self._pool) as connection:
            rows = await connection.fetch(
                """SELECT id, name, identity IS NOT NULL AS oidc, address, user_agent,
                    created_at, last_seen_at, expires_at
                FROM approvals.web_sessions
                WHERE revoked_at IS NULL AND expires_at > clock_timestamp()
                    AND last_seen_at > clock_timestamp() - $1::interval
                ORDER BY created_at DESC, id LIMIT 1000""",
                self._idle,
            )
        return [
            {
                "id": row["id"],
                "name": row["name"],
                "by": "oidc" if row["oidc"] else "token",
                "address": row["address"],
                "user_agent": row["user_agent"],
                **{key: rfc3339(row[key]) for key in ("created_at", "last_seen_at", "expires_at")},
            }
            for row in rows
        ]

    async def complete_login(self, state: str) -> bool:
        """Notes that a provider's response was used; false when it was before."""
        async with store_connection(self._pool) as connection, connection.transaction():
            await connection.execute(
                "DELETE FROM approvals.completed_logins WHERE at < clock_timestamp() - $1::interval", _KEEP
            )
            done = await connection.execute(
                "INSERT INTO approvals.completed_logins (state_sha256) VALUES ($1) ON CONFLICT DO NOTHING",
                _digest(state),
            )
        return bool(done == "INSERT 0 1")


_END = """
UPDATE approvals.web_sessions SET revoked_at = clock_timestamp(), revoked_by = $2
WHERE secret_sha256 = $1 AND revoked_at IS NULL
"""


def csrf_token(secret: str) -> str:
    """The session's token against cross-site requests: only who has the secret can make it, and it does not
    give the secret away to scripts that read it."""
    made = hmac.digest(secret.encode("utf-8", "surrogateescape"), b"csrf", "sha256")
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
