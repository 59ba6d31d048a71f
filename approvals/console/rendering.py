"""Pages from templates."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from approvals.console.assets import asset_url
from approvals.console.sqltext import cut, highlight, visible

_environment = Environment(
    loader=PackageLoader("approvals.console"),
    autoescape=True,
    undefined=StrictUndefined,  # a name that is not given is a mistake, not an empty place
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["asset"] = asset_url


def moment(value: str | datetime | None, kind: str = "") -> Markup:
    """A time, exact for whoever has no script; `kind` `age` or `until` makes one count. Times are the contract's."""
    if value is None:
        return Markup('<span class="none">-</span>')
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    text = when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    counting = Markup(' data-count="{}"').format(kind) if kind else Markup("")
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), text, counting, text
    )


def label(key: object) -> str:
    """A key of a document as words."""
    return str(key).replace("_", " ")


def pretty(value: Any) -> str:
    """A document as text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def is_table(value: Any) -> bool:
    """Whether a value is a list of flat documents."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """Every key of any of them once, in the order they come."""
    return list(dict.fromkeys(key for row in rows for key in row))


def bytes_(count: int) -> str:
    return f"{count:,} bytes".replace(",", "\N{NARROW NO-BREAK SPACE}")


_environment.filters |= {
    "bytes": bytes_,
    "columns": columns,
    "cut": cut,
    "label": label,
    "moment": moment,
    "pretty": pretty,
    "sql": highlight,
    "visible": visible,
}
_environment.tests["table"] = is_table


def page(template: str, status: int = 200, *, headers: dict[str, str] | None = None, **values: Any) -> HTMLResponse:
    """A whole page. `base.html` needs `title`, `reviewer` (None before the login) and `csrf_token`."""
    values = {"reviewer": None, "csrf_token": None, **values}
    text = _environment.get_template(template).render(values)
    # A lone surrogate, which an agent may send in JSON, is marked by `visible`; elsewhere it becomes a question mark.
    return HTMLResponse(text.encode("utf-8", "replace"), status, headers=headers)
