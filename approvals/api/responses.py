"""Answers in JSON that no stored text can break, and one shape for every error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from approvals.api.schemas import InvalidRequest, Problem
from approvals.documents import encode_bytes
from approvals.errors import ApprovalError

log = logging.getLogger("pgproxy.approvals")

MAX_BODY_BYTES = 16 * 1024 * 1024
"""A statement to classify is the largest thing sent here; the proxy's own limits on statements come first."""

Documented = dict[int | str, dict[str, Any]]


class Json(Response):
    media_type = "application/json"

    def __init__(self, content: Any, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status_code, headers)

    def render(self, content: Any) -> bytes:
        return encode_bytes(content)


_PROBLEMS = {
    401: ("No token, or one that is not known.", "the token is not known"),
    403: ("This person may not do this.", "nobody decides their own request: you own this agent"),
    404: ("There is no such thing.", "no such approval"),
    405: ("Not with this method.", "Method Not Allowed"),
    409: (
        "No longer possible: it has been decided, has ended, or you have voted.",
        "the approval is denied, no longer pending",
    ),
    413: ("The body is too large.", "the body is too large"),
    503: (
        "The store, or the identity provider, does not answer; nothing was decided.",
        "the approval store did not answer",
    ),
}
_INVALID = {"detail": [{"loc": ["body", "decision"], "msg": "Field required", "type": "missing"}]}


def problems(*codes: int) -> Documented:
    """The error answers of a route, for OpenAPI; 422 has its own model."""
    documented: Documented = {}
    for code in codes:
        if code == 422:
            documented[code] = _answer(InvalidRequest, "The request is not understood, or not possible.", _INVALID)
        else:
            description, detail = _PROBLEMS[code]
            documented[code] = _answer(Problem, description, {"detail": detail})
    return documented


def shown(example: Any, status: int = 200) -> Documented:
    """An example of a route's good answer, for OpenAPI."""
    return {status: {"content": {"application/json": {"example": example}}}}


def _answer(model: type[BaseModel], description: str, example: Any) -> dict[str, Any]:
    return {"model": model, "description": description, "content": {"application/json": {"example": example}}}


async def answer_error(request: Request, error: Exception) -> Response:
    """Any error as the API answers it."""
    if isinstance(error, ApprovalError):
        return await _approval_error(request, error)
    if isinstance(error, RequestValidationError):
        return await _invalid_request(request, error)
    if isinstance(error, HTTPException):
        return await _http_exception(request, error)
    return await _unexpected(request, error)


def handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(ApprovalError, _approval_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)


async def _approval_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApprovalError)
    return Json({"detail": str(error)}, error.http_status)


async def _invalid_request(_: Request, error: Exception) -> Response:
    """Without the input: it is the client's own, may be large, and may be what JSON cannot hold."""
    assert isinstance(error, RequestValidationError)
    detail = [{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in error.errors()[:20]]
    return Json({"detail": detail}, 422)


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # The framework's 400 means that the body could not be read as JSON: to the client, a bad body like any
    # other.
    status = 422 if error.status_code == 400 else error.status_code
    return Json({"detail": error.detail}, status, headers=error.headers)


async def _unexpected(_: Request, error: Exception) -> Response:
    log.error("request failed error=%s", type(error).__name__, exc_info=error)
    return Json({"detail": "internal error"}, 500)


class BodyLimit:
    """Answers 413 as soon as a body exceeds the limit, announced or not."""

    def __init__(self, app: ASGIApp, limit_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise HTTPException(413, "the body is too large", {"Connection": "close"})
            return message

        await self._app(scope, limited, send)
