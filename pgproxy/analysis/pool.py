"""The pool of analyser processes and the caches before it: `Analyzer` for the data plane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import classifier
from classifier import Classification, Environment, unknown
from classifier.cache import ClassificationCache
from classifier.lexer import MAX_BYTES, SMALL_BYTES
from pgproxy.analysis.codec import HEADER, decode_answer, encode_question, frame

log = logging.getLogger("pgproxy.analysis")

START_LIMIT_S: Final = 30.0
_ROOT: Final = str(Path(classifier.__file__).resolve().parent.parent)


class AnalyserFailed(Exception):
    """An analyser died or sent something that is no answer."""


@dataclass(slots=True)
class _Job:
    text: str
    environment: Environment
    done: asyncio.Future[Classification]
    since: float = field(default_factory=monotonic)

    @property
    def is_long(self) -> bool:
        return len(self.text) > SMALL_BYTES


class AnalyserPool:
    """Implements `pgproxy.session.ports.Analyzer`.

    `observe_miss` gets the seconds an analysis took, queue and hop included; `count_cache` the result of a look-up,
    `exact`, `normalized` or `miss`.
    """

    def __init__(
        self,
        *,
        processes: int = 2,
        time_limit_s: float = 5.0,
        memory_bytes: int = 3 * 1024 * 1024 * 1024,
        cache: ClassificationCache | None = None,
        observe_miss: Callable[[float], None] | None = None,
        count_cache: Callable[[str], None] | None = None,
    ) -> None:
        self._processes = max(1, processes)
        self._time_limit_s = time_limit_s
        self._memory_bytes = memory_bytes
        self._cache = cache if cache is not None else ClassificationCache()
        self._observe_miss = observe_miss
        self._count_cache = count_cache
        self._short: deque[_Job] = deque()
        self._long: deque[_Job] = deque()
        self._long_running = 0
        self._under_way: dict[tuple[str, Environment], _Job] = {}
        self._changed = asyncio.Condition()
        self._runners: set[asyncio.Task[None]] = set()
        self._analysers: list[_Analyser | None] = []
        self._closed = False

    @property
    def cache(self) -> ClassificationCache:
        """The caches, for whoever must clear them when the catalog changes."""
        return self._cache

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The analysers alive."""
        return tuple(a.pid for a in self._analysers if a is not None and a.is_alive)

    async def start(self) -> None:
        """Starts the analysers and waits until each can answer. Raises `AnalyserFailed` when one cannot."""
        starts = (self._start_analyser() for _ in range(self._processes))
        started = await asyncio.gather(*starts, return_exceptions=True)
        self._analysers = [a for a in started if isinstance(a, _Analyser)]
        failures = [a for a in started if isinstance(a, BaseException)]
        if failures:
            await self.close()
            raise failures[0]
        loop = asyncio.get_running_loop()
        for slot in range(self._processes):
            task = loop.create_task(self._run(slot), name=f"analyser-{slot}")
            self._runners.add(task)

    async def close(self) -> None:
        """Ends the analysers; texts still waiting are answered `unknown`."""
        self._closed = True
        for task in self._runners:
            task.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)
        self._runners.clear()
        for analyser in self._analysers:
            if analyser is not None:
                await analyser.stop()
        self._analysers = []
        for job in list(self._under_way.values()):
            self._answer(job, unknown("the proxy is shutting down"))

    def lookup(self, text: str, environment: Environment) -> Classification | None:
        """What the caches know; never blocks."""
        found = self._cache.find_exact(text, environment)
        if found is not None:
            if self._count_cache is not None:
                self._count_cache("exact")
            return found
        found = self._cache.find_normal(text, environment)
        if found is not None and self._count_cache is not None:
            self._count_cache("normalized")
        return found

    async def analyze(self, text: str, environment: Environment) -> Classification:
        """The classification of a text the caches did not know; never raises for a bad text."""
        if self._count_cache is not None:
            self._count_cache("miss")
        if self._closed or not self._runners:
            return unknown("no analyser is running")
        if len(text) > MAX_BYTES:
            return unknown("the text is too long to be analysed")
        key = (text, environment)
        job = self._under_way.get(key)
        if job is None:
            job = _Job(text, environment, asyncio.get_running_loop().create_future())
            self._under_way[key] = job
            (self._long if job.is_long else self._short).append(job)
            async with self._changed:
                self._changed.notify()
        # a session that goes away must not take the answer from others that wait for the same text
        return await asyncio.shield(job.done)

    def _next(self) -> _Job | None:
        if self._short:
            return self._short.popleft()
        if self._long and self._long_running < max(1, self._processes - 1):
            return self._long.popleft()
        return None

    async def _take(self) -> _Job:
        async with self._changed:
            while (job := self._next()) is None:
                await self._changed.wait()
            if job.is_long:
                self._long_running += 1
            return job

    async def _run(self, slot: int) -> None:
        """One analyser's share of the work, for as long as the pool lives."""
        while True:
            job = await self._take()
            try:
                answer = await self._ask(slot, job)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a bug here must not end the runner: fail closed and go on
                log.error("analysis failed unexpectedly: %s", type(error).__name__)
                answer = unknown("the analysis failed")
                await self._drop(slot)
            finally:
                if job.is_long:
                    async with self._changed:
                        self._long_running -= 1
                        self._changed.notify()
            self._answer(job, answer)
            if self._analysers[slot] is None:
                with contextlib.suppress(AnalyserFailed, OSError):
                    self._analysers[slot] = await self._start_analyser()

    async def _ask(self, slot: int, job: _Job) -> Classification:
        analyser = self._analysers[slot]
        try:
            if analyser is None or not analyser.is_alive:
                analyser = self._analysers[slot] = await self._start_analyser()
            answer = await asyncio.wait_for(
                analyser.ask(encode_question(job.text, job.environment)), self._time_limit_s
            )
            classification = decode_answer(answer)
        except TimeoutError:
            log.warning("an analyser took longer than %s s and was replaced", self._time_limit_s)
            await self._drop(slot)
            return unknown(f"its analysis took longer than {self._time_limit_s:g} s")
        except (AnalyserFailed, OSError, ValueError, TypeError) as error:
            log.warning("an analyser failed (%s) and was replaced", type(error).__name__)
            await self._drop(slot)
            return unknown("its analysis ended an analyser process")
        self._cache.store(job.text, job.environment, classification)
        return classification

    def _answer(self, job: _Job, classification: Classification) -> None:
        self._under_way.pop((job.text, job.environment), None)
        if self._observe_miss is not None:
            self._observe_miss(monotonic() - job.since)
        if not job.done.done():
            job.done.set_result(classification)

    async def _drop(self, slot: int) -> None:
        analyser = self._analysers[slot]
        self._analysers[slot] = None
        if analyser is not None:
            await analyser.stop()

    async def _start_analyser(self) -> _Analyser:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "pgproxy.analysis.process"),
            str(math.ceil(self._time_limit_s)),
            str(self._memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)])},
        )
        analyser = _Analyser(process)
        try:
            await asyncio.wait_for(analyser.receive(), START_LIMIT_S)
        except (TimeoutError, AnalyserFailed):
            await analyser.stop()
            raise AnalyserFailed("an analyser did not start") from None
        except asyncio.CancelledError:
            await analyser.stop()
            raise
        return analyser


class _Analyser:
    """One process and its two pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        stdout = self._process.stdout
        return self._process.returncode is None and stdout is not None and not stdout.at_eof()

    async def ask(self, question: bytes) -> bytes:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame(question))
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise AnalyserFailed from error
        return await self.receive()

    async def receive(self) -> bytes:
        assert self._process.stdout is not None
        try:
            (length,) = HEADER.unpack(await self._process.stdout.readexactly(HEADER.size))
            return await self._process.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise AnalyserFailed from error

    async def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        # wait() alone leaves the pipe's transport to the garbage collector
        if self._process.stdin is not None:
            self._process.stdin.close()
