"""The configuration's part about chats, webhooks and mail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from pgproxy.app.notifying import notifying_of
from pgproxy.config import ConfigError, Settings, load
from pgproxy.notifycheck import unknown_target

if TYPE_CHECKING:
    from pgproxy.store import Pool

Load = Callable[[str], Settings]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SLACK = "bot_token: xoxb-1, app_token: xapp-1, channels: {'#dba': C0123}"
BOT = "app_id: a, app_password: p, tenant: t, channels: {dba: {id: '19:x@thread.tacv2'}}"
URL = "api: {external_url: 'https://pgproxy.example'}\n"


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def read(text: str) -> Settings:
        path = tmp_path / "pgproxy.yaml"
        path.write_text(text)
        return load(path, {})

    return read


CASES = [
    ("slack: {bot_token: xoxb-1, app_token: xapp-1}", "notifiers.slack.channels: is required"),
    ("slack: {bot_token: xoxb-1, channels: {'#dba': C0123}}", "notifiers.slack: needs signing_secret (HTTP) or"),
    (
        "slack: {bot_token: xoxb-1, signing_secret: s, channels: {'#dba': C0123}}",
        "notifiers.slack.signing_secret: needs api.external_url",
    ),
    (
        "slack: {bot_token: xapp-1, app_token: xoxb-1, channels: {'#dba': C0123}}",
        "notifiers.slack.bot_token: must be a token that begins with xoxb-",
    ),
    ("slack: {bot_token: xoxb-1, app_token: xapp-1, channels: {'#dba': '#dba'}}", "notifiers.slack.channels.#dba:"),
    (f"slack: {{{SLACK}, token: x}}", "notifiers.slack.token: unknown key"),
    (f"teams: {{bot: {{{BOT}}}}}", "notifiers.teams.bot: needs api.external_url"),
    ("teams: {workflows: {flow: 'http://flow.example/x'}}", "notifiers.teams.workflows.flow: must be https"),
    (
        f"webhooks: {{siem: {{url: 'http://10.0.0.1/', secret: {SECRET}}}}}",
        "notifiers.webhooks.siem.url: must be https",
    ),
    (
        f"webhooks: {{siem: {{url: 'https://u:p@siem.example/', secret: {SECRET}}}}}",
        "notifiers.webhooks.siem.url: must be an https:// URL without user",
    ),
    ("webhooks: {siem: {url: 'https://siem.example/'}}", "notifiers.webhooks.siem.secret: is required"),
    (
        "webhooks: {siem: {url: 'https://siem.example/', secret: hunter2}}",
        "notifiers.webhooks.siem.secret: must be whsec_ and base64",
    ),
    (f"slack: {{{SLACK}}}, default: ['slack:#db']", "notifiers.default[0]: 'slack:#db' is no target of notifiers"),
    ("default: [x]", "'x' is no target of notifiers; known: none"),
]


@pytest.mark.parametrize(("section", "reason"), CASES)
def test_what_is_wrong_is_named(read: Load, section: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(f"notifiers: {{{section}}}")
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_one_name_for_two(read: Load) -> None:
    both = f"teams: {{workflows: {{dba: 'https://flow.example/x'}}, bot: {{{BOT}}}}}"
    with pytest.raises(ConfigError, match=r"notifiers\.teams\.bot\.channels\.dba: is the name of a workflow already"):
        read(f"{URL}notifiers: {{{both}}}")


WHOLE = f"""{URL}notifiers:
  slack: {{{SLACK}, signing_secret: s1}}
  teams: {{workflows: {{flow: 'https://flow.example/x?sig=hush'}}, bot: {{{BOT}}}}}
  webhooks: {{siem: {{url: 'https://siem.example/in', secret: {SECRET}}}}}
  apprise: {{mail: 'mailtos://user:hush@example.com'}}
  default: ['slack:#dba', 'webhook:siem']
"""
TARGETS = ["slack:#dba", "teams:flow", "teams:dba", "webhook:siem", "apprise:mail"]


def test_targets_as_rules_name_them(read: Load) -> None:
    notifiers = read(WHOLE).notifiers
    assert notifiers.targets() == TARGETS
    assert [unknown_target(notifiers, target) for target in TARGETS] == [None] * 5
    for target in ("slack:dba", "#dba", "", "mail"):
        assert "is no target" in (unknown_target(notifiers, target) or "")


def test_secrets_are_shown_to_nobody(read: Load) -> None:
    settings = read(WHOLE)
    for shown in (repr(settings), settings.model_dump_json()):
        for secret in ("hush", SECRET, "xoxb-1", "xapp-1", "s1'"):
            assert secret not in shown
    assert Settings.from_wire(settings.to_wire()) == settings


RULE = "version: 1, rules: [{name: r, match: {classes: [export]}, decision: approve, "


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        ("notify: ['slack:#db']", "notify: 'slack:#db' is no target of notifiers; known: slack:#dba"),
        ("escalate: {after: 1m, notify: ['webhook:x']}", "escalate: 'webhook:x' is no target of notifiers"),
    ],
)
def test_rules_name_configured_targets_only(read: Load, asks: str, reason: str) -> None:
    people = "reviewers: [{name: bob@example.com, token: a-token-of-more-than-twenty-characters}]\n"
    base = f"{people}notifiers: {{slack: {{{SLACK}}}}}\npolicy: {{{RULE}"
    with pytest.raises(ConfigError) as refused:
        read(f"{base}{asks}}}]}}")
    assert reason in str(refused.value)
    good = asks.replace("slack:#db'", "slack:#dba'").replace("webhook:x", "slack:#dba")
    assert read(f"{base}{good}}}]}}").policy is not None


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """Nothing is asked of it."""
    async with asyncpg.create_pool("postgresql://127.0.0.1:1/none", min_size=0) as pool:
        yield pool


async def test_every_target_gets_its_channel(read: Load, pool: Pool) -> None:
    notifying = notifying_of(read(WHOLE), pool)
    assert [channel.target for channel in notifying.channels] == TARGETS
    assert [channel.kind for channel in notifying.channels] == ["slack", "teams", "teams", "webhook", "apprise"]
    assert notifying.slack is not None
    assert notifying.slack.has_socket
    assert notifying.slack.booth.link("a1") == "https://pgproxy.example/approvals/a1"
    for channel in notifying.channels:
        await channel.close()
    await notifying.close()


async def test_nobody_configured_nothing_runs(read: Load, pool: Pool) -> None:
    notifying = notifying_of(read("mode: enforce"), pool)
    assert (notifying.channels, notifying.slack, notifying.teams) == ((), None, None)
