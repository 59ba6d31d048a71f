"""Keeps the processes of a run alive: one control process and N workers, each on a channel.

1. A process that dies is replaced, soon at first, then less often. Before its successor starts, `on_exit` is
   awaited, which withdraws what the dead one left parked and marks what it was executing; when that cannot be done
   now (the store is away) it is tried again until it is, and the successor starts meanwhile.
2. A process whose channel closes is as good as dead: it gets a moment to end, then SIGKILL.
3. Stopping drains: workers first, while reviewers can still decide, then the control process. Each gets SIGTERM and
   its time (workers the time to drain, and some to tell everybody), then SIGKILL. A second signal from the person at
   the terminal reaches them as a second SIGTERM, and they end at once; a third one kills them.
4. Children are sessions of their own: Ctrl-C and a closed terminal reach the supervisor alone. If it is killed,
   their channels close and they end by themselves.

multiprocessing was the alternative: its children share more than a channel, and its death handling is a pipe too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pgproxy.channel import FD_VARIABLE, Channel, ChannelError, Hello, Router, greet, open_channel

_log = logging.getLogger("pgproxy.supervisor")

CONTROL, WORKER = "control", "worker"

Command = Callable[[str, int], list[str]]


class SupervisorError(Exception):
    """The run could not be started; the message is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Tests shorten them."""

    start_s: float = 60.0
    backoff_first_s: float = 0.2
    backoff_last_s: float = 10.0
    stable_after_s: float = 60.0  # a life this long forgets earlier failures
    on_exit_s: float = 5.0
    orphan_s: float = 5.0  # between a closed channel and SIGKILL
    worker_stop_s: float = 15.0  # beside the time for draining, which a worker keeps by itself
    control_stop_s: float = 10.0
    hurry_s: float = 10.0
    reload_s: float = 15.0
    insist_after_s: float = 1.0


@dataclass(slots=True)
class Child:
    """One start of one process."""

    role: str
    index: int
    instance: str
    process: asyncio.subprocess.Process
    channel: Channel
    started_at: float
    ready: asyncio.Future[dict[str, Any]] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def name(self) -> str:
        return f"{self.role} {self.index}" if self.role == WORKER else self.role


OnExit = Callable[[Child], Awaitable[None]]


def default_command(role: str, index: int) -> list[str]:
    """How a process of the real program is started."""
    return [sys.executable, "-m", "pgproxy.app", role, str(index)]


class Supervisor:
    """`await start()`, `await wait()`, `await stop()`; or `run()`, which does all three and listens to signals."""

    def __init__(
        self,
        settings_wire: str,
        *,
        workers: int,
        node: str,
        on_exit: OnExit,
        drain_timeout_s: float = 30.0,
        command: Command = default_command,
        extra: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        on_hangup: Callable[[], Awaitable[object]] | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.router = Router()
        self.settings_wire = settings_wire  # of every process started from now on
        self._workers = workers
        self._node = node
        self._on_exit = on_exit
        self.drain_timeout_s = drain_timeout_s
        self._command = command
        self._extra = dict(extra or {})
        self._environ = dict(os.environ if environ is None else environ)
        self.on_hangup = on_hangup  # None: it stops the run, as a closed terminal does
        self._timing = timing or Timing()
        self._children: dict[tuple[str, int], Child] = {}
        self._keepers: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[Any]] = set()
        self._stop_asked = asyncio.Event()
        self._stop_asked_at = 0.0
        self._hurry = asyncio.Event()
        self._kill = asyncio.Event()
        self._start_failed = False  # told apart from being asked to stop, which it leads to

    def children(self) -> list[Child]:
        """The processes of now, control first."""
        return [self._children[key] for key in sorted(self._children)]

    def request_stop(self) -> None:
        """Ends `wait`; asked again (a person who insists, not `make` passing on the same Ctrl-C), ends draining, and
        asked once more, everything."""
        now = time.monotonic()
        if self._stop_asked.is_set() and now - self._stop_asked_at < self._timing.insist_after_s:
            return
        if self._hurry.is_set():
            self._kill.set()
        elif self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked_at = now
        self._stop_asked.set()

    async def start(self) -> None:
        """Returns when every process is ready; raises SupervisorError when one cannot be, with all stopped again."""
        try:
            await self._launch(CONTROL, 0)
            async with asyncio.TaskGroup() as launching:
                for index in range(self._workers):
                    launching.create_task(self._launch(WORKER, index))
        except BaseExceptionGroup as group:
            self._kill.set()
            await self.stop()
            raise group.exceptions[0] from None
        except BaseException:
            self._start_failed = True
            self._kill.set()
            await self.stop()
            raise

    async def wait(self) -> None:
        """Returns when somebody asked for the end."""
        await self._stop_asked.wait()

    async def stop(self) -> None:
        """Drains and ends every process, workers first, and tells `on_exit` of each."""
        self._stop_asked.set()
        await self._end(WORKER, self.drain_timeout_s + self._timing.worker_stop_s)
        await self._end(CONTROL, self._timing.control_stop_s)
        for errand in tuple(self._errands):
            errand.cancel()
        await asyncio.gather(*self._errands, return_exceptions=True)

    async def reload(self, params: Any = None) -> list[str]:
        """Calls `reload` of every process, and ends those that fail, for their successors begin with the settings of
        now; their names."""
        children = self.children()
        taken = await asyncio.gather(*(self._reload(child, params) for child in children))
        failed = [child for child, ok in zip(children, taken, strict=True) if not ok]
        for child in failed:
            _signal(child, signal.SIGTERM)
        return [child.name for child in failed]

    async def _reload(self, child: Child, params: Any) -> bool:
        if not child.ready.done():
            # It may have been greeted with the settings of before, and answers once it is ready.
            await asyncio.wait(
                (child.ready, child.channel.closed),
                timeout=self._timing.reload_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        try:
            await child.channel.call("child", "reload", params, self._timing.reload_s)
        except ChannelError as error:
            _log.warning("%s does not reload: %s", child.name, error)
            return False
        return True

    async def tell(self, target: str, method: str, params: Any) -> bool:
        """A call whose answer does not matter; whether it was taken."""
        try:
            await self.router.call(target, method, params)
        except ChannelError:
            return False
        return True

    async def run(self, on_ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """The whole life: starts, calls `on_ready`, and drains on SIGTERM or SIGINT; SIGHUP does `on_hangup`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        try:
            starting = loop.create_task(self.start())
            stopping = loop.create_task(self.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done() and not self._start_failed:  # Ctrl-C before it was up
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return
            stopping.cancel()
            await starting
            if on_ready is not None:
                await on_ready()
            await self.wait()
        finally:
            await self.stop()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _hung_up(self) -> None:
        if self.on_hangup is None:
            self.request_stop()
        else:
            self._errand(_awaited(self.on_hangup()))

    # -- one process

    async def _launch(self, role: str, index: int) -> None:
        """The first start of a process: here failing is the caller's to know, later it is tried again."""
        child = await self._spawn(role, index)
        exited = asyncio.get_running_loop().create_task(child.process.wait())
        try:
            done, _ = await asyncio.wait(
                (child.ready, exited), timeout=self._timing.start_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            exited.cancel()
        if child.ready not in done:
            why = _ending(child.process.returncode) if done else f"is not ready after {self._timing.start_s:g} s"
            raise SupervisorError(f"{child.name} {why} before it was ready" if done else f"{child.name} {why}")
        self._keepers[role, index] = asyncio.get_running_loop().create_task(self._keep(child))

    async def _spawn(self, role: str, index: int) -> Child:
        ours, theirs = socket.socketpair()
        instance = uuid.uuid4().hex
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command(role, index),
                    stdin=asyncio.subprocess.DEVNULL,
                    env={**self._environ, FD_VARIABLE: str(theirs.fileno())},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        name = f"{role} {index}" if role == WORKER else role
        channel = await open_channel(ours, name)
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        child = Child(role, index, instance, process, channel, time.monotonic(), ready)
        self._children[role, index] = child
        channel.route(partial(self._route, child))
        _log.info("started %s pid=%d instance=%s", name, process.pid, instance)
        self._errand(self._greet(child))
        return child

    async def _greet(self, child: Child) -> None:
        hello = Hello(self.settings_wire, child.role, child.index, child.instance, self._node, self._extra)
        with contextlib.suppress(ChannelError):  # it died at once; its keeper sees that
            await greet(child.channel, hello)

    async def _route(self, child: Child, target: str, method: str, params: Any, timeout_s: float) -> Any:
        if target == "supervisor" and method == "ready":
            self.router.attach(child.role, child.index, child.channel)
            if not child.ready.done():
                child.ready.set_result(params)
            _log.info("%s is ready pid=%d", child.name, child.pid)
            return None
        return await self.router.call(target, method, params, timeout_s)

    async def _keep(self, child: Child) -> None:
        """Follows one place in the run through all its processes, until the end."""
        backoff_s = self._timing.backoff_first_s
        while True:
            await self._exit_of(child)
            if self._stop_asked.is_set():
                return
            _log.error("%s pid=%d %s", child.name, child.pid, _ending(child.process.returncode))
            if time.monotonic() - child.started_at >= self._timing.stable_after_s:
                backoff_s = self._timing.backoff_first_s
            spawned = None
            while spawned is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s):
                        await self._stop_asked.wait()
                        return
                backoff_s = min(backoff_s * 2, self._timing.backoff_last_s)
                try:
                    spawned = await self._spawn(child.role, child.index)
                except OSError as error:  # no memory, no descriptors: as passing as a crash
                    _log.error("%s cannot be started: %s", child.name, error.strerror)
            child = spawned
            if self._stop_asked.is_set():  # while it was being started
                _signal(child, signal.SIGTERM)

    async def _exit_of(self, child: Child) -> None:
        """Returns when a process has ended and its affairs are settled (or are being settled)."""
        exited = asyncio.get_running_loop().create_task(child.process.wait())
        await asyncio.wait((exited, child.channel.closed), return_when=asyncio.FIRST_COMPLETED)
        if not exited.done() and not self._stop_asked.is_set():
            _log.error("%s pid=%d closed its channel", child.name, child.pid)
            await asyncio.wait((exited,), timeout=self._timing.orphan_s)
            if not exited.done():
                _kill(child)
        await exited
        self.router.detach(child.channel)
        await child.channel.close()
        self._children.pop((child.role, child.index), None)
        if not await self._settle(child) and not self._stop_asked.is_set():
            self._errand(self._settle_later(child))

    async def _settle(self, child: Child) -> bool:
        try:
            async with asyncio.timeout(self._timing.on_exit_s):
                await self._on_exit(child)
        except Exception as error:
            _log.warning("what instance=%s left cannot be settled yet: %s", child.instance, type(error).__name__)
            return False
        return True

    async def _settle_later(self, child: Child) -> None:
        pause_s = self._timing.backoff_first_s
        while True:
            await asyncio.sleep(pause_s)
            if await self._settle(child):
                return
            pause_s = min(pause_s * 2, self._timing.backoff_last_s)

    async def _end(self, role: str, patience_s: float) -> None:
        children = [child for child in self.children() if child.role == role]
        for child in children:
            _signal(child, signal.SIGTERM)
        keepers = [task for (one, _), task in self._keepers.items() if one == role]
        unkept = [child for child in children if (child.role, child.index) not in self._keepers]  # never was ready
        ends = [*keepers, *(self._errand(self._exit_of(child)) for child in unkept)]
        if not ends:
            return
        hurry, kill = self._errand(self._hurry.wait()), self._errand(self._kill.wait())
        gone = self._errand(asyncio.wait(ends))
        await asyncio.wait((gone, hurry, kill), timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done() and not gone.done() and not kill.done():
            for child in children:
                if child.process.returncode is None:
                    _signal(child, signal.SIGTERM)
            await asyncio.wait((gone, kill), timeout=self._timing.hurry_s, return_when=asyncio.FIRST_COMPLETED)
        for child in [child for child in self.children() if child.role == role]:
            if child.process.returncode is None:
                _log.warning("%s pid=%d does not stop: killed", child.name, child.pid)
                _kill(child)
        await gone
        hurry.cancel()
        kill.cancel()

    def _errand(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task


async def _awaited(work: Awaitable[object]) -> None:
    await work


def _signal(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.process.send_signal(number)


def _kill(child: Child) -> None:
    """With its own children: they are its process group, and it can no longer end them itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _ending(status: int | None) -> str:
    """How a process ended, in words: `was killed by SIGKILL`, `ended with status 1`."""
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
