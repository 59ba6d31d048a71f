"""Runs of many conversations, and what is told of the ones that fail."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import first_packets, seeds, shrink, sockets
from tests.fuzz.conversation import Case, Circumstances, Hang, Left, circumstances_of, messages_of, play
from tests.fuzz.server import Leak

KINDS = ("leaks", "hangs", "left behind", "crashes")
_ENOUGH = 5  # failures, after which a run ends


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * 4096 / (1 << 20)


@dataclass(frozen=True)
class Failure:
    kind: str
    case: Case
    messages: list[bytes]
    how: Circumstances | None
    error: Exception

    def told(self) -> str:
        lines = [f"\n{self.kind} in case {self.case.number} of seed {self.case.seed}: {self.error}"]
        lines += ["".join(traceback.format_exception(self.error)[-2:]).rstrip()] if self.kind == "crashes" else []
        lines += [str(self.how)] if self.how else []
        lines += [
            f"  {chr(m[0])} {seeds.escaped(m[5:])}" if len(m) >= 5 else f"  ? {seeds.escaped(m)}" for m in self.messages
        ]
        return "\n".join(lines)


def kind_of(error: Exception) -> str:
    match error:
        case Leak():
            return "leaks"
        case Hang():
            return "hangs"
        case Left():
            return "left behind"
        case _:
            return "crashes"


def _where(error: Exception | None) -> tuple[str, int]:
    """Two failures are the same when they are raised in the same place."""
    if error is None:
        return "", 0
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename, last.lineno or 0


def minimised(case: Case, messages: list[bytes], how: Circumstances, error: Exception) -> Failure:
    """Only sans I/O is it certain that the same happens again."""
    small = shrink.shrunk(messages, lambda fewer: _where(play(fewer, how, Counter())) == _where(error))
    return Failure(kind_of(error), case, small, how, error)


class Cases:
    """The conversations of a run, in order, until so many messages were sent."""

    def __init__(self, corpus: list[seeds.Seed], seed: int) -> None:
        self._corpus = [s for s in corpus if sum(m is not None for m in s.messages) > 2]
        self._seed = seed
        self._number = 0
        self.messages = 0

    def next(self) -> tuple[Case, list[bytes], Circumstances]:
        case = Case(self._seed, self._number)
        self._number += 1
        messages = messages_of(case, self._corpus)
        self.messages += len(messages)
        return case, messages, circumstances_of(case)


def sans_io(cases: Cases, messages: int, counts: Counter[str], told: Callable[[str], None] = print) -> list[Failure]:
    """Until `messages` were sent altogether."""
    failures: list[Failure] = []
    before = cases.messages
    while cases.messages < messages and len(failures) < _ENOUGH:
        case, sent, how = cases.next()
        counts["conversations sans I/O"] += 1
        error = play(sent, how, counts)
        if error is not None:
            failures.append(minimised(case, sent, how, error))
            told(failures[-1].told())
    counts["messages sans I/O"] += cases.messages - before
    return failures


async def over_sockets(cases: Cases, messages: int, counts: Counter[str]) -> list[Failure]:
    failures: list[Failure] = []
    before = cases.messages
    async with sockets.stand(7) as at:
        while cases.messages < messages and len(failures) < _ENOUGH:
            case, sent, how = cases.next()
            counts["conversations over sockets"] += 1
            try:
                await sockets.hold(at, sent, how, counts)
            except Exception as error:
                failures.append(Failure(kind_of(error), case, sent, how, error))
                break  # what a failed conversation left behind would be taken for the next one's
    counts["messages over sockets"] += cases.messages - before
    return failures


async def start_ups(corpus: list[seeds.Seed], seed: int, packets: int, counts: Counter[str]) -> list[Failure]:
    """First packets of every kind, one connection each."""
    async with sockets.stand(8) as at:
        for number in range(packets):
            case = Case(seed, number)
            sent = first_packets.packets_of(case, corpus)
            counts["first packets"] += len(sent)
            try:
                await first_packets.hold(at, sent, counts)
            except Exception as error:
                return [Failure(kind_of(error), case, sent, None, error)]
    return []


def replay(corpus: list[seeds.Seed], case: Case) -> int:
    """One conversation of a run, in both ways."""
    plain = [s for s in corpus if sum(m is not None for m in s.messages) > 2]
    sent, how, counts = messages_of(case, plain), circumstances_of(case), Counter[str]()
    error = play(sent, how, counts)
    if error is not None:
        print(minimised(case, sent, how, error).told())
        return 1

    async def again() -> None:
        async with sockets.stand(7) as at:
            await sockets.hold(at, sent, how, counts)

    asyncio.run(again())
    print(f"nothing went wrong: {dict(counts)}")
    return 0
