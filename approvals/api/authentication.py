"""Who asks, and their roles. Checked in front of the routes, before any body is read or parsed."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection

from approvals.api.responses import Json
from approvals.api.web import WebOptions, is_same_origin, is_unsafe, read_cookie
from approvals.errors import ApprovalError, Forbidden
from approvals.identity.oidc import Oidc
from approvals.identity.people import ClaimsRefused, resolve
from approvals.identity.provider import ProviderUnavailable
from approvals.identity.tokens import MAX_TOKEN_LENGTH, TokenRefused, looks_like_jwt
from approvals.identity.websessions import WebSessions, csrf_token
from approvals.model import Reviewer
from approvals.reviewers import authenticate
from approvals.store import store_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from approvals.store import Pool

SESSION_COOKIE = "pgproxy"
CSRF_HEADER = "x-csrf-token"
READING_ROLES = frozenset({"reviewer", "auditor", "admin"})
_CHALLENGE = 'Bearer realm="pgproxy"'
_scheme = HTTPBearer(
    auto_error=False, scheme_name="token", description="A reviewer's token, or a JWT of the identity provider."
)
_cookie_scheme = APIKeyCookie(
    name=f"__Host-{SESSION_COOKIE}",
    auto_error=False,
    scheme_name="session",
    description="The console's session; unsafe methods need its token in `X-CSRF-Token` as well.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `via`: `console` with a session's cookie, else `api`. `csrf_token`, `auth_time`: the
    session's."""

    reviewer: Reviewer
    via: str
    auth_time: datetime | None = None
    csrf_token: str | None = None


class Unauthenticated(Exception):
    """401; the message is for whoever has the credentials. Without any, the challenge names no error."""

    def __init__(self, detail: str, *, given: bool = True) -> None:
        super().__init__(detail)
        self.given = given


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Tells who sent a request, from its bearer token or its session."""

    pool: Pool
    sessions: WebSessions
    options: WebOptions
    oidc: Oidc | None = None

    async def caller(self, connection: HTTPConnection, *, touch: bool = True) -> Caller:
        """A bearer token goes before a cookie: no foreign page can add it, so it needs no protection
        against them.

        Raises:
            Unauthenticated, ApprovalError, ProviderUnavailable
        """
        if "authorization" in connection.headers:
            token = _bearer_token(connection)
            if token is None:
                raise Unauthenticated("a bearer token is required", given=False)
            return Caller(await self._bearer(token), "api")
        secret = read_cookie(connection, self.options, SESSION_COOKIE)
        if not secret:
            raise Unauthenticated("a bearer token is required", given=False)
        session = await self.sessions.find(secret, touch=touch)
        if session is None:
            raise Unauthenticated("the session is over: log in again")
        token = csrf_token(secret)
        self._refuse_foreign(connection, token)
        return Caller(session.reviewer, "console", session.auth_time, token)

    async def _bearer(self, token: str) -> Reviewer:
        if self.oidc is None or not looks_like_jwt(token):
            reviewer = await authenticate(self.pool, token)
            if reviewer is None:
                raise Unauthenticated("the token is not known")
            return reviewer
        try:
            identity = self.oidc.claims.identity(await self.oidc.bearer.verify(token))
        except (TokenRefused, ClaimsRefused) as error:
            raise Unauthenticated(str(error)) from error
        async with store_connection(self.pool) as connection:
            return (await resolve(connection, identity, self.oidc.claims))[0]

    def _refuse_foreign(self, connection: HTTPConnection, token: str) -> None:
        """The browser adds the cookie to whatever a page asks for; only our own pages know the session's
        token, and only theirs are this origin."""
        if not is_unsafe(connection.scope["method"]):
            if connection.headers.get("sec-fetch-site") == "cross-site":
                raise Forbidden("a page of another site asked for this")
            return
        if not is_same_origin(connection, self.options):
            raise Forbidden("a page of another origin asked for this")
        given = connection.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode()):
            raise Forbidden(f"the session's token is missing or wrong ({CSRF_HEADER})")

    def still_valid(self, connection: HTTPConnection, caller: Caller) -> Callable[[], Awaitable[bool]]:
        """For long answers: whether the same credentials would still let the same person read."""

        async def check() -> bool:
            try:
                now = await self.caller(connection, touch=False)
            except (Unauthenticated, ProviderUnavailable, Forbidden):
                return False
            return now.reviewer.name == caller.reviewer.name and not now.reviewer.roles.isdisjoint(READING_ROLES)

        return check


class Authentication:
    """Lets nothing under `/v1` be reached by somebody unknown; leaves the person in `request.state.reviewer`,
    how they came in `request.state.via`, and the `Caller` in `request.state.caller`."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] + "/").startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            caller = await self._authenticator.caller(connection)
        except Unauthenticated as error:
            challenge = f'{_CHALLENGE}, error="invalid_token"' if error.given else _CHALLENGE
            refusal = Json({"detail": str(error)}, 401, headers={"WWW-Authenticate": challenge})
        except ApprovalError as error:
            refusal = Json({"detail": str(error)}, error.http_status)
        except ProviderUnavailable as error:
            refusal = Json({"detail": f"the token could not be verified: {error}"}, 503)
        else:
            state = scope.setdefault("state", {})
            state["caller"], state["reviewer"], state["via"] = caller, caller.reviewer, caller.via
            state["still_valid"] = self._authenticator.still_valid(connection, caller)
            await self._app(scope, receive, send)
            return
        await refusal(scope, receive, send)


def _bearer_token(connection: HTTPConnection) -> str | None:
    values = [value for name, value in connection.scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].decode("utf-8", "surrogateescape").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_LENGTH:
        return None
    return str(token)


def known(
    request: Request, _: Annotated[object, Security(_scheme)], __: Annotated[object, Security(_cookie_scheme)]
) -> Reviewer:
    """A dependency: the authenticated person, whatever their roles."""
    reviewer: Reviewer = request.state.reviewer
    return reviewer


def _having(*roles: str) -> Callable[..., Reviewer]:
    """A dependency: the authenticated person, if they have one of these roles."""

    def person(reviewer: Annotated[Reviewer, Depends(known)]) -> Reviewer:
        if not reviewer.roles.intersection(roles):
            raise Forbidden(f"this needs the role {' or '.join(roles)}")
        return reviewer

    return person


Known = Annotated[Reviewer, Depends(known)]
Reader = Annotated[Reviewer, Depends(_having(*sorted(READING_ROLES)))]
Decider = Annotated[Reviewer, Depends(_having("reviewer"))]
Commenter = Annotated[Reviewer, Depends(_having("reviewer", "admin"))]
Overseer = Annotated[Reviewer, Depends(_having("auditor", "admin"))]
Administrator = Annotated[Reviewer, Depends(_having("admin"))]
