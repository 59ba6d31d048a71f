"""Slack: messages with buttons, and what comes back when one is pressed, over HTTP or Socket Mode."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.signature import Clock, SignatureVerifier
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

from approvals.errors import ApprovalError, Conflict
from approvals.notify import slackblocks
from approvals.notify.deliveries import use_signature
from approvals.notify.ports import Kind, Message, NotDelivered, Refused, Skipped
from approvals.notify.slackblocks import SQL_LIMIT
from approvals.notify.voting import Booth, Link

if TYPE_CHECKING:
    from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
    from slack_sdk.socket_mode.request import SocketModeRequest

    from approvals.store import Pool

log = logging.getLogger("pgproxy.approvals")

API = "https://slack.com/api/"
_CALL_S = 10
_RECONNECT_S = 5.0
_FAILURES = (SlackClientError, aiohttp.ClientError, OSError, TimeoutError, ValueError)
_GONE = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
_SILENT = frozenset({"approval.comment"})


class Slack:
    """One app in one workspace. `team`: its id, where interactions of no other (a shared channel) are taken."""

    def __init__(
        self,
        pool: Pool,
        bot_token: str,
        link: Link,
        *,
        signing_secret: str | None = None,
        app_token: str | None = None,
        team: str | None = None,
        api: str = API,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._web = AsyncWebClient(bot_token, base_url=api, timeout=_CALL_S)
        self._app_token = app_token
        self._team = team
        self._verifier = None if signing_secret is None else SignatureVerifier(signing_secret, _Clock(clock))
        self.booth = Booth(pool, "slack", link, SQL_LIMIT)

    async def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Raises:
        NotDelivered
        """
        try:
            response = await self._web.api_call(method, json=arguments)
        except SlackApiError as error:
            reason = str(error.response.get("error", "unknown"))
            after = error.response.headers.get("Retry-After") if error.response.headers else None
            raise NotDelivered(
                f"Slack answered {reason}", retry_after_s=float(after) if after and after.isdigit() else None
            ) from error
        except _FAILURES as error:
            raise NotDelivered(f"Slack does not answer ({type(error).__name__})") from error
        assert isinstance(response.data, dict)
        return response.data

    async def take_signed(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The payload of a request to the interactivity endpoint.

        Raises:
            Refused, StoreUnavailable
        """
        timestamp, signature = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
        if self._verifier is None:
            raise Refused("Slack's signing_secret is not configured")
        if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12 or not signature.isascii():
            raise Refused("the signature is malformed")
        try:
            genuine = self._verifier.is_valid(body, timestamp, signature)
        except ValueError:  # not UTF-8
            genuine = False
        if not genuine:
            raise Refused("the signature is wrong or too old")
        if not await use_signature(self._pool, hashlib.sha256(signature.encode()).digest()):
            raise Refused("the signature has been used")
        try:
            payload = json.loads(parse_qs(body.decode(), strict_parsing=True)["payload"][0])
        except (ValueError, KeyError, RecursionError):
            raise Refused("there is no payload") from None
        if not isinstance(payload, dict):
            raise Refused("there is no payload")
        return payload

    async def interact(self, payload: dict[str, Any]) -> None:
        """What a genuine interaction asks for. Tells who pressed when it cannot be done; never raises."""
        try:
            await self._interact(payload)
        except NotDelivered as error:
            log.warning("slack interaction not answered reason=%s", error)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            log.warning("slack interaction not understood error=%s", type(error).__name__)

    async def _interact(self, payload: dict[str, Any]) -> None:
        user = str(payload["user"]["id"])
        teams = {(payload.get("team") or {}).get("id"), payload["user"].get("team_id", self._team)}
        if self._team is not None and teams != {self._team}:
            log.warning("slack interaction of another workspace refused")
            return
        if payload["type"] == "block_actions":
            action = payload["actions"][0]
            if action["action_id"] not in ("approve", "deny", "comment"):
                return  # a link was followed
            meant = json.loads(action["value"])
            container = payload["container"]
            place = {"channel": str(container["channel_id"]), "ts": str(container["message_ts"])}
            if action["action_id"] == "comment":
                await self._open_modal(user, str(payload["trigger_id"]), meant, place)
            else:
                await self._vote(user, meant, action["action_id"], None, place)
        elif payload["type"] == "view_submission" and payload["view"]["callback_id"] == slackblocks.CALLBACK:
            meant = json.loads(payload["view"]["private_metadata"])
            values = payload["view"]["state"]["values"]
            choice = values["decision"]["choice"]["selected_option"]["value"]
            comment = values["comment"]["text"].get("value")
            await self._vote(user, meant, choice, comment, {"channel": meant["channel"], "ts": meant["ts"]})

    async def _vote(
        self, user: str, meant: dict[str, Any], decision: str, comment: str | None, place: dict[str, str]
    ) -> None:
        try:
            await self.booth.vote(user, str(meant["id"]), str(meant["sha256"]), decision, comment)
        except ApprovalError as error:
            await self._whisper(user, place["channel"], str(error))
            if isinstance(error, Conflict):
                await self._show_current(str(meant["id"]), place)

    async def _open_modal(self, user: str, trigger: str, meant: dict[str, Any], place: dict[str, str]) -> None:
        try:
            approval = await self.booth.look(str(meant["id"]))
        except ApprovalError as error:
            await self._whisper(user, place["channel"], str(error))
            return
        content = self.booth.content(approval)
        if not content.actions or content.sha256 != meant["sha256"]:
            await self._whisper(user, place["channel"], "this can no longer be decided here: read it again")
            await self._show_current(approval["id"], place)
            return
        metadata = {"id": content.approval_id, "sha256": content.sha256, **place}
        await self.call("views.open", trigger_id=trigger, view=slackblocks.modal(content, metadata))

    async def _whisper(self, user: str, channel: str, text: str) -> None:
        """To this person alone."""
        await self.call(
            "chat.postEphemeral", channel=channel, user=user, text=slackblocks.escape_mrkdwn(f"Not done: {text}")
        )

    async def _show_current(self, approval_id: str, place: dict[str, str]) -> None:
        try:
            approval = await self.booth.look(approval_id)
        except ApprovalError:
            return
        await self.update(approval, place)

    async def update(self, approval: dict[str, Any], place: dict[str, str]) -> None:
        """Raises:
        NotDelivered
        """
        try:
            await self.call("chat.update", **place, **slackblocks.message(self.booth.content(approval)))
        except NotDelivered as error:
            if not any(str(error).endswith(reason) for reason in _GONE):
                raise

    async def follow_socket(self) -> None:
        """Socket Mode, until cancelled: Slack's interactions over a connection that this side has opened."""
        assert self._app_token is not None
        client = SocketModeClient(self._app_token, web_client=self._web, logger=log)
        client.socket_mode_request_listeners.append(self._on_socket)
        try:
            while True:
                try:
                    await client.connect()  # type: ignore[no-untyped-call]  # theirs
                    log.info("slack socket mode connected")
                    break  # it reconnects by itself from here on
                except Exception as error:  # a chat ends nothing but itself
                    log.warning("slack socket mode cannot connect error=%s", type(error).__name__)
                    await asyncio.sleep(_RECONNECT_S)
            await asyncio.Event().wait()
        finally:
            await client.close()  # type: ignore[no-untyped-call]  # theirs

    async def _on_socket(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        if request.type == "interactive" and isinstance(request.payload, dict):
            await self.interact(request.payload)

    @property
    def has_socket(self) -> bool:
        return self._app_token is not None


class SlackChannel:
    """One channel of the workspace as a target."""

    kind: Kind = "slack"
    every_event = False

    def __init__(self, slack: Slack, target: str, channel: str) -> None:
        self.target = target
        self._slack = slack
        self._channel = channel

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        if message.kind == "changed":
            if message.event in _SILENT:
                raise Skipped("nothing that the message shows has changed")
            if not message.refs:
                raise Skipped("there is no message to change")
            for ref in message.refs:
                await self._slack.update(message.approval, ref)
            return None
        if not message.is_pending:
            raise Skipped("it is settled already")
        content = self._slack.booth.content(message.approval, escalated=message.kind == "escalated")
        answer = await self._slack.call(
            "chat.postMessage",
            channel=self._channel,
            unfurl_links=False,
            unfurl_media=False,
            link_names=False,
            parse="none",
            metadata={"event_type": "pgproxy_approval", "event_payload": {"message_id": message.id}},
            **slackblocks.message(content),
        )
        return {"channel": answer.get("channel", self._channel), "ts": answer["ts"]}

    async def close(self) -> None:
        """Connections are opened for each call."""


class _Clock(Clock):
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def now(self) -> float:
        return self._now()
