"""Slack, Teams' connector and login, a Workflow and a webhook's receiver, as they are on the wire: each on a socket of
its own, recording what it got."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import WSMsgType, web

from tests.approvals.provider import SigningKey


@dataclass
class Call:
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Recording:
    """A server that keeps what it is sent. `script`: answers before the usual one, as (status, headers)."""

    calls: list[Call] = field(default_factory=list)
    script: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    hangs: bool = False
    url: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, call: Call) -> web.StreamResponse:
        return web.json_response({})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.path, {k.lower(): v for k, v in request.headers.items()}, await request.read())
        if self.hangs:
            await asyncio.Event().wait()
        self.calls.append(call)
        self._changed.set()
        if self.script:
            status, headers = self.script.pop(0)
            return web.Response(status=status, headers=headers)
        return self.answer(call)

    async def until(self, check: Callable[[], Any]) -> Any:
        async with asyncio.timeout(15):
            while not (found := check()):
                self._changed.clear()
                await self._changed.wait()
        return found

    def routes(self, app: web.Application) -> None:
        app.router.add_route("*", "/{tail:.*}", self._handle)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        app = web.Application(client_max_size=2**24)
        self.routes(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@dataclass
class FakeSlack(Recording):
    """The Web API and Socket Mode. `errors`: what a method answers the next times instead of doing it."""

    secret: str = "slack-signing-secret"
    errors: dict[str, list[str]] = field(default_factory=dict)
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def answer(self, call: Call) -> web.StreamResponse:
        method = call.path.rsplit("/", 1)[-1]
        if method == "apps.connections.open":
            assert call.headers["authorization"] == "Bearer xapp-1"
            return web.json_response({"ok": True, "url": f"{self.url.replace('http', 'ws')}/socket"})
        assert call.headers["authorization"] == "Bearer xoxb-1"
        if self.errors.get(method):
            return web.json_response({"ok": False, "error": self.errors[method].pop(0)})
        answer = {"ok": True, "channel": call.body.get("channel", "")}
        if method == "chat.postMessage":
            answer["ts"] = f"1700000000.{next(self._numbers):06}"
        return web.json_response(answer)

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/socket", self._socket)
        super().routes(app)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": 1})
        self.sockets.append(socket)
        self._changed.set()
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                self.acknowledged.append(json.loads(message.data)["envelope_id"])
                self._changed.set()
        return socket

    def of(self, method: str) -> list[Any]:
        return [call.body for call in self.calls if call.path.endswith(f"/{method}")]

    def sign(self, body: str, at: float | None = None, secret: str | None = None) -> dict[str, str]:
        timestamp = str(int(time.time() if at is None else at))
        key = (self.secret if secret is None else secret).encode()
        digest = hmac.new(key, f"v0:{timestamp}:{body}".encode(), hashlib.sha256).hexdigest()
        return {
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": f"v0={digest}",
            "Content-Type": "application/x-www-form-urlencoded",
        }


def press(message: dict[str, Any], action: str, user: str, ts: str = "1700000000.000001") -> dict[str, Any]:
    """Slack's payload of somebody's pressing a button of a message."""
    buttons = next(block for block in message["blocks"] if block["type"] == "actions")["elements"]
    button = next(each for each in buttons if each["action_id"] == action)
    return {
        "type": "block_actions",
        "user": {"id": user, "team_id": "T1"},
        "team": {"id": "T1"},
        "trigger_id": "trigger-1",
        "container": {"type": "message", "message_ts": ts, "channel_id": message.get("channel", "C0123")},
        "actions": [{"type": "button", "action_id": action, "block_id": "pgproxy", "value": button.get("value")}],
    }


def submit(view: dict[str, Any], user: str, choice: str, comment: str | None) -> dict[str, Any]:
    return {
        "type": "view_submission",
        "user": {"id": user, "team_id": "T1"},
        "team": {"id": "T1"},
        "view": {
            "callback_id": view["callback_id"],
            "private_metadata": view["private_metadata"],
            "state": {
                "values": {
                    "decision": {"choice": {"type": "radio_buttons", "selected_option": {"value": choice}}},
                    "comment": {"text": {"type": "plain_text_input", "value": comment}},
                }
            },
        },
    }


def form(payload: dict[str, Any]) -> str:
    return urlencode({"payload": json.dumps(payload)})


@dataclass
class FakeTeams(Recording):
    """The tenant's login, the connector with its metadata and keys."""

    app_id: str = "app-1"
    tenant: str = "tenant-1"
    key: SigningKey = field(default_factory=lambda: SigningKey.new("bf-1", "RS256"))
    endorsements: list[str] = field(default_factory=lambda: ["msteams", "webchat"])
    issuer: str = "https://api.botframework.com"
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def answer(self, call: Call) -> web.StreamResponse:
        if call.path == "/metadata":
            return web.json_response({"issuer": self.issuer, "jwks_uri": f"{self.url}/keys"})
        if call.path == "/keys":
            return web.json_response({"keys": [{**self.key.public(), "endorsements": self.endorsements}]})
        if call.path == f"/{self.tenant}/oauth2/v2.0/token":
            assert b"client_secret=bot-password" in call.raw
            return web.json_response({"access_token": "connector-token", "expires_in": 3600, "token_type": "Bearer"})
        assert call.headers["authorization"] == "Bearer connector-token"
        if call.path.endswith("/v3/conversations"):
            number = next(self._numbers)
            return web.json_response({"id": f"19:x;messageid={number}", "activityId": str(number)}, status=201)
        return web.json_response({"id": call.body["id"]})

    def token(self, key: SigningKey | None = None, **changes: Any) -> str:
        import jwt

        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.app_id,
            "nbf": now - 10,
            "exp": now + 3600,
            "serviceurl": f"{self.url}/teams/",
            **changes,
        }
        key = key or self.key
        return jwt.encode(
            {name: value for name, value in claims.items() if value is not None},
            key.private,
            key.algorithm,
            {"kid": key.kid},
        )

    def invoke(self, card: dict[str, Any], decision: str, person: str, **changes: Any) -> dict[str, Any]:
        """The connector's activity of somebody's pressing a button of a card."""
        action = next(
            each
            for each in card["actions"]
            if each["type"] == "Action.Execute" and each["data"]["decision"] == decision
        )
        return {
            "type": "invoke",
            "id": "f:1",
            "name": "adaptiveCard/action",
            "channelId": "msteams",
            "serviceUrl": f"{self.url}/teams/",
            "from": {"id": "29:abc", "name": "Somebody", "aadObjectId": person},
            "conversation": {"id": "19:x", "conversationType": "channel", "tenantId": self.tenant},
            "channelData": {"tenant": {"id": self.tenant}},
            "value": {
                "action": {
                    "type": "Action.Execute",
                    "verb": action["verb"],
                    "data": {**action["data"], "comment": "seen in Teams"},
                },
                "trigger": "manual",
            },
            **changes,
        }


class Workflow(Recording):
    """A Workflow's webhook accepts and says nothing."""

    def answer(self, call: Call) -> web.StreamResponse:
        return web.Response(status=202)
