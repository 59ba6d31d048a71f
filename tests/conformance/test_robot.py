"""The approving robot against an API in memory: each pending request once, also those before and between streams."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.conformance import robot
from tests.conformance.robot import Robot


def approval(name: str, status: str = "pending") -> dict[str, Any]:
    return {"id": name, "status": status, "classification": {"statements": [{"actions": [{"class": "ddl"}]}]}}


class Stream(httpx.AsyncByteStream):
    """Events as they are put; ends at None."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"retry: 2000\n: connected\n\n"
        while (event := await self.events.get()) is not None:
            yield b"id: 1\nevent: approval\ndata: " + json.dumps(event).encode() + b"\n\n: keepalive\n\n"


class Api:
    """Hands out one stream after another and pages of what is pending; notes the decisions."""

    def __init__(self, *streams: Stream) -> None:
        self.streams = list(streams)
        self.pages: list[list[dict[str, Any]]] = [[]]
        self.too_late: set[str] = set()
        self.decided: Counter[str] = Counter()
        self.changed = asyncio.Event()
        self.followed_again = asyncio.Event()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/events"):
            if not self.streams:
                self.followed_again.set()
                await asyncio.Event().wait()
            return httpx.Response(200, stream=self.streams.pop(0))
        if path.endswith("/decision"):
            assert json.loads(request.content) == {"decision": "approve"}
            name = path.split("/")[-2]
            self.decided[name] += 1
            self.changed.set()
            return httpx.Response(409 if name in self.too_late else 200, json={})
        assert request.url.params["status"] == "pending"
        page = int(request.url.params.get("cursor", "0"))
        following = str(page + 1) if page + 1 < len(self.pages) else None
        return httpx.Response(200, json={"items": self.pages[page], "next": following})

    async def until_decided(self, *names: str) -> None:
        while set(self.decided) != set(names):
            self.changed.clear()
            await self.changed.wait()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(self.answer))


async def test_what_waited_already_and_what_comes_is_approved_once() -> None:
    stream = Stream()
    api = Api(stream)
    api.pages = [[approval("old-2")], [approval("old-1")]]
    async with api.client() as client, asyncio.timeout(20):
        one = Robot(client)
        running = asyncio.ensure_future(one.run())
        for event in (approval("old-1"), approval("done", "executed"), approval("new"), approval("new")):
            stream.events.put_nowait(event)
        await api.until_decided("old-1", "old-2", "new")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert api.decided == {"old-1": 1, "old-2": 1, "new": 1}
    assert one.summary() == {"requests": {"approved": 3}, "classes": {"ddl": 3}}


async def test_a_lost_stream_is_followed_again_and_what_was_missed_is_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot, "RETRY_S", 0)
    first, second = Stream(), Stream()
    first.events.put_nowait(None)
    api = Api(first, second)
    api.pages = [[approval("missed")]]
    second.events.put_nowait(approval("later"))
    async with api.client() as client, asyncio.timeout(20):
        one = Robot(client)
        running = asyncio.ensure_future(one.run())
        await api.until_decided("missed", "later")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not api.streams
    assert api.decided == {"missed": 1, "later": 1}


async def test_a_request_that_was_withdrawn_meanwhile_is_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robot, "RETRY_S", 0)
    stream = Stream()
    api = Api(stream)
    api.too_late = {"gone"}
    stream.events.put_nowait(approval("gone"))
    stream.events.put_nowait(approval("here"))
    async with api.client() as client, asyncio.timeout(20):
        one = Robot(client)
        running = asyncio.ensure_future(one.run())
        await api.until_decided("gone", "here")
        stream.events.put_nowait(None)
        await api.followed_again.wait()  # the group of the first stream has ended, so every answer is counted
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert one.summary() == {"requests": {"too late": 1, "approved": 1}, "classes": {"ddl": 1}}


async def test_a_wrong_token_ends_it() -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"title": "no"})

    async with httpx.AsyncClient(base_url="http://api", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ExceptionGroup) as caught:
            await Robot(client).run()
    assert caught.group_contains(httpx.HTTPStatusError)
