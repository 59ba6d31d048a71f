"""Chats, webhooks and mail, from the configuration. What is not configured is not even imported."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from approvals.notify.dispatcher import Dispatcher, Pace
from approvals.notify.teams import BotChannel, TeamsBot, TeamsBotChannel, TeamsWorkflow
from approvals.notify.webhook import Webhook
from pgproxy.app.identity import api_url

if TYPE_CHECKING:
    from approvals.notify.ports import Channel
    from approvals.notify.slack import Slack
    from approvals.notify.voting import Link
    from approvals.wakeups import Wakeups
    from pgproxy.config import Settings
    from pgproxy.metrics import ControlMetrics
    from pgproxy.notifyconfig import SlackNotifier
    from pgproxy.store import Pool


@dataclass(frozen=True, slots=True)
class Notifying:
    """Every target, and the two whose users answer."""

    channels: tuple[Channel, ...]
    slack: Slack | None
    teams: TeamsBot | None

    def tasks(
        self, settings: Settings, pool: Pool, wakeups: Wakeups, metrics: ControlMetrics
    ) -> list[Coroutine[Any, Any, None]]:
        """What is to be kept running; nothing where nobody is to be told."""
        if not self.channels:
            return []
        pace = Pace(give_up_s=settings.notifiers.give_up_h * 3600)
        dispatcher = Dispatcher(pool, wakeups, self.channels, settings.notifiers.default, metrics=metrics, pace=pace)
        socket = [self.slack.follow_socket()] if self.slack is not None and self.slack.has_socket else []
        return [dispatcher.run(), *socket]

    async def close(self) -> None:
        if self.teams is not None:
            await self.teams.close()


def notifying_of(settings: Settings, pool: Pool) -> Notifying:
    """The configured targets."""
    base = api_url(settings)

    def link(approval_id: str) -> str:
        return f"{base}/approvals/{approval_id}"

    notifiers = settings.notifiers
    channels: list[Channel] = []
    slack = None
    if notifiers.slack is not None:
        from approvals.notify.slack import SlackChannel

        slack = _slack(notifiers.slack, pool, link)
        channels += [SlackChannel(slack, f"slack:{name}", id_) for name, id_ in notifiers.slack.channels.items()]
    channels += [
        TeamsWorkflow(f"teams:{name}", url.get_secret_value(), link) for name, url in notifiers.teams.workflows.items()
    ]
    bot, teams = notifiers.teams.bot, None
    if bot is not None:
        teams = TeamsBot(pool, bot.app_id, bot.app_password.get_secret_value(), bot.tenant, link)
        channels += [
            TeamsBotChannel(teams, f"teams:{name}", BotChannel(each.service_url, each.id))
            for name, each in bot.channels.items()
        ]
    channels += [
        Webhook(
            f"webhook:{name}",
            each.url.get_secret_value(),
            each.secret.get_secret_value(),
            allow_private=each.allow_private,
        )
        for name, each in notifiers.webhooks.items()
    ]
    if notifiers.apprise:
        from approvals.notify.mail import Apprise

        channels += [
            Apprise(f"apprise:{name}", url.get_secret_value(), link) for name, url in notifiers.apprise.items()
        ]
    return Notifying(tuple(channels), slack, teams)


def _slack(slack: SlackNotifier, pool: Pool, link: Link) -> Slack:
    from approvals.notify.slack import Slack

    secret, token = slack.signing_secret, slack.app_token
    return Slack(
        pool,
        slack.bot_token.get_secret_value(),
        link,
        signing_secret=secret.get_secret_value() if secret is not None else None,
        app_token=token.get_secret_value() if token is not None else None,
        team=slack.team,
        api=slack.api,
    )
