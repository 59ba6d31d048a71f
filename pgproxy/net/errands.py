"""Calls to the approval store that no session waits for, and that must not be lost: tried until they succeed.

A worker that dies takes its errands along; the supervisor then marks what it left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pgproxy.session.ports import StoreUnavailable

_log = logging.getLogger("pgproxy.net")
_LONGEST_PAUSE_S = 5.0


class Errands:
    """Owns the tasks of these calls. `close` gives them a last while to finish."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        """Start one; `what` is for the log."""
        task = asyncio.get_running_loop().create_task(self._run(what, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, what: str, call: Callable[[], Awaitable[object]]) -> None:
        pause = 0.1
        while True:
            try:
                await call()
            except StoreUnavailable:
                _log.warning("store not available for: %s; trying again in %.1f s", what, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                return

    async def close(self, timeout_s: float) -> None:
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
