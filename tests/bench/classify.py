"""What a statement's classification costs, beside the bare parsers: `python -m tests.bench.classify`, for `make bench`.

Prints a table and puts it under "classify" into bench-results.json. Times are the best of several rounds for what is
counted in microseconds and percentiles for what waits for another process; the machine's other work is in both.
"""

from __future__ import annotations

import asyncio
import json
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter, thread_time
from typing import Any, Final

import postgast
import sqlglot
from google.protobuf.message import DecodeError

from classifier import Environment, classify, implementation, lexer, normal
from classifier.cache import ClassificationCache
from pgproxy.analysis import AnalyserPool
from pgproxy.analysis.batch import classify_lines
from tests.bypass.corpus import must_not_park, must_park

RESULTS: Final = Path("bench-results.json")
HERE: Final = Environment()
MISSES: Final = 400
LINES: Final = 8_000

SHORT: Final = "SELECT id, name, price FROM products WHERE category_id = 7 AND price > 10.5 ORDER BY price LIMIT 20"
STATEMENTS: Final = {
    "tiny": "SELECT 1",
    "short": SHORT,
    "insert": "INSERT INTO orders (customer_id, total, note) VALUES (7, 19.99, 'paid') RETURNING id",
    "report": (
        "WITH paid AS (SELECT o.customer_id, sum(o.total) AS total FROM orders o WHERE o.status = 'paid' GROUP BY 1) "
        "SELECT c.id, c.name, coalesce(p.total, 0) AS total, rank() OVER (ORDER BY p.total DESC) FROM customers c "
        "LEFT JOIN paid p ON p.customer_id = c.id WHERE c.created_at > now() - interval '30 days' AND "
        "EXISTS (SELECT 1 FROM visits v WHERE v.customer_id = c.id) ORDER BY total DESC LIMIT 100"
    ),
    "4 KB": "SELECT " + ", ".join(f"coalesce(t{n}.value, {n}) AS column_{n}" for n in range(60))
    + " FROM a " + " ".join(f"JOIN t{n} ON t{n}.a = a.id" for n in range(60)),
}  # fmt: skip
HOSTILE: Final = {
    "literal of 15 MB": "select '" + "x" * 15_000_000 + "'",
    "literal of 16 MB of wide characters": "select '" + "\U0001f600" * 4_000_000 + "'",
    "1+1… of 100,000": "select 1" + "+1" * 100_000,
    "10 MB of VALUES": "insert into t values " + ", ".join(["(1, 'abcdefghij', 2.5)"] * 450_000),
    "10,000 statements": "".join(f"drop table t{n};" for n in range(10_000)),
}


def microseconds(call: Callable[[], object]) -> float:
    """The best of five rounds."""
    timer = timeit.Timer(call)
    rounds, _ = timer.autorange()
    rounds = max(1, rounds // 4)
    return min(timer.repeat(5, rounds)) / rounds * 1e6


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))] * 1e3


def hits(text: str) -> dict[str, float]:
    """What the process that serves sessions does."""
    cache = ClassificationCache()
    cache.store(text, HERE, classify(text), normal.learn(text.encode()))
    data = text.encode()
    return {
        "exact_us": microseconds(lambda: cache.find_exact(text, HERE)),
        "normalized_us": microseconds(lambda: cache.find_normal(text, HERE)),
        "scan_us": microseconds(lambda: lexer.scan(data)),
    }


def parsers(text: str) -> dict[str, Any]:
    """What anyone would pay for a tree."""
    return {
        "classify_us": microseconds(lambda: classify(text)),
        "sqlglot_us": microseconds(lambda: sqlglot.parse(text, dialect="postgres")),
        "postgast_us": microseconds(lambda: postgast.parse(text)) if is_shallow(text) else "too deep",
    }


def is_shallow(text: str) -> bool:
    """Whether protobuf's reader in Python, which stops at depth 100, gives postgast a tree at all."""
    try:
        postgast.parse(text)
    except DecodeError:
        return False
    return True


async def misses(pool: AnalyserPool, text: str) -> dict[str, float]:
    """Full analysis with the hop, each text new."""
    times = []
    for number in range(MISSES):
        other = f"{text} -- {number}"
        start = perf_counter()
        await pool.analyze(other, HERE)
        times.append(perf_counter() - start)
    return {"miss_p50_ms": percentile(times, 0.5), "miss_p99_ms": percentile(times, 0.99)}


async def corpus(pool: AnalyserPool) -> dict[str, Any]:
    """Full analysis with the hop over the statements of the corpus under 4 KB, what drivers and tools send."""
    texts = [sql for _, sql in must_not_park()] + [sql for _, _, sql in must_park()]
    times = []
    for text in texts:
        if len(text) < 4096:
            start = perf_counter()
            await pool.analyze(f"{text}\n-- x", HERE)
            times.append(perf_counter() - start)
    return {
        "statements": len(times),
        "miss_p50_ms": percentile(times, 0.5),
        "miss_p99_ms": percentile(times, 0.99),
        "miss_max_ms": max(times) * 1e3,
    }


async def pause(pool: AnalyserPool, text: str) -> dict[str, Any]:
    """How long the loop is busy at a time while a hostile text is analysed, and what others' texts wait."""
    loop = asyncio.get_running_loop()
    start = monotonic()
    task = loop.create_task(pool.analyze(text, HERE))
    cpu = wall = 0.0
    before, before_wall = thread_time(), perf_counter()
    while not task.done():
        await asyncio.sleep(0)
        now, now_wall = thread_time(), perf_counter()
        cpu, wall = max(cpu, now - before), max(wall, now_wall - before_wall)
        before, before_wall = now, now_wall
    answer = await task
    return {
        "answer_s": monotonic() - start,
        "pause_cpu_ms": cpu * 1e3,
        "pause_wall_ms": wall * 1e3,
        "answer": answer.reasons[0] if "unknown" in answer.classes else ", ".join(answer.classes),
    }


def batch() -> dict[str, float]:
    """Lines a second through `classify_lines`."""
    results = {}
    for name, text in (
        ("distinct", "SELECT id, p{} FROM products WHERE id = 7"),
        ("constants", SHORT.replace("7", "{}")),
    ):
        lines = (json.dumps({"sql": text.format(number)}) for number in range(LINES))
        start = monotonic()
        assert sum("error" not in answer for answer in classify_lines(lines)) == LINES
        results[f"{name}_per_s"] = LINES / (monotonic() - start)
    return results


async def measure() -> dict[str, Any]:
    results: dict[str, Any] = {"lexer": implementation.implementation()}
    pool = AnalyserPool(processes=2)
    await pool.start()
    try:
        results["statements"] = {
            name: {"bytes": len(text), **hits(text), **parsers(text), **await misses(pool, text)}
            for name, text in STATEMENTS.items()
        }
        results["corpus"] = {"the corpus, under 4 KB": await corpus(pool)}
        results["hostile"] = {name: await pause(pool, text) for name, text in HOSTILE.items()}
    finally:
        await pool.close()
    return results


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Names down, measures across."""
    columns = list(next(iter(rows.values())))
    lines = [f"{'':<36}" + "".join(f"{column:>15}" for column in columns)]
    for name, row in rows.items():
        cells = [f"{value:>15,.2f}" if isinstance(value, float) else f"{value!s:>15}" for value in row.values()]
        lines.append(f"{name:<36}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    results = asyncio.run(measure())
    results["jsonl"] = batch()
    print(f"classification (lexer {results['lexer']})\n")
    print(table(results["statements"]), end="\n\n")
    print(table(results["corpus"]), end="\n\n")
    print(table(results["hostile"]), end="\n\n")
    print("\n".join(f"jsonl, {name}: {value:,.0f}" for name, value in results["jsonl"].items()))
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**known, "classify": results}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
