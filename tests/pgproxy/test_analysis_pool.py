"""The pool under texts that end, stall or flood its processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from classifier import Environment, classify
from pgproxy.analysis import AnalyserPool
from pgproxy.analysis.pool import AnalyserFailed
from pgproxy.session.ports import Analyzer

HERE = Environment()
LONG = "select '" + "x" * 20_000 + "'"


@pytest.fixture
async def pool() -> AsyncIterator[AnalyserPool]:
    pool = AnalyserPool(processes=2, time_limit_s=60.0)
    await pool.start()
    yield pool
    await pool.close()


async def test_it_answers_as_the_classifier_does(pool: AnalyserPool) -> None:
    port: Analyzer = pool
    for sql in ("select 1", "copy t to stdout", "prepare p as delete from t", "selec 1", "select $1; set role x", ""):
        assert await port.analyze(sql, HERE) == classify(sql)


async def test_lookup_knows_what_was_analysed() -> None:
    counted: Counter[str] = Counter()
    times: list[float] = []
    pool = AnalyserPool(processes=1, count_cache=lambda r: counted.update([r]), observe_miss=times.append)
    await pool.start()
    try:
        text = "select a from t where b = 1"
        assert pool.lookup(text, HERE) is None
        answer = await pool.analyze(text, HERE)
        assert pool.lookup(text, HERE) == answer
        assert pool.lookup("select a from t where b = 2", HERE) == answer
        assert pool.lookup("select a from u where b = 2", HERE) is None
    finally:
        await pool.close()
    assert counted == {"miss": 1, "exact": 1, "normalized": 1}
    assert len(times) == 1


async def test_identical_texts_are_analysed_once() -> None:
    times: list[float] = []
    pool = AnalyserPool(processes=2, observe_miss=times.append)
    await pool.start()
    try:
        answers = await asyncio.gather(*(pool.analyze("drop table t", HERE) for _ in range(50)))
    finally:
        await pool.close()
    assert set(answers) == {classify("drop table t")}
    assert len(times) == 1


async def test_a_waiter_that_goes_away_takes_nothing_from_the_others(pool: AnalyserPool) -> None:
    loop = asyncio.get_running_loop()
    first = loop.create_task(pool.analyze("select 7 from t", HERE))
    second = loop.create_task(pool.analyze("select 7 from t", HERE))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).classes == ("read",)


async def test_a_killed_analyser_is_replaced_and_nothing_in_the_queue_is_lost(pool: AnalyserPool) -> None:
    loop = asyncio.get_running_loop()
    before = set(pool.process_ids)
    tasks = [loop.create_task(pool.analyze(f"select a{n} from t", HERE)) for n in range(60)]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    answers = await asyncio.gather(*tasks)
    died = [a for a in answers if a.privileged]
    assert len(died) <= 2
    assert all(a.reasons == ("its analysis ended an analyser process",) for a in died)
    assert all(a.classes == ("read",) for a in answers if a not in died)
    assert not before & set(pool.process_ids)
    assert (await pool.analyze("select 1", HERE)).classes == ("read",)


async def test_lateness_is_unknown_and_not_remembered() -> None:
    pool = AnalyserPool(processes=1, time_limit_s=0.3)
    await pool.start()
    try:
        (pid,) = pool.process_ids
        os.kill(pid, signal.SIGSTOP)
        answer = await pool.analyze("select 1", HERE)
        assert answer.classes == ("unknown",)
        assert answer.reasons == ("its analysis took longer than 0.3 s",)
        assert pool.lookup("select 1", HERE) is None
        assert pool.process_ids != (pid,)
        await analysed(pool, "select 1")
    finally:
        await pool.close()


async def analysed(pool: AnalyserPool, text: str) -> None:
    """Asks until a new process has had time to answer in so short a limit."""
    while (await pool.analyze(text, HERE)).classes != ("read",):
        pass


async def test_slow_texts_do_not_hold_up_ordinary_ones(pool: AnalyserPool) -> None:
    loop = asyncio.get_running_loop()
    busy = pool._idle[-1]  # whose turn is next
    os.kill(busy.pid, signal.SIGSTOP)  # before it has the text, or it might be done with it
    slow = [loop.create_task(pool.analyze(f"{LONG}, {n}", HERE)) for n in range(2)]
    await asyncio.sleep(0)
    assert [a for a in pool._analysers if a not in pool._idle] == [busy]
    for number in range(20):
        assert (await pool.analyze(f"select b{number} from t", HERE)).classes == ("read",)
    assert not any(task.done() for task in slow)
    os.kill(busy.pid, signal.SIGCONT)
    await asyncio.gather(*slow)


async def test_without_processes_everything_is_unknown() -> None:
    pool = AnalyserPool(processes=1)
    assert (await pool.analyze("select 1", HERE)).classes == ("unknown",)
    await pool.start()
    (pid,) = pool.process_ids
    await pool.close()
    assert (await pool.analyze("select 1", HERE)).classes == ("unknown",)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_an_analyser_inherits_no_environment(pool: AnalyserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPROXY_SECRET", "hunter2")
    first = pool.process_ids[0]
    os.kill(first, signal.SIGKILL)
    while first in pool.process_ids or len(pool.process_ids) < 2:
        await pool.analyze("select 1", HERE)
    for pid in pool.process_ids:
        with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: ASYNC230, PTH123 - a test of one file
            assert b"hunter2" not in environment.read()


async def test_an_analyser_that_cannot_start_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgproxy.analysis.analyser.sys.executable", "/bin/false")
    pool = AnalyserPool(processes=2)
    with pytest.raises(AnalyserFailed):
        await pool.start()
    assert pool.process_ids == ()
