"""Running something on a stack deep enough for any tree the lexer lets through."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# A level of a left-deep chain takes libpg_query about 400 bytes of stack and the JSON reader 300; only pages that
# are touched cost memory.
STACK_BYTES: Final = 1024 * 1024 * 1024
RECURSION_LIMIT: Final = 400_000


def run_deep(function: Callable[[], T]) -> T:
    """Calls a function in a thread of its own with a deep stack, and raises what it raises.

    Raises Python's recursion limit for the whole process, so it is for processes that do little else: analysers
    and the command line.
    """
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(function())
        except BaseException as error:  # handed to the caller whatever it is
            failure.append(error)

    sys.setrecursionlimit(RECURSION_LIMIT)
    before = threading.stack_size(STACK_BYTES)
    try:
        thread = threading.Thread(target=run, name="deep")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
