"""The application: services in, routes, middleware and error handling around them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import FastAPI

from approvals.api import administration, insight, integrations, notifications, people, probes, reviewing
from approvals.api.authentication import Authentication, Authenticator
from approvals.api.responses import BodyLimit, handle_errors
from approvals.api.stream import EventStream
from approvals.api.web import WebGuard, WebOptions, origin_of
from approvals.console import assets, frame, login, pages
from approvals.identity.websessions import WebSessions

if TYPE_CHECKING:
    from approvals.gathering import Gatherer
    from approvals.identity.oidc import Oidc
    from approvals.notify.ports import SlackEndpoint, TeamsEndpoint
    from approvals.ports import (
        AuditReader,
        Classifier,
        MetricsText,
        PolicyExplainer,
        PolicyJudge,
        Readiness,
        Reloader,
        SessionDirectory,
    )
    from approvals.store import Pool
    from approvals.wakeups import Wakeups

log = logging.getLogger("pgproxy.approvals")


@dataclass(frozen=True, slots=True)
class Services:
    """What the API works with. The caller keeps `wakeups.run()` running and closes the pool after the API. Without a
    judge no statement can be modified; without a gatherer no context is gathered when asked."""

    pool: Pool
    wakeups: Wakeups
    classifier: Classifier
    audit: AuditReader
    sessions: SessionDirectory
    metrics: MetricsText
    readiness: Readiness
    reloader: Reloader
    version: str = "0.1.0"
    judge: PolicyJudge | None = None
    explainer: PolicyExplainer | None = None
    web: WebOptions = field(default_factory=WebOptions)
    oidc: Oidc | None = None
    slack: SlackEndpoint | None = None
    teams: TeamsEndpoint | None = None
    gatherer: Gatherer | None = None


def create_app(services: Services) -> FastAPI:
    """The ASGI application. Its lifespan follows the outbox for the event stream; `serve` takes care of
    both."""
    stream = EventStream(services.pool, services.wakeups)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.get_running_loop().create_task(stream.run())
        following.add_done_callback(_note_end)
        try:
            yield
        finally:
            stream.close()
            following.cancel()
            await asyncio.wait({following})

    def _note_end(following: asyncio.Task[None]) -> None:
        if not following.cancelled():
            # Clients that are told nothing any more must not believe that nothing happens.
            log.error("event stream ended by itself", exc_info=following.exception())
            stream.close()

    app = FastAPI(
        title="pgproxy",
        version=services.version,
        summary="Privileged PostgreSQL statements, their approval and their evidence.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.stream = stream
    oidc = services.oidc
    app.state.web_sessions = WebSessions(
        services.pool,
        issuer=oidc.issuer if oidc else None,
        claims=oidc.claims if oidc else None,
        idle_s=services.web.idle_s,
        absolute_s=services.web.absolute_s,
    )
    own = (reviewing, administration, notifications, insight, people, probes, integrations, login, assets)
    for module in (*pages.MODULES, *own):
        app.include_router(module.router)
    handle_errors(app)
    frame.handle_page_errors(app)
    login.prepare(app)
    authenticator = Authenticator(services.pool, app.state.web_sessions, services.web, oidc)
    app.add_middleware(BodyLimit)
    app.add_middleware(Authentication, authenticator=authenticator)
    # Chromium holds the redirects after a form to form-action as well ("Content Security Policy", form-action).
    targets = (origin_of(oidc.issuer),) if oidc else ()
    app.add_middleware(WebGuard, options=services.web, form_targets=targets)
    return app
