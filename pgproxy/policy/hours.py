"""Times of the week in a zone: `08:00-18:00 Europe/Berlin`, `Mon-Fri 22:00-06:00 UTC`. Over midnight the day is the one
it began on. Daylight saving is the zone's: 02:30 may come twice, or not at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SPEC = re.compile(
    r"(?:(?P<days>[A-Za-z][A-Za-z,\- ]*?)\s+)?"
    r"(?P<h1>\d{2}):(?P<m1>\d{2})\s*-\s*(?P<h2>\d{2}):(?P<m2>\d{2})(?:\s+(?P<zone>\S+))?"
)
_MINUTES = 24 * 60


class HoursError(ValueError):
    """Hours that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Hours:
    """`days` are the weekdays (Monday 0) on which it begins, at minute `start` of the day; `end` is not in it."""

    days: frozenset[int]
    start: int
    end: int
    zone: str
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_zone", zone_of(self.zone))

    @classmethod
    def parse(cls, text: str) -> Hours:
        found = _SPEC.fullmatch(text.strip())
        if found is None:
            raise HoursError('must look like "08:00-18:00 Europe/Berlin" or "Mon-Fri 08:00-18:00 Europe/Berlin"')
        start = _minute(found["h1"], found["m1"])
        end = _minute(found["h2"], found["m2"])
        if start == _MINUTES:
            raise HoursError("24:00 can only be an end")
        if start == end:
            raise HoursError("begins when it ends; for a whole day write 00:00-24:00")
        return cls(_days(found["days"]), start, end, found["zone"] or "UTC")

    def has(self, now: float) -> bool:
        """Whether a time, in seconds since the epoch, is in it. Raises for one no calendar has."""
        local = datetime.fromtimestamp(now, self._zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return self.start <= minute < self.end and day in self.days
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name in the tz database."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise HoursError(f"{name!r} is not a time zone (UTC, Europe/Berlin, …)") from None


def _minute(hours: str, minutes: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _MINUTES:
        raise HoursError(f"{hours}:{minutes} is not a time of day")
    return minute


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.partition("-")
        start = _day(first)
        end = _day(last) if dash else start
        days |= {(start + offset) % 7 for offset in range((end - start) % 7 + 1)}
    return frozenset(days)


def _day(word: str) -> int:
    try:
        return DAYS.index(word[:1].upper() + word[1:].lower())
    except ValueError:
        raise HoursError(f"{word!r} is not a day ({', '.join(DAYS)})") from None
