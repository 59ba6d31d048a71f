"""The section of the configuration about chats, webhooks and mail. `pgproxy.config` puts it in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from pgproxy.dsn import Secret
from pgproxy.identityconfig import Https, Text

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _receiver(url: SecretStr) -> SecretStr:
    """Statements go there, so over TLS or on this very machine. What such a URL carries behind its host is often a
    secret."""
    try:
        parts = urlsplit(url.get_secret_value())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if not host or parts.username is not None or parts.fragment:
        raise ValueError("must be an https:// URL without user and #")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ValueError("must be https: statements would cross the network in the clear")
    return url


SecretUrl = Annotated[Secret, AfterValidator(_receiver)]
Name = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^\S+$")]
ChannelId = Annotated[str, Field(pattern=r"^[CGD][A-Z0-9]{2,}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlackNotifier(_Section):
    """One app. Presses of its buttons come to `POST /integrations/slack`, proved by `signing_secret`, or by Socket
    Mode with `app_token`. `channels`: what rules call them, and their ids. `team`: the workspace's id, beyond which
    nobody decides."""

    bot_token: Secret
    signing_secret: Secret | None = None
    app_token: Secret | None = None
    team: Text | None = None
    channels: dict[Name, ChannelId] = Field(min_length=1)
    api: Https = "https://slack.com/api/"


class TeamsBotChannel(_Section):
    """`service_url`: the connector of the tenant's region; `id`: the channel's (19:…@thread.tacv2)."""

    service_url: Https = "https://smba.trafficmanager.net/teams/"
    id: Text


class TeamsBot(_Section):
    """Its messaging endpoint is `POST /integrations/teams`."""

    app_id: Text
    app_password: Secret
    tenant: Text
    channels: dict[Name, TeamsBotChannel] = Field(min_length=1)


class TeamsNotifier(_Section):
    """`workflows`: webhooks that take a card and can only link to the console."""

    workflows: dict[Name, SecretUrl] = {}
    bot: TeamsBot | None = None


class WebhookNotifier(_Section):
    """`secret`: `whsec_` and base64, as Standard Webhooks writes it. Private addresses are refused unless
    `allow_private`."""

    url: SecretUrl
    secret: Secret
    allow_private: bool = False


class Notifiers(_Section):
    """Who is told that a request waits. `default`: the targets of requests whose rule names none. A message that
    cannot be delivered is given up after `give_up_h` hours."""

    slack: SlackNotifier | None = None
    teams: TeamsNotifier = TeamsNotifier()
    webhooks: dict[Name, WebhookNotifier] = {}
    apprise: dict[Name, Secret] = {}
    default: tuple[Text, ...] = ()
    give_up_h: float = Field(default=24.0, gt=0, le=30 * 24)

    def targets(self) -> list[str]:
        """As rules name them in `notify` and `escalate`: `slack:#dba`, `teams:dba`, `webhook:siem`, `apprise:mail`."""
        return list(self._targets())

    def _targets(self) -> Iterator[str]:
        yield from (f"slack:{name}" for name in (self.slack.channels if self.slack is not None else ()))
        yield from (f"teams:{name}" for name in self.teams.workflows)
        yield from (f"teams:{name}" for name in (self.teams.bot.channels if self.teams.bot is not None else ()))
        yield from (f"webhook:{name}" for name in self.webhooks)
        yield from (f"apprise:{name}" for name in self.apprise)
