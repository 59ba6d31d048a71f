"""Classification in processes of its own, with caches in front: parsing is hostile territory.

One 44 KB `1+1+1…` can end a process inside libpg_query, and some texts take sqlglot minutes. So a text is analysed
in a disposable process (`process.py`): big stack, raised recursion limit, limits on CPU time and memory, a limit on
time. Its death or lateness means `unknown`, which is privileged, and a new process takes its place. The caches
(`classifier.cache`) make that rare, and only they run in the process that serves sessions.

Invariants:

1. `lookup` never blocks: one dictionary look-up, then the lexer's normal form of texts up to 32 KB, in microseconds.
   No parser runs in a process that serves sessions.
2. `analyze` answers every text exactly once, also when its process dies, and identical texts under way once for all.
3. A text that takes long holds up other long ones before ordinary ones: it never occupies the last process.
4. Nothing is done to a long text in one go: it is sent, and its answer read, in pieces between which the loop turns.
5. An analyser inherits no environment (passwords live there) and logs nothing.

`batch.py` does the same for many texts at once, on all cores, for the command line.

Rejected: threads (a stack overflow ends the whole process), a process per text (80 ms each), multiprocessing's
pool (loses what a killed worker had in hand, unpickles what a subverted one sends).
"""

from __future__ import annotations

import logging

from pgproxy.analysis.pool import AnalyserPool

__all__ = ["AnalyserPool", "silence_sqlglot"]


def silence_sqlglot() -> None:
    """sqlglot logs the statement it cannot parse, passwords included, at WARNING."""
    logger = logging.getLogger("sqlglot")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL + 1)


silence_sqlglot()
