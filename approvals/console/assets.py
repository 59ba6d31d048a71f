"""Scripts and styles, served from memory under names that carry their content's hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from approvals.errors import NotFound

router = APIRouter(include_in_schema=False)

_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
    "webmanifest": "application/manifest+json",
}

_IMPORT = re.compile(rb'from "\./([a-z]+\.js)"')


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the folder, by name. What has no type known here is not served."""
    found: dict[str, Asset] = {}
    contents = {entry.name: entry.read_bytes() for entry in (files("approvals.console") / "static").iterdir()}

    def add(name: str) -> Asset:
        if name not in found:
            media_type = _TYPES[name.rpartition(".")[2]]
            # A module names another by its file; what it is served under changes with what it holds.
            content = _IMPORT.sub(lambda match: _imported(match, add), contents[name])
            found[name] = Asset(content, media_type, hashlib.sha256(content).hexdigest()[:16])
        return found[name]

    for name in contents:
        if name.rpartition(".")[2] in _TYPES:
            add(name)
    return found


def _imported(match: re.Match[bytes], add: Callable[[str], Asset]) -> bytes:
    name = match[1].decode()
    return f'from "/static/{add(name).digest}/{name}"'.encode()


def asset_url(name: str) -> str:
    """For templates. Raises KeyError for a file that is not there, rather than a page without its script."""
    return f"/static/{assets()[name].digest}/{name}"


@router.get("/static/{digest}/{name}")
async def asset(digest: str, name: str) -> Response:
    """One file; under the hash of other content there is none, so a browser may keep it for good."""
    found = assets().get(name)
    if found is None or found.digest != digest:
        raise NotFound("no such file")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Cross-Origin-Resource-Policy": "same-origin"}
    return Response(found.content, media_type=found.media_type, headers=headers)
