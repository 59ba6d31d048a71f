"""Keeps every target supplied, each at its own pace.

One task a target plans and sends, so that a channel which hangs holds up itself alone. At least once: who crashes
between sending and noting it down sends again, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from approvals.errors import StoreUnavailable
from approvals.model import rfc3339
from approvals.notify import deliveries
from approvals.notify.deliveries import LEASE_S, Delivery
from approvals.notify.ports import Channel, Message, NoMetrics, NotDelivered, NotificationMetrics, Skipped
from approvals.outbox import as_of
from approvals.reading import load
from approvals.store import store_connection

if TYPE_CHECKING:
    from approvals.store import Pool
    from approvals.wakeups import Wakeups

log = logging.getLogger("pgproxy.approvals")
_jitter = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Pace:
    """How hard a target is tried. `give_up_s`: after this a message is dead; `look_s`: how often the store is asked
    when nothing wakes us. A try and its noting down end well within the lease."""

    concurrency: int = 4
    timeout_s: float = 15.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 300.0
    give_up_s: float = 24 * 3600.0
    look_s: float = 2.0

    def __post_init__(self) -> None:
        if self.timeout_s > LEASE_S / 2:
            raise ValueError("a try must end within its lease")

    def retry_s(self, attempts: int) -> float:
        """Exponential, and a random part of it ("full jitter" from half on)."""
        longest = min(self.longest_retry_s, self.first_retry_s * 2.0 ** min(attempts - 1, 30))
        return _jitter.uniform(longest / 2, longest)


class Dispatcher:
    """`run` is to be kept running by one task. `defaults`: the targets of requests whose rule names none."""

    def __init__(
        self,
        pool: Pool,
        wakeups: Wakeups,
        channels: Sequence[Channel],
        defaults: Collection[str] = (),
        *,
        metrics: NotificationMetrics | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._pool = pool
        self._wakeups = wakeups
        self._channels = tuple(channels)
        self._defaults = frozenset(defaults)
        self._metrics = metrics or NoMetrics()
        self._pace = pace or Pace()

    async def run(self) -> None:
        """Until cancelled. Closes the channels at the end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for channel in self._channels:
                    tasks.create_task(self._follow(channel))
                tasks.create_task(self._keep_time())
        finally:
            for channel in self._channels:
                await channel.close()

    async def _keep_time(self) -> None:
        """Escalations and the gauge of what waits."""
        while True:
            try:
                if await deliveries.escalate(self._pool, self._channels):
                    log.info("approvals escalated")
                targets = [channel.target for channel in self._channels]
                await deliveries.give_up_orphans(self._pool, targets, self._pace.give_up_s)
                for kind, waiting in (await deliveries.backlog(self._pool)).items():
                    self._metrics.notification_backlog(kind, waiting)
            except StoreUnavailable:
                pass  # what is due then is due later, too
            except Exception as error:
                log.error("approvals not escalated", exc_info=error)
            await asyncio.sleep(self._pace.look_s)

    async def _follow(self, channel: Channel) -> None:
        running: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        with self._wakeups.subscribe() as changes:
            try:
                while True:
                    try:
                        while await deliveries.plan(self._pool, channel, self._defaults):
                            pass
                        free = self._pace.concurrency - len(running)
                        taken = await deliveries.take(self._pool, channel.target, free) if free else []
                    except StoreUnavailable:
                        taken = []
                    except Exception as error:
                        # One event that cannot be planned must not end the process; it is seen, and tried again.
                        log.error("notifications not planned target=%s", channel.target, exc_info=error)
                        taken = []
                    for delivery in taken:
                        running.add(loop.create_task(self._try(channel, delivery)))
                    waking = loop.create_task(changes.wait(self._pace.look_s))
                    await asyncio.wait({waking, *running}, return_when=asyncio.FIRST_COMPLETED)
                    waking.cancel()
                    await asyncio.wait({waking})
                    running = {task for task in running if not task.done()}
            finally:
                for task in running:
                    task.cancel()
                if running:
                    await asyncio.wait(running)

    async def _try(self, channel: Channel, delivery: Delivery) -> None:
        """One attempt, and what became of it. Nothing that a channel does wrong ends more than this attempt."""
        try:
            message = await self._message(delivery)
            try:
                async with asyncio.timeout(self._pace.timeout_s):
                    ref = await channel.deliver(message)
            except Skipped as reason:
                await deliveries.delivered(self._pool, delivery, None, f"skipped: {reason}")
                self._metrics.notification(channel.kind, "skipped")
                return
            except NotDelivered as error:
                await self._failed(channel, delivery, error)
                return
            except TimeoutError:
                await self._failed(channel, delivery, NotDelivered("no answer in time"))
                return
            await deliveries.delivered(self._pool, delivery, ref)
            self._metrics.notification(channel.kind, "delivered")
        except StoreUnavailable:
            pass  # the lease ends, and somebody tries again
        except Exception as error:
            log.error("notification failed target=%s error=%s", channel.target, type(error).__name__, exc_info=error)
            with contextlib.suppress(StoreUnavailable):
                await self._failed(channel, delivery, NotDelivered(f"internal error ({type(error).__name__})"))

    async def _failed(self, channel: Channel, delivery: Delivery, error: NotDelivered) -> None:
        retry_in_s: float | None = max(self._pace.retry_s(delivery.attempts), error.retry_after_s or 0.0)
        if error.permanent or delivery.age_s >= self._pace.give_up_s:
            retry_in_s = None
        log.warning(
            "notification not delivered target=%s approval=%s attempt=%d dead=%s reason=%s",
            *(channel.target, delivery.approval_id, delivery.attempts, retry_in_s is None, error),
        )
        await deliveries.failed(self._pool, delivery, str(error), retry_in_s)
        self._metrics.notification(channel.kind, "dead" if retry_in_s is None else "retried")

    async def _message(self, delivery: Delivery) -> Message:
        async with store_connection(self._pool) as connection:
            approval = await load(connection, delivery.approval_id)
        assert approval is not None, "requests are never deleted"
        event = None if delivery.event_seq is None else await deliveries.event_at(self._pool, delivery.event_seq)
        if event is None:
            return Message(
                *(delivery.message_id, delivery.kind, "approval.escalated", rfc3339(delivery.created_at)),
                *(approval, approval, delivery.refs),
            )
        name = event.status if event.kind == "status" else event.kind
        return Message(
            *(delivery.message_id, delivery.kind, f"approval.{name}", rfc3339(event.at)),
            *(approval, as_of(approval, event), delivery.refs),
        )
