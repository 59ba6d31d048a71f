"""Channels: every call ends, and nobody outlives the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pgproxy.channel import (
    FD_VARIABLE,
    LINE_LIMIT_BYTES,
    Channel,
    ChannelError,
    Hello,
    Router,
    greet,
    join,
    open_channel,
)

Pair = tuple[Channel, Channel]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    one, other = socket.socketpair()
    channels = await open_channel(one, "one"), await open_channel(other, "other")
    yield channels
    for channel in channels:
        await channel.close()


async def echo(params: Any) -> Any:
    return params


async def never(_: Any) -> Any:
    await asyncio.Event().wait()


async def test_calls_go_both_ways_at_once(pair: Pair) -> None:
    for channel in pair:
        channel.handle("echo", echo)
    sent = [{"n": number, "text": "zwölf\n\u2028"} for number in range(50)]
    calls = [pair[number % 2].call("peer", "echo", params) for number, params in enumerate(sent)]
    assert await asyncio.gather(*calls) == sent


async def test_answers_come_in_any_order(pair: Pair) -> None:
    gate = asyncio.Event()

    async def slow(_: Any) -> str:
        await gate.wait()
        return "slow"

    pair[1].handle("slow", slow)
    pair[1].handle("echo", echo)
    waiting = asyncio.ensure_future(pair[0].call("peer", "slow"))
    assert await pair[0].call("peer", "echo", 1) == 1
    gate.set()
    assert await waiting == "slow"


async def test_unknown_method_is_an_error(pair: Pair) -> None:
    with pytest.raises(ChannelError, match="nothing: unknown to other"):
        await pair[0].call("peer", "nothing")


async def test_failing_handler_tells_its_kind_but_not_its_text(pair: Pair) -> None:
    async def fails(_: Any) -> None:
        raise ValueError("SELECT secret")

    async def refuses(_: Any) -> None:
        raise ChannelError("not today")

    pair[1].handle("fails", fails)
    pair[1].handle("refuses", refuses)
    with pytest.raises(ChannelError, match=r"^fails: ValueError$"):
        await pair[0].call("peer", "fails")
    with pytest.raises(ChannelError, match=r"^not today$"):
        await pair[0].call("peer", "refuses")


async def test_call_ends_in_its_time_and_the_line_goes_on(pair: Pair) -> None:
    pair[1].handle("never", never)
    pair[1].handle("echo", echo)
    with pytest.raises(ChannelError, match="never: "):
        await pair[0].call("peer", "never", timeout_s=0.05)
    assert await pair[0].call("peer", "echo", "still here") == "still here"


async def test_what_is_not_json_or_too_long_is_refused_where_it_is_said(pair: Pair) -> None:
    async def large(_: Any) -> str:
        return "x" * LINE_LIMIT_BYTES

    pair[1].handle("large", large)
    pair[1].handle("echo", echo)
    with pytest.raises(ChannelError, match="not JSON"):
        await pair[0].call("peer", "echo", object())
    with pytest.raises(ChannelError, match="is more than"):
        await pair[0].call("peer", "echo", "x" * LINE_LIMIT_BYTES)
    with pytest.raises(ChannelError, match="is more than"):
        await pair[0].call("peer", "large", timeout_s=20)
    whole = "x" * (LINE_LIMIT_BYTES - 200)
    assert await pair[0].call("peer", "echo", whole, timeout_s=20) == whole


async def test_closing_fails_calls_under_way_and_later_ones(pair: Pair) -> None:
    pair[1].handle("never", never)
    waiting = asyncio.ensure_future(pair[0].call("peer", "never", timeout_s=60))
    await asyncio.sleep(0)
    await pair[1].close()
    with pytest.raises(ChannelError, match="closed"):
        await waiting
    await asyncio.wait_for(pair[0].closed, 60)
    await asyncio.wait_for(pair[0].stopping(), 60)
    with pytest.raises(ChannelError, match="closed"):
        await pair[0].call("peer", "never")


async def test_nonsense_on_the_line_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    one, other = socket.socketpair()
    channel = await open_channel(one, "one")
    with other:
        other.sendall(b"}{\n")
        await asyncio.wait_for(channel.closed, 60)
    assert "the channel of one is broken" in caplog.text


class Switchboard:
    """A router with a control process and two workers, each a channel pair."""

    def __init__(self) -> None:
        self.router = Router()
        self.children: dict[str, Channel] = {}
        self.ends: list[Channel] = []

    async def add(self, role: str, index: int) -> None:
        ours, theirs = socket.socketpair()
        end = await open_channel(ours, f"{role} {index}")
        end.route(self.router.call)
        child = await open_channel(theirs, f"{role} {index}")

        async def who(_: Any) -> str:
            return child.name

        child.handle("who", who)
        self.router.attach(role, index, end)
        self.children[f"{role}:{index}"] = child
        self.ends += [end, child]


@pytest.fixture
async def board() -> AsyncIterator[Switchboard]:
    board = Switchboard()
    for role, index in (("control", 0), ("worker", 0), ("worker", 1)):
        await board.add(role, index)
    yield board
    for end in board.ends:
        await end.close()


async def test_child_reaches_every_target_through_the_supervisor(board: Switchboard) -> None:
    worker = board.children["worker:1"]
    board.router.handle("echo", echo)
    assert await worker.call("supervisor", "echo", 5) == 5
    assert await worker.call("control", "who") == "control 0"
    assert await worker.call("worker:0", "who") == "worker 0"
    assert await board.children["control:0"].call("workers", "who") == [
        {"worker": 0, "result": "worker 0"},
        {"worker": 1, "result": "worker 1"},
    ]
    assert await board.router.call("worker:1", "who") == "worker 1"


async def test_one_slow_worker_does_not_spoil_the_others_answers(board: Switchboard) -> None:
    board.children["worker:0"].handle("who", never)
    answers = await board.children["control:0"].call("workers", "who", timeout_s=0.3)
    assert "error" in answers[0]
    assert answers[1] == {"worker": 1, "result": "worker 1"}


async def test_target_that_is_not_running_is_an_error(board: Switchboard) -> None:
    control = board.children["control:0"]
    for target in ("worker:7", "worker:x", "elsewhere"):
        with pytest.raises(ChannelError, match=f"{target} is not running"):
            await control.call(target, "who")
    with pytest.raises(ChannelError, match="nothing: unknown to the supervisor"):
        await control.call("supervisor", "nothing")
    board.router.detach(board.ends[0])
    with pytest.raises(ChannelError, match="control is not running"):
        await board.children["worker:0"].call("control", "who")


async def test_router_of_nobody_answers_with_nothing() -> None:
    assert await Router().call("workers", "who") == []


CHILD = """
import asyncio, json, os, sys
from pgproxy.channel import join
async def main():
    channel, hello = await join()
    inherited = os.get_inheritable(int(sys.argv[1]))
    await channel.ready(listen="here")
    print(json.dumps([hello.role, hello.index, hello.extra, channel.name, inherited]), flush=True)
    await channel.stopping()
    print("stopping", flush=True)
asyncio.run(main())
"""


async def start_child() -> tuple[asyncio.subprocess.Process, Channel, list[Any]]:
    ours, theirs = socket.socketpair()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, str(theirs.fileno())),
            env={**os.environ, FD_VARIABLE: str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
        )
    channel = await open_channel(ours, "child")
    told: list[Any] = []

    async def route(*call: Any) -> None:
        told.append(call[:3])

    channel.route(route)
    await greet(channel, Hello("{}", "worker", 3, "i", "n", {"key": "x"}))
    assert child.stdout is not None
    line = json.loads(await asyncio.wait_for(child.stdout.readline(), 60))
    assert line == ["worker", 3, {"key": "x"}, "worker 3", False]
    return child, channel, told


async def test_child_ends_when_its_supervisor_is_gone() -> None:
    child, channel, _ = await start_child()
    await channel.close()
    assert child.stdout is not None
    assert b"stopping" in await asyncio.wait_for(child.stdout.read(), 60)
    assert await child.wait() == 0


async def test_child_stops_on_sigterm_not_on_ctrl_c() -> None:
    child, channel, told = await start_child()
    assert told == [("supervisor", "ready", {"listen": "here"})]
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 60) == 0
    await channel.close()


async def test_joining_without_a_supervisor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FD_VARIABLE, raising=False)
    with pytest.raises(ChannelError, match="not by hand"):
        await join()
    one, other = socket.socketpair()
    other.close()
    with pytest.raises(ChannelError, match="the supervisor is gone"):
        await join(one.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)
