"""Reads the values of a document one by one and gathers everything wrong with them, each problem with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from pgproxy.policy.words import did_you_mean

Place = tuple[str | int, ...]
Finding = tuple[Place, str]
T = TypeVar("T")

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"(\d+)\s*(B|kB|MB|GB|TB)?")
_BYTES: Final = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}  # as PostgreSQL's units
_MAX_DURATION_S: Final = 30 * 86400.0
_MAX_TEXT: Final = 1_000


class RulesError(Exception):
    """A document that is no policy: every finding, in the document's order."""

    def __init__(self, findings: list[Finding]) -> None:
        super().__init__("; ".join(reason for _, reason in findings))
        self.findings = findings


class Fields:
    """One mapping of the document. Every reader gives None (or nothing) for what is not there, and for what is wrong,
    which it notes; `close` notes the keys that nobody asked for."""

    def __init__(self, value: Any, place: Place, findings: list[Finding], known: Iterable[str]) -> None:
        self.place = place
        self.findings = findings
        self._known = tuple(known)
        self._data: dict[str, Any] = {}
        self.is_mapping = isinstance(value, dict)
        if isinstance(value, dict):
            self._data = value
        else:
            self.note((), f"must be a mapping with {', '.join(self._known)}, not {_what(value)}")
        for key in self._data:
            if key not in self._known:
                self.note((str(key),), f"unknown key; {did_you_mean(str(key), self._known)}")

    def __contains__(self, key: str) -> bool:
        return self._data.get(key) is not None

    def note(self, below: Place, reason: str) -> None:
        self.findings.append(((*self.place, *below), reason))

    def raw(self, key: str) -> Any:
        return self._data.get(key)

    def section(self, key: str, known: Iterable[str]) -> Fields | None:
        value = self._data.get(key)
        return None if value is None else Fields(value, (*self.place, key), self.findings, known)

    def sections(self, key: str, known: Iterable[str]) -> list[Fields]:
        """One mapping, or a list of them."""
        value = self._data.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            return [Fields(value, (*self.place, key), self.findings, known)]
        return [Fields(item, (*self.place, key, i), self.findings, known) for i, item in enumerate(value)]

    def text(self, key: str, *, required: bool = False, limit: int = _MAX_TEXT) -> str | None:
        value = self._data.get(key)
        if value is None:
            if required:
                self.note((key,), "is required")
            return None
        if not isinstance(value, str):
            self.note((key,), f"must be text, not {_what(value)} (quote it)")
        elif not value.strip():
            self.note((key,), "is empty")
        elif len(value) > limit:
            self.note((key,), f"is longer than {limit} characters")
        else:
            return value
        return None

    def word(self, key: str, known: Iterable[str], *, required: bool = False) -> str | None:
        """One of a closed set."""
        known = tuple(known)
        value = self.text(key, required=required)
        if value is not None and value not in known:
            self.note((key,), f"{value!r} is none of them; {did_you_mean(value, known)}")
            return None
        return value

    def number(self, key: str, least: int, most: int) -> int | None:
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.note((key,), f"must be a whole number, not {_what(value)}")
        elif not least <= value <= most:
            self.note((key,), f"must be from {least} to {most}")
        else:
            return value
        return None

    def duration(self, key: str) -> float | None:
        """Seconds. `10m`, `90s`, `1.5h`."""
        value = self._data.get(key)
        if value is None:
            return None
        found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            self.note((key,), 'must be a time with its unit (ms, s, m, h, d), such as "10m"')
            return None
        seconds = float(found[1]) * _SECONDS[found[2]]
        if not 0 < seconds <= _MAX_DURATION_S:
            self.note((key,), "must be more than nothing and at most 30d")
            return None
        return seconds

    def size(self, key: str) -> int | None:
        """Bytes. `50MB`."""
        value = self._data.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            self.note((key,), 'must be a number of bytes, or one with its unit (B, kB, MB, GB, TB), such as "50MB"')
            return None
        size = int(found[1]) * _BYTES[found[2] or "B"]
        if size > 2**60:
            self.note((key,), "is more than anybody can send")
            return None
        return size

    def texts(self, key: str) -> list[tuple[Place, str]]:
        """A list of texts, or a single one; each with where it stands below this mapping."""
        value = self._data.get(key)
        if value is None:
            return []
        found: list[tuple[Place, str]] = []
        items: list[tuple[Place, Any]]
        if isinstance(value, str):
            items = [((key,), value)]
        elif isinstance(value, list):
            items = [((key, i), item) for i, item in enumerate(value)]
        else:
            self.note((key,), f"must be a list, not {_what(value)}")
            return []
        for place, item in items:
            if not isinstance(item, str):
                self.note(place, f"must be text, not {_what(item)} (quote it)")
            elif not item.strip():
                self.note(place, "is empty")
            else:
                found.append((place, item))
        return found

    def words(self, key: str, known: Iterable[str]) -> list[str]:
        """A list of words of a closed set."""
        known = tuple(known)
        found = []
        for place, word in self.texts(key):
            if word in known:
                found.append(word)
            else:
                self.note(place, f"{word!r} is none of them; {did_you_mean(word, known)}")
        return found

    def parsed(self, key: str, parse: Callable[[str], T]) -> Iterator[T]:
        """A list of texts of a notation; `parse` raises ValueError with the reason."""
        for place, item in self.texts(key):
            try:
                yield parse(item)
            except ValueError as error:
                self.note(place, f"{item!r}: {error}")


def _what(value: Any) -> str:
    """How a person calls such a value."""
    kinds = {bool: "yes or no", int: "a number", float: "a number", list: "a list", dict: "a mapping", str: "text"}
    return "nothing" if value is None else kinds.get(type(value), f"a {type(value).__name__}")
