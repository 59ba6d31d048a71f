"""The line between the supervisor and each of its processes: small calls that must work with the store down.

One JSON object a line over a Unix socket pair, both ways. A child calls `supervisor`, `control`, `workers` (all of
them) or `worker:N`; the supervisor passes calls on (`Router`). Rules:

1. Every call ends in its time: with a result, or with `ChannelError`, whatever the other side does.
2. A child whose line is closed has lost its supervisor and must end: nobody would restart or drain it. The
   descriptor is not inherited by its own children, for any holder would keep the line open.
3. What cannot be said in `LINE_LIMIT_BYTES` is refused where it is said; the line itself stays whole.

Pipes per child or a listening socket were the alternatives: the first has no answers, the second lets others in.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

_log = logging.getLogger("pgproxy.channel")

FD_VARIABLE = "PGPROXY_CHANNEL_FD"
LINE_LIMIT_BYTES = 16 * 1024 * 1024
CALLS_LIMIT = 10_000  # unanswered ones of one side: a peer that hangs costs no more
_ROUTED_SHARE = 0.9  # of a call's time, for the part after the router: a slow worker must not spoil the others' answers

Handler = Callable[[Any], Awaitable[Any]]
Route = Callable[[str, str, Any, float], Awaitable[Any]]


class ChannelError(Exception):
    """A call that got no result: refused, failed, too late, too long, or the line is closed."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a child is told first. `instance` is new with each start of a process, `extra` is the launcher's."""

    settings: str  # Settings.to_wire()
    role: str
    index: int
    instance: str
    node: str
    extra: dict[str, Any] = field(default_factory=dict)


class Channel:
    """One end of a line: a child's, or, with `route`, the supervisor's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.closed: asyncio.Future[None] = loop.create_future()
        self._reader = reader
        self._writer = writer
        self._route: Route | None = None
        self._handlers: dict[str, Handler] = {}
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._reading = loop.create_task(self._read())

    def handle(self, method: str, handler: Handler) -> None:
        """`handler(params)` answers calls of `method`; its result must be JSON."""
        self._handlers[method] = handler

    def route(self, route: Route) -> None:
        """`route(target, method, params, timeout_s)` answers everything, for whomever it was meant."""
        self._route = route

    async def call(self, target: str, method: str, params: Any = None, timeout_s: float = 5.0) -> Any:
        """The target's result; of "workers" a list of `{"worker": i, "result" | "error"}`. Raises ChannelError."""
        if self.closed.done():
            raise ChannelError(f"{method}: the channel of {self.name} is closed")
        if len(self._calls) >= CALLS_LIMIT:
            raise ChannelError(f"{method}: {CALLS_LIMIT} calls of {self.name} are unanswered")
        number = next(self._numbers)
        line = _encode({"id": number, "to": target, "method": method, "params": params, "timeout_s": timeout_s})
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(line)
                return await answer
        except TimeoutError:
            raise ChannelError(f"{method}: no answer from {target} within {timeout_s:g} s") from None
        finally:
            del self._calls[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen: the line may have closed while we were sending

    async def ready(self, **facts: Any) -> None:
        """Tells the supervisor that this process takes work."""
        await self.call("supervisor", "ready", facts)

    async def stopping(self) -> None:
        """Returns when this process is to end: told so (`request_stop`, SIGTERM), or its supervisor is gone."""
        await self._stopping.wait()

    async def hurrying(self) -> None:
        """Returns when this process is to end at once: told so again, or its supervisor is gone."""
        await self._hurrying.wait()

    def request_stop(self) -> None:
        """What SIGTERM does; the second time it hurries."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def close(self) -> None:
        """Ends the line; calls under way get ChannelError."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        for task in tuple(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while line := await self._reader.readuntil():
                self._take(json.loads(line))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has ended
        except Exception:
            _log.exception("the channel of %s is broken", self.name)
        finally:
            self._stopping.set()
            self._hurrying.set()
            self.closed.set_result(None)
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(ChannelError(f"the channel of {self.name} closed"))
            self._writer.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            return
        answer = self._calls.get(message["id"])
        if answer is None or answer.done():
            return  # too late, its caller has gone
        if "error" in message:
            answer.set_exception(ChannelError(message["error"]))
        else:
            answer.set_result(message["result"])

    async def _answer(self, message: dict[str, Any]) -> None:
        number, method = message["id"], message["method"]
        try:
            async with asyncio.timeout(message["timeout_s"]):  # nobody waits longer for it
                result = await self._result(message["to"], method, message["params"], message["timeout_s"])
            line = _encode({"id": number, "result": result})
        except ChannelError as error:
            line = _encode({"id": number, "error": str(error)})
        except TimeoutError:
            line = _encode({"id": number, "error": f"{method}: {self.name} took too long"})
        except Exception as error:
            # Only the kind goes over: the text may quote what a client sent.
            _log.exception("answering %s on %s failed", method, self.name)
            line = _encode({"id": number, "error": f"{method}: {type(error).__name__}"})
        if not self.closed.done():
            with contextlib.suppress(ChannelError):
                await self._send(line)

    async def _result(self, target: str, method: str, params: Any, timeout_s: float) -> Any:
        if self._route is not None:
            return await self._route(target, method, params, timeout_s)
        handler = self._handlers.get(method)
        if handler is None:
            raise ChannelError(f"{method}: unknown to {self.name}")
        return await handler(params)

    async def _send(self, line: bytes) -> None:
        try:
            self._writer.write(line)
            await self._writer.drain()
        except ConnectionError:
            if not self._reading.done():
                return  # the reader is about to see the end, and fails every call
            raise ChannelError(f"the channel of {self.name} closed") from None


def _encode(message: dict[str, Any]) -> bytes:
    try:
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ChannelError(f"not JSON: {type(error).__name__}") from None
    if len(line) > LINE_LIMIT_BYTES:
        raise ChannelError(f"a message of {len(line)} bytes is more than {LINE_LIMIT_BYTES}")
    return line


async def open_channel(sock: socket.socket, name: str) -> Channel:
    """A channel over one end of a socket pair, which it owns from now on.

    It reads from the caller's next `await` on, so handlers given before that miss nothing.
    """
    reader, writer = await asyncio.open_unix_connection(sock=sock, limit=LINE_LIMIT_BYTES + 1)
    return Channel(reader, writer, name)


async def greet(channel: Channel, hello: Hello) -> None:
    """The supervisor's first word to a child."""
    await channel.call("child", "hello", {name: getattr(hello, name) for name in Hello.__slots__}, timeout_s=30.0)


async def join(descriptor: int | None = None) -> tuple[Channel, Hello]:
    """A child's end: takes the descriptor the supervisor left (PGPROXY_CHANNEL_FD) and waits for its first word.

    From now on SIGTERM asks this process to stop (`Channel.stopping`; a second one, `Channel.hurrying`), and SIGINT,
    which a person means for the supervisor, does nothing. Raises ChannelError when there is no supervisor.
    """
    if descriptor is None:
        value = os.environ.pop(FD_VARIABLE, "")
        if not value.isdigit():
            raise ChannelError("this process is started by `pgproxy serve` or `pgproxy up`, not by hand")
        descriptor = int(value)
    sock = socket.socket(fileno=descriptor)
    sock.set_inheritable(False)
    loop = asyncio.get_running_loop()
    channel = await open_channel(sock, f"process {os.getpid()}")
    first: asyncio.Future[Hello] = loop.create_future()

    async def hello(params: Any) -> None:
        if not first.done():
            first.set_result(Hello(**params))

    channel.handle("hello", hello)
    loop.add_signal_handler(signal.SIGTERM, channel.request_stop)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    await asyncio.wait((first, channel.closed), return_when=asyncio.FIRST_COMPLETED)
    if not first.done():
        raise ChannelError("the supervisor is gone")
    told = first.result()
    channel.name = f"{told.role} {told.index}" if told.role == "worker" else told.role
    return channel, told


class Router:
    """The supervisor's switchboard: its own handlers, and the channels of the processes that are ready."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._control: Channel | None = None
        self._workers: dict[int, Channel] = {}

    def handle(self, method: str, handler: Handler) -> None:
        """`handler(params)` answers calls of target "supervisor"."""
        self._handlers[method] = handler

    def attach(self, role: str, index: int, channel: Channel) -> None:
        if role == "control":
            self._control = channel
        else:
            self._workers[index] = channel

    def detach(self, channel: Channel) -> None:
        if self._control is channel:
            self._control = None
        self._workers = {index: one for index, one in self._workers.items() if one is not channel}

    async def call(self, target: str, method: str, params: Any = None, timeout_s: float = 5.0) -> Any:
        """As `Channel.call`, from the supervisor itself or on behalf of a child."""
        within_s = timeout_s * _ROUTED_SHARE
        if target == "supervisor":
            handler = self._handlers.get(method)
            if handler is None:
                raise ChannelError(f"{method}: unknown to the supervisor")
            return await handler(params)
        if target == "workers":
            asked = sorted(self._workers.items())
            answers = [self._one(index, channel, method, params, within_s) for index, channel in asked]
            return list(await asyncio.gather(*answers))
        return await self._channel_of(target).call(target, method, params, within_s)

    async def _one(self, index: int, channel: Channel, method: str, params: Any, timeout_s: float) -> dict[str, Any]:
        try:
            return {"worker": index, "result": await channel.call(f"worker:{index}", method, params, timeout_s)}
        except ChannelError as error:
            return {"worker": index, "error": str(error)}

    def _channel_of(self, target: str) -> Channel:
        channel: Channel | None = None
        if target == "control":
            channel = self._control
        elif target.startswith("worker:") and target[7:].isdigit():
            channel = self._workers.get(int(target[7:]))
        if channel is None:
            raise ChannelError(f"{target} is not running")
        return channel
