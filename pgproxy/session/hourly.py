"""What agents took in the last hour, by the rule that counts it: sliding, in one-minute buckets.

One object a worker, shared by its sessions; what is added here goes to the other workers about once a second
(`take_deltas`, `merge`), so that an agent's hour is one over all of them. Times are given, in seconds since the epoch.
"""

from __future__ import annotations

from typing import Final

# The minute that is running, and sixty before it: never less than the last sixty minutes.
_BUCKETS: Final = 61
# Pairs of agent and rule that are told apart; what comes beyond shares one count, which errs on the strict side.
MAX_PAIRS: Final = 10_000
_OTHERS: Final = ("", "")

Delta = tuple[str, str, int, int, int]


class _Hour:
    """One pair's buckets. `rows` and `bytes` are the sums."""

    __slots__ = ("_bytes", "_minute", "_rows", "bytes", "rows")

    def __init__(self, minute: int) -> None:
        self._minute = minute
        self._rows = [0] * _BUCKETS
        self._bytes = [0] * _BUCKETS
        self.rows = self.bytes = 0

    def advance(self, minute: int) -> None:
        """Forgets what is older than an hour at `minute`."""
        for passed in range(self._minute + 1, min(minute, self._minute + _BUCKETS) + 1):
            i = passed % _BUCKETS
            self.rows -= self._rows[i]
            self.bytes -= self._bytes[i]
            self._rows[i] = self._bytes[i] = 0
        self._minute = max(self._minute, minute)

    def add(self, minute: int, rows: int, size: int) -> None:
        if minute <= self._minute - _BUCKETS:
            return
        self.advance(minute)
        i = minute % _BUCKETS
        self._rows[i] += rows
        self._bytes[i] += size
        self.rows += rows
        self.bytes += size


class HourlyUse:
    """Rows and bytes of each agent under each rule."""

    def __init__(self) -> None:
        self._hours: dict[tuple[str, str], _Hour] = {}
        self._deltas: dict[tuple[str, str, int], list[int]] = {}

    def used(self, agent: str, rule: str, now: float) -> tuple[int, int]:
        """Rows and bytes of the last hour."""
        hour = self._hours.get(self._key(agent, rule))
        if hour is None:
            return 0, 0
        hour.advance(int(now) // 60)
        return hour.rows, hour.bytes

    def add(self, agent: str, rule: str, rows: int, size: int, now: float) -> None:
        """What a session of this worker let pass."""
        minute = int(now) // 60
        self._count(agent, rule, minute, rows, size)
        delta = self._deltas.setdefault((agent, rule, minute), [0, 0])
        delta[0] += rows
        delta[1] += size

    def take_deltas(self) -> list[Delta]:
        """What was added since the last call, for the other workers."""
        taken, self._deltas = self._deltas, {}
        return [(agent, rule, minute, rows, size) for (agent, rule, minute), (rows, size) in taken.items()]

    def merge(self, deltas: list[Delta]) -> None:
        """What another worker told."""
        for agent, rule, minute, rows, size in deltas:
            self._count(agent, rule, minute, rows, size)

    def forget_idle(self, now: float) -> None:
        """Drops pairs of whom the last hour knows nothing."""
        minute = int(now) // 60
        for hour in self._hours.values():
            hour.advance(minute)
        self._hours = {key: hour for key, hour in self._hours.items() if hour.rows or hour.bytes}

    def _key(self, agent: str, rule: str) -> tuple[str, str]:
        key = (agent, rule)
        return key if key in self._hours or len(self._hours) < MAX_PAIRS else _OTHERS

    def _count(self, agent: str, rule: str, minute: int, rows: int, size: int) -> None:
        key = self._key(agent, rule)
        hour = self._hours.get(key)
        if hour is None:
            hour = self._hours[key] = _Hour(minute)
        hour.add(minute, rows, size)
