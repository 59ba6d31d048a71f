"""Bearer tokens and roles. The token is checked in front of the routes, before any body is read or parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from approvals.api.responses import Json
from approvals.errors import Forbidden, StoreUnavailable
from approvals.model import Reviewer
from approvals.reviewers import authenticate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

    from approvals.store import Pool

_MAX_TOKEN_LENGTH = 4096
_scheme = HTTPBearer(auto_error=False, scheme_name="token", description="A reviewer's token.")


class BearerAuthentication:
    """Answers 401 to everything under `/v1` without a known token; leaves the person in
    `request.state.reviewer`."""

    def __init__(self, app: ASGIApp, pool: Pool) -> None:
        self._app = app
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] + "/").startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        token = _bearer_token(scope)
        refusal: Json | None = None
        reviewer: Reviewer | None = None
        if token is None:
            refusal = _unauthorized("a bearer token is required", 'Bearer realm="pgproxy"')
        else:
            try:
                reviewer = await authenticate(self._pool, token)
            except StoreUnavailable as error:
                refusal = Json({"detail": str(error)}, error.http_status)
            else:
                if reviewer is None:
                    refusal = _unauthorized("the token is not known", 'Bearer realm="pgproxy", error="invalid_token"')
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["reviewer"] = reviewer
        await self._app(scope, receive, send)


def _bearer_token(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, token = values[0].decode("utf-8", "surrogateescape").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_LENGTH:
        return None
    return str(token)


def _unauthorized(detail: str, challenge: str) -> Json:
    return Json({"detail": detail}, 401, headers={"WWW-Authenticate": challenge})


def _having(*roles: str) -> Callable[..., Reviewer]:
    """A dependency: the authenticated person, if they have one of these roles."""

    def person(request: Request, _: Annotated[object, Security(_scheme)]) -> Reviewer:
        reviewer: Reviewer = request.state.reviewer
        if not reviewer.roles.intersection(roles):
            raise Forbidden(f"this needs the role {' or '.join(roles)}")
        return reviewer

    return person


_READERS = ("reviewer", "auditor", "admin")


def still_reader(request: Request) -> Callable[[], Awaitable[bool]]:
    """For an answer that goes on: whether its token still is the same reader's. Raises StoreUnavailable."""
    pool: Pool = request.app.state.services.pool
    token, name = _bearer_token(request.scope), request.state.reviewer.name

    async def ask() -> bool:
        found = await authenticate(pool, token) if token is not None else None
        return found is not None and found.name == name and bool(found.roles.intersection(_READERS))

    return ask


Reader = Annotated[Reviewer, Depends(_having(*_READERS))]
Decider = Annotated[Reviewer, Depends(_having("reviewer"))]
Commenter = Annotated[Reviewer, Depends(_having("reviewer", "admin"))]
Administrator = Annotated[Reviewer, Depends(_having("admin"))]
