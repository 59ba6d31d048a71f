"""Workers add up what an agent took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from pgproxy.app.hours import SharedHours
from pgproxy.channel import Channel, ChannelError
from pgproxy.session.hourly import HourlyUse

NOW = 1_000_000.0


class Line:
    """A channel whose calls reach everybody on it, the caller included."""

    def __init__(self) -> None:
        self.handlers: list[Callable[[Any], Awaitable[Any]]] = []
        self.broken = False

    def handle(self, _method: str, handler: Callable[[Any], Awaitable[Any]]) -> None:
        self.handlers.append(handler)

    async def call(self, target: str, method: str, params: Any) -> None:
        assert (target, method) == ("workers", "hourly_use")
        if self.broken:
            raise ChannelError("closed")
        for handler in self.handlers:
            await handler(params)


async def test_what_one_worker_let_pass_counts_in_all() -> None:
    line = Line()
    uses = [HourlyUse() for _ in range(3)]
    workers = [SharedHours(use, cast(Channel, line), f"w{i}") for i, use in enumerate(uses)]
    uses[0].add("bot", "reads", 10, 100, NOW)
    uses[1].add("bot", "reads", 5, 50, NOW)
    line.broken = True
    await workers[0].tell()  # told with the next
    line.broken = False
    for worker in (*workers, *workers):
        await worker.tell()
    assert [use.used("bot", "reads", NOW) for use in uses] == [(15, 150)] * 3
