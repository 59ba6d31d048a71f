"""Forms that change something: from our own pages only, with the session's token in a hidden field."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs

from fastapi import Request

from approvals.api.web import is_same_origin
from approvals.errors import Forbidden, Unsupported

_MAX_FIELDS = 40
FIELD = "csrf_token"


async def read_form(request: Request) -> dict[str, str]:
    """The fields, empty ones left out. To be called with a session: `PageSession` comes first.

    Raises:
        Forbidden: another site's form.
        Unsupported: not a form.
    """
    if not is_same_origin(request, request.app.state.services.web):
        raise Forbidden("this form was sent from another site")
    try:
        # `parse_qs` would split at nothing but `&`; what follows is percent-encoded ("URL", urlencoded parsing).
        fields = parse_qs((await request.body()).decode("ascii"), max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise Unsupported("this form cannot be read") from error
    given = fields.pop(FIELD, [""])[-1]
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), str(request.state.csrf_token).encode()):
        raise Forbidden("this page is out of date: load it again")
    return {name: values[-1] for name, values in fields.items()}
