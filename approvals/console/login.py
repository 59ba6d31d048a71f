"""Coming and going: the login page, a static token's form, the identity provider's way, and the way out."""

from __future__ import annotations

import hmac
import logging
import math
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from starlette.responses import RedirectResponse, Response

from approvals.api.authentication import CSRF_HEADER, READING_ROLES, SESSION_COOKIE
from approvals.api.ratelimit import RateLimit
from approvals.api.web import (
    CannotLogIn,
    WebOptions,
    cookie_name,
    drop_cookie,
    is_same_origin,
    read_cookie,
    set_cookie,
)
from approvals.console.rendering import page
from approvals.errors import ApprovalError, Forbidden
from approvals.identity.login import ATTEMPT_S, Attempt, LoginRefused, own_path
from approvals.identity.people import resolve
from approvals.identity.provider import ProviderUnavailable
from approvals.identity.websessions import WebSession, WebSessions, Whence, csrf_token
from approvals.model import Reviewer
from approvals.reviewers import authenticate, token_sha256
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.api.application import Services

log = logging.getLogger("pgproxy.approvals")

router = APIRouter(include_in_schema=False)

_ATTEMPT_COOKIE = "pgproxy-login"
_MAX_FORM_BYTES = 64 * 1024
_BURST, _REFILL_S = 10, 6.0
_NEEDS_TLS = "A login needs TLS: open this page by its https address, or on the machine itself."


class LoginRequired(Exception):
    """A page was asked for without a session."""


async def page_session(request: Request) -> WebSession:
    """The dependency of every page of the console. `request.state.csrf_token` is there afterwards."""
    secret = read_cookie(request, _services(request).web, SESSION_COOKIE)
    session = await _sessions(request).find(secret) if secret else None
    if secret is None or session is None:
        raise LoginRequired
    if session.reviewer.roles.isdisjoint(READING_ROLES):
        raise Forbidden("you have no role here")
    request.state.reviewer, request.state.via = session.reviewer, "console"
    request.state.csrf_token = csrf_token(secret)
    return session


PageSession = Annotated[WebSession, Depends(page_session)]


def prepare(app: FastAPI) -> None:
    app.state.login_limit = RateLimit(_BURST, _REFILL_S)
    app.add_exception_handler(LoginRequired, _to_login)


async def _to_login(request: Request, _: Exception) -> Response:
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = own_path(here) if request.method == "GET" else "/"
    return RedirectResponse(f"/login?{urlencode({'next': target})}", 303)


@router.get("/login")
async def show_login(request: Request, next: str = "/") -> Response:
    """The page; for somebody who is logged in already, straight on."""
    try:
        await page_session(request)
    except (LoginRequired, ApprovalError):
        return _login_page(request, own_path(next))
    return RedirectResponse(own_path(next), 303)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """With a static token. A form of another site would log its visitor in as somebody else: refused."""
    services = _services(request)
    if not services.web.static_login:
        return _login_page(request, "/", "Logging in with a token is switched off here.", 403)
    if not is_same_origin(request, services.web):
        return _login_page(request, "/", "This form was sent from another site.", 403)
    form = await _form(request)
    target = own_path(form.get("next"))
    if limited := _limited(request, target):
        return limited
    token = form.get("token", "").strip()
    try:
        cookie_name(request, services.web, SESSION_COOKIE)
        reviewer = await authenticate(services.pool, token) if token else None
        if reviewer is None:
            log.info("console login refused address=%s by=token", _address(request))
            return _login_page(request, target, "This token is not known.", 401)
        if reason := _shut_out(reviewer):
            return _login_page(request, target, reason, 403)
        secret = await _sessions(request).begin(
            reviewer.name, _whence(request, services.web), token_sha256=token_sha256(token)
        )
    except CannotLogIn:
        return _login_page(request, target, _NEEDS_TLS, 400)
    except ApprovalError as error:
        return _login_page(request, target, f"{error}.", error.http_status)
    request.app.state.login_limit.give_back(_address(request))
    return _logged_in(request, target, secret)


@router.get("/oidc/start")
async def start_oidc(
    request: Request, next: str = "/", max_age: Annotated[int | None, Query(ge=0, le=86_400)] = None
) -> Response:
    """To the identity provider. `max_age=0` asks for a fresh login even of somebody who has a session there."""
    services = _services(request)
    target = own_path(next)
    if services.oidc is None:
        return _login_page(request, target, "No identity provider is configured here.", 404)
    try:
        cookie_name(request, services.web, _ATTEMPT_COOKIE)
        attempt, url = await services.oidc.flow.begin(target, max_age)
    except CannotLogIn:
        return _login_page(request, target, _NEEDS_TLS, 400)
    except ProviderUnavailable as error:
        return _login_page(request, target, f"{_sentence(error)} Try again in a moment.", 503)
    response = RedirectResponse(url, 303)
    set_cookie(response, request, services.web, _ATTEMPT_COOKIE, attempt.to_cookie(), ATTEMPT_S)
    return response


@router.get("/oidc/callback")
async def finish_oidc(request: Request) -> Response:
    """Back from the identity provider."""
    services = _services(request)
    if services.oidc is None:
        return _login_page(request, "/", "No identity provider is configured here.", 404)
    if limited := _limited(request, "/"):
        return limited
    cookie = read_cookie(request, services.web, _ATTEMPT_COOKIE)
    attempt = Attempt.from_cookie(cookie) if cookie else None
    target = own_path(attempt.target) if attempt else "/"
    try:
        secret = await _finish(request, services, attempt)
    except (LoginRefused, Forbidden) as error:
        log.info("console login refused address=%s by=oidc reason=%s", _address(request), error)
        response = _login_page(request, target, _sentence(error), 403)
    except (ProviderUnavailable, ApprovalError) as error:
        response = _login_page(request, target, _sentence(error), 503)
    else:
        response = _logged_in(request, target, secret)
    if cookie:
        drop_cookie(response, request, services.web, _ATTEMPT_COOKIE)
    return response


async def _finish(request: Request, services: Services, attempt: Attempt | None) -> str:
    """The new session's secret. Raises LoginRefused, Forbidden, ProviderUnavailable, StoreUnavailable."""
    assert services.oidc is not None
    pairs = request.query_params.multi_items()
    if attempt is None or len({name for name, _ in pairs}) != len(pairs):
        raise LoginRefused("this login was not begun in this browser, or too long ago")
    found = await services.oidc.flow.finish(attempt, dict(pairs))
    async with store_connection(services.pool) as connection:
        reviewer, linked = await resolve(connection, found.identity, services.oidc.claims)
    if reason := _shut_out(reviewer):
        raise LoginRefused(reason)
    if not await _sessions(request).complete_login(attempt.state):
        raise LoginRefused("this login was completed before")
    return await _sessions(request).begin(
        reviewer.name,
        _whence(request, services.web),
        identity=found.identity,
        linked=linked,
        auth_time=found.auth_time,
    )


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """Ends the session here. What the provider keeps of its own is the provider's."""
    services = _services(request)
    secret = read_cookie(request, services.web, SESSION_COOKIE)
    if secret:
        given = request.headers.get(CSRF_HEADER) or (await _form(request)).get("csrf_token", "")
        genuine = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), csrf_token(secret).encode())
        if not genuine or not is_same_origin(request, services.web):
            return _login_page(request, "/", "This was sent from another site.", 403)
        await _sessions(request).end(secret)
    response = RedirectResponse("/login", 303)
    if secret:
        drop_cookie(response, request, services.web, SESSION_COOKIE)
    return response


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _sessions(request: Request) -> WebSessions:
    sessions: WebSessions = request.app.state.web_sessions
    return sessions


def _shut_out(reviewer: Reviewer) -> str | None:
    """Why somebody who is known gets no session."""
    if reviewer.machine:
        return "This is a program's identity: it may use the API, the console is for people."
    if reviewer.roles.isdisjoint(READING_ROLES):
        return "You are known, but have no role here: ask an administrator."
    return None


def _whence(request: Request, options: WebOptions) -> Whence:
    return Whence(
        _address(request), request.headers.get("user-agent", ""), read_cookie(request, options, SESSION_COOKIE)
    )


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _logged_in(request: Request, target: str, secret: str) -> Response:
    response = RedirectResponse(target, 303)
    set_cookie(response, request, _services(request).web, SESSION_COOKIE, secret)
    return response


def _limited(request: Request, target: str) -> Response | None:
    limit: RateLimit = request.app.state.login_limit
    wait_s = limit.wait_s(_address(request))
    if wait_s <= 0:
        return None
    response = _login_page(request, target, "Too many tries: wait a minute.", 429)
    response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


async def _form(request: Request) -> dict[str, str]:
    """The fields of an urlencoded form; empty for anything else."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            return {}
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=20, errors="strict")
    except ValueError:
        return {}
    return {name: values[-1] for name, values in fields.items()}


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:].removesuffix(".") + "."


def _login_page(request: Request, target: str, message: str | None = None, status: int = 200) -> Response:
    services = _services(request)
    return page(
        "login.html",
        status,
        # 401 has to name a scheme (RFC 9110); browsers show no dialogue of their own for this one.
        headers={"WWW-Authenticate": 'Bearer realm="pgproxy"'} if status == 401 else None,
        title="Log in",
        message=message,
        target=target,
        provider=urlsplit(services.oidc.issuer).hostname if services.oidc else None,
        static_login=services.web.static_login,
    )
