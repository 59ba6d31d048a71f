"""The workers of one machine tell each other what agents took, about once a second."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from pgproxy.channel import Channel, ChannelError
from pgproxy.session.hourly import Delta, HourlyUse

_log = logging.getLogger("pgproxy.app")
_INTERVAL_S = 1.0
_AT_ONCE = 10_000  # deltas in one call


class SharedHours:
    """Sends this worker's part of every agent's hour, and takes the others'."""

    def __init__(self, hourly: HourlyUse, channel: Channel, instance: str) -> None:
        self._hourly = hourly
        self._channel = channel
        self._instance = instance
        self._untold: list[Delta] = []
        channel.handle("hourly_use", self.take)

    async def take(self, params: Any) -> None:
        if params["from"] != self._instance:
            self._hourly.merge([tuple(delta) for delta in params["deltas"]])

    async def tell(self) -> None:
        """What has passed since the last time; what could not be told is told with the next."""
        self._untold += self._hourly.take_deltas()
        while self._untold:
            part = self._untold[:_AT_ONCE]
            try:
                await self._channel.call("workers", "hourly_use", {"from": self._instance, "deltas": part})
            except ChannelError as error:
                _log.warning("the other workers did not hear what agents took: %s", error)
                del self._untold[:-_AT_ONCE]
                return
            del self._untold[: len(part)]

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self._hourly.forget_idle(time.time())
            await self.tell()
