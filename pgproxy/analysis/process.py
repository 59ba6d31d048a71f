"""One analyser: `python -m pgproxy.analysis.process`. Questions on standard input, answers on standard output.

It trusts nothing it reads to be harmless: CPU time is limited a question at a time, memory for good, and it leaves
no core file (a core would hold the text). It ends by itself when its input does, or when a text has made it so big
that a new process is better.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import sys
from typing import BinaryIO, Final

from classifier import Classification, Environment, classify, knowledge_of, normal
from classifier.catalog import decode
from classifier.normal import Kept
from classifier.walk import Knowledge
from pgproxy.analysis.codec import HEADER, MORE, decode_catalog, decode_question, encode_answer, frame
from pgproxy.analysis.deep import STACK_BYTES, run_deep

RESIDENT_BYTES: Final = 768 * 1024 * 1024  # beyond it, make room for a successor
READY: Final = b"ready"


class Analysis:
    """Classifies texts by the newest catalog of their database, which is read from its bytes when first asked for."""

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}
        self._knowledge: dict[str, Knowledge] = {}

    def set_catalog(self, database: str, payload: bytes) -> None:
        """Judges by this one from now on."""
        self._payloads[database] = payload
        self._knowledge.pop(database, None)

    def answer(self, text: str, environment: Environment) -> tuple[Classification, Kept | None]:
        """The classification of a text, and what it says about the text's normal form."""
        classification = classify(text, environment, self._of(environment))
        return classification, normal.learn(text.encode("utf-8")) if classification.constant_free else None

    def _of(self, environment: Environment) -> Knowledge | None:
        """What an environment's version stands for: the newest, for the pool sends it before the question."""
        if not environment.catalog_version:
            return None
        payload = self._payloads.pop(environment.database, None)
        if payload is not None:
            # one that cannot be read leaves none, and its statements unknown
            with contextlib.suppress(ValueError, TypeError, LookupError):
                self._knowledge[environment.database] = knowledge_of(decode(payload))
        return self._knowledge.get(environment.database)


def serve(questions: BinaryIO, answers: BinaryIO, cpu_s: int) -> None:
    """Answers until the input ends."""
    analysis = Analysis()
    # exec inherits its parent's peak, which says nothing about this process
    limit = max(RESIDENT_BYTES, _peak_bytes() + RESIDENT_BYTES // 2)
    while (payload := read_frames(questions)) is not None:
        _limit_cpu(cpu_s)
        catalog = decode_catalog(payload)
        if catalog is not None:
            analysis.set_catalog(*catalog)
            continue
        answers.write(frame(encode_answer(*analysis.answer(*decode_question(payload)))))
        answers.flush()
        if _peak_bytes() > limit:
            return


def read_frames(source: BinaryIO) -> bytes | None:
    """The next payload, its frames joined, or None at the end of the input."""
    pieces = []
    while True:
        header = source.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (length,) = HEADER.unpack(header)
        pieces.append(source.read(length & ~MORE))
        if not length & MORE:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _limit_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def prepare(memory_bytes: int) -> None:
    """Sets the limits that hold for good and loads what loads lazily."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # a lower limit set from outside stands
        limit = memory_bytes + STACK_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    classify("SELECT a FROM t WHERE b = 1")
    # Trees are no cycles: looking for some in them, again and again, is a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def main() -> None:
    """Takes CPU seconds a question and bytes of memory as arguments."""
    cpu_s, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    prepare(memory_bytes)
    answers = sys.stdout.buffer
    answers.write(frame(READY))
    answers.flush()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        run_deep(lambda: serve(sys.stdin.buffer, answers, cpu_s))


if __name__ == "__main__":
    main()
