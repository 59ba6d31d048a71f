"""A reviewer that approves everything, over the HTTP API: `python -m tests.conformance.robot API_URL [--token TOKEN]`.

It follows `/v1/approvals/events` and asks for the list once the stream stands, so that nothing falls between the
two; it never polls. The token is that of a reviewer (`PGPROXY_TOKEN`). It prints what it did when it is interrupted.
For test suites only: to approve everything is to have no proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

AT_ONCE = 32
RETRY_S = 0.5
_PAGE = 500
_DECIDED = {200: "approved", 409: "too late"}  # 409: withdrawn or expired meanwhile, the client gave up


async def documents(lines: AsyncIterable[str]) -> AsyncIterator[dict[str, Any]]:
    """The data of each server-sent event; pgproxy sends it on one line."""
    async for line in lines:
        if line.startswith("data:"):
            yield json.loads(line[5:])


@dataclass
class Robot:
    """`run` until cancelled; `counts` holds what happened to the requests it saw."""

    api: httpx.AsyncClient
    counts: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    _taken: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Comes back after a lost connection: the list then says what was missed."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    await self._follow(group)
            except* httpx.TransportError as errors:
                error = errors.exceptions[0]
                self.counts["reconnected"] += 1
                print(f"robot: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        async with self.api.stream("GET", "/v1/approvals/events", timeout=httpx.Timeout(30)) as stream:
            if stream.status_code != 200:
                await stream.aread()
                stream.raise_for_status()
            lines = stream.aiter_lines()
            await anext(lines)  # the stream stands: what changes from here on is an event
            async for approval in self._waiting():
                self._take(approval, group)
            async for approval in documents(lines):
                self._take(approval, group)

    async def _waiting(self) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            query = {"status": "pending", "limit": str(_PAGE)} | ({"cursor": cursor} if cursor else {})
            answer = await self.api.get("/v1/approvals", params=query)
            answer.raise_for_status()
            page = answer.json()
            for approval in page["items"]:
                yield approval
            cursor = page["next"]
            if cursor is None:
                return

    def _take(self, approval: dict[str, Any], group: asyncio.TaskGroup) -> None:
        if approval["status"] != "pending":
            self._taken.discard(approval["id"])
        elif approval["id"] not in self._taken:
            self._taken.add(approval["id"])
            group.create_task(self._approve(approval))

    async def _approve(self, approval: dict[str, Any]) -> None:
        try:
            answer = await self.api.post(f"/v1/approvals/{approval['id']}/decision", json={"decision": "approve"})
        except httpx.TransportError as error:
            self._taken.discard(approval["id"])  # the list after the next connection offers it again
            self.counts[type(error).__name__] += 1
            return
        self.counts[_DECIDED.get(answer.status_code, f"HTTP {answer.status_code}")] += 1
        if answer.status_code == 200:
            statements = approval["classification"].get("statements", ())
            self.classes.update({action["class"] for one in statements for action in one["actions"]})

    def summary(self) -> dict[str, dict[str, int]]:
        return {"requests": dict(self.counts), "classes": dict(self.classes.most_common())}


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Approves every request over the HTTP API.")
    parser.add_argument("api", help="http://HOST:PORT")
    parser.add_argument("--token", default=os.environ.get("PGPROXY_TOKEN"))
    arguments = parser.parse_args()
    if not arguments.token:
        parser.error("a reviewer's token is needed: --token or PGPROXY_TOKEN")
    headers = {"Authorization": f"Bearer {arguments.token}"}
    pool = httpx.Limits(max_connections=AT_ONCE + 2)
    async with httpx.AsyncClient(
        base_url=arguments.api, headers=headers, limits=pool, timeout=httpx.Timeout(60), trust_env=False
    ) as api:
        robot = Robot(api)
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await robot.run()
        except asyncio.CancelledError:
            print(json.dumps(robot.summary()), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
