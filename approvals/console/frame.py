"""What every page behind the login has around it: navigation, the person, problems as pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from approvals.api.responses import answer_error
from approvals.console.login import LoginRequired, page_session
from approvals.console.rendering import page
from approvals.errors import ApprovalError, Forbidden, Unsupported
from approvals.model import Reviewer

_MOST = 1000

PAGES = (
    ("/", "Requests", frozenset({"reviewer", "auditor", "admin"})),
    ("/grants", "Grants", frozenset({"reviewer", "auditor", "admin"})),
    ("/sessions", "Sessions", frozenset({"auditor", "admin"})),
    ("/audit", "Audit", frozenset({"reviewer", "auditor", "admin"})),
    ("/policy", "Policy", frozenset({"reviewer", "auditor", "admin"})),
    ("/charts", "Charts", frozenset({"reviewer", "auditor", "admin"})),
)
"""Path, name, and whose roles may read it."""


async def framed(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page for the person of the session. Rendered in a thread: a statement may be megabytes, and the loop serves
    everybody."""
    reviewer: Reviewer = request.state.reviewer
    here = request.url.path
    return await asyncio.to_thread(
        page,
        template,
        status,
        headers={"Vary": "Accept"},
        reviewer=reviewer,
        csrf_token=request.state.csrf_token,
        may_oversee=not reviewer.roles.isdisjoint({"auditor", "admin"}),
        pages=[
            {"path": path, "name": name, "is_here": here == path or (path != "/" and here.startswith(path + "/"))}
            for path, name, roles in PAGES
            if not reviewer.roles.isdisjoint(roles)
        ],
        **values,
    )


def require(reviewer: Reviewer, *roles: str) -> None:
    """Raises Forbidden for whoever has none of them."""
    if reviewer.roles.isdisjoint(roles):
        raise Forbidden(f"this needs the role {' or '.join(roles)}")


def filters_of(request: Request, names: Sequence[str]) -> dict[str, str]:
    """The query's values for these names; empty ones are not given.

    Raises:
        Unsupported
    """
    found = {}
    for name in names:
        value = request.query_params.get(name, "").strip()
        if "\0" in value or len(value) > _MOST:
            raise Unsupported(f"{name}: not a text that is looked for")
        if value:
            found[name] = value
    return found


def handle_page_errors(app: FastAPI) -> None:
    """To be called after the API's own handlers: what a browser navigates to ends as a page, all else as there."""
    for kind in (ApprovalError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _problem)


async def _problem(request: Request, error: Exception) -> Response:
    answer = await answer_error(request, error)
    if request.url.path.startswith("/v1/") or "text/html" not in request.headers.get("accept", ""):
        return answer
    try:
        await page_session(request)
    except (LoginRequired, ApprovalError):
        return answer
    text = str(error) if isinstance(error, ApprovalError) else _PLAIN.get(answer.status_code, "Something went wrong.")
    return await framed(request, "problem.html", answer.status_code, title="Not possible", message=text)


_PLAIN = {404: "There is no such page.", 405: "Not this way.", 413: "This is too large.", 422: "Not understood."}
