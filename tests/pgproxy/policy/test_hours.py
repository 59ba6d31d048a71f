"""Times of the week: over midnight, in the zone's own summer."""

from __future__ import annotations

from datetime import datetime

import pytest

from pgproxy.policy.hours import Hours, HoursError


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("hours", "time", "expected"),
    [
        ("08:00-18:00 Europe/Berlin", "2026-07-01T06:00:00Z", True),  # summer, UTC+2
        ("08:00-18:00 Europe/Berlin", "2026-01-01T06:30:00Z", False),  # winter, UTC+1
        ("08:00-18:00 Europe/Berlin", "2026-01-01T07:00:00Z", True),
        ("08:00-18:00 UTC", "2026-01-01T17:59:59Z", True),
        ("08:00-18:00 UTC", "2026-01-01T18:00:00Z", False),
        ("08:00-18:00", "2026-01-01T08:00:00Z", True),
        ("22:00-06:00 UTC", "2026-01-01T23:00:00Z", True),
        ("22:00-06:00 UTC", "2026-01-01T05:59:00Z", True),
        ("22:00-06:00 UTC", "2026-01-01T06:00:00Z", False),
        ("Mon-Fri 08:00-18:00 UTC", "2026-01-02T09:00:00Z", True),  # a Friday
        ("Mon-Fri 08:00-18:00 UTC", "2026-01-03T09:00:00Z", False),
        ("Fri 22:00-06:00 UTC", "2026-01-03T05:00:00Z", True),  # Friday's night
        ("Fri 22:00-06:00 UTC", "2026-01-02T05:00:00Z", False),
        ("Sat-Mon 00:00-24:00 UTC", "2026-01-04T12:00:00Z", True),
        ("Sat-Mon 00:00-24:00 UTC", "2026-01-06T12:00:00Z", False),
        ("mon, WED 00:00-24:00 UTC", "2026-01-07T23:59:00Z", True),
        ("Mon 22:00-06:00 Europe/Berlin", "2026-01-05T21:00:00Z", True),
    ],
)
def test_hours(hours: str, time: str, expected: bool) -> None:
    assert Hours.parse(hours).has(at(time)) is expected


def test_days_around_midnight_on_sunday() -> None:
    sunday_night = Hours.parse("Sun 23:00-01:00 UTC")
    assert sunday_night.has(at("2026-01-05T00:30:00Z"))
    assert not sunday_night.has(at("2026-01-04T00:30:00Z"))


@pytest.mark.parametrize(
    "text",
    ["", "8-18", "08:00", "08:00-18:00 ../etc/passwd", "08:00-18:00 /etc/localtime", "08:60-09:00", "24:00-01:00",
     "Foo 08:00-09:00", "Mon- 08:00-09:00", "08:00-09:00 UTC more", "08:00-08:00"],
)  # fmt: skip
def test_what_is_no_time_of_the_week(text: str) -> None:
    with pytest.raises(HoursError):
        Hours.parse(text)
