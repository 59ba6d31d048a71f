"""Teams: cards by a Workflow's webhook, which only link to the console, and by a bot, which takes decisions.

The bot speaks the Bot Framework's REST: what comes is an activity under a JWT of the connector ("Authentication with
the Bot Connector API"), what goes is posted to the connector with a token of our own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from approvals.errors import ApprovalError
from approvals.identity.provider import Metadata, Provider, ProviderUnavailable, is_safe_url
from approvals.identity.tokens import TokenRefused, Verifier
from approvals.notify import cards
from approvals.notify.cards import SQL_LIMIT
from approvals.notify.content import content_of
from approvals.notify.deliveries import use_signature
from approvals.notify.http import Poster
from approvals.notify.ports import Kind, Message, NotDelivered, NotVerified, Refused, Skipped
from approvals.notify.voting import Booth, Link

if TYPE_CHECKING:
    from approvals.store import Pool

log = logging.getLogger("pgproxy.approvals")

ISSUER = "https://api.botframework.com"
METADATA = "https://login.botframework.com/v1/.well-known/openidconfiguration"
LOGIN = "https://login.microsoftonline.com"
SCOPE = "https://api.botframework.com/.default"
_CHANNEL_ID = "msteams"
_EARLY_S = 300.0
_JSON = {"content-type": "application/json"}


class ConnectorKeys(Provider):
    """The connector's metadata is at a place of its own, and its keys say which channels they may vouch for."""

    def __init__(self, issuer: str = ISSUER, metadata: str = METADATA, *, ca: Path | None = None) -> None:
        super().__init__(issuer, ca=ca)
        self._place = metadata

    async def metadata(self) -> Metadata:
        found = await super().request("GET", self._place)
        jwks = found.get("jwks_uri")
        if found.get("issuer") != self.issuer or not isinstance(jwks, str) or not is_safe_url(jwks):
            raise ProviderUnavailable("the connector's metadata names another issuer, or no keys")
        return Metadata("", "", jwks, (), iss_in_response=False)

    async def request(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        found = await super().request(method, url, form=form, login=login)
        if isinstance(found.get("keys"), list):
            found["keys"] = [key for key in found["keys"] if _vouches(key)]
        return found


def _vouches(key: Any) -> bool:
    endorsed = key.get("endorsements") if isinstance(key, dict) else None
    return isinstance(endorsed, list) and _CHANNEL_ID in endorsed


@dataclass(frozen=True, slots=True)
class BotChannel:
    """Where a bot posts: the connector's address for the tenant's region, and the channel's id (19:…@thread.tacv2)."""

    service_url: str
    conversation: str


class TeamsBot:
    """One bot in one tenant."""

    def __init__(
        self,
        pool: Pool,
        app_id: str,
        app_password: str,
        tenant: str,
        link: Link,
        *,
        keys: Provider | None = None,
        login: str = LOGIN,
        allow_private: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._app_id = app_id
        self._app_password = app_password
        self._tenant = tenant
        self._verifier = Verifier(
            keys or ConnectorKeys(),
            app_id,
            ("RS256", "RS384", "RS512"),
            leeway_s=300.0,
            required=("iss", "aud", "exp"),
            clock=clock,
        )
        self._login = f"{login}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        self._poster = Poster(allow_private=allow_private)
        self._token: tuple[str, float] | None = None
        self._token_lock = asyncio.Lock()
        self.booth = Booth(pool, "teams", link, SQL_LIMIT)

    # What comes

    async def take_activity(self, authorization: str, body: bytes) -> dict[str, Any]:
        """A genuine activity of the tenant.

        Raises:
            Refused, NotVerified, StoreUnavailable
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Refused("a bearer token is required")
        try:
            claims = await self._verifier.verify(token.strip())
        except TokenRefused as error:
            raise Refused(str(error)) from error
        except ProviderUnavailable as error:
            raise NotVerified(str(error)) from error
        try:
            activity = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused("the body is not JSON") from None
        if not isinstance(activity, dict):
            raise Refused("the body is not an activity")
        claimed = claims.get("serviceurl", claims.get("serviceUrl"))
        if not isinstance(claimed, str) or claimed != activity.get("serviceUrl"):
            raise Refused("the token is for another service URL")
        if activity.get("channelId") != _CHANNEL_ID or _tenant(activity) != self._tenant:
            raise Refused("the activity is of another channel or tenant")
        # A token is good for many activities; the same activity under the same token comes once.
        digest = hashlib.sha256(token.encode() + b"\0" + body).digest()
        if not await use_signature(self._pool, digest):
            raise Refused("the activity has been taken")
        return activity

    async def answer(self, activity: dict[str, Any]) -> dict[str, Any] | None:
        """The body of the answer to an invoke; None for an activity that wants none."""
        if activity.get("type") != "invoke" or activity.get("name") != "adaptiveCard/action":
            return None
        try:
            action = activity["value"]["action"]
            data = action["data"]
            if action["verb"] != cards.VERB:
                return _said(400, "this is no action of pgproxy")
            person = str(activity["from"].get("aadObjectId") or "")
            arguments = (person, str(data["id"]), str(data["sha256"]), str(data["decision"]))
            comment = data.get("comment")
        except (KeyError, TypeError, AttributeError):
            return _said(400, "the action is not understood")
        try:
            approval = await self.booth.vote(*arguments, str(comment)[:2000] if comment else None)
        except ApprovalError as error:
            return _said(200, f"Not done: {error}")
        return {
            "statusCode": 200,
            "type": cards.CONTENT_TYPE,
            "value": self.card(approval),
        }

    def card(self, approval: dict[str, Any], *, escalated: bool = False) -> dict[str, Any]:
        """A request with the buttons that can be pressed now."""
        return cards.fitting(
            lambda limit: self.booth.content(approval, escalated=escalated, limit=limit), deciding=True
        )

    # What goes

    async def post(self, channel: BotChannel, found: dict[str, Any]) -> dict[str, Any]:
        """A new conversation in a channel; where it is.

        Raises:
            NotDelivered
        """
        body = {
            "isGroup": True,
            "bot": {"id": self._app_id},
            "channelData": {"channel": {"id": channel.conversation}, "tenant": {"id": self._tenant}},
            "activity": cards.attachment(found),
        }
        answer = await self._call("POST", f"{channel.service_url.rstrip('/')}/v3/conversations", body)
        try:
            return {
                "service_url": channel.service_url,
                "conversation": str(answer["id"]),
                "activity": str(answer["activityId"]),
            }
        except KeyError:
            raise NotDelivered("the connector's answer names no activity") from None

    async def replace(self, ref: Mapping[str, str], found: dict[str, Any]) -> None:
        """Raises:
        NotDelivered
        """
        conversation, activity = quote(ref["conversation"], safe=""), quote(ref["activity"], safe="")
        url = f"{ref['service_url'].rstrip('/')}/v3/conversations/{conversation}/activities/{activity}"
        await self._call("PUT", url, {**cards.attachment(found), "id": ref["activity"]})

    async def _call(self, method: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {**_JSON, "authorization": f"Bearer {await self._access_token()}"}
        try:
            answer = await self._poster.send(method, url, cards.encode(body), headers)
        except NotDelivered as error:
            if str(error) == "answered 401":
                self._token = None
            raise
        return _json(answer.body)

    async def _access_token(self) -> str:
        async with self._token_lock:
            now = asyncio.get_running_loop().time()
            if self._token is not None and now < self._token[1]:
                return self._token[0]
            form = {
                "grant_type": "client_credentials",
                "client_id": self._app_id,
                "client_secret": self._app_password,
                "scope": SCOPE,
            }
            headers = {"content-type": "application/x-www-form-urlencoded"}
            answer = await self._poster.send("POST", self._login, urlencode(form).encode(), headers)
            found = _json(answer.body)
            token, lasts = found.get("access_token"), found.get("expires_in", 0)
            if not isinstance(token, str) or not isinstance(lasts, int | float):
                raise NotDelivered("the tenant's login gave no token")
            self._token = token, now + max(0.0, float(lasts) - _EARLY_S)
            return token

    async def close(self) -> None:
        await self._poster.close()


class TeamsBotChannel:
    """One channel of the tenant as a target; what it shows is kept current."""

    kind: Kind = "teams"
    every_event = False

    def __init__(self, bot: TeamsBot, target: str, channel: BotChannel) -> None:
        self.target = target
        self._bot = bot
        self._channel = channel

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        found = self._bot.card(message.approval, escalated=message.kind == "escalated")
        if message.kind == "changed":
            if message.event == "approval.comment" or not message.refs:
                raise Skipped("there is nothing to change")
            for ref in message.refs:
                await self._bot.replace(ref, found)
            return None
        if not message.is_pending:
            raise Skipped("it is settled already")
        return await self._bot.post(self._channel, found)

    async def close(self) -> None:
        """The bot is closed by whoever made it."""


class TeamsWorkflow:
    """A Workflow's webhook: it takes a card and gives nothing back, so an end is told in a second one."""

    kind: Kind = "teams"
    every_event = False

    def __init__(self, target: str, url: str, link: Link, *, allow_private: bool = False) -> None:
        self.target = target
        self._url = url
        self._link = link
        self._poster = Poster(allow_private=allow_private)

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        approval = message.approval
        if message.kind == "changed":
            if message.event not in (
                "approval.approved",
                "approval.denied",
                "approval.expired",
                "approval.withdrawn",
                "approval.modify",
            ):
                raise Skipped("nobody has to know")
            approval = message.at_event
        elif not message.is_pending:
            raise Skipped("it is settled already")
        link, escalated = self._link(approval["id"]), message.kind == "escalated"
        found = cards.fitting(
            lambda limit: content_of(approval, "teams", link, limit=limit, escalated=escalated), deciding=False
        )
        await self._poster.send("POST", self._url, cards.encode(cards.attachment(found)), _JSON)
        return None

    async def close(self) -> None:
        await self._poster.close()


def _tenant(activity: dict[str, Any]) -> str | None:
    """The connector says it in `channelData`, and of newer conversations in `conversation` too."""
    try:
        said = (activity.get("channelData") or {}).get("tenant", {}).get("id")
        found = said or (activity.get("conversation") or {}).get("tenantId")
    except AttributeError:
        return None
    return found if isinstance(found, str) else None


def _said(status: int, text: str) -> dict[str, Any]:
    return {"statusCode": status, "type": "application/vnd.microsoft.activity.message", "value": text}


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotDelivered("the answer is not a JSON object")
    return found
