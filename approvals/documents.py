"""JSON that any agent's text survives: lone surrogates, NUL and non-finite numbers never raise, on the way
in or out."""

from __future__ import annotations

import json
import math
from typing import Any


def encode(value: Any) -> str:
    """JSON in ASCII, valid for PostgreSQL's `json` type. Non-finite numbers, which JSON lacks, become text;
    what is nested too deeply to be written says so in its place."""
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, default=str)
    except RecursionError:
        return json.dumps("(nested too deeply to be kept)")


def encode_bytes(value: Any) -> bytes:
    return encode(value).encode("ascii")


def decode(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


def storable(text: str) -> str:
    """For `text` columns, which refuse NUL and lone surrogates: those become U+FFFD. Only for what is
    searched by or chosen by the operator; what an agent sent is kept exactly, as JSON."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
