"""One analyser: `python -m pgproxy.analysis.process`. Questions on standard input, answers on standard output.

It trusts nothing it reads to be harmless: CPU time is limited a question at a time, memory for good, and it leaves
no core file (a core would hold the text). It ends by itself when its input does, or when a text has made it so big
that a new process is better.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from typing import BinaryIO, Final

from classifier import classify
from pgproxy.analysis.codec import HEADER, decode_question, encode_answer, frame
from pgproxy.analysis.deep import STACK_BYTES, run_deep

RESIDENT_BYTES: Final = 512 * 1024 * 1024  # beyond it, make room for a successor
READY: Final = b"ready"


def serve(questions: BinaryIO, answers: BinaryIO, cpu_s: int) -> None:
    """Answers until the input ends."""
    while True:
        header = questions.read(HEADER.size)
        if len(header) < HEADER.size:
            return
        (length,) = HEADER.unpack(header)
        text, environment = decode_question(questions.read(length))
        _limit_cpu(cpu_s)
        answer = encode_answer(classify(text, environment))
        answers.write(frame(answer))
        answers.flush()
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > RESIDENT_BYTES:
            return


def _limit_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def main() -> None:
    """Takes CPU seconds a question and bytes of memory as arguments."""
    cpu_s, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that owns this one
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # a lower limit set from outside stands
        limit = memory_bytes + STACK_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    classify("SELECT 1")  # loads what loads lazily
    answers = sys.stdout.buffer
    answers.write(frame(READY))
    answers.flush()
    with contextlib.suppress(BrokenPipeError):
        run_deep(lambda: serve(sys.stdin.buffer, answers, cpu_s))


if __name__ == "__main__":
    main()
