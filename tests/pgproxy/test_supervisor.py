"""The supervisor with real processes: small programs that stand for control process and workers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pgproxy.channel import ChannelError
from pgproxy.supervisor import Child, Supervisor, SupervisorError, Timing

QUICK = Timing(
    start_s=20,
    backoff_first_s=0.02,
    backoff_last_s=0.2,
    orphan_s=0.2,
    control_stop_s=5,
    on_exit_s=2,
    worker_stop_s=0.2,
    hurry_s=0.5,
)

CHILD = """
import asyncio, os, signal, sys
from pgproxy.channel import join
async def main():
    channel, hello = await join()
    how = hello.extra.get("how", "")
    async def who(_): return [hello.role, hello.index, hello.instance, hello.settings, hello.node, os.getpid()]
    async def crash(_): os._exit(7)
    async def reload(_): print("reload", hello.role, flush=True)
    async def stale(_): raise ValueError
    if how == "stale" and hello.role == "worker": reload = stale; reload.__name__ = "reload"
    for one in (who, crash, reload): channel.handle(one.__name__, one)
    if how == "fail" and hello.role == "worker" and hello.index == 1: sys.exit(3)
    if how == "hang" and hello.role == "worker": await asyncio.sleep(60)
    await channel.ready(index=hello.index)
    await channel.stopping()
    if how == "draining" and hello.role == "worker":
        await channel.hurrying()
        print("hurried", flush=True)
    if how == "stubborn" and hello.role == "worker": await asyncio.sleep(60)
asyncio.run(main())
"""

Exits = list[tuple[str, int, str]]
Start = Callable[..., Awaitable[Supervisor]]


@pytest.fixture
def exits() -> Exits:
    return []


@pytest.fixture
async def start(exits: Exits) -> AsyncIterator[Start]:
    running: list[Supervisor] = []

    async def note(child: Child) -> None:
        exits.append((child.role, child.index, child.instance))

    async def start(how: str = "", workers: int = 2, timing: Timing = QUICK, **options: object) -> Supervisor:
        options.setdefault("on_exit", note)
        supervisor = Supervisor(
            '{"settings": 1}',
            workers=workers,
            node="node-1",
            command=lambda role, index: [sys.executable, "-c", CHILD],
            extra={"how": how},
            timing=timing,
            **options,  # type: ignore[arg-type]  # a test's own options
        )
        running.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in running:
        supervisor._kill.set()
        await supervisor.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (other processes set no event)
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child(supervisor: Supervisor, role: str, index: int = 0) -> Child | None:
    return next((one for one in supervisor.children() if (one.role, one.index) == (role, index)), None)


async def test_every_process_knows_who_it_is_and_is_ready(start: Start) -> None:
    supervisor = await start()
    assert [(one.role, one.index) for one in supervisor.children()] == [("control", 0), ("worker", 0), ("worker", 1)]
    answers = await supervisor.router.call("workers", "who")
    first = child(supervisor, "worker", 0)
    assert first is not None
    assert answers[0]["result"] == ["worker", 0, first.instance, '{"settings": 1}', "node-1", first.pid]
    assert len({one.instance for one in supervisor.children()}) == 3
    assert first.ready.result() == {"index": 0}


async def test_children_are_sessions_of_their_own(start: Start) -> None:
    supervisor = await start(workers=1)
    for one in supervisor.children():
        assert os.getsid(one.pid) == one.pid != os.getsid(0)


@pytest.mark.parametrize("role", ["worker", "control"])
async def test_killed_process_is_settled_and_then_replaced(start: Start, exits: Exits, role: str) -> None:
    supervisor = await start()
    before = child(supervisor, role)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    await until(lambda: (now := child(supervisor, role)) is not None and now is not before and now.ready.done())
    after = child(supervisor, role)
    assert after is not None
    assert exits == [(role, 0, before.instance)]
    assert after.instance != before.instance
    target = "control" if role == "control" else "worker:0"
    assert (await supervisor.router.call(target, "who"))[2] == after.instance


async def test_successor_does_not_start_before_the_dead_ones_affairs_are_settled(start: Start) -> None:
    settled = asyncio.Event()
    asked = asyncio.Event()

    async def on_exit(*_: object) -> None:
        asked.set()
        await settled.wait()

    supervisor = await start(workers=1, on_exit=on_exit)
    before = child(supervisor, "worker")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    await asyncio.wait_for(asked.wait(), 60)
    assert child(supervisor, "worker") is None
    with pytest.raises(ChannelError, match="worker:0 is not running"):
        await supervisor.router.call("worker:0", "who")
    settled.set()
    await until(lambda: (now := child(supervisor, "worker")) is not None and now.ready.done())


async def test_settling_is_tried_again_until_the_store_is_back_while_the_successor_runs(start: Start) -> None:
    attempts: list[str] = []
    store_is_back = False

    async def on_exit(child: Child) -> None:
        attempts.append(child.instance)
        if not store_is_back:
            raise OSError("store away")

    supervisor = await start(workers=1, on_exit=on_exit)
    before = child(supervisor, "worker")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    await until(lambda: (now := child(supervisor, "worker")) is not None and now.ready.done() and len(attempts) > 2)
    store_is_back = True
    count = len(attempts)
    await until(lambda: len(attempts) == count + 1)
    assert set(attempts) == {before.instance}
    await asyncio.sleep(0.5)  # longer than the longest pause: nothing more is tried
    assert len(attempts) == count + 1


async def test_settling_is_bounded(start: Start) -> None:
    async def on_exit(*_: object) -> None:
        await asyncio.Event().wait()

    supervisor = await start(workers=1, on_exit=on_exit, timing=Timing(backoff_first_s=0.01, on_exit_s=0.1))
    before = child(supervisor, "worker")
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    await until(lambda: (now := child(supervisor, "worker")) is not None and now.ready.done())


async def test_crashing_again_and_again_waits_longer_each_time(start: Start) -> None:
    died_at: list[float] = []

    async def on_exit(_: Child) -> None:
        died_at.append(time.monotonic())

    supervisor = await start(workers=1, on_exit=on_exit)
    pauses = []
    for _ in range(4):
        before = child(supervisor, "worker")
        assert before is not None
        with pytest.raises(ChannelError):
            await supervisor.router.call("worker:0", "crash")
        await until(lambda: len(died_at) == len(pauses) + 1)
        await until(lambda: (now := child(supervisor, "worker")) is not None and now.ready.done())
        after = child(supervisor, "worker")
        assert after is not None
        pauses.append(after.started_at - died_at[-1])
    for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.16), strict=True):
        assert pause >= least


async def test_process_that_closes_its_channel_is_killed_and_replaced(start: Start, exits: Exits) -> None:
    supervisor = await start(workers=1)
    before = child(supervisor, "worker")
    assert before is not None
    os.kill(before.pid, signal.SIGSTOP)  # cannot end by itself
    before.channel._writer.close()
    await until(lambda: exits != [] and not is_running(before.pid))
    await until(lambda: (now := child(supervisor, "worker")) is not None and now.ready.done())


async def test_start_fails_when_a_process_does_and_leaves_nothing_running(start: Start, exits: Exits) -> None:
    with pytest.raises(SupervisorError, match=r"^worker 1 ended with status 3 before it was ready$"):
        await start("fail")
    assert sorted((role, index) for role, index, _ in exits) == [("control", 0), ("worker", 0), ("worker", 1)]


async def test_start_fails_when_a_process_is_not_ready_in_time(start: Start) -> None:
    with pytest.raises(SupervisorError, match=r"worker 0 is not ready after 0\.5 s"):
        await start("hang", workers=1, timing=Timing(start_s=0.5))


async def test_stop_ends_workers_first_and_settles_all(start: Start, exits: Exits) -> None:
    supervisor = await start()
    pids = [one.pid for one in supervisor.children()]
    await supervisor.stop()
    assert [role for role, _, _ in exits] == ["worker", "worker", "control"]
    assert not any(is_running(pid) for pid in pids)
    assert supervisor.children() == []


async def test_process_that_does_not_drain_in_time_is_killed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = await start("stubborn", workers=1, drain_timeout_s=0.3)
    one = child(supervisor, "worker")
    assert one is not None
    await asyncio.wait_for(supervisor.stop(), 60)
    assert not is_running(one.pid)
    assert "worker 0 pid=" in caplog.text and "does not stop: killed" in caplog.text


async def test_insisting_cuts_draining_short_but_one_signal_told_twice_does_not(start: Start) -> None:
    timing = replace(QUICK, insist_after_s=0.3)
    supervisor = await start("stubborn", workers=1, drain_timeout_s=600, timing=timing)
    supervisor.request_stop()
    supervisor.request_stop()
    stopping = asyncio.ensure_future(supervisor.stop())
    await asyncio.sleep(0.4)
    assert not stopping.done()
    supervisor.request_stop()
    await asyncio.wait_for(stopping, 60)


async def test_insisting_reaches_workers_as_a_second_signal(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = await start("draining", workers=1, drain_timeout_s=600, timing=replace(QUICK, hurry_s=60))
    supervisor.request_stop()
    stopping = asyncio.ensure_future(supervisor.stop())
    await asyncio.sleep(0.1)
    assert not stopping.done()
    supervisor._hurry.set()
    await asyncio.wait_for(stopping, 60)
    assert capfd.readouterr().out == "hurried\n"


async def test_a_process_that_cannot_reload_is_started_again_with_the_settings_of_now(start: Start) -> None:
    supervisor = await start("stale", workers=1)
    before = child(supervisor, "worker")
    supervisor.settings_wire = '{"settings": 2}'
    assert await supervisor.reload() == ["worker 0"]
    await until(lambda: (now := child(supervisor, "worker")) is not None and now is not before and now.ready.done())
    assert (await supervisor.router.call("worker:0", "who"))[3] == '{"settings": 2}'
    assert await supervisor.tell("control", "who", None) and not await supervisor.tell("control", "what", None)


async def test_reload_reaches_every_process(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = await start()
    assert await supervisor.reload() == []
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "reload control", "reload worker", "reload worker"]


RUN = """
import asyncio, os, signal, sys
import uvloop
from pgproxy.supervisor import Supervisor
CHILD = {child!r}
async def on_exit(*_): pass
async def main():
    supervisor = Supervisor("", workers=1, node="n", on_exit=on_exit, extra=dict(how={how!r}),
        command=lambda role, index: [sys.executable, "-c", CHILD])
    async def on_ready(): print(*(one.pid for one in supervisor.children()), flush=True)
    supervisor.on_hangup = supervisor.reload if {on_hangup} else None
    await supervisor.run(on_ready)
    print("stopped", flush=True)
{runner}.run(main())
"""


async def run_program(
    how: str = "", runner: str = "asyncio", on_hangup: bool = True
) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader, list[int]]:
    text = textwrap.dedent(RUN).format(child=CHILD, how=how, runner=runner, on_hangup=on_hangup)
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=subprocess.PIPE)
    assert program.stdout is not None
    pids = [int(word) for word in (await asyncio.wait_for(program.stdout.readline(), 60)).split()]
    assert len(pids) == 2
    return program, program.stdout, pids


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_run_drains_on_a_signal(runner: str, number: signal.Signals) -> None:
    program, out, pids = await run_program(runner=runner)
    program.send_signal(number)
    assert await asyncio.wait_for(out.read(), 60) == b"stopped\n"
    assert await program.wait() == 0
    assert not any(is_running(pid) for pid in pids)


async def test_hangup_reloads_or_stops() -> None:
    program, out, _ = await run_program()
    program.send_signal(signal.SIGHUP)
    lines = [await asyncio.wait_for(out.readline(), 60) for _ in range(2)]
    assert sorted(lines) == [b"reload control\n", b"reload worker\n"]
    program.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(program.wait(), 60) == 0
    program, out, _ = await run_program(on_hangup=False)
    program.send_signal(signal.SIGHUP)
    assert await asyncio.wait_for(out.read(), 60) == b"stopped\n"
    assert await program.wait() == 0


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
async def test_no_orphans_when_the_supervisor_is_killed(runner: str) -> None:
    program, _, pids = await run_program(runner=runner)
    program.kill()
    await program.wait()
    await until(lambda: not any(is_running(pid) for pid in pids))


async def test_ctrl_c_before_ready_ends_the_start() -> None:
    text = textwrap.dedent(RUN).format(child=CHILD, how="hang", runner="asyncio", on_hangup=False)
    text = text.replace("await supervisor.run(on_ready)", "print('begun', flush=True); await supervisor.run(on_ready)")
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert await program.stdout.readline() == b"begun\n"
    await asyncio.sleep(0.5)
    program.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(program.stdout.read(), 60) == b"stopped\n"
    assert await program.wait() == 0
