"""Teams before a stand-in of the Bot Framework (login, connector, metadata, keys) and of a Workflow."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from approvals.decisions import decide
from approvals.notify.teams import BotChannel, ConnectorKeys, TeamsBot, TeamsBotChannel, TeamsWorkflow
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.notify.conftest import all_done, api, dispatching, link
from tests.approvals.notify.services import FakeTeams, Workflow
from tests.approvals.notify.test_slack import HOSTILE, object_of, texts
from tests.approvals.provider import SigningKey

TARGET = "teams:dba"
CONVERSATIONS = "/teams/v3/conversations"


@pytest.fixture
async def bot(linked: Store, teams_service: FakeTeams) -> AsyncIterator[TeamsBot]:
    bot = TeamsBot(
        linked.pool,
        teams_service.app_id,
        "bot-password",
        teams_service.tenant,
        link,
        keys=ConnectorKeys(teams_service.issuer, f"{teams_service.url}/metadata"),
        login=teams_service.url,
        allow_private=True,
    )
    yield bot
    await bot.close()


@pytest.fixture
async def web(linked: Store, bot: TeamsBot) -> AsyncIterator[httpx.AsyncClient]:
    async with api(linked, teams=bot) as client:
        yield client


def channel(bot: TeamsBot, service: FakeTeams) -> TeamsBotChannel:
    return TeamsBotChannel(bot, TARGET, BotChannel(f"{service.url}/teams/", "19:dba@thread.tacv2"))


async def posted(store: Store, bot: TeamsBot, service: FakeTeams, **changes: Any) -> tuple[str, dict[str, Any]]:
    async with dispatching(store, [channel(bot, service)]):
        opened = await store.gateway.open(request(**changes))
        await all_done(store, TARGET, 1)
    sent = [call.body for call in service.calls if call.path == CONVERSATIONS][-1]
    return opened.id, sent["activity"]["attachments"][0]["content"]


async def send(
    web: httpx.AsyncClient, service: FakeTeams, activity: dict[str, Any], token: str | None = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {service.token() if token is None else token}"}
    return await web.post("/integrations/teams", content=json.dumps(activity), headers=headers)


def titles(card: dict[str, Any]) -> list[str]:
    return [action["title"] for action in card["actions"]]


async def test_card_is_posted_where_configured_and_decides(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    async with dispatching(linked, [channel(bot, teams_service)]):
        opened = await linked.gateway.open(request())
        await all_done(linked, TARGET, 1)
        sent = next(call.body for call in teams_service.calls if call.path == CONVERSATIONS)
        assert sent["channelData"]["channel"]["id"] == "19:dba@thread.tacv2"
        card = sent["activity"]["attachments"][0]["content"]
        assert titles(card) == ["Approve", "Deny", "Open console"]
        assert "COPY customers TO STDOUT" in texts(card, "TextRun")
        answer = await send(web, teams_service, teams_service.invoke(card, "approve", "aad-bob"))
        assert answer.status_code == 200
        assert answer.json()["type"] == "application/vnd.microsoft.card.adaptive"
        assert titles(answer.json()["value"]) == ["Open console"]
        assert await linked.status(opened.id) == "approved"
        await all_done(linked, TARGET, 3)
    (vote,) = (await object_of(linked, opened.id))["decisions"]
    assert (vote["reviewer"], vote["via"], vote["comment"]) == ("bob@example.com", "teams", "seen in Teams")
    replaced = teams_service.calls[-1]
    assert replaced.path == f"{CONVERSATIONS}/19:x;messageid=1/activities/1"
    assert titles(replaced.body["attachments"][0]["content"]) == ["Open console"]
    assert sum(call.path.endswith("/token") for call in teams_service.calls) == 1


@pytest.mark.parametrize(
    ("person", "said"),
    [("aad-nobody", "not linked"), ("", "not linked"), ("aad-alice", "own this agent"), ("aad-robot", "machine")],
)
async def test_who_may_not_decide_is_told(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient, person: str, said: str
) -> None:
    approval_id, card = await posted(linked, bot, teams_service)
    answer = await send(web, teams_service, teams_service.invoke(card, "approve", person))
    assert answer.json()["type"] == "application/vnd.microsoft.activity.message"
    assert said in answer.json()["value"]
    assert await linked.status(approval_id) == "pending"


async def test_tokens_that_are_not_the_connectors_are_refused(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    approval_id, card = await posted(linked, bot, teams_service)
    activity = teams_service.invoke(card, "approve", "aad-bob")
    now = int(time.time())
    forged = SigningKey.new(teams_service.key.kid, "RS256")
    unsigned = "eyJhbGciOiJub25lIn0." + teams_service.token().split(".")[1] + "."
    refused = [
        "",
        "x",
        unsigned,
        teams_service.token(forged),
        teams_service.token(aud="another-app"),
        teams_service.token(aud=None),
        teams_service.token(iss="https://sts.windows.net/tenant-1/"),
        teams_service.token(iss=None),
        teams_service.token(exp=now - 400),
        teams_service.token(exp=None),
        teams_service.token(nbf=now + 400),
        teams_service.token(serviceurl=None),
        teams_service.token(serviceurl="https://smba.trafficmanager.net/evil/"),
    ]
    for token in refused:
        answer = await send(web, teams_service, activity, token)
        assert answer.status_code == 401, token
    assert (await web.post("/integrations/teams", content=json.dumps(activity))).status_code == 401
    assert await linked.status(approval_id) == "pending"
    assert (await send(web, teams_service, activity)).status_code == 200
    assert await linked.status(approval_id) == "approved"


@pytest.mark.parametrize(
    "changes",
    [
        {"serviceUrl": "https://elsewhere.example/"},
        {"channelId": "webchat"},
        {"channelData": {"tenant": {"id": "tenant-2"}}},
        {"channelData": None, "conversation": {"id": "19:x"}},
        {"channelData": ["x"]},
    ],
)
async def test_activities_of_elsewhere_are_refused(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    approval_id, card = await posted(linked, bot, teams_service)
    answer = await send(web, teams_service, teams_service.invoke(card, "approve", "aad-bob", **changes))
    assert answer.status_code == 401
    assert await linked.status(approval_id) == "pending"


async def test_replay_is_refused(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    approval_id, card = await posted(linked, bot, teams_service, required_approvals=2)
    activity, token = teams_service.invoke(card, "approve", "aad-bob"), teams_service.token()
    statuses = await asyncio.gather(*(send(web, teams_service, activity, token) for _ in range(3)))
    assert sorted(answer.status_code for answer in statuses) == [200, 401, 401]
    # A second press is an activity of its own, and a second vote.
    again = await send(web, teams_service, {**activity, "id": "f:2"}, token)
    assert "already voted" in again.json()["value"]
    assert len((await object_of(linked, approval_id))["decisions"]) == 1


async def test_keys_that_do_not_vouch_for_teams_are_none(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    approval_id, card = await posted(linked, bot, teams_service)
    teams_service.endorsements = ["webchat"]
    answer = await send(web, teams_service, teams_service.invoke(card, "approve", "aad-bob"))
    assert answer.status_code == 503
    assert await linked.status(approval_id) == "pending"


@pytest.mark.parametrize(
    "value", [None, {}, {"action": {}}, {"action": {"verb": "pgproxy.decide"}}, {"action": {"verb": "x", "data": {}}}]
)
async def test_actions_that_are_none(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient, value: Any
) -> None:
    _, card = await posted(linked, bot, teams_service)
    answer = await send(web, teams_service, teams_service.invoke(card, "approve", "aad-bob", value=value))
    assert (answer.status_code, answer.json()["statusCode"]) == (200, 400)


async def test_other_activities_are_taken_in_silence(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    _, card = await posted(linked, bot, teams_service)
    activity = teams_service.invoke(card, "approve", "aad-bob", type="message")
    answer = await send(web, teams_service, activity)
    assert (answer.status_code, answer.content) == (200, b"")


async def test_changed_statement_is_not_what_was_read(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams, web: httpx.AsyncClient
) -> None:
    approval_id, card = await posted(linked, bot, teams_service)
    await linked.pool.execute("UPDATE approvals.requests SET sha256 = repeat('cd', 32) WHERE id = $1", approval_id)
    answer = await send(web, teams_service, teams_service.invoke(card, "approve", "aad-bob"))
    assert "another statement" in answer.json()["value"]
    assert await linked.status(approval_id) == "pending"


async def test_console_only_and_cut_requests(linked: Store, bot: TeamsBot, teams_service: FakeTeams) -> None:
    _, card = await posted(linked, bot, teams_service, channels=["console"])
    assert titles(card) == ["Open console"]


async def test_cut_text_says_so(linked: Store, bot: TeamsBot, teams_service: FakeTeams) -> None:
    sql = "SELECT '\N{PILE OF POO}'; " * 1000
    _, card = await posted(linked, bot, teams_service, sql=sql)
    assert titles(card) == ["Deny", "Open console"]
    shown = "".join(texts(card, "TextRun"))
    assert f"only 6000 of the statement's {len(sql)} characters" in shown
    assert "ab" * 32 in shown
    assert len(json.dumps(card, ensure_ascii=False).encode()) < 28 * 1024


async def test_card_fits_whatever_the_text(linked: Store, bot: TeamsBot, teams_service: FakeTeams) -> None:
    poo = "\N{PILE OF POO}" * 6000
    _, card = await posted(linked, bot, teams_service, sql=poo, agent=poo, reason=poo, ticket=poo)
    assert len(json.dumps(card, ensure_ascii=False).encode()) < 28 * 1024
    assert titles(card) == ["Deny", "Open console"]
    shown = "".join(texts(card, "TextRun"))
    assert "characters are shown" in shown
    assert "ab" * 32 in shown


async def test_hostile_text_stays_text(linked: Store, bot: TeamsBot, teams_service: FakeTeams) -> None:
    evil = f"{HOSTILE} [click](https://evil.example) <at>Everyone</at>"
    _, card = await posted(linked, bot, teams_service, sql=evil, agent=evil, reason=evil)
    assert texts(card, "TextBlock") == []  # the element that reads Markdown
    assert {action["url"] for action in card["actions"] if "url" in action} == {card["actions"][-1]["url"]}
    assert card["actions"][-1]["url"].startswith("https://pgproxy.example/approvals/a")
    assert "\u202e" not in json.dumps(card, ensure_ascii=False)


async def test_connector_that_forgot_our_token_gets_a_new_one(
    linked: Store, bot: TeamsBot, teams_service: FakeTeams
) -> None:
    async with dispatching(linked, [channel(bot, teams_service)]):
        await linked.gateway.open(request())
        await all_done(linked, TARGET, 1)
        teams_service.script = [(401, {})]
        await linked.gateway.open(request())
        await all_done(linked, TARGET, 2)
    assert sum(call.path.endswith("/token") for call in teams_service.calls) == 2


async def test_workflow_gets_a_card_and_another_at_the_end(linked: Store, workflow: Workflow) -> None:
    target = TeamsWorkflow("teams:flow", f"{workflow.url}/w?sig=1", link, allow_private=True)
    workflow.script = [(429, {"Retry-After": "0"})]
    async with dispatching(linked, [target]) as metrics:
        opened = await linked.gateway.open(request())
        await all_done(linked, "teams:flow", 1)
        await decide(linked.pool, opened.id, reviewer(BOB), "deny", "no")
        await all_done(linked, "teams:flow", 3)
    cards = [call.body["attachments"][0]["content"] for call in workflow.calls[1:]]
    assert [titles(card) for card in cards] == [["Open console"], ["Open console"]]
    assert "Approval denied" in texts(cards[1], "TextRun")
    assert any("deny by bob@example.com via api (no)" in text for text in texts(cards[1], "TextRun"))
    assert metrics.counts == {("teams", "retried"): 1, ("teams", "delivered"): 2, ("teams", "skipped"): 1}
