"""Coming in at the console, against a faithful provider, and every way in that must stay shut."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request

from approvals.api import Services, create_app, serve
from approvals.api.ratelimit import MAX_ADDRESSES, RateLimit
from approvals.api.web import WebOptions
from approvals.console.login import PageSession
from approvals.identity.login import Attempt, own_path
from approvals.identity.oidc import Oidc
from approvals.identity.people import Claims
from approvals.reviewers import ReviewerSpec, sync_reviewers
from tests.approvals.conftest import ALICE, BOB, CAROL, DAVE, EVERYBODY, ROBOT, Store, request
from tests.approvals.fakes import FakeServices
from tests.approvals.provider import FakeProvider

ORIGIN = "https://pgproxy.example"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
SESSION = "__Host-pgproxy"
ATTEMPT = "__Host-pgproxy-login"
LINKED_BOB = replace(BOB, token=None, identities={"oidc": "Bob@Example.com", "slack": "U1"})

Make = Callable[..., FastAPI]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider().running() as provider:
        yield provider


@pytest.fixture
def make(store: Store, provider: FakeProvider) -> Make:
    def make(*, claims: Claims | None = None, oidc: bool = True, **web: Any) -> FastAPI:
        services = FakeServices()
        options = {"external_url": ORIGIN, "hosts": frozenset(), **web}
        made = Oidc.of(
            provider.issuer,
            "pgproxy",
            f"{ORIGIN}/oidc/callback",
            client_secret=provider.client_secret,
            claims=claims or Claims(groups_claim="groups", roles_of={"dba": ["reviewer"]}),
        )
        app = create_app(
            Services(
                store.pool,
                store.wakeups,
                services,
                services,
                services.sessions,
                services,
                services.readiness,
                services.reloader,
                web=WebOptions(**options),
                oidc=made if oidc else None,
            )
        )

        @app.get("/page")
        async def page(request: Request, session: PageSession) -> dict[str, str]:
            return {"name": session.reviewer.name, "csrf": request.state.csrf_token}

        return app

    return make


def browser(app: FastAPI, base_url: str = ORIGIN) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


@pytest.fixture
async def web(make: Make) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(make()) as client:
        yield client


async def log_in(web: httpx.AsyncClient, spec: ReviewerSpec = BOB, **data: str) -> httpx.Response:
    return await web.post("/login", data={"token": spec.token or "", **data}, headers=SAME)


async def start(web: httpx.AsyncClient, **query: Any) -> str:
    response = await web.get("/oidc/start", params=query)
    assert response.status_code == 303, response.text
    return response.headers["location"]


async def log_in_oidc(web: httpx.AsyncClient, provider: FakeProvider, **query: Any) -> httpx.Response:
    return await web.get(provider.authorize(await start(web, **query)))


async def csrf(web: httpx.AsyncClient) -> dict[str, str]:
    return {**SAME, "X-CSRF-Token": (await web.get("/v1/me")).json()["csrf_token"]}


def message(response: httpx.Response) -> str:
    found = re.search(r'role="alert">([^<]*)<', response.text)
    return found[1] if found else ""


# the static token


async def test_a_token_makes_a_session(web: httpx.AsyncClient, store: Store) -> None:
    response = await log_in(web, next="/page?x=1")
    assert (response.status_code, response.headers["location"]) == (303, "/page?x=1")
    cookie = response.headers["set-cookie"]
    assert cookie.startswith(f"{SESSION}=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert (await web.get("/page")).json()["name"] == BOB.name
    me = (await web.get("/v1/me")).json()
    assert (me["name"], me["via"], me["roles"]) == (BOB.name, "console", ["reviewer"])
    assert me["auth_time"]
    dump = str(await store.pool.fetch("SELECT s::text FROM approvals.web_sessions s"))
    assert web.cookies[SESSION] not in dump
    assert web.cookies[SESSION].encode().hex() not in dump


async def test_who_gets_no_session(web: httpx.AsyncClient) -> None:
    for spec, status, reason in ((replace(BOB, token="nobody"), 401, "not known"), (ROBOT, 403, "program")):
        response = await log_in(web, spec)
        assert response.status_code == status
        assert reason in message(response)
        assert "set-cookie" not in response.headers


FOREIGN: list[dict[str, str]] = [
    {},
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://pgproxy.example"},
    {"Origin": "https://pgproxy.example.evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN},
    {"Sec-Fetch-Site": "same-site", "Origin": ORIGIN},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


async def test_another_site_cannot_log_its_visitor_in(web: httpx.AsyncClient) -> None:
    for headers in FOREIGN:
        response = await web.post("/login", data={"token": BOB.token}, headers=headers)
        assert response.status_code == 403, headers
        assert not web.cookies


async def test_browsers_without_fetch_metadata_say_their_origin(web: httpx.AsyncClient) -> None:
    response = await web.post("/login", data={"token": BOB.token}, headers={"Origin": ORIGIN})
    assert response.status_code == 303


async def test_a_login_always_makes_a_new_session(web: httpx.AsyncClient) -> None:
    """Session fixation: whatever the browser brings along, it is not what it is known by afterwards."""
    web.cookies.set(SESSION, "A" * 43, domain="pgproxy.example")
    await log_in(web)
    first = web.cookies[SESSION]
    assert first != "A" * 43
    await log_in(web)
    assert web.cookies[SESSION] != first
    web.cookies.set(SESSION, first, domain="pgproxy.example", path="/")
    assert (await web.get("/v1/me")).status_code == 401


async def test_the_form_can_be_switched_off(make: Make) -> None:
    async with browser(make(static_login=False)) as web:
        assert 'name="token"' not in (await web.get("/login")).text
        assert (await log_in(web)).status_code == 403


async def test_tries_are_limited_an_address(web: httpx.AsyncClient) -> None:
    codes = [(await log_in(web, replace(BOB, token=f"guess-{n}"))).status_code for n in range(12)]
    assert codes == [401] * 10 + [429] * 2
    response = await log_in(web)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


def test_the_rate_limit_refills_and_keeps_a_bound() -> None:
    now = [0.0]
    limit = RateLimit(2, 6.0, lambda: now[0])
    assert [limit.wait_s("2001:db8::1"), limit.wait_s("2001:db8::2"), limit.wait_s("2001:db8::3")] == [0, 0, 6]
    assert limit.wait_s("::ffff:10.0.0.1") == limit.wait_s("10.0.0.1") == 0 < limit.wait_s("10.0.0.1")
    now[0] = 6.0
    assert limit.wait_s("2001:db8::9") == 0
    for number in range(MAX_ADDRESSES + 10):
        limit.wait_s(f"host{number}")
    assert len(limit) == MAX_ADDRESSES


async def test_colleagues_behind_one_address_do_not_lock_each_other_out(make: Make) -> None:
    app = make()
    for _ in range(12):
        async with browser(app) as web:
            assert (await web.post("/login", data={"token": BOB.token}, headers=SAME)).status_code == 303
    async with browser(app) as web:
        codes = [(await web.post("/login", data={"token": "x"}, headers=SAME)).status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
        # Once they are locked out, a token that is known opens nothing either.
        assert (await web.post("/login", data={"token": BOB.token}, headers=SAME)).status_code == 429


async def test_plain_http_is_for_this_machine_alone(make: Make) -> None:
    app = make(external_url=None, hosts=frozenset({"pgproxy.example"}), oidc=False)
    async with browser(app, "http://127.0.0.1:8432") as web:
        response = await web.post(
            "/login", data={"token": BOB.token}, headers={"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        )
        assert response.status_code == 303
        assert response.headers["set-cookie"].startswith("pgproxy=")
        assert "Secure" not in response.headers["set-cookie"]
        assert (await web.get("/v1/me")).status_code == 200
    async with browser(app, "http://pgproxy.example") as web:
        response = await web.post("/login", data={"token": BOB.token}, headers=SAME)
        assert (response.status_code, "set-cookie" in response.headers) == (400, False)
        assert "TLS" in message(response)


# sessions and the API


async def test_a_session_decides_as_console_and_only_with_its_own_token(web: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request())
    await log_in(web)
    path, body = f"/v1/approvals/{opened.id}/decision", {"decision": "approve"}
    good = await csrf(web)
    async with browser(web._transport.app) as other:  # type: ignore[attr-defined]
        await log_in(other, CAROL)
        foreign = await csrf(other)
    for headers in (
        {},
        SAME,
        {**good, "X-CSRF-Token": "x"},
        {**good, "X-CSRF-Token": "\u00e9"},
        foreign,
        {**good, "Sec-Fetch-Site": "cross-site"},
        {**good, "Sec-Fetch-Site": "same-site"},
        {**good, "Origin": "https://evil.example"},
        {"X-CSRF-Token": good["X-CSRF-Token"]},
        {"X-CSRF-Token": good["X-CSRF-Token"], "Origin": "null"},
    ):
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        assert (await web.post(path, json=body, headers=raw)).status_code == 403, headers
    assert await store.status(opened.id) == "pending"
    decided = await web.post(path, json=body, headers=good)
    assert decided.status_code == 200
    assert decided.json()["decisions"][0]["via"] == "console"


async def test_reading_across_sites_is_refused(web: httpx.AsyncClient) -> None:
    await log_in(web)
    assert (await web.get("/v1/approvals", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_a_bearer_token_needs_no_protection_and_goes_first(web: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request())
    await log_in(web, DAVE)
    headers = {"Authorization": f"Bearer {BOB.token}"}
    decided = await web.post(f"/v1/approvals/{opened.id}/decision", json={"decision": "approve"}, headers=headers)
    assert decided.json()["decisions"][0]["via"] == "api"
    bad = await web.get("/v1/approvals", headers={"Authorization": "Bearer nobody"})
    assert bad.status_code == 401  # no falling back to the cookie


async def test_two_cookies_of_one_name_are_none(web: httpx.AsyncClient) -> None:
    await log_in(web)
    secret = web.cookies[SESSION]
    web.cookies.clear()
    for value, status in ((f"{SESSION}={secret}", 200), (f"{SESSION}={secret}; {SESSION}={secret}", 401)):
        assert (await web.get("/v1/me", headers={"Cookie": value})).status_code == status
    for name in ("pgproxy", "__host-pgproxy"):  # what a subdomain, or plain HTTP, could plant
        assert (await web.get("/v1/me", headers={"Cookie": f"{name}={secret}"})).status_code == 401


async def test_logging_out_ends_the_session(web: httpx.AsyncClient) -> None:
    await log_in(web)
    secret = web.cookies[SESSION]
    headers = await csrf(web)
    assert (await web.post("/logout", headers=SAME)).status_code == 403
    assert (await web.post("/logout", data={"csrf_token": headers["X-CSRF-Token"]})).status_code == 403
    assert (await web.get("/v1/me")).status_code == 200
    response = await web.post("/logout", data={"csrf_token": headers["X-CSRF-Token"]}, headers=SAME)
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert SESSION not in web.cookies
    assert (await web.get("/v1/me", headers={"Cookie": f"{SESSION}={secret}"})).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        "expires_at = clock_timestamp() - interval '1 second'",
        "last_seen_at = clock_timestamp() - interval '8 hours 1 second'",
        "revoked_at = clock_timestamp()",
    ],
)
async def test_sessions_come_to_an_end(web: httpx.AsyncClient, store: Store, change: str) -> None:
    await log_in(web)
    await store.pool.execute(f"UPDATE approvals.web_sessions SET {change}")
    assert (await web.get("/v1/me")).status_code == 401
    response = await web.get("/page?a=b")
    assert (response.status_code, response.headers["location"]) == (303, "/login?next=%2Fpage%3Fa%3Db")


async def test_use_keeps_a_session_from_being_idle(web: httpx.AsyncClient, store: Store) -> None:
    await log_in(web)
    await store.pool.execute("UPDATE approvals.web_sessions SET last_seen_at = clock_timestamp() - interval '7 hours'")
    assert (await web.get("/v1/me")).status_code == 200
    idle = await store.pool.fetchval("SELECT clock_timestamp() - last_seen_at FROM approvals.web_sessions")
    assert idle.total_seconds() < 60


async def test_who_is_removed_or_gets_another_token_is_out(web: httpx.AsyncClient, store: Store) -> None:
    await log_in(web)
    await sync_reviewers(store.pool, [spec for spec in EVERYBODY if spec is not BOB])
    assert (await web.get("/v1/me")).status_code == 401
    await sync_reviewers(store.pool, EVERYBODY)
    assert (await web.get("/v1/me")).status_code == 200
    await sync_reviewers(store.pool, [replace(BOB, roles=["auditor"])])
    assert (await web.get("/v1/me")).json()["roles"] == ["auditor"]
    await sync_reviewers(store.pool, [replace(BOB, token="another-token-0123456789")])
    assert (await web.get("/v1/me")).status_code == 401


async def test_an_administrator_sees_and_ends_logins(web: httpx.AsyncClient) -> None:
    await log_in(web)
    auditor, admin = ({"Authorization": f"Bearer {spec.token}"} for spec in (DAVE, CAROL))
    async with browser(web._transport.app) as api:  # type: ignore[attr-defined]
        (login,) = (await api.get("/v1/logins", headers=auditor)).json()["items"]
        assert (login["name"], login["by"]) == (BOB.name, "token")
        assert web.cookies[SESSION] not in str(login)
        path = f"/v1/logins/{login['id']}"
        assert (await api.delete(path, headers=auditor)).status_code == 403
        assert (await api.delete(path, headers=admin)).status_code == 204
        assert (await api.delete(path, headers=admin)).status_code == 404
        assert (await api.get("/v1/logins", headers=admin)).json()["items"] == []
    assert (await web.get("/v1/me")).status_code == 401


async def test_an_event_stream_ends_with_its_session(make: Make, store: Store) -> None:
    app = make()
    async with browser(app) as web:
        await log_in(web)
        session = app.state.web_sessions
        secret = web.cookies[SESSION]

        async def still_valid() -> bool:
            return await session.find(secret, touch=False) is not None

        frames = app.state.stream.frames(None, still_valid)
        assert b"connected" in await anext(frames)
        following = asyncio.ensure_future(anext(frames, None))
        await app.state.stream.recheck()
        assert not following.done()
        await session.end(secret)
        await app.state.stream.recheck()
        assert await asyncio.wait_for(following, 10) is None


async def test_an_event_stream_over_http_ends_when_its_reviewer_is_removed(make: Make, store: Store) -> None:
    app = make()
    app.state.stream._recheck_s = 0.05
    async with serve(app, "127.0.0.1", 0) as server, httpx.AsyncClient() as api:
        url = f"http://127.0.0.1:{server.port}/v1/approvals/events"
        async with api.stream("GET", url, headers={"Authorization": f"Bearer {BOB.token}"}) as response:
            chunks = response.aiter_bytes()
            assert b"connected" in await anext(chunks)
            await sync_reviewers(store.pool, [CAROL])
            async with asyncio.timeout(10):
                assert [chunk async for chunk in chunks] == []


# the provider's way


async def test_logging_in_at_the_provider(web: httpx.AsyncClient, provider: FakeProvider, store: Store) -> None:
    provider.user["groups"] = ["dba", "other"]
    response = await log_in_oidc(web, provider, next="/page")
    assert (response.status_code, response.headers["location"]) == (303, "/page"), response.text
    me = (await web.get("/v1/me")).json()
    assert (me["name"], me["groups"], me["roles"]) == ("bob@example.com", ["dba", "other"], ["reviewer"])
    assert me["auth_time"] is None  # the provider did not say
    assert ATTEMPT not in web.cookies
    opened = await store.gateway.open(request())
    decided = await web.post(
        f"/v1/approvals/{opened.id}/decision", json={"decision": "approve"}, headers=await csrf(web)
    )
    assert decided.status_code == 200


async def test_a_client_without_a_secret_has_pkce(web: httpx.AsyncClient, provider: FakeProvider, make: Make) -> None:
    provider.client_secret, provider.user["groups"] = None, ["dba"]
    async with browser(make()) as web:
        assert (await log_in_oidc(web, provider)).headers["location"] == "/"


async def test_what_the_provider_is_asked(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    first, second = [
        parse_qs(urlsplit(url).query) for url in (await start(web), await start(web, max_age=0, next="/page"))
    ]
    assert first["redirect_uri"] == [f"{ORIGIN}/oidc/callback"]
    assert first["scope"] == ["openid email profile"]
    assert "max_age" not in first
    assert second["max_age"] == ["0"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(first[name][0]) == 43
        assert first[name] != second[name]


async def test_a_response_counts_once(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    provider.user["groups"] = ["dba"]
    back = provider.authorize(await start(web))
    attempt = web.cookies[ATTEMPT]
    assert (await web.get(back)).status_code == 303
    again = await web.get(back)
    assert (again.status_code, "not begun in this browser" in message(again)) == (403, True)
    web.cookies.set(ATTEMPT, attempt, domain="pgproxy.example", path="/")
    assert (await web.get(back)).status_code == 403  # the provider takes a code once


async def test_a_completed_state_does_not_count_again(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    """Even where a provider would exchange a code twice."""
    provider.user["groups"] = ["dba"]
    url = await start(web)
    attempt = web.cookies[ATTEMPT]
    assert (await web.get(provider.authorize(url))).status_code == 303
    web.cookies.clear()
    web.cookies.set(ATTEMPT, attempt, domain="pgproxy.example", path="/")
    response = await web.get(provider.authorize(url))
    assert (response.status_code, message(response)) == (403, "This login was completed before.")
    assert SESSION not in web.cookies


async def test_a_response_begun_elsewhere_is_refused(
    web: httpx.AsyncClient, make: Make, provider: FakeProvider
) -> None:
    """Login CSRF: the attacker's own response, opened in the victim's browser."""
    provider.user["groups"] = ["dba"]
    async with browser(make()) as attacker:
        back = provider.authorize(await start(attacker))
    assert (await web.get(back)).status_code == 403
    await start(web)
    response = await web.get(back)
    assert (response.status_code, "not begun in this browser" in message(response)) == (403, True)
    assert SESSION not in web.cookies


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "of another login"}, "of another login"),
        ({"nonce": None}, "of another login"),
        ({"aud": "another client"}, "another audience"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"exp": 1}, "expired"),
        ({"email_verified": False}, "no verified e-mail address"),
        ({"email_verified": None}, "no verified e-mail address"),
        ({"groups": ["unknown"]}, "no role here"),
        ({"gty": "client-credentials"}, "program"),
    ],
)
async def test_id_tokens_that_log_nobody_in(
    web: httpx.AsyncClient, provider: FakeProvider, claims: dict[str, Any], reason: str
) -> None:
    provider.user["groups"] = ["dba"]
    provider.claims = claims
    response = await log_in_oidc(web, provider)
    assert (response.status_code, reason in message(response)) == (403, True), response.text
    assert SESSION not in web.cookies


@pytest.mark.parametrize("change", ["state=x", "iss=https%3A%2F%2Fevil.example", "state=", "code=stolen"])
async def test_a_changed_response_is_refused(web: httpx.AsyncClient, provider: FakeProvider, change: str) -> None:
    provider.user["groups"] = ["dba"]
    back = provider.authorize(await start(web))
    name = change.partition("=")[0]
    for url in (re.sub(rf"([?&]){name}=[^&]*", rf"\g<1>{change}", back), f"{back}&{change}"):
        assert (await web.get(url)).status_code == 403
    assert SESSION not in web.cookies


async def test_the_providers_refusal_is_told(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    back = provider.authorize(await start(web))
    state = parse_qs(urlsplit(back).query)["state"][0]
    response = await web.get("/oidc/callback", params={"error": "<b>access_denied", "state": state})
    assert response.status_code == 403
    assert "<b>" not in response.text


async def test_a_fresh_login_can_be_asked_for(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    provider.user["groups"] = ["dba"]
    assert (await log_in_oidc(web, provider, max_age=60)).status_code == 303
    assert (await web.get("/v1/me")).json()["auth_time"]
    for claims in ({"auth_time": 1_000_000_000}, {"auth_time": None}):
        provider.claims = claims
        assert (await log_in_oidc(web, provider, max_age=60)).status_code == 403


async def test_a_provider_that_is_away(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    provider.is_down = True
    response = await web.get("/oidc/start")
    assert (response.status_code, 'name="token"' in response.text) == (503, True)


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example"),
        *("/\t/evil.example", "/\n/evil.example", "javascript:alert(1)", "evil.example", " //evil.example"),
        *("/é", "", "/" + "a" * 3000, "/login", "/logout?x", "/oidc/start?next=/", "/v1/me", "/static/x"),
    ],
)
def test_what_is_no_place_to_go_to(target: str) -> None:
    assert own_path(target) == "/"


def test_places_to_go_to() -> None:
    for target in ("/", "/page", "/page?a=b&c=%2F", "/loginx", "/page#part", "/a//b"):
        assert own_path(target) == target


async def test_nobody_is_sent_anywhere_else(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    provider.user["groups"] = ["dba"]
    for target in ("//evil.example", "/\\evil.example", "https://evil.example/"):
        assert (await log_in_oidc(web, provider, next=target)).headers["location"] == "/"
        assert (await web.get("/login", params={"next": target})).headers["location"] == "/"
        assert (await log_in(web, next=target)).headers["location"] == "/"
    back = provider.authorize(await start(web))
    own = Attempt.from_cookie(web.cookies[ATTEMPT])
    assert own is not None
    changed = replace(own, target="//evil.example").to_cookie()
    web.cookies.delete(ATTEMPT)
    web.cookies.set(ATTEMPT, changed, domain="pgproxy.example", path="/")
    assert (await web.get(back)).headers["location"] == "/"


# who it is


async def test_a_linked_identity_is_the_reviewer(web: httpx.AsyncClient, provider: FakeProvider, store: Store) -> None:
    await sync_reviewers(store.pool, [ALICE, replace(LINKED_BOB, name="Bob", roles=["auditor"])])
    provider.user["groups"] = ["dba"]
    await log_in_oidc(web, provider)
    me = (await web.get("/v1/me")).json()
    assert (me["name"], me["roles"], me["groups"]) == ("Bob", ["auditor"], ["dba"])
    await sync_reviewers(store.pool, [ALICE])
    assert (await web.get("/v1/me")).status_code == 401, "removed, although the claims alone would give a role"


async def test_a_linked_identity_does_not_decide_its_own_request(
    web: httpx.AsyncClient, provider: FakeProvider, store: Store
) -> None:
    await sync_reviewers(store.pool, [replace(LINKED_BOB, name="Robert")])
    provider.user["groups"] = ["dba"]
    await log_in_oidc(web, provider)
    headers = await csrf(web)
    for owner in ("robert", "BOB@example.com", "\uff42ob@example.com", "u-bob", "U1"):
        opened = await store.gateway.open(request(owner=owner))
        path = f"/v1/approvals/{opened.id}/decision"
        assert (await web.post(path, json={"decision": "approve"}, headers=headers)).status_code == 403, owner


async def test_nobody_becomes_a_reviewer_by_name_alone(
    web: httpx.AsyncClient, provider: FakeProvider, store: Store
) -> None:
    """A namesake has what the claims give, on the reviewer's own record, so that no second vote counts."""
    await sync_reviewers(store.pool, [replace(CAROL, name="Bob@Example.com")])
    assert (await log_in_oidc(web, provider)).status_code == 403
    provider.user["groups"] = ["dba"]
    await log_in_oidc(web, provider)
    me = (await web.get("/v1/me")).json()
    assert (me["name"], me["roles"], me["groups"]) == ("Bob@Example.com", ["reviewer"], ["dba"])
    await sync_reviewers(store.pool, [replace(CAROL, name="bob@example.com", identities={"oidc": "u-carol"})])
    assert (await web.get("/v1/me")).status_code == 401
    assert "another identity" in message(await log_in_oidc(web, provider))


async def test_two_channels_are_one_vote(web: httpx.AsyncClient, provider: FakeProvider, store: Store) -> None:
    await sync_reviewers(store.pool, [replace(LINKED_BOB, token=BOB.token)])
    provider.user["groups"] = ["dba"]
    await log_in_oidc(web, provider)
    opened = await store.gateway.open(request(required_approvals=2))
    path, body = f"/v1/approvals/{opened.id}/decision", {"decision": "approve"}
    assert (await web.post(path, json=body, headers=await csrf(web))).status_code == 200
    again = await web.post(path, json=body, headers={"Authorization": f"Bearer {BOB.token}"})
    assert again.status_code == 409
    jwt = {"Authorization": f"Bearer {provider.token()}"}
    assert (await web.post(path, json=body, headers=jwt)).status_code == 409


# bearer JWTs


async def test_a_jwt_is_a_bearer_token(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    async def me(token: str) -> httpx.Response:
        return await web.get("/v1/me", headers={"Authorization": f"Bearer {token}"})

    found = (await me(provider.token(groups=["dba"]))).json()
    assert (found["name"], found["via"], found["roles"], found["csrf_token"]) == (
        "bob@example.com",
        "api",
        ["reviewer"],
        None,
    )
    for token, reason in (
        (provider.token(aud="other"), "the token is for another audience"),
        (provider.token(exp=1), "the token has expired"),
        (provider.token(email_verified=False, name="Bob"), "no verified e-mail address"),
    ):
        response = await me(token)
        assert response.status_code == 401
        assert reason in response.json()["detail"]
        assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_who_has_no_role_sees_nothing(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    headers = {"Authorization": f"Bearer {provider.token()}"}
    assert (await web.get("/v1/me", headers=headers)).json()["roles"] == []
    for path in ("/v1/approvals", "/v1/approvals/events", "/v1/audit", "/v1/sessions", "/v1/grants", "/v1/logins"):
        assert (await web.get(path, headers=headers)).status_code == 403, path


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "robot", "azp": "robot", "email": None},
        {"sub": "x", "client_id": "svc", "email": None, "email_verified": None},
        {"idtyp": "app"},
        {"gty": "client-credentials"},
        {"preferred_username": "service-account-ci"},
    ],
)
async def test_a_programs_token_never_decides(
    web: httpx.AsyncClient, provider: FakeProvider, store: Store, claims: dict[str, Any]
) -> None:
    opened = await store.gateway.open(request())
    headers = {"Authorization": f"Bearer {provider.token(groups=['dba'], **claims)}"}
    assert (await web.get("/v1/me", headers=headers)).json()["machine"] is True
    path = f"/v1/approvals/{opened.id}/decision"
    response = await web.post(path, json={"decision": "approve"}, headers=headers)
    assert (response.status_code, "machine" in response.json()["detail"]) == (403, True)


async def test_unverified_tokens_do_not_get_in_while_the_provider_is_away(
    web: httpx.AsyncClient, provider: FakeProvider
) -> None:
    provider.is_down = True
    response = await web.get("/v1/me", headers={"Authorization": f"Bearer {provider.token(groups=['dba'])}"})
    assert response.status_code == 503


async def test_sessions_of_another_issuer_are_over(make: Make, provider: FakeProvider) -> None:
    provider.user["groups"] = ["dba"]
    async with browser(make()) as web, browser(make(oidc=False)) as later:
        await log_in_oidc(web, provider)
        later.cookies = web.cookies
        assert (await later.get("/v1/me")).status_code == 401


# hosts and headers


HOSTS = [
    ("pgproxy.example", 200),
    ("PGPROXY.example:443", 200),
    ("localhost:8432", 200),
    ("127.0.0.1:8432", 200),
    ("[::1]:8432", 200),
    ("evil.example", 421),
    ("127.0.0.1.evil.example", 421),
    ("localhost.evil.example:8432", 421),
    ("10.1.2.3", 421),
    ("", 421),
    ("user@localhost", 421),
    ("localhost:x", 421),
    ("localhost/evil", 421),
]


async def test_foreign_hosts_are_refused(web: httpx.AsyncClient) -> None:
    for host, status in HOSTS:
        for path in ("/login", "/openapi.json"):
            assert (await web.get(path, headers={"Host": host})).status_code == status, host
        assert (await web.get("/healthz", headers={"Host": host})).status_code == 200


async def test_on_every_address_an_address_is_no_foreign_host(make: Make) -> None:
    async with browser(make(any_ip=True)) as web:
        assert (await web.get("/login", headers={"Host": "10.1.2.3:8432"})).status_code == 200
        assert (await web.get("/login", headers={"Host": "evil.example"})).status_code == 421


async def test_the_login_page_is_strict(web: httpx.AsyncClient, provider: FakeProvider) -> None:
    response = await web.get("/login", params={"next": '/x"><script>'})
    assert response.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["form-action"] == f"'self' {provider.issuer}"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["cache-control"] == "no-store"
    assert "max-age" in response.headers["strict-transport-security"]
    assert "<script" not in response.text
    assert not re.search(r"<style|\sstyle=|\son\w+=", response.text)
    assert '<label for="token">' in response.text
    sheet = re.search(r'href="(/static/[^"]+\.css)"', response.text)
    assert sheet is not None
    style = await web.get(sheet[1])
    assert (style.status_code, "immutable" in style.headers["cache-control"]) == (200, True)
    for path in ("/static/x/base.css", "/static/x/..%2fbase.css", sheet[1].replace("base.css", "%2e%2e%2flogin.py")):
        assert (await web.get(path)).status_code == 404


async def test_refusals_carry_the_headers_too(web: httpx.AsyncClient) -> None:
    for path in ("/nowhere", "/v1/approvals"):
        response = await web.get(path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
