"""Texts made to end, stall or flood an analyser, and the ordinary ones beside them that must not notice.

Each is answered, quickly where the lexer's counters can tell; no process dies of it; and the loop that serves other
sessions is never busy with it for long at a time. How long is measured in CPU time of its own and in units of a fixed
piece of work done in the same process a moment before, so that a slow or busy machine is slow at both; `make bench`
has the milliseconds (2.7 at most where the unit takes 5.4).
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import AsyncIterator

import pytest

from classifier import Classification, Environment
from pgproxy.analysis import AnalyserPool

HERE = Environment()
LIMIT = 4.0  # of the units below; 20 ms on the machine this was written on
N = 100_000


@pytest.fixture
async def pool() -> AsyncIterator[AnalyserPool]:
    pool = AnalyserPool(processes=2, time_limit_s=100.0)
    await pool.start()
    gc.collect()
    gc.freeze()  # the test run's own heap is none of the loop's turns
    yield pool
    gc.unfreeze()
    await pool.close()


def unit_s() -> float:
    """What this process needs now for a fixed piece of work of the kind a loop does: text to bytes, small objects."""
    before = time.thread_time()
    for _ in range(8):
        ("\U0001f600" * 60_000).encode()
    sum(len(str(number)) for number in range(60_000))
    return time.thread_time() - before


async def analysed_beside_others(pool: AnalyserPool, text: str) -> tuple[Classification, float]:
    """The answer, and the longest turn the loop took for it."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(pool.analyze(text, HERE))
    longest = 0.0
    before = time.thread_time()
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return await task, longest


CHAIN = "the text chains too many operators"
LINKS = "the text chains too many words like JOIN, UNION and NOT"
TOKENS = "the text holds too many words, numbers and signs"
HOSTILE = {
    "parentheses": ("select " + "(" * N + "1" + ")" * N, "the text is nested too deeply"),
    "plus": ("select 1" + "+1" * N, CHAIN),
    "concatenation": ("select 'a'" + "||'a'" * N, CHAIN),
    "casts": ("select '1'" + "::text" * N, CHAIN),
    "plus after parentheses": ("select 1" + "+f(1,2)" * N, CHAIN),
    "joins": ("select * from t" + " join t using (a)" * N, LINKS),
    "cross joins": ("select * from t" + " natural join t" * N, LINKS),
    "unions": ("select 1" + " union select 1" * N, LINKS),
    "unions of lists": ("select 1,2" + " except all select 1,2" * N, LINKS),
    "nots": ("select " + "not " * N + "true", LINKS),
    "nested from": ("select * from " + "(select * from " * N + "t" + ") x" * N, "the text is nested too deeply"),
    "nested from, less": ("select * from " + "(select * from " * 1_900 + "t" + ") x" * 1_900, None),
    "lateral": ("select * from t" + ", lateral (select * from t" * 1_900 + ") x" * 1_900, None),
    "subscripts": ("select a" + "[1]" * N, None),
    "slices": ("select a" + "[1:2]" * 2_000, None),
    "fields": ("select a" + ".a" * N, None),
    "operator run": ("select 1 " + "+-" * N + "1", "the text holds an operator longer than any can be"),
    "signs": ("select 1 " + "- " * N + "1", CHAIN),
    "short operators": ("select 1 " + "*/*" * 5_000, None),
    "comments": ("select 1" + "/**/" * N, "the text holds too many comments"),
    "open comments": ("select 1" + "/*" * N, "unterminated /* comment"),
    "cases": ("select " + "case when true then " * N + "1" + " end" * N, None),
    "collations": ("select a" + ' collate "C"' * N, LINKS),
    "time zones": ("select a" + " at time zone 'x'" * N, LINKS),
    "words": ("select " + "a " * N * 5, TOKENS),
    "values": ("insert into t values " + ", ".join(["(1, 'abcdefghij', now())"] * N * 4), TOKENS),
    "statements": ("select 1;" * 1_000_000, "the text holds too many statements"),
    "most statements": ("select 1;" * 10_000, None),
    "different statements": ("".join(f"drop table t{n};" for n in range(10_000)), None),
    "literal": ("select '" + "x" * 50_000_000 + "'", "the text is too long to be analysed"),
    "long literal": ("select '" + "x" * 15_000_000 + "'", None),
    "long literal of wide characters": ("select '" + "\U0001f600" * 4_000_000 + "'", None),
    "quotes": ("select " + "'" * 1_000_001, "unterminated quoted string"),
    "escapes": ("select E'" + "\\'" * 1_000_000, "unterminated quoted string"),
    "dollar quotes": ("select " + "".join(f"$a{n}$" for n in range(N)), "unterminated dollar-quoted string"),
    "line comments": ("select 1" + "--\n" * 9_000 + " " * 10_000_000, None),
    "NUL": ("select 1\0", "the text holds a NUL byte"),
    "surrogate": ("select '\ud800'", "the text is not valid UTF-8"),
    "relations": ("select 1 from " + ",".join(f"t{n}" for n in range(N)), None),
    "names": ("select " + "x" * 1_000_000, None),
}


async def analysed_quietly(pool: AnalyserPool, text: str) -> tuple[Classification, float]:
    """The answer and the longest turn of the loop in units, at its best of three: what the code itself costs, without
    what a busy machine adds to one of them."""
    longest = math.inf
    for _ in range(3):
        unit = unit_s()
        answer, turn_s = await analysed_beside_others(pool, text)
        longest = min(longest, turn_s / unit)
        if longest < LIMIT:
            break
    return answer, longest


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_text_is_answered_and_nobody_else_notices(pool: AnalyserPool, name: str) -> None:
    text, reason = HOSTILE[name]
    before = pool.process_ids
    answer, longest = await analysed_quietly(pool, text)
    assert reason is None or answer.reasons == (reason,)
    # the analyser did it, in time
    assert not any("analyser process" in r or "took longer" in r for r in answer.reasons)
    assert answer.privileged == (answer.risk != "low")
    assert pool.process_ids == before
    assert longest < LIMIT


ORDINARY = {
    "concatenation": "select " + " || ".join(f"a{n}" for n in range(300)) + " from t",
    "sum": "select " + " + ".join(f"a{n}" for n in range(300)) + " from t",
    "and": "select * from t where " + " and ".join(f"a{n} = {n}" for n in range(300)),
    "or": "select * from t where " + " or ".join(f"a{n} = {n}" for n in range(300)),
    "joins": "select * from a" + "".join(f" join t{n} on a.id = t{n}.id" for n in range(50)),
    "subqueries": "select * from " + "(select * from " * 20 + "t" + ") x" * 20,
    "scalar subqueries": "select " + "(select " * 20 + "1" + ")" * 20,
    "unions": "select 1" + " union all select 1" * 300,
    "list": "select * from t where id in (" + ", ".join(str(n) for n in range(5_000)) + ")",
    "1 MB of values": "insert into t values " + ", ".join(["(1, 'abcdefghij', 2.5)"] * 45_000),
    "1 MB of the shortest values": "insert into t values " + ",".join(["(1)"] * 250_000),
    "10 MB of values": "insert into t values " + ", ".join(["(1, 'abcdefghij', 2.5)"] * 450_000),
    "1 MB of other values": "insert into t values " + ", ".join(["(1, 'abcdefghijklmnop', now(), 2.5)"] * 27_000),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_depth_is_not_hostile(pool: AnalyserPool, name: str) -> None:
    answer, longest = await analysed_quietly(pool, ORDINARY[name])
    assert not answer.privileged, answer.reasons
    assert longest < LIMIT


async def test_no_constant_behind_a_row_hides_anything(pool: AnalyserPool) -> None:
    rows = ", ".join(["(1, 'abcdefghij')"] * 2_000)
    for tail in (", (2, pg_read_file('x'))", "; drop table t", " returning pg_read_file('x')"):
        assert (await pool.analyze(f"insert into t values {rows}{tail}", HERE)).privileged
