"""A browser without scripts: pages by ASGI, a login's cookie, forms as they are on the page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from html.parser import HTMLParser

import httpx
import pytest
from fastapi import FastAPI

from approvals.api import Services, create_app
from approvals.api.web import WebOptions
from approvals.reviewers import ReviewerSpec
from tests.approvals.conftest import Store
from tests.approvals.fakes import FakeServices

ORIGIN = "https://pgproxy.example"
SAME = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
HTML = {"Accept": "text/html,application/xhtml+xml"}


class Page(HTMLParser):
    """What a page says and offers: its visible text, links, forms with their fields and buttons, tags."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__()
        self.status = response.status_code
        self.source = response.text
        self.text = ""
        self.links: list[str] = []
        self.buttons: list[str] = []
        self.fields: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._textarea: str | None = None
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        match tag:
            case "a":
                self.links.append(values.get("href") or "")
            case "button":
                self.buttons.append(values.get("value") or "")
            case "input":
                self.fields[values.get("name") or ""] = values.get("value") or ""
            case "textarea":
                self._textarea = values.get("name")
                self.fields[self._textarea or ""] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = None

    def handle_data(self, data: str) -> None:
        if self._textarea is not None:
            before = self.fields[self._textarea]
            self.fields[self._textarea] = before + data if before else data.removeprefix("\n")
        else:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@dataclass
class Browser:
    client: httpx.AsyncClient

    async def get(self, path: str) -> Page:
        return Page(await self.client.get(path, headers=HTML))

    async def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
        return await self.client.post(path, data=fields, headers=HTML | (SAME if headers is None else headers))

    async def submit(self, path: str, to: str, **fields: str) -> httpx.Response:
        """The form of a page, with its hidden fields, as a person would fill it in."""
        page = await self.get(path)
        hidden = {name: page.fields[name] for name in ("csrf_token", "sha256") if name in page.fields}
        return await self.post(to, **{**hidden, **fields})


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
def app(store: Store, services: FakeServices) -> FastAPI:
    return create_app(
        Services(
            store.pool,
            store.wakeups,
            services,
            services,
            services.sessions,
            services,
            services.readiness,
            services.reloader,
            judge=services.judge,
            explainer=services.explainer,
            web=WebOptions(external_url=ORIGIN, hosts=frozenset()),
        )
    )


@pytest.fixture
async def visit(app: FastAPI) -> AsyncIterator[Callable[..., object]]:
    """`await visit(BOB)`: a browser in which that person has logged in."""
    clients: list[httpx.AsyncClient] = []

    async def visit(spec: ReviewerSpec) -> Browser:
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN)
        clients.append(client)
        answer = await client.post("/login", data={"token": spec.token or ""}, headers=SAME)
        assert answer.status_code == 303, answer.text
        return Browser(client)

    yield visit
    for client in clients:
        await client.aclose()
