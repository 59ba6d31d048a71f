"""Scripts and styles, served from memory under names that carry their content's hash."""

from __future__ import annotations

import hashlib
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


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Every file of the folder, by name. What has no type known here is not served."""
    found = {}
    for entry in (files("approvals.console") / "static").iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None and entry.is_file():
            content = entry.read_bytes()
            found[entry.name] = Asset(content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return found


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
