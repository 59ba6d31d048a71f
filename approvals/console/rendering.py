"""Pages from templates."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from approvals.console.assets import asset_url

_environment = Environment(
    loader=PackageLoader("approvals.console"),
    autoescape=True,
    undefined=StrictUndefined,  # a name that is not given is a mistake, not an empty place
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["asset"] = asset_url


def page(template: str, status: int = 200, *, headers: dict[str, str] | None = None, **values: Any) -> HTMLResponse:
    """A whole page. `base.html` needs `title`, `reviewer` (None before the login) and `csrf_token`."""
    values = {"reviewer": None, "csrf_token": None, **values}
    return HTMLResponse(_environment.get_template(template).render(values), status, headers=headers)
