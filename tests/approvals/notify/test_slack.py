"""Slack before a stand-in of its Web API and Socket Mode: messages, presses, and everything that must not count."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from approvals.decisions import decide
from approvals.notify.ports import NotDelivered
from approvals.notify.slack import Slack, SlackChannel
from approvals.reading import load
from approvals.store import store_connection
from tests.approvals.conftest import BOB, Store, request, reviewer
from tests.approvals.fakes import FakeJudge
from tests.approvals.notify.conftest import all_done, api, dispatching, link
from tests.approvals.notify.services import FakeSlack, form, press, submit

TARGET = "slack:#dba"


@pytest.fixture
def slack(linked: Store, slack_service: FakeSlack) -> Slack:
    return Slack(
        linked.pool,
        "xoxb-1",
        link,
        signing_secret=slack_service.secret,
        app_token="xapp-1",
        team="T1",
        api=f"{slack_service.url}/api/",
    )


@pytest.fixture
async def web(linked: Store, slack: Slack) -> AsyncIterator[httpx.AsyncClient]:
    async with api(linked, slack=slack) as client:
        yield client


async def posted(store: Store, slack: Slack, service: FakeSlack, **changes: Any) -> tuple[str, dict[str, Any]]:
    """A new request and its message."""
    async with dispatching(store, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await store.gateway.open(request(**changes))
        await service.until(lambda: service.of("chat.postMessage"))
        await all_done(store, TARGET, 1)
    return opened.id, service.of("chat.postMessage")[-1]


async def send(web: httpx.AsyncClient, service: FakeSlack, payload: dict[str, Any]) -> httpx.Response:
    body = form(payload)
    return await web.post("/integrations/slack", content=body, headers=service.sign(body))


def texts(value: Any, kind: str = "text") -> list[str]:
    """The texts of all objects of a type, anywhere in a message."""
    if isinstance(value, dict):
        own = [value["text"]] if value.get("type") == kind and isinstance(value.get("text"), str) else []
        return own + [text for each in value.values() for text in texts(each, kind)]
    return [text for each in value for text in texts(each, kind)] if isinstance(value, list) else []


def actions(message: dict[str, Any]) -> list[str]:
    block = next(block for block in message["blocks"] if block["type"] == "actions")
    return [each["action_id"] for each in block["elements"]]


async def object_of(store: Store, approval_id: str) -> dict[str, Any]:
    async with store_connection(store.pool) as connection:
        found = await load(connection, approval_id)
    assert found is not None
    return found


async def test_message_has_what_a_decision_needs(linked: Store, slack: Slack, slack_service: FakeSlack) -> None:
    _, message = await posted(linked, slack, slack_service)
    shown = "\n".join(texts(message))
    for part in ("etl-bot", "alice@example.com", "shop", "export", "monthly export", "OPS-12", "ab" * 32, "high"):
        assert part in shown
    assert "COPY customers TO STDOUT" in texts(message)
    assert actions(message) == ["approve", "deny", "comment", "open"]
    assert message["channel"] == "C0123"


async def test_press_approves_and_the_message_is_changed(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    async with dispatching(linked, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await linked.gateway.open(request())
        (message,) = await slack_service.until(lambda: slack_service.of("chat.postMessage"))
        await all_done(linked, TARGET, 1)
        assert (await send(web, slack_service, press(message, "approve", "UBOB"))).status_code == 200
        assert await linked.status(opened.id) == "approved"
        await all_done(linked, TARGET, 3)
    (vote,) = (await object_of(linked, opened.id))["decisions"]
    assert (vote["reviewer"], vote["via"]) == ("bob@example.com", "slack")
    update = slack_service.of("chat.update")[-1]
    assert (update["channel"], update["ts"]) == ("C0123", "1700000000.000001")
    assert actions(update) == ["open"]
    assert any("approve by bob@example.com via slack" in text for text in texts(update))


@pytest.mark.parametrize("end", ["denied", "expired", "withdrawn"])
async def test_message_is_changed_however_it_ends(
    linked: Store, slack: Slack, slack_service: FakeSlack, end: str
) -> None:
    async with dispatching(linked, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await linked.gateway.open(request())
        await all_done(linked, TARGET, 1)
        match end:
            case "denied":
                await decide(linked.pool, opened.id, reviewer(BOB), "deny")
            case "expired":
                await linked.make_due(opened.id)
                await linked.gateway.wait(opened.id)
            case "withdrawn":
                await linked.gateway.withdraw(opened.id, "left")
        await slack_service.until(
            lambda: any(f"Status: {end}" in "".join(texts(each)) for each in slack_service.of("chat.update"))
        )
    assert actions(slack_service.of("chat.update")[-1]) == ["open"]


async def test_modified_statement_takes_the_buttons_hash_along(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    async with dispatching(linked, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await linked.gateway.open(request(required_approvals=2))
        (old,) = await slack_service.until(lambda: slack_service.of("chat.postMessage"))
        await all_done(linked, TARGET, 1)
        await decide(
            *(linked.pool, opened.id, reviewer(BOB), "modify"), sql="COPY (SELECT 1) TO STDOUT", judge=FakeJudge()
        )
        assert await linked.status(opened.id) in ("pending", "approved")
        await slack_service.until(
            lambda: any("COPY (SELECT 1) TO STDOUT" in texts(each) for each in slack_service.of("chat.update"))
        )
        await send(web, slack_service, press(old, "deny", "UBOB"))  # what this button showed is no longer there
    (whisper,) = slack_service.of("chat.postEphemeral")
    assert "another statement" in whisper["text"]
    assert await linked.status(opened.id) != "denied"


@pytest.mark.parametrize(
    ("user", "said"), [("UNOBODY", "not linked"), ("UALICE", "own this agent"), ("UROBOT", "machine")]
)
async def test_who_may_not_decide_is_told_alone(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient, user: str, said: str
) -> None:
    approval_id, message = await posted(linked, slack, slack_service)
    assert (await send(web, slack_service, press(message, "approve", user))).status_code == 200
    (whisper,) = slack_service.of("chat.postEphemeral")
    assert (whisper["user"], whisper["channel"]) == (user, "C0123")
    assert said in whisper["text"]
    assert await linked.status(approval_id) == "pending"


async def test_another_workspace_decides_nothing(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    approval_id, message = await posted(linked, slack, slack_service)
    guest = {"user": {"id": "UBOB", "team_id": "T2"}}  # of a channel that two workspaces share
    for change in ({"team": {"id": "T2"}}, {"team": None}, guest):
        payload = press(message, "approve", "UBOB") | change
        assert (await send(web, slack_service, payload)).status_code == 200
    assert await linked.status(approval_id) == "pending"


async def test_double_press_counts_once(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    approval_id, message = await posted(linked, slack, slack_service, required_approvals=2)
    await asyncio.gather(
        *(
            send(web, slack_service, press(message, "approve", "UBOB") | {"trigger_id": trigger})
            for trigger in ("1", "2")
        )
    )
    assert len((await object_of(linked, approval_id))["decisions"]) == 1
    assert await linked.status(approval_id) == "pending"
    (whisper,) = slack_service.of("chat.postEphemeral")
    assert "already voted" in whisper["text"]


async def test_forged_stale_and_replayed_signatures_are_refused(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    approval_id, message = await posted(linked, slack, slack_service, required_approvals=2)
    body = form(press(message, "deny", "UBOB"))
    other = form(press(message, "approve", "UBOB"))
    good = slack_service.sign(body)
    refused: list[dict[str, str]] = [
        {},
        slack_service.sign(body, secret="another"),
        slack_service.sign(other),
        slack_service.sign(body, at=time.time() - 301),
        slack_service.sign(body, at=time.time() + 301),
        good | {"X-Slack-Request-Timestamp": str(int(time.time()) - 1)},
        good | {"X-Slack-Request-Timestamp": "soon"},
        good | {"X-Slack-Signature": "v0="},
        good | {"X-Slack-Signature": good["X-Slack-Signature"].replace("v0", "v1")},
    ]
    for headers in refused:
        answer = await web.post("/integrations/slack", content=body, headers=headers)
        assert answer.status_code == 401, headers
    assert (await web.post("/integrations/slack", content=b"\xff", headers=good)).status_code == 401
    assert await linked.status(approval_id) == "pending"
    approve = slack_service.sign(other)
    assert (await web.post("/integrations/slack", content=other, headers=approve)).status_code == 200
    assert len((await object_of(linked, approval_id))["decisions"]) == 1
    for _ in range(2):
        again = await web.post("/integrations/slack", content=other, headers=approve)
        assert (again.status_code, again.json()["detail"]) == (401, "the signature has been used")
    assert slack_service.of("chat.postEphemeral") == []


async def test_comment_by_the_modal(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    approval_id, message = await posted(linked, slack, slack_service)
    await send(web, slack_service, press(message, "comment", "UBOB"))
    (opened,) = slack_service.of("views.open")
    assert opened["trigger_id"] == "trigger-1"
    await send(web, slack_service, submit(opened["view"], "UBOB", "deny", "not today"))
    (vote,) = (await object_of(linked, approval_id))["decisions"]
    assert (vote["decision"], vote["comment"], vote["via"]) == ("deny", "not today", "slack")


async def test_console_only_requests_have_no_buttons(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    approval_id, message = await posted(linked, slack, slack_service, channels=["console"])
    assert actions(message) == ["open"]
    value = json.dumps({"id": approval_id, "sha256": "ab" * 32})
    message["blocks"][-1]["elements"].append({"action_id": "approve", "value": value})
    await send(web, slack_service, press(message, "approve", "UBOB"))
    assert "by console only" in slack_service.of("chat.postEphemeral")[0]["text"]
    assert await linked.status(approval_id) == "pending"


async def test_long_text_says_that_it_is_cut_and_cannot_be_approved(
    linked: Store, slack: Slack, slack_service: FakeSlack, web: httpx.AsyncClient
) -> None:
    sql = "SELECT 1; " * 2000 + "DROP TABLE customers"
    approval_id, message = await posted(linked, slack, slack_service, sql=sql)
    shown = "".join(texts(message))
    assert "DROP TABLE" not in shown
    assert f"only 8000 of the statement's {len(sql)} characters" in shown
    assert "ab" * 32 in shown
    assert actions(message) == ["deny", "comment", "open"]
    message["blocks"][-1]["elements"][0]["action_id"] = "approve"
    await send(web, slack_service, press(message, "approve", "UBOB"))
    assert "not shown whole" in slack_service.of("chat.postEphemeral")[0]["text"]
    assert await linked.status(approval_id) == "pending"
    assert all(len(text) <= 3000 for text in texts(message))


async def test_parameters_that_do_not_fit_forbid_approving_too(
    linked: Store, slack: Slack, slack_service: FakeSlack
) -> None:
    params = [{"type": "text", "value": "x" * 5000}]
    _, message = await posted(linked, slack, slack_service, params=params)
    assert "not all parameters are shown" in "".join(texts(message))
    assert actions(message) == ["deny", "comment", "open"]


async def test_what_was_gathered_comes_into_the_message(linked: Store, slack: Slack, slack_service: FakeSlack) -> None:
    async with dispatching(linked, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await linked.gateway.open(request())
        await all_done(linked, TARGET, 1)
        context = {"impact": {"unavailable": "no observer <!channel>"}}
        await linked.pool.execute(
            "UPDATE approvals.requests SET context = $2 WHERE id = $1", opened.id, json.dumps(context)
        )
        await linked.gateway.withdraw(opened.id, "left")
        await slack_service.until(lambda: slack_service.of("chat.update"))
    assert any("not known: no observer <!channel>" in text for text in texts(slack_service.of("chat.update")[-1]))


HOSTILE = "```\n<!channel> <@UBOB> *Risk:* low & <https://evil.example|fine>\u202e\n```"


async def test_hostile_text_stays_text(linked: Store, slack: Slack, slack_service: FakeSlack) -> None:
    changes = {"agent": HOSTILE, "reason": HOSTILE, "ticket": HOSTILE, "application_name": HOSTILE}
    _, message = await posted(linked, slack, slack_service, sql=f"SELECT 1 /* {HOSTILE} */", **changes)
    assert texts(message["blocks"], "mrkdwn") == []  # Slack reads no markup in any block …
    top = message["text"]  # … and here it does
    assert not set("<>") & set(top)
    assert "```" not in top
    assert "@U" not in top
    whole = json.dumps(message, ensure_ascii=False)
    assert "\u202e" not in whole
    assert "⟦U+202E⟧" in whole
    kinds = {each["type"] for block in message["blocks"] for each in walk(block) if "type" in each}
    assert not kinds & {"user", "usergroup", "broadcast", "link", "channel", "mrkdwn"}
    fields = [text for text in texts(message) if text == "Risk: "]
    assert fields == ["Risk: "]
    assert not any("\n" in text.rstrip("\n") for text in texts(message["blocks"][1]))  # a value is one line


def walk(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(each for child in value.values() for each in walk(child))]
    return [each for child in value for each in walk(child)] if isinstance(value, list) else []


async def test_socket_mode(linked: Store, slack: Slack, slack_service: FakeSlack) -> None:
    approval_id, message = await posted(linked, slack, slack_service)
    following = asyncio.get_running_loop().create_task(slack.follow_socket())
    try:
        (socket, *_) = await slack_service.until(lambda: slack_service.sockets)
        envelope = {"type": "interactive", "envelope_id": "e1", "accepts_response_payload": True}
        await socket.send_json({**envelope, "payload": press(message, "approve", "UALICE")})
        await slack_service.until(lambda: slack_service.of("chat.postEphemeral"))
        assert await linked.status(approval_id) == "pending"
        with linked.wakeups.subscribe(approval_id) as changes:
            await socket.send_json({**envelope, "envelope_id": "e2", "payload": press(message, "approve", "UBOB")})
            async with asyncio.timeout(10):
                while await linked.status(approval_id) != "approved":
                    await changes.wait(1.0)
        assert slack_service.acknowledged == ["e1", "e2"]
    finally:
        following.cancel()
        await asyncio.wait({following})


async def test_without_configuration_there_is_no_endpoint(linked: Store) -> None:
    async with api(linked) as client:
        assert (await client.post("/integrations/slack", content=b"x")).status_code == 404
        assert (await client.post("/integrations/teams", content=b"x")).status_code == 404


async def test_too_large_a_body_is_refused(web: httpx.AsyncClient) -> None:
    answer = await web.post("/integrations/slack", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413


async def test_what_slack_may_answer_instead(slack: Slack, slack_service: FakeSlack) -> None:
    for script in ([(429, {"Retry-After": "7", "Content-Type": "application/json"})], [(500, {})], [(200, {})]):
        slack_service.script = list(script)
        with pytest.raises(NotDelivered) as refused:
            await slack.call("chat.postMessage", channel="C0123", text="x")
        assert refused.value.retry_after_s == (7.0 if script[0][0] == 429 else None)
    slack_service.errors = {"chat.postMessage": ["channel_not_found"]}
    with pytest.raises(NotDelivered, match="channel_not_found"):
        await slack.call("chat.postMessage", channel="C0123", text="x")


async def test_message_that_somebody_deleted_needs_no_change(
    linked: Store, slack: Slack, slack_service: FakeSlack
) -> None:
    async with dispatching(linked, [SlackChannel(slack, TARGET, "C0123")]):
        opened = await linked.gateway.open(request())
        await all_done(linked, TARGET, 1)
        slack_service.errors = {"chat.update": ["message_not_found"]}
        await linked.gateway.withdraw(opened.id, "left")
        assert [row["attempts"] for row in await all_done(linked, TARGET, 2)] == [1, 1]
