"""What differs between two configurations, and what of it a running pgproxy can take up. Pure; names, never values.

What is named in `FIXED` is held by sockets, processes or connections that outlive a reload; everything else is live.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pgproxy.config import Settings
from pgproxy.document import Place, dotted

FIXED: tuple[Place, ...] = (
    ("listen",),
    ("api",),
    ("tls", "mode"),
    ("upstream",),
    ("auth", "mode"),
    ("notifiers",),
    ("store",),
    ("data_dir",),
    ("workers",),
    ("analysers",),
)

_BY_NAME = ("agents", "reviewers")


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """As people write them, in the order of the configuration; of agents and reviewers, who: `agents[etl-bot]`."""
    return [_written(place) for place in _differences(old, new, ())]


def fixed_keys(old: Settings, new: Settings) -> list[str]:
    """Those that differ and need a restart."""
    return [
        _written(place) for place in _differences(old, new, ()) if any(place[: len(fixed)] == fixed for fixed in FIXED)
    ]


def with_fixed(old: Settings, new: Settings) -> Settings:
    """The new one as far as it can be taken up now, for the rest the old one."""
    taken: dict[str, Any] = {}
    for place in FIXED:
        if len(place) == 1:
            taken[str(place[0])] = getattr(old, str(place[0]))
        else:
            section, key = (str(part) for part in place)
            kept = {key: getattr(getattr(old, section), key)}
            taken[section] = getattr(new, section).model_copy(update=kept)
    return new.model_copy(update=taken)


def _written(place: Place) -> str:
    if len(place) == 2 and place[0] in _BY_NAME:
        return f"{place[0]}[{place[1]}]"
    return dotted(place)


def _differences(old: Any, new: Any, place: Place) -> Iterator[Place]:
    if old == new:
        return
    if isinstance(old, BaseModel) and type(old) is type(new) and _is_section(old):
        for name in type(old).model_fields:
            yield from _differences(getattr(old, name), getattr(new, name), (*place, name))
    elif len(place) == 1 and place[0] in _BY_NAME:
        before, after = ({entry.name: entry for entry in entries} for entries in (old, new))
        if before == after:
            yield place  # their order
        for name in dict.fromkeys((*before, *after)):
            if before.get(name) != after.get(name):
                yield (*place, name)
    else:
        yield place


def _is_section(model: BaseModel) -> bool:
    """Rather than a value that is written as one text (an address, a DSN)."""
    return type(model).__name__ not in ("Address", "Dsn")
