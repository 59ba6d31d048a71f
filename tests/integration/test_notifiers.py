"""`pgproxy serve` tells a webhook and Slack of a parked statement, and takes Slack's answer."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.approvals.notify.services import FakeSlack, Recording, form, press
from tests.integration.system import System, eventually
from tests.integration.test_serve import serving

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Outside:
    """The services, in a thread with a loop of its own: the tests of whole systems block."""

    def __init__(self) -> None:
        self.slack, self.receiver = FakeSlack(), Recording()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    def start(self, ready: Future[None]) -> None:
        async def serve() -> None:
            async with self.slack.running(), self.receiver.running():
                ready.set_result(None)
                await self._stop.wait()

        self._loop.run_until_complete(serve())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)


@pytest.fixture
def outside() -> Iterator[Outside]:
    services, ready = Outside(), Future[None]()
    thread = threading.Thread(target=services.start, args=(ready,))
    thread.start()
    ready.result(20)
    yield services
    services.stop()
    thread.join(20)


def test_parked_statement_is_told_and_decided_in_slack(system: System, short_directory: Path, outside: Outside) -> None:
    slack = outside.slack
    changes: dict[str, Any] = {
        "reviewers": [
            {
                "name": "bob@example.com",
                "token": {"env": "BOB_TOKEN"},
                "roles": ["reviewer", "admin"],
                "identities": {"slack": "UBOB"},
            }
        ],
        "notifiers": {
            "slack": {
                "bot_token": "xoxb-1",
                "app_token": "xapp-1",
                "signing_secret": slack.secret,
                "channels": {"#dba": "C0123"},
                "api": f"{slack.url}/api/",
            },
            "webhooks": {"siem": {"url": outside.receiver.url, "secret": SECRET, "allow_private": True}},
            "default": ["slack:#dba", "webhook:siem"],
        },
    }
    with serving(short_directory, system, **changes) as (dsn, reviewer):
        psql = system.start_psql("-c", "create role told_outside", dsn=dsn)
        (message,) = eventually(lambda: slack.of("chat.postMessage"), "Slack is told")
        body = form(press(message, "approve", "UBOB"))
        signed = slack.sign(body)
        answers = [reviewer.api.post("/integrations/slack", content=body, headers=signed) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 401]
        output, _ = psql.communicate(timeout=60)
        assert "CREATE ROLE" in output
        eventually(
            lambda: [c.body["type"] for c in outside.receiver.calls][-1:] == ["approval.executed"],
            "the webhook has every event",
        )
        told = [call.body["type"] for call in outside.receiver.calls]
        told = [each for each in told if each != "approval.context"]  # gathered in the background
        assert told == [f"approval.{each}" for each in ("pending", "vote", "approved", "executing", "executed")]
        eventually(
            lambda: any("Status: executed" in str(each) for each in slack.of("chat.update")), "Slack's message follows"
        )
        metrics = reviewer.api.get("/metrics").text
        assert 'pgproxy_notifications_total{channel_kind="webhook",result="delivered"}' in metrics

        def all_delivered() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = reviewer.api.get("/v1/notifications").json()["items"]
            return items if all(each["state"] == "delivered" for each in items) else []

        items = eventually(all_delivered, "every message is delivered")
        assert {each["target"] for each in items} == {"slack:#dba", "webhook:siem"}
