"""What a browser needs to be told, and what is believed of it: hosts, origins, cookies, security headers."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from approvals.api.responses import Json

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How browsers reach this process.

    `external_url`: the origin people use, when it is not the address listened on. `hosts`: the names a
    request may be for, beside that origin's and this machine's own; None leaves them unchecked, which only
    tests of an application without a socket want. `any_ip`: listening on every address, an IP address is no
    name that anybody could point here. `static_login`: the console's form for tokens.
    """

    external_url: str | None = None
    hosts: frozenset[str] | None = None
    any_ip: bool = False
    static_login: bool = True
    idle_s: float = 8 * 3600.0
    absolute_s: float = 24 * 3600.0

    def admits_host(self, host: str) -> bool:
        if self.hosts is None:
            return True
        name = host_name(host)
        if name is None:
            return False
        external = urlsplit(self.external_url).hostname if self.external_url else None
        return name in _LOOPBACK_NAMES or name == external or name in self.hosts or (self.any_ip and _is_address(name))

    def origin(self, connection: HTTPConnection) -> str:
        """The origin of our pages, as this request's browser knows it."""
        return self.external_url or f"{connection.url.scheme}://{connection.headers.get('host', '')}".lower()

    def is_secure(self, connection: HTTPConnection) -> bool:
        return self.origin(connection).startswith("https://")


def host_name(host: str) -> str | None:
    """The name or address of a Host header, lower case and without port; None when it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.netloc != host or parts.username is not None:
        return None
    return parts.hostname.removesuffix(".")


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(connection: HTTPConnection, options: WebOptions) -> bool:
    """Whether a page of our own sent this request. A browser that says neither header is not believed.

    A form's `Origin` is `null` under our Referrer-Policy ("Fetch", Origin header), so where the browser says
    the site itself, that decides; browsers say it over TLS and to this machine.
    """
    site = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin")
    own = options.origin(connection)
    if site is None:
        return origin is not None and origin.lower() == own
    return site == "same-origin" and (origin is None or origin == "null" or origin.lower() == own)


def is_unsafe(method: str) -> bool:
    return method not in _SAFE_METHODS


class CannotLogIn(Exception):
    """A cookie for plain HTTP beyond this machine would be everybody's."""


def cookie_name(connection: HTTPConnection, options: WebOptions, base: str) -> str:
    """`__Host-` cookies come from this very host over TLS, and no subdomain can plant one (RFC 6265bis).

    Plain HTTP is for this machine alone, where browsers refuse that prefix.

    Raises:
        CannotLogIn
    """
    if options.is_secure(connection):
        return f"__Host-{base}"
    if host_name(connection.headers.get("host", "")) not in _LOOPBACK_NAMES:
        raise CannotLogIn
    return base


def read_cookie(connection: HTTPConnection, options: WebOptions, base: str) -> str | None:
    """The cookie's value; None when there is none, or more than one."""
    try:
        name = cookie_name(connection, options, base)
    except CannotLogIn:
        return None
    values = []
    for header in connection.headers.getlist("cookie"):
        for pair in header.split(";"):
            key, separator, value = pair.strip().partition("=")
            if separator and key == name:
                values.append(value)
    return values[0] if len(values) == 1 else None


def set_cookie(
    response: Response,
    connection: HTTPConnection,
    options: WebOptions,
    base: str,
    value: str,
    max_age: int | None = None,
) -> None:
    """For this host alone, unreadable by scripts. Lax: the provider's redirect back is a navigation from
    elsewhere, and needs it."""
    name = cookie_name(connection, options, base)
    response.set_cookie(
        name, value, max_age=max_age, path="/", secure=name != base, httponly=True, samesite="lax"
    )  # fmt: skip


def drop_cookie(response: Response, connection: HTTPConnection, options: WebOptions, base: str) -> None:
    set_cookie(response, connection, options, base, "", 0)


class WebGuard:
    """Refuses requests for foreign hosts (DNS rebinding: a name of the attacker's that leads here makes their
    page one of ours) and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, options: WebOptions, form_targets: tuple[str, ...] = ()) -> None:
        self._app = app
        self._options = options
        targets = " ".join(("'self'", *form_targets))
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
            f"form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
        )
        self._headers: list[tuple[bytes, bytes]] = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"cache-control", b"no-store"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = list(self._headers)
        if scope.get("scheme") == "https" or (self._options.external_url or "").startswith("https://"):
            headers.append((b"strict-transport-security", b"max-age=31536000"))

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": given + [pair for pair in headers if pair[0] not in names]}
            await send(message)

        if scope["path"] not in _PROBES and not self._admits(scope):
            await Json({"detail": "this name is not one of this server's (api.hosts)"}, 421)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _admits(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        return len(hosts) == 1 and self._options.admits_host(hosts[0])
