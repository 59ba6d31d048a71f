"""python -m tests.fuzz --messages 1000000 [--seed N] [--sockets SHARE]

Exit status 1, and the conversation made small, when something leaks, hangs, stays behind or breaks.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from tests.fuzz import run, seeds
from tests.fuzz.conversation import Case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sockets", type=float, default=0.1, help="share of the messages that goes over sockets")
    parser.add_argument("--start-ups", type=int, default=2_000, help="first packets sent to the listener")
    parser.add_argument("--case", type=int, help="only this conversation, sans I/O and over sockets")
    given = parser.parse_args()
    corpus = seeds.load()
    if given.case is not None:
        return run.replay(corpus, Case(given.seed, given.case))
    counts, rss, cases = Counter[str](), [run.rss_mb()], run.Cases(corpus, given.seed)
    sans_io = int(given.messages * (1 - given.sockets))
    began = time.monotonic()
    failures = []
    for share in (0.1, 0.5, 1.0):
        failures += run.sans_io(cases, int(sans_io * share), counts)
        rss.append(run.rss_mb())
    for part in (0.5, 1.0):
        so_far = sans_io + int((given.messages - sans_io) * part)
        failures += asyncio.run(run.over_sockets(cases, so_far, counts))
        rss.append(run.rss_mb())
    failures += asyncio.run(run.start_ups(corpus, given.seed, given.start_ups, counts))
    rss.append(run.rss_mb())
    for what, count in sorted(counts.items()):
        print(f"{count:>10}  {what}")
    for kind in run.KINDS:
        print(f"{sum(f.kind == kind for f in failures):>10}  {kind}")
    print(f"RSS in MB, from the start to the end: {', '.join(f'{mb:.0f}' for mb in rss)}")
    print(f"{time.monotonic() - began:.0f} s")
    for failure in failures[:5]:
        print(failure.told())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
