"""Many texts at once, one a line: `pgproxy classify --jsonl`, on all cores and with the caches.

Each process takes a chunk of lines and gives one object a line back; a thread of this process feeds it. Chunks
are answered in order. A process that dies or is late costs its chunk a second attempt, line by line in a new
process, and the line that does it again is answered `unknown`, as in a run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final

import classifier
from classifier import Environment, unknown
from classifier.cache import ClassificationCache
from pgproxy.analysis.codec import HEADER, frame
from pgproxy.analysis.deep import run_deep
from pgproxy.analysis.process import Analysis, prepare, read_frames

CHUNK_LINES: Final = 64
CHUNK_CHARACTERS: Final = 256 * 1024
CHUNK_BYTES: Final = 1024 * 1024
TIME_LIMIT_S: Final = 5.0
MEMORY_BYTES: Final = 3 * 1024 * 1024 * 1024
_ROOT: Final = str(Path(classifier.__file__).resolve().parent.parent)


def classify_lines(lines: Iterable[str], processes: int | None = None) -> Iterator[dict[str, Any]]:
    """One classification object, or `{"error": …}`, for each line `{"sql": …}`, in the same order."""
    return classify_chunks(_chunks(lines), processes)


def classify_chunks(chunks: Iterable[list[str]], processes: int | None = None) -> Iterator[dict[str, Any]]:
    """As `classify_lines`. An empty chunk says that more may be long in coming: what there is is answered first."""
    count = processes if processes is not None else max(1, os.cpu_count() or 1)
    workers: SimpleQueue[_Worker] = SimpleQueue()
    made = [_Worker() for _ in range(count)]
    for worker in made:
        workers.put(worker)

    def answer(chunk: list[str]) -> list[dict[str, Any]]:
        worker = workers.get()
        try:
            return worker.answer(chunk)
        finally:
            workers.put(worker)

    pending: deque[Future[list[dict[str, Any]]]] = deque()
    threads = ThreadPoolExecutor(count, thread_name_prefix="classify")
    try:
        for chunk in chunks:
            if chunk:
                pending.append(threads.submit(answer, chunk))
            while pending and (not chunk or pending[0].done() or len(pending) > 4 * count):
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
        for worker in made:
            worker.stop()


def lines_of(descriptor: int) -> Iterator[list[str]]:
    """Chunks for `classify_chunks`, of the lines a descriptor has now: a program that waits for the answer to its last
    line before it writes the next one gets it. What is not UTF-8 is passed on as it is and answered with an error."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], 0)[0]:
            yield []
        data = os.read(descriptor, CHUNK_BYTES)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        yield from _chunks(line.decode("utf-8", "surrogateescape") for line in whole)
    if rest:
        yield [rest.decode("utf-8", "surrogateescape")]


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    source = iter(lines)
    while chunk := list(islice(source, 1)):
        size = len(chunk[0])
        while len(chunk) < CHUNK_LINES and size < CHUNK_CHARACTERS:
            more = list(islice(source, 1))
            if not more:
                break
            chunk += more
            size += len(more[0])
        yield chunk


class _Late(Exception):
    pass


class _Worker:
    """One process, started when first needed and again after a death."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def answer(self, chunk: list[str]) -> list[dict[str, Any]]:
        """Answers every line, whatever it does to the process."""
        reason = "its analysis ended an analyser process"
        try:
            return self._ask(chunk)
        except _Late:
            reason = f"its analysis took longer than {TIME_LIMIT_S:g} s"
        except (OSError, ValueError, EOFError):
            pass
        self.stop()
        if len(chunk) > 1:
            return [self.answer([line])[0] for line in chunk]
        return [unknown(reason).to_dict()]

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(OSError):
            process.communicate()

    def _ask(self, chunk: list[str]) -> list[dict[str, Any]]:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pgproxy.analysis.batch"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)])},
            )
            self._read(self._process, 30.0)
        process = self._process
        assert process.stdin is not None
        # the process reads a whole chunk before it answers, so neither waits for the other
        process.stdin.write(frame(json.dumps(chunk).encode("ascii")))
        process.stdin.flush()
        return [json.loads(self._read(process, TIME_LIMIT_S)) for _ in chunk]

    def _read(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        (length,) = HEADER.unpack(self._exactly(process, HEADER.size, monotonic() + seconds))
        return self._exactly(process, length, monotonic() + seconds)

    def _exactly(self, process: subprocess.Popen[bytes], size: int, deadline: float) -> bytes:
        assert process.stdout is not None
        pieces = []
        while size:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise _Late
            piece = os.read(process.stdout.fileno(), min(size, 1 << 20))
            if not piece:
                raise EOFError
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


# in the process


def answer_line(line: str, classified: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What one line gets: `classified` of its text, or an error that says what is wrong and quotes nothing."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "the line is not JSON"}
    text = found.get("sql") if isinstance(found, dict) else None
    if not isinstance(text, str):
        return {"error": 'the line is not an object with a text "sql"'}
    try:
        return classified(text)
    except Exception as error:  # documented: a line that fails is answered, and the run goes on
        return {"error": f"the classifier failed: {type(error).__name__}"}


def _serve() -> None:
    cache = ClassificationCache()
    analysis = Analysis()
    environment = Environment()
    answers = sys.stdout.buffer

    def classified(text: str) -> dict[str, Any]:
        found = cache.find_exact(text, environment) or cache.find_normal(text, environment)
        if found is None:
            found, kept = analysis.answer(text, environment)
            cache.store(text, environment, found, kept)
        return found.to_dict()

    while (payload := read_frames(sys.stdin.buffer)) is not None:
        for line in json.loads(payload):
            answers.write(frame(json.dumps(answer_line(line, classified)).encode("ascii")))
            answers.flush()  # so that lateness is a line's


def main() -> None:
    prepare(MEMORY_BYTES)
    sys.stdout.buffer.write(frame(b"ready"))
    sys.stdout.buffer.flush()
    with contextlib.suppress(BrokenPipeError):
        run_deep(_serve)


if __name__ == "__main__":
    main()
