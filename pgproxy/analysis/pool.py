"""The pool of analyser processes and the caches before it: `Analyzer` for the data plane."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from itertools import chain
from time import monotonic
from typing import Any, Final

from classifier import Classification, Environment, unknown
from classifier.cache import MAX_TEXT, ClassificationCache
from classifier.lexer import MAX_BYTES, SMALL_BYTES
from pgproxy.analysis.analyser import Analyser, AnalyserFailed
from pgproxy.analysis.codec import Answer, encode_catalog, encode_question

__all__ = ["AnalyserFailed", "AnalyserPool"]

log = logging.getLogger("pgproxy.analysis")

RESTART_DELAY_S: Final = 0.5  # between attempts, when one could not be started


class _Job:
    """A text to be analysed and everyone who waits for it."""

    __slots__ = ("done", "environment", "is_long", "since", "text")

    def __init__(self, text: str, environment: Environment, done: asyncio.Future[Classification]) -> None:
        self.text = text
        self.environment = environment
        self.done = done
        self.since = monotonic()
        self.is_long = len(text) > SMALL_BYTES


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
        self._analysers: set[Analyser] = set()
        self._idle: list[Analyser] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[_Job] = set()
        self._open = False
        self._catalogs: dict[str, tuple[int, bytes]] = {}

    @property
    def cache(self) -> ClassificationCache:
        """The caches, for whoever must clear them when the catalog changes."""
        return self._cache

    @property
    def process_ids(self) -> tuple[int, ...]:
        """The analysers alive."""
        return tuple(sorted(a.pid for a in self._analysers if a.is_alive))

    async def start(self) -> None:
        """Starts the analysers and waits until each can answer. Raises `AnalyserFailed` when one cannot."""
        starts = (Analyser.start(self._time_limit_s, self._memory_bytes) for _ in range(self._processes))
        started = await asyncio.gather(*starts, return_exceptions=True)
        self._analysers = {a for a in started if isinstance(a, Analyser)}
        failures = [a for a in started if isinstance(a, BaseException)]
        if failures:
            await self.close()
            raise failures[0]
        self._open = True
        self._idle.extend(self._analysers)
        for analyser in self._analysers:
            analyser.watch(self._lost)
        self._dispatch()

    async def close(self) -> None:
        """Ends the analysers; texts still waiting are answered `unknown`."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        analysers, self._analysers, self._idle = self._analysers, set(), []
        for analyser in analysers:
            await analyser.stop()
        for job in [*self._short, *self._long, *self._running]:
            self._finish(job, unknown("the proxy is shutting down"))
        self._short.clear()
        self._long.clear()

    def set_catalog(self, database: str, version: int, snapshot: bytes) -> None:
        """What environments with a catalog version of this database are judged by from now on. Each analyser gets it
        before the next question that needs it."""
        self._catalogs[database] = (version, snapshot)

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
        if not self._open:
            return unknown("no analyser is running")
        if len(text) > MAX_BYTES:
            return unknown("the text is too long to be analysed")
        if len(text) > MAX_TEXT:
            # hashing it would hold up the loop, and two of it at once are rare
            job = _Job(text, environment, asyncio.get_running_loop().create_future())
            self._enqueue(job)
            return await job.done
        key = (text, environment)
        known = self._under_way.get(key)
        if known is None:
            known = _Job(text, environment, asyncio.get_running_loop().create_future())
            self._under_way[key] = known
            self._enqueue(known)
        # a session that goes away must not take the answer from others that wait for the same text
        return await asyncio.shield(known.done)

    def _enqueue(self, job: _Job) -> None:
        (self._long if job.is_long else self._short).append(job)
        self._dispatch()

    def _dispatch(self) -> None:
        """Gives waiting texts to idle analysers. Long ones never occupy the last of them."""
        while self._idle:
            if self._short:
                job = self._short.popleft()
            elif self._long and self._long_running < max(1, self._processes - 1):
                job = self._long.popleft()
            else:
                return
            analyser = self._idle.pop()
            if not analyser.is_alive:
                (self._long if job.is_long else self._short).appendleft(job)
                continue  # its watcher is about to replace it
            if job.is_long:
                self._long_running += 1
            self._running.add(job)
            self._ask(analyser, job)

    def _ask(self, analyser: Analyser, job: _Job) -> None:
        def answered(payload: bytes | None) -> None:
            if payload is None:
                self._failed(analyser, job, "its analysis ended an analyser process")
            elif len(payload) <= MAX_TEXT:
                with self._guarded(analyser, job):
                    answer = Answer(payload)
                    while not answer.read():
                        pass
                    self._answered(analyser, job, answer)
            else:
                self._spawn(self._read(analyser, job, payload))

        def late() -> None:
            log.warning("an analyser took longer than %s s and was replaced", self._time_limit_s)
            self._failed(analyser, job, f"its analysis took longer than {self._time_limit_s:g} s")

        with self._guarded(analyser, job):
            question = encode_question(job.text, job.environment)
            catalog = self._catalog_for(analyser, job.environment)
            if catalog is not None:
                analyser.expect(answered, late)
                self._spawn(self._send(analyser, job, chain(catalog, question)))
            elif len(job.text) <= MAX_TEXT:
                analyser.ask(next(question), answered, late)
            else:
                analyser.expect(answered, late)
                self._spawn(self._send(analyser, job, question))

    def _catalog_for(self, analyser: Analyser, environment: Environment) -> Iterator[bytes] | None:
        """The catalog an analyser must be sent first."""
        if not environment.catalog_version:
            return None
        version, snapshot = self._catalogs.get(environment.database, (0, b""))
        if not version or analyser.catalogs.get(environment.database) == version:
            return None
        analyser.catalogs[environment.database] = version
        return encode_catalog(environment.database, snapshot)

    async def _send(self, analyser: Analyser, job: _Job, question: Iterator[bytes]) -> None:
        with self._guarded(analyser, job):
            for piece in question:
                await analyser.send(piece)

    async def _read(self, analyser: Analyser, job: _Job, payload: bytes) -> None:
        with self._guarded(analyser, job):
            answer = Answer(payload)
            while not answer.read():  # noqa: ASYNC110 - between two parts it is the others' turn
                await asyncio.sleep(0)
            self._answered(analyser, job, answer)

    @contextlib.contextmanager
    def _guarded(self, analyser: Analyser, job: _Job) -> Iterator[None]:
        """Whatever fails, a bug here included, the text is answered: fail closed and go on."""
        try:
            yield
        except Exception as error:
            log.error("analysis failed unexpectedly: %s", type(error).__name__)
            self._failed(analyser, job, "the analysis failed")

    def _answered(self, analyser: Analyser, job: _Job, answer: Answer) -> None:
        classification, kept = answer.result()
        self._cache.store(job.text, job.environment, classification, kept)
        if analyser.is_alive and analyser in self._analysers:
            self._idle.append(analyser)
        self._finish(job, classification)
        self._dispatch()

    def _failed(self, analyser: Analyser, job: _Job, reason: str) -> None:
        self._finish(job, unknown(reason))
        analyser.kill()

    def _finish(self, job: _Job, classification: Classification) -> None:
        if job.done.done():
            return
        if job in self._running:
            self._running.remove(job)
            if job.is_long:
                self._long_running -= 1
        if len(job.text) <= MAX_TEXT:
            self._under_way.pop((job.text, job.environment), None)
        if self._observe_miss is not None:
            self._observe_miss(monotonic() - job.since)
        job.done.set_result(classification)

    def _lost(self, analyser: Analyser) -> None:
        """An analyser is gone, for whatever reason; another takes its place."""
        self._analysers.discard(analyser)
        if analyser in self._idle:
            self._idle.remove(analyser)
        if self._open:
            self._spawn(self._replace(analyser))

    async def _replace(self, analyser: Analyser) -> None:
        await analyser.stop()
        while self._open:
            try:
                successor = await Analyser.start(self._time_limit_s, self._memory_bytes)
            except (AnalyserFailed, OSError) as error:
                log.warning("an analyser could not be started (%s)", type(error).__name__)
                await asyncio.sleep(RESTART_DELAY_S)
                continue
            self._analysers.add(successor)
            self._idle.append(successor)
            successor.watch(self._lost)
            self._dispatch()
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
