"""Checks of `notifiers` that look at several keys at once, or at what is installed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pgproxy.document import Place

if TYPE_CHECKING:
    from pgproxy.config import Settings
    from pgproxy.notifyconfig import Notifiers
    from pgproxy.policy.rules import RuleSet

Finding = tuple[Place, str]

_EXTRA = "needs the optional part: pip install 'pgproxy[notify]'"


def notifier_problems(settings: Settings) -> list[Finding]:
    """Everything wrong, in the order of the section's keys."""
    return [*_slack(settings), *_teams(settings), *_webhooks(settings.notifiers), *_rest(settings.notifiers)]


def unknown_target(notifiers: Notifiers, target: str) -> str | None:
    """Why a rule's `notify` or `escalate` cannot name this; None when it can."""
    known = notifiers.targets()
    if target in known:
        return None
    return f"{target!r} is no target of notifiers; known: {', '.join(known) or 'none'}"


def targets_of(settings: Settings, rules: RuleSet) -> Iterator[Finding]:
    """Targets of rules that nobody has configured; places are the policy's own."""
    for index, rule in enumerate(rules.rules):
        named = [("notify", target) for target in rule.notify]
        named += [("escalate", target) for step in rule.escalations for target in step.notify]
        for key, target in dict.fromkeys(named):
            reason = unknown_target(settings.notifiers, target)
            if reason is not None:
                yield ("rules", index, key), reason


def _slack(settings: Settings) -> Iterator[Finding]:
    slack = settings.notifiers.slack
    if slack is None:
        return
    at = ("notifiers", "slack")
    if not _installed("slack_sdk", "aiohttp"):
        yield at, _EXTRA
    if slack.signing_secret is None and slack.app_token is None:
        yield at, "needs signing_secret (HTTP) or app_token (Socket Mode): no press of a button could be believed"
    if slack.signing_secret is not None and slack.app_token is None and settings.api.external_url is None:
        yield (*at, "signing_secret"), "needs api.external_url: where does Slack send what people press?"
    for key, prefix in (("bot_token", "xoxb-"), ("app_token", "xapp-")):
        secret = getattr(slack, key)
        if secret is not None and not secret.get_secret_value().startswith(prefix):
            yield (*at, key), f"must be a token that begins with {prefix}"


def _teams(settings: Settings) -> Iterator[Finding]:
    teams = settings.notifiers.teams
    if teams.bot is None:
        return
    at = ("notifiers", "teams", "bot")
    if settings.api.external_url is None:
        yield at, "needs api.external_url: where does the Bot Framework send what people press?"
    for name in teams.bot.channels:
        if name in teams.workflows:
            yield (*at, "channels", name), "is the name of a workflow already"


def _webhooks(notifiers: Notifiers) -> Iterator[Finding]:
    for name, webhook in notifiers.webhooks.items():
        secret = webhook.secret.get_secret_value()
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
            yield ("notifiers", "webhooks", name, "secret"), "must be whsec_ and base64 of 24 to 64 random bytes"


def _rest(notifiers: Notifiers) -> Iterator[Finding]:
    if notifiers.apprise and not _installed("apprise"):
        yield ("notifiers", "apprise"), _EXTRA
    yield from _targets(notifiers, notifiers.default)


def _targets(notifiers: Notifiers, named: Iterable[str]) -> Iterator[Finding]:
    for index, target in enumerate(named):
        reason = unknown_target(notifiers, target)
        if reason is not None:
            yield ("notifiers", "default", index), reason


def _installed(*modules: str) -> bool:
    return all(find_spec(module) is not None for module in modules)
