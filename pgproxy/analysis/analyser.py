"""One analyser as the pool sees it: a process, a socket to it, a question at a time.

A socket pair and a protocol, not pipes and streams: an answer reaches whoever waits in one step of the loop, where
StreamReader, Condition and wait_for took a dozen, as long as the analysis of a short statement itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import classifier
from pgproxy.analysis.codec import HEADER

START_LIMIT_S: Final = 30.0
_ROOT: Final = str(Path(classifier.__file__).resolve().parent.parent)

# What an answer calls: with its payload, or with None when there will be none.
Answered = Callable[[bytes | None], None]


class AnalyserFailed(Exception):
    """An analyser did not start."""


class Analyser(asyncio.Protocol):
    """Made by `start`; whoever has it must `stop` it. Between two answers at most one question may be asked."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._have = 0
        self._need = 0
        self._answered: Answered | None = None
        self._lateness: asyncio.TimerHandle | None = None
        self._lost: Callable[[Analyser], None] | None = None
        self._time_limit_s = START_LIMIT_S
        self._writable = asyncio.Event()
        self._writable.set()
        self.is_alive = False
        self.catalogs: dict[str, int] = {}  # what it has been sent, by database

    @classmethod
    async def start(cls, time_limit_s: float, memory_bytes: int) -> Analyser:
        """Starts a process and waits until it can answer. Raises `AnalyserFailed`."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-P", "-m", "pgproxy.analysis.process"),
                    str(math.ceil(time_limit_s)),
                    str(memory_bytes),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=asyncio.subprocess.DEVNULL,
                    env={"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)])},
                )
            except BaseException:
                ours.close()
                raise
        analyser = cls()
        analyser._process = process
        ready: asyncio.Future[bytes | None] = loop.create_future()
        analyser._answered = lambda payload: None if ready.done() else ready.set_result(payload)
        try:
            await loop.create_unix_connection(lambda: analyser, sock=ours)
            if await asyncio.wait_for(ready, START_LIMIT_S) is None:
                raise AnalyserFailed("an analyser did not start")
        except TimeoutError:
            await analyser.stop()
            raise AnalyserFailed("an analyser did not start") from None
        except BaseException:
            await analyser.stop()
            raise
        analyser._time_limit_s = time_limit_s
        return analyser

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def watch(self, lost: Callable[[Analyser], None]) -> None:
        """Has `lost` called when the process is gone, at once if it is already."""
        self._lost = lost
        if not self.is_alive:
            lost(self)

    def ask(self, question: bytes, answered: Answered, late: Callable[[], None]) -> None:
        """Sends a question; exactly one of the two is called, `late` when the time is up."""
        self.expect(answered, late)
        self.tell(question)

    def tell(self, frames: bytes) -> None:
        """Sends something that has no answer of its own."""
        assert self._transport is not None
        self._transport.write(frames)

    def expect(self, answered: Answered, late: Callable[[], None]) -> None:
        """As `ask`, for a question that is sent piece by piece."""

        def give_up() -> None:
            self._answered = None
            late()

        self._answered = answered
        self._lateness = asyncio.get_running_loop().call_later(self._time_limit_s, give_up)

    async def send(self, piece: bytes) -> None:
        """Sends a piece of a question when the socket has room for it."""
        await self._writable.wait()
        if self._transport is not None and self.is_alive:
            self._transport.write(piece)
        await asyncio.sleep(0)

    def kill(self) -> None:
        """Ends the process; `lost` is called soon."""
        self.is_alive = False
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    async def stop(self) -> None:
        """Ends the process and waits for its end."""
        self._lost = None
        self.kill()
        if self._process is not None:
            await self._process.wait()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.is_alive = True

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._have += len(data)
        while self._have >= (self._need or HEADER.size):
            whole = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
            if self._need == 0:
                self._need = HEADER.size + HEADER.unpack_from(whole)[0]
            if self._have >= self._need:
                payload, rest = whole[HEADER.size : self._need], whole[self._need :]
                self._pieces, self._have, self._need = [rest], len(rest), 0
                self._give(payload)
            else:
                self._pieces = [whole]

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_alive = False
        self._writable.set()
        self._give(None)
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(self)

    def _give(self, payload: bytes | None) -> None:
        if self._lateness is not None:
            self._lateness.cancel()
            self._lateness = None
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(payload)
