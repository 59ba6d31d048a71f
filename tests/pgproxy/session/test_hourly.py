"""An agent's hour slides, is one over workers, and stays small."""

from __future__ import annotations

from pgproxy.session import hourly
from pgproxy.session.hourly import HourlyUse

HOUR = 3600.0


def test_what_is_an_hour_old_does_not_count() -> None:
    use = HourlyUse()
    use.add("bot", "reads", 10, 100, 1_000_000.0)
    use.add("bot", "reads", 5, 50, 1_000_000.0 + HOUR / 2)
    assert use.used("bot", "reads", 1_000_000.0 + HOUR - 1) == (15, 150)
    assert use.used("bot", "reads", 1_000_000.0 + HOUR + 61) == (5, 50)
    assert use.used("bot", "reads", 1_000_000.0 + 3 * HOUR) == (0, 0)
    assert use.used("other", "reads", 1_000_000.0) == use.used("bot", "exports", 1_000_000.0) == (0, 0)


def test_never_less_than_sixty_minutes() -> None:
    for second in range(0, 60, 7):
        use = HourlyUse()
        start = 1_000_020.0 + second
        use.add("bot", "reads", 1, 1, start)
        assert use.used("bot", "reads", start + HOUR - 0.001) == (1, 1)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    use = HourlyUse()
    use.add("bot", "reads", 1, 1, 1_000_000.0)
    use.add("bot", "reads", 1, 1, 1_000_000.0 - 120)
    assert use.used("bot", "reads", 1_000_000.0 - 300) == (2, 2)


def test_workers_tell_each_other() -> None:
    one, two = HourlyUse(), HourlyUse()
    one.add("bot", "reads", 3, 30, 1_000_000.0)
    one.add("bot", "reads", 4, 40, 1_000_001.0)
    deltas = one.take_deltas()
    assert len(deltas) == 1 and not one.take_deltas()
    two.merge(deltas)
    assert two.used("bot", "reads", 1_000_001.0) == (7, 70)
    assert not two.take_deltas(), "what was told is not told on"


def test_pairs_beyond_the_limit_share_one_count(monkeypatch: object) -> None:
    use = HourlyUse()
    hourly_limit = hourly.MAX_PAIRS
    try:
        hourly.MAX_PAIRS = 2  # type: ignore[misc]
        for agent in ("a", "b", "c", "d"):
            use.add(agent, "reads", 1, 1, 1_000_000.0)
        assert use.used("a", "reads", 1_000_000.0) == (1, 1)
        assert use.used("c", "reads", 1_000_000.0) == use.used("e", "reads", 1_000_000.0) == (2, 2)
        use.forget_idle(1_000_000.0 + 2 * HOUR)
        assert use.used("a", "reads", 1_000_000.0 + 2 * HOUR) == (0, 0) and not use._hours
    finally:
        hourly.MAX_PAIRS = hourly_limit  # type: ignore[misc]
