"""`pgproxy classify`: the classifier from a terminal or a pipe.

A small text is classified right here, on the deep stack the analysers have, so that the answer is the same as in a
run. A text that might end the process it is parsed in goes to an analyser: its death costs one answer, not the run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

from classifier import Classification, Environment, classify, lexer
from pgproxy.analysis import AnalyserPool
from pgproxy.analysis.batch import classify_chunks, lines_of
from pgproxy.analysis.deep import run_deep

T = TypeVar("T")
_ENVIRONMENT = Environment()


class Classifying:
    """Answers text after text; the analyser is started when the first text needs it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool: AnalyserPool | None = None

    def answer(self, text: str) -> Classification:
        if _is_small(text):
            return classify(text, _ENVIRONMENT)
        return self._runner.run(self._ask_analyser(text))

    def close(self) -> None:
        if self._pool is not None:
            self._runner.run(self._pool.close())
        self._runner.close()

    async def _ask_analyser(self, text: str) -> Classification:
        if self._pool is None:
            self._pool = AnalyserPool(processes=1, time_limit_s=30.0)
            await self._pool.start()
        return await self._pool.analyze(text, _ENVIRONMENT)


def one(text: str) -> Classification:
    """The classification of one text."""
    return run_deep(lambda: _with_analyser(lambda classifying: classifying.answer(text)))


def lines(descriptor: int, write: Callable[[str], None]) -> None:
    """One JSON object `{"sql": …}` a line in, one classification or `{"error": …}` out, in the same order."""
    for found in classify_chunks(lines_of(descriptor)):
        write(json.dumps(found, ensure_ascii=True))


def describe(classification: Classification) -> str:
    """For people."""
    verdict = "privileged: it would wait for approval" if classification.privileged else "not privileged"
    out = [f"{verdict} (risk {classification.risk})"]
    for statement in classification.statements:
        out.append("")
        out.append(statement.tag or statement.kind)
        for action in statement.actions:
            what = f"{action.verb} {action.object}" if action.object else action.verb
            out.append(f"  {action.cls!s:<12} {what}" + (f"  ({action.detail})" if action.detail else ""))
        if statement.relations:
            out.append(f"  {'relations':<12} {', '.join(statement.relations)}")
        if statement.functions:
            out.append(f"  {'functions':<12} {', '.join(statement.functions)}")
        out += [f"  {'because':<12} {reason}" for reason in statement.reasons]
    return "\n".join(visible(line) for line in out)


def _is_small(text: str) -> bool:
    if len(text) > lexer.SMALL_BYTES:
        return False
    try:
        return lexer.scan(text.encode()).is_small
    except (UnicodeError, lexer.LexicalError, lexer.TooHostile):
        return True  # refused before anything parses it


def _with_analyser(work: Callable[[Classifying], T]) -> T:
    classifying = Classifying()
    try:
        return work(classifying)
    finally:
        classifying.close()


def visible(text: str) -> str:
    """Names come from the statement: whatever could steer a terminal is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
