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

from classifier import Classification, Environment, classify, normal
from classifier.normal import Kept
from pgproxy.analysis.codec import HEADER, MORE, decode_question, encode_answer, frame
from pgproxy.analysis.deep import STACK_BYTES, run_deep

RESIDENT_BYTES: Final = 768 * 1024 * 1024  # beyond it, make room for a successor
READY: Final = b"ready"


def answer(text: str, environment: Environment) -> tuple[Classification, Kept | None]:
    """The classification of a text, and what it says about the text's normal form."""
    classification = classify(text, environment)
    return classification, normal.learn(text.encode("utf-8")) if classification.constant_free else None


def serve(questions: BinaryIO, answers: BinaryIO, cpu_s: int) -> None:
    """Answers until the input ends."""
    # exec inherits its parent's peak, which says nothing about this process
    limit = max(RESIDENT_BYTES, _peak_bytes() + RESIDENT_BYTES // 2)
    while (question := read_frames(questions)) is not None:
        text, environment = decode_question(question)
        _limit_cpu(cpu_s)
        answers.write(frame(encode_answer(*answer(text, environment))))
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
