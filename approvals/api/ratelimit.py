"""How many logins one address may try, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_ADDRESSES = 10_000


class RateLimit:
    """A bucket an address: `burst` tries at once, one more each `refill_s`. An IPv6 subscriber has a whole /64.

    Beyond `MAX_ADDRESSES` the one that has been quiet longest is forgotten.
    """

    def __init__(self, burst: int, refill_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, address: str) -> float:
        """Takes one try and returns 0, or how long to wait until there is one."""
        key = _network(address)
        now = self._clock()
        left, at = self._buckets.pop(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) / self._refill_s)
        allowed = left >= 1
        self._buckets[key] = (left - 1 if allowed else left, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) * self._refill_s

    def give_back(self, address: str) -> None:
        """The try was a good one: colleagues behind one address must not lock each other out."""
        key = _network(address)
        if key in self._buckets:
            left, at = self._buckets[key]
            self._buckets[key] = (min(float(self._burst), left + 1), at)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
