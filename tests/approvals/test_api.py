"""The HTTP API against a real store: who may do what, hostile input, pages, and the stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from approvals.api import Services, create_app, examples, serve
from approvals.api.schemas import Approval, DecisionBody, GrantPage
from approvals.decisions import decide
from approvals.gathering import Gatherer
from approvals.outbox import events_after
from approvals.reviewers import ReviewerSpec
from tests.approvals.conftest import ADMIN, ALICE, BOB, CAROL, DAVE, REQUEST, ROBOT, SHA, Store, request, reviewer
from tests.approvals.fakes import FakeServices


def bearer(spec: ReviewerSpec) -> dict[str, str]:
    return {"Authorization": f"Bearer {spec.token}"}


@pytest.fixture
def services(store: Store) -> FakeServices:
    return FakeServices()


@pytest.fixture
def app(store: Store, services: FakeServices) -> FastAPI:
    return create_app(
        Services(
            pool=store.pool,
            wakeups=store.wakeups,
            classifier=services,
            audit=services,
            sessions=services.sessions,
            metrics=services,
            readiness=services.readiness,
            reloader=services.reloader,
            judge=services.judge,
            gatherer=Gatherer(store.pool, services, None, node="n1"),
        )
    )


@pytest.fixture
async def api(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=bearer(BOB)) as client:
        yield client


EVERY_ROUTE = [
    ("GET", "/v1/approvals"),
    ("GET", "/v1/approvals/events"),
    ("GET", "/v1/approvals/a00000000000000a"),
    ("GET", "/v1/approvals/a00000000000000a/history"),
    ("POST", "/v1/approvals/a00000000000000a/decision"),
    ("POST", "/v1/approvals/a00000000000000a/comments"),
    ("POST", "/v1/approvals/a00000000000000a/context"),
    ("GET", "/v1/grants"),
    ("DELETE", "/v1/grants/g1"),
    ("GET", "/v1/sessions"),
    ("DELETE", "/v1/sessions/s1"),
    ("POST", "/v1/reload"),
    ("GET", "/v1/audit"),
    ("POST", "/v1/classify"),
    ("GET", "/v1/me"),
    ("GET", "/v1/notifications"),
    ("GET", "/v1/logins"),
    ("DELETE", "/v1/logins/l1"),
]


AUTHORIZATIONS = (None, "Bearer", "Bearer ", "Bearer nobody", "Basic Ym9iOng=", b"Bearer \xff\xfe", b"Bearer a\x00b")


async def test_nothing_is_reached_without_a_known_token(api: httpx.AsyncClient) -> None:
    del api.headers["Authorization"]
    for method, path in EVERY_ROUTE:
        for authorization in AUTHORIZATIONS:
            headers: dict[str, Any] = {} if authorization is None else {"Authorization": authorization}
            response = await api.request(method, path, headers=headers, content=b"{not json")
            assert response.status_code == 401, (method, path, authorization)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
            assert response.json()["detail"]


async def test_the_table_above_is_every_route_under_v1(app: FastAPI) -> None:
    described = {
        (method.upper(), path)
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if path.startswith("/v1")
    }
    tried = {
        (
            method,
            path.replace("a00000000000000a", "{approval_id}")
            .replace("g1", "{grant_id}")
            .replace("s1", "{session_id}")
            .replace("l1", "{login_id}"),
        )
        for method, path in EVERY_ROUTE
    }
    assert described == tried


@pytest.mark.parametrize(
    ("spec", "method", "path", "expected"),
    [
        (DAVE, "GET", "/v1/approvals", 200),
        (DAVE, "GET", "/v1/audit", 200),
        (DAVE, "GET", "/v1/grants", 200),
        (DAVE, "POST", "/v1/approvals/a00000000000000a/decision", 403),
        (DAVE, "POST", "/v1/approvals/a00000000000000a/comments", 403),
        (DAVE, "POST", "/v1/approvals/a00000000000000a/context", 403),
        (BOB, "POST", "/v1/approvals/a00000000000000a/context", 404),
        (BOB, "POST", "/v1/approvals/%00/context", 404),
        (DAVE, "GET", "/v1/sessions", 200),
        (DAVE, "GET", "/v1/notifications", 403),
        (BOB, "GET", "/v1/notifications", 403),
        (ADMIN, "GET", "/v1/notifications", 200),
        (DAVE, "DELETE", "/v1/sessions/s1", 403),
        (BOB, "GET", "/v1/sessions", 403),
        (BOB, "DELETE", "/v1/sessions/s1", 403),
        (BOB, "DELETE", "/v1/grants/g1", 404),
        (BOB, "GET", "/v1/approvals/a00000000000000a/history", 404),
        (DAVE, "DELETE", "/v1/grants/%00", 404),
        (ADMIN, "GET", "/v1/approvals", 200),
        (ADMIN, "GET", "/v1/sessions", 200),
        (ADMIN, "DELETE", "/v1/sessions/s1", 204),
        (ADMIN, "DELETE", "/v1/sessions/s2", 404),
        (ADMIN, "DELETE", "/v1/grants/g1", 404),
        (ADMIN, "POST", "/v1/reload", 200),
        (BOB, "POST", "/v1/reload", 403),
        (DAVE, "POST", "/v1/reload", 403),
        (ADMIN, "POST", "/v1/approvals/a00000000000000a/decision", 403),
        (CAROL, "GET", "/v1/sessions", 200),
        (BOB, "POST", "/v1/approvals/a00000000000000a/decision", 404),
        (BOB, "POST", "/v1/approvals/a00000000000000a/comments", 404),
        (BOB, "GET", "/v1/approvals/a00000000000000a", 404),
        (BOB, "GET", "/v1/approvals/%00", 404),
        (ADMIN, "DELETE", "/v1/sessions/%00", 404),
        (BOB, "GET", "/v1/nothing", 404),
        (BOB, "PUT", "/v1/approvals", 405),
    ],
)
async def test_roles(api: httpx.AsyncClient, spec: ReviewerSpec, method: str, path: str, expected: int) -> None:
    body = {"decision": "approve"} if path.endswith("decision") else {"text": "hm"} if "comments" in path else None
    response = await api.request(method, path, json=body, headers=bearer(spec))
    assert response.status_code == expected, response.text
    if expected >= 400:
        assert response.json()["detail"]


@pytest.mark.parametrize(
    ("spec", "expected"), [(ALICE, 403), (CAROL, 403), (ROBOT, 403), (ADMIN, 403), (DAVE, 403), (BOB, 200)]
)
async def test_who_may_decide(api: httpx.AsyncClient, store: Store, spec: ReviewerSpec, expected: int) -> None:
    opened = await store.gateway.open(request())
    response = await api.post(f"/v1/approvals/{opened.id}/decision", json={"decision": "approve"}, headers=bearer(spec))
    assert response.status_code == expected
    assert await store.status(opened.id) == ("approved" if expected == 200 else "pending")


async def test_the_object_is_the_contracts_and_fits_its_model(api: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request(params=[{"type": "text", "value": "x"}, {"type": "int4", "value": None}]))
    await api.post(f"/v1/approvals/{opened.id}/comments", json={"text": "why now?"})
    decided = await api.post(f"/v1/approvals/{opened.id}/decision", json={"decision": "approve", "comment": "ok"})
    assert await store.gateway.claim(opened.id, "b1", SHA)
    await store.gateway.finish(opened.id, "executed", {"command_tag": "COPY 3", "rows": 3, "bytes": 9})
    found = (await api.get(f"/v1/approvals/{opened.id}")).json()
    assert set(found) >= {
        *("id", "status", "created_at", "expires_at", "requester", "statement", "classification", "risk"),
        *("rule", "required_approvals", "context", "decisions", "outcome"),
    }
    assert found["requester"] == REQUEST.requester
    assert found["statement"]["sql"] == REQUEST.sql
    assert found["classification"] == REQUEST.classification
    vote = found["decisions"][0]
    assert (vote["reviewer"], vote["decision"], vote["comment"], vote["via"]) == (BOB.name, "approve", "ok", "api")
    assert set(found["outcome"]) == {"command_tag", "rows", "bytes", "sqlstate", "started_at", "finished_at"}
    for moment in (found["created_at"], found["expires_at"], vote["at"], found["outcome"]["started_at"]):
        assert len(moment) == len("2025-01-01T00:00:00.000000Z")
        assert moment.endswith("Z")
    for answer in (decided.json(), found):
        Approval.model_validate_json(json.dumps(answer), extra="forbid")


async def test_nobody_decides_twice(api: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request())
    path = f"/v1/approvals/{opened.id}/decision"
    assert (await api.post(path, json={"decision": "deny"})).status_code == 200
    again = await api.post(path, json={"decision": "approve"})
    assert again.status_code == 409
    assert "denied" in again.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"decision": "maybe"}',
        b'{"decision": "approve", "comment": 1}',
        b'{"decision": "approve", "comment": "a\\u0000b"}',
        b'{"decision": "approve", "comment": "\\ud800"}',
        b'{"decision": "approve", "comment": "\\u001b[2J"}',
        b'{"decision": "approve", "extra": true}',
        b'{"decision": "approve", "\\ud800": true}',
        b'{"decision": "approve", "sql": "SELECT 1"}',
        b'{"decision": "modify"}',
        b'{"decision": "modify", "sql": ""}',
        b'{"decision": "modify", "sql": "SELECT 2", "grant_seconds": 60}',
        b'{"decision": "deny", "grant_seconds": 60}',
        b'{"decision": "approve", "grant_seconds": 60, "grant": {"scope": "text"}}',
        b'{"decision": "approve", "grant": {"scope": "everything"}}',
        b'{"decision": "approve", "grant": {"scope": "shape"}}',
        b'{"decision": "approve", "grant": {"scope": "transaction"}}',
        b'{"decision": "approve", "grant": {"uses": 0}}',
        b'{"decision": "approve", "grant": {"row_cap": -1}}',
        b'{"decision": "approve", "grant": {"seconds": 86401}}',
        b'{"decision": "approve", "grant_seconds": 86401}',
        b'{"decision": "approve", "grant_seconds": 0}',
        b'{"decision": "approve", "grant_seconds": NaN}',
        b'{"decision": "approve", "comment": "' + b"x" * 10_001 + b'"}',
    ],
)
async def test_bad_decisions_are_422_and_decide_nothing(api: httpx.AsyncClient, store: Store, body: bytes) -> None:
    opened = await store.gateway.open(request())
    response = await api.post(
        f"/v1/approvals/{opened.id}/decision", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422, response.text
    assert response.json()["detail"]
    assert await store.status(opened.id) == "pending"


async def test_modify_over_http(api: httpx.AsyncClient, store: Store, services: FakeServices) -> None:
    opened = await store.gateway.open(request())
    path = f"/v1/approvals/{opened.id}/decision"
    services.judge.answers(decision="deny", message="no DDL here")
    refused = await api.post(path, json={"decision": "modify", "sql": "DROP TABLE t"})
    assert refused.status_code == 422
    assert refused.json() == {"detail": "policy denies the modified statement: no DDL here"}
    services.judge.answers(decision="approve")
    done = await api.post(path, json={"decision": "modify", "sql": "SELECT 1", "comment": "this will do"})
    assert done.json()["status"] == "approved"
    Approval.model_validate_json(done.content, extra="forbid")
    assert (await api.post(path, json={"decision": "modify", "sql": "SELECT 2"})).status_code == 409


async def test_grants_over_http(api: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request())
    body = {"decision": "approve", "comment": "for now", "grant_seconds": 60}
    done = (await api.post(f"/v1/approvals/{opened.id}/decision", json=body)).json()
    Approval.model_validate_json(json.dumps(done), extra="forbid")
    page = (await api.get("/v1/grants", headers=bearer(DAVE))).json()
    GrantPage.model_validate_json(json.dumps(page), extra="forbid")
    [found] = page["items"]
    assert (found["id"], found["scope"], found["uses"]) == (done["made_grant_id"], "text", None)
    assert found["reviewers"] == [BOB.name]
    assert (await api.get("/v1/grants?cursor=x")).status_code == 422
    path = f"/v1/grants/{found['id']}"
    assert (await api.delete(path, headers=bearer(DAVE))).status_code == 403
    assert (await api.delete(path, headers=bearer(ADMIN))).status_code == 204
    assert (await api.delete(path, headers=bearer(ADMIN))).status_code == 404
    assert (await api.get("/v1/grants")).json() == {"items": [], "next": None}
    assert len((await api.get("/v1/grants?all=true")).json()["items"]) == 1


async def test_history_over_http(api: httpx.AsyncClient, store: Store) -> None:
    first, second = await store.gateway.open(request()), await store.gateway.open(request())
    page = (await api.get(f"/v1/approvals/{second.id}/history")).json()
    assert [item["id"] for item in page["items"]] == [first.id]


async def test_the_channel_is_what_authentication_found(api: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request(channels=["console"]))
    refused = await api.post(f"/v1/approvals/{opened.id}/decision", json={"decision": "approve"})
    assert (refused.status_code, "console" in refused.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/v1/approvals?q=copy&owner=a&database=b&risk=high&class=ddl&fingerprint=f&since=2025-01-01&until=2025-01-02",
            200,
        ),
        ("/v1/approvals?risk=huge", 422),
        ("/v1/approvals?since=yesterday", 422),
        ("/v1/approvals?q=%00", 422),
        ("/v1/grants?limit=0", 422),
        ("/v1/grants?all=perhaps", 422),
        ("/v1/approvals?status=&agent=&cursor=", 200),
        ("/v1/approvals?status=nonsense", 422),
        ("/v1/approvals?limit=0", 422),
        ("/v1/approvals?limit=x", 422),
        ("/v1/approvals?limit=100000", 422),
        ("/v1/approvals?cursor=x", 422),
        ("/v1/approvals?cursor=99999999999999999-a00000000000000a", 422),
        ("/v1/approvals?cursor=9999999999999999-a00000000000000a", 200),
        ("/v1/approvals?agent=%00", 422),
        ("/v1/approvals?agent=%ff", 200),
        ("/v1/audit?q=%00", 422),
        ("/v1/audit?since=yesterday", 422),
        ("/v1/audit?cursor=bad", 422),
    ],
)
async def test_queries(api: httpx.AsyncClient, path: str, expected: int) -> None:
    assert (await api.get(path)).status_code == expected


@pytest.mark.parametrize("sql", ["", "SELECT 1", "a\0b", "\u202e", "x" * 1_000_000])
async def test_any_text_can_be_classified(api: httpx.AsyncClient, services: FakeServices, sql: str) -> None:
    response = await api.post("/v1/classify", json={"sql": sql})
    assert response.status_code == 200
    assert services.classified == [sql]


async def test_what_the_classifier_refuses_is_422_with_its_words(
    api: httpx.AsyncClient, services: FakeServices
) -> None:
    services.refuse = "too large"
    response = await api.post("/v1/classify", json={"sql": "x"})
    assert (response.status_code, response.json()) == (422, {"detail": "too large"})
    lone_surrogate = await api.post("/v1/classify", content=b'{"sql": "\\ud800"}')
    assert lone_surrogate.status_code == 422


async def test_an_endless_body_is_413(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/classify", content=b" " * (16 * 1024 * 1024 + 1))
    assert response.status_code == 413


async def test_hostile_text_in_the_store_is_no_error(api: httpx.AsyncClient, store: Store) -> None:
    sql = "SELECT '\0\ud800\u202e\x1b[2J'"
    opened = await store.gateway.open(request(sql=sql, reason="\ud800\0", context={"deep": float("inf")}))
    for path in (f"/v1/approvals/{opened.id}", "/v1/approvals"):
        response = await api.get(path)
        assert response.status_code == 200
    assert response.json()["items"][0]["statement"]["sql"] == sql


async def test_pages_are_newest_first_and_do_not_shift(api: httpx.AsyncClient, store: Store) -> None:
    opened = [(await store.gateway.open(request(agent=f"bot{number % 2}"))).id for number in range(7)]
    first = (await api.get("/v1/approvals?limit=3")).json()
    await store.gateway.open(request())  # arrives between two pages
    second = (await api.get("/v1/approvals", params={"limit": 3, "cursor": first["next"]})).json()
    third = (await api.get("/v1/approvals", params={"limit": 3, "cursor": second["next"]})).json()
    seen = [item["id"] for page in (first, second, third) for item in page["items"]]
    assert seen == opened[::-1]
    assert third["next"] is None
    await decide(store.pool, opened[2], reviewer(BOB), "deny")
    filtered = (await api.get("/v1/approvals?status=denied&agent=bot0")).json()
    assert [item["id"] for item in filtered["items"]] == [opened[2]]


async def test_audit_filters_reach_the_reader(api: httpx.AsyncClient, services: FakeServices) -> None:
    response = await api.get(
        "/v1/audit?since=2025-01-01&until=2025-01-02T00:00:00Z&agent=a&class=ddl&decision=approved&q=x&limit=5&cursor=c"
    )
    assert response.json() == {"items": [], "next": None}
    assert services.searched == [
        {
            "since": datetime(2025, 1, 1, tzinfo=UTC),
            "until": datetime(2025, 1, 2, tzinfo=UTC),
            "agent": "a",
            "class_": "ddl",
            "decision": "approved",
            "q": "x",
            "limit": 5,
            "cursor": "c",
        }
    ]


async def test_probes_need_no_token(api: httpx.AsyncClient, services: FakeServices) -> None:
    del api.headers["Authorization"]
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.get("/readyz")).json() == {"ready": True, "problems": [], "remarks": ["no catalog"]}
    metrics = await api.get("/metrics")
    assert metrics.text == "pgproxy_sessions_total 1\n"
    assert metrics.headers["Content-Type"] == "text/plain; version=1.0.0"
    assert (await api.get("/")).json()["name"] == "pgproxy"
    services.readiness.problems = ["no catalog"]
    response = await api.get("/readyz")
    assert (response.status_code, response.json()["problems"]) == (503, ["no catalog"])


async def test_a_store_that_is_gone_is_503(api: httpx.AsyncClient, store: Store) -> None:
    await store.pool.close()
    for path in ("/v1/approvals", "/readyz"):
        response = await api.get(path)
        assert response.status_code == 503
    assert (await api.get("/healthz")).status_code == 200


async def test_context_is_gathered_when_asked(api: httpx.AsyncClient, store: Store) -> None:
    opened = await store.gateway.open(request())
    answer = await api.post(f"/v1/approvals/{opened.id}/context")
    assert answer.status_code == 200, answer.text
    context = answer.json()["context"]
    assert context["impact"] == {"unavailable": "upstream.observer is not set"}
    assert context["history"]["relations"][0]["relation"] == "customers"
    await store.gateway.withdraw(opened.id, "left")
    assert (await api.post(f"/v1/approvals/{opened.id}/context")).json()["status"] == "withdrawn"


async def test_openapi_has_models_and_errors_for_every_operation(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1"):
                continue
            assert operation["security"] == [{"token": []}, {"session": []}], (method, path)
            assert {"401", "403", "503"} <= set(operation["responses"]), (method, path)
            if method == "post":
                wanted = {"413", "422"} if "requestBody" in operation else {"413"}
                assert wanted <= set(operation["responses"])
            for code, answer in operation["responses"].items():
                if code != "204":
                    for content in answer["content"].values():
                        assert {"schema", "example"} <= content.keys(), (method, path, code)
            if "requestBody" in operation:
                assert operation["requestBody"]["content"]["application/json"]["examples"], (method, path)


async def test_the_examples_of_the_document_fit_its_models(api: httpx.AsyncClient) -> None:
    Approval.model_validate_json(json.dumps(examples.APPROVAL), extra="forbid")
    GrantPage.model_validate_json(json.dumps(examples.page(examples.GRANT)), extra="forbid")
    for each in examples.DECISIONS.values():
        DecisionBody.model_validate(each["value"])


class Events:
    """A client of the event stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        name = ""
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line.startswith("id: "):
                    self.last_id = line[4:]
                elif line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    assert name == "approval"
                    document: dict[str, Any] = json.loads(line[6:])
                    return document
        raise EOFError

    async def until_connected(self) -> None:
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line == ": connected":
                    return


async def test_every_client_of_the_stream_sees_every_change_as_it_was(app: FastAPI, store: Store) -> None:
    async with (
        serve(app, "127.0.0.1", 0) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", headers=bearer(DAVE)) as client,
        client.stream("GET", "/v1/approvals/events") as one,
        client.stream("GET", "/v1/approvals/events") as two,
    ):
        assert one.headers["Content-Type"].startswith("text/event-stream")
        streams = [Events(one.aiter_lines()), Events(two.aiter_lines())]
        for stream in streams:
            await stream.until_connected()
        opened = await store.gateway.open(request())
        await decide(store.pool, opened.id, reviewer(BOB), "approve")
        assert await store.gateway.claim(opened.id, "b1", SHA)
        await store.gateway.finish(opened.id, "executed", {"rows": 3})
        for stream in streams:
            seen = [await stream.next() for _ in range(5)]
            assert [item["status"] for item in seen] == ["pending", "pending", "approved", "executing", "executed"]
            assert [len(item["decisions"]) for item in seen] == [0, 1, 1, 1, 1]
            assert [item["outcome"] is None for item in seen] == [True, True, True, False, False]
            assert seen[-1]["outcome"]["rows"] == 3

        missed_from = streams[0].last_id
        later = await store.gateway.open(request())
        resumed = await client.send(
            client.build_request("GET", "/v1/approvals/events", headers={"Last-Event-ID": missed_from}), stream=True
        )
        assert (await Events(resumed.aiter_lines()).next())["id"] == later.id
        await resumed.aclose()


async def test_streams_end_cleanly_when_the_server_stops(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("approvals.api.server.SHUTDOWN_TIMEOUT_S", 3600)  # it is not this that ends them
    async with httpx.AsyncClient(headers=bearer(DAVE)) as client, asyncio.timeout(60):
        async with serve(app, "127.0.0.1", 0) as server:
            address = f"http://127.0.0.1:{server.port}/v1/approvals/events"
            responses = [await client.send(client.build_request("GET", address), stream=True) for _ in range(3)]
            lines = [Events(response.aiter_lines()) for response in responses]
            for stream in lines:
                await stream.until_connected()
            assert app.state.stream.client_count == 3
        for stream in lines:
            with pytest.raises(EOFError):
                await stream.next()
        assert app.state.stream.client_count == 0


async def test_a_client_that_leaves_is_forgotten(app: FastAPI) -> None:
    async with serve(app, "127.0.0.1", 0) as server, httpx.AsyncClient(headers=bearer(DAVE)) as client:
        async with client.stream("GET", f"http://127.0.0.1:{server.port}/v1/approvals/events") as response:
            await Events(response.aiter_lines()).until_connected()
            assert app.state.stream.client_count == 1
        async with asyncio.timeout(60):
            while app.state.stream.client_count:  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.01)


async def test_a_quiet_stream_keeps_the_connection_alive(app: FastAPI) -> None:
    app.state.stream._keepalive_s = 0.05
    async with (
        asyncio.timeout(60),
        serve(app, "127.0.0.1", 0) as server,
        httpx.AsyncClient(headers=bearer(DAVE)) as client,
        client.stream("GET", f"http://127.0.0.1:{server.port}/v1/approvals/events") as response,
    ):
        async for line in response.aiter_lines():
            if line == ": keepalive":
                break


async def test_an_address_in_use_is_an_error_and_not_the_end_of_the_process(app: FastAPI) -> None:
    async with serve(app, "127.0.0.1", 0) as server:
        with pytest.raises(OSError, match="in use"):
            async with serve(app, "127.0.0.1", server.port):
                pass


async def test_leaving_by_an_error_ends_the_server_and_keeps_the_error(app: FastAPI) -> None:
    with pytest.raises(LookupError, match="ours"):
        async with serve(app, "127.0.0.1", 0) as server:
            raise LookupError("ours")
    async with serve(app, "127.0.0.1", server.port):
        pass  # the port is free again


async def test_a_stream_whose_reader_died_ends_instead_of_staying_silent(
    app: FastAPI, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(app.state.stream, "run", broken)
    async with (
        serve(app, "127.0.0.1", 0) as server,
        httpx.AsyncClient(headers=bearer(DAVE)) as client,
        client.stream("GET", f"http://127.0.0.1:{server.port}/v1/approvals/events") as response,
    ):
        with pytest.raises(EOFError):
            await Events(response.aiter_lines()).next()


async def test_what_is_both_replayed_and_queued_is_sent_once(app: FastAPI, store: Store) -> None:
    stream = app.state.stream
    await store.gateway.open(request())
    frames = stream.frames(0)
    assert b": connected" in await anext(frames)  # attached: what is published from here on is queued
    events = await events_after(store.pool, 0)
    stream._publish(await stream._render(events))
    await store.gateway.open(request())
    stream._publish(await stream._render(await events_after(store.pool, events[-1].seq)))
    got = [await anext(frames), await anext(frames)]
    assert [frame.split(b"\n")[0] for frame in got] == [b"id: 1", b"id: 2"]
    stream.close()
    assert [frame async for frame in frames] == []


async def test_a_client_too_slow_is_cut_off_and_the_others_go_on(app: FastAPI) -> None:
    stream = app.state.stream
    slow, quick = stream.frames(), stream.frames()
    await anext(slow)
    await anext(quick)
    for number in range(1001):
        stream._publish([(number, b"frame %d" % number)])
        assert await anext(quick) == b"frame %d" % number
    assert [frame async for frame in slow] == []
    assert stream.client_count == 1
    await quick.aclose()


async def test_reload_says_what_became_of_it(api: httpx.AsyncClient, services: FakeServices) -> None:
    answer = await api.post("/v1/reload", headers=bearer(ADMIN))
    assert answer.status_code == 200 and answer.json()["changed"] == ["limits.parked"]
    services.reloader.problems = ["pgproxy.yaml:3: limts: unknown key"]
    answer = await api.post("/v1/reload", headers=bearer(ADMIN))
    assert answer.status_code == 409 and answer.json()["problems"] == services.reloader.problems
    assert services.reloader.asked_by == [ADMIN.name, ADMIN.name]


@pytest.mark.parametrize("told", [True, False])
async def test_a_stream_ends_with_its_token(app: FastAPI, store: Store, told: bool) -> None:
    if not told:
        app.state.stream._keepalive_s = 0.05
    async with (
        asyncio.timeout(60),
        serve(app, "127.0.0.1", 0) as server,
        httpx.AsyncClient() as client,
    ):
        address = f"http://127.0.0.1:{server.port}/v1/approvals/events"
        streams = []
        for person in (DAVE, BOB):
            response = await client.send(client.build_request("GET", address, headers=bearer(person)), stream=True)
            streams.append(Events(response.aiter_lines()))
            await streams[-1].until_connected()
        await store.pool.execute("UPDATE approvals.reviewers SET token_sha256 = NULL WHERE name = $1", DAVE.name)
        if told:
            await app.state.stream.recheck()
        with pytest.raises(EOFError):
            await streams[0].next()
        opened = await store.gateway.open(request())
        assert (await streams[1].next())["id"] == opened.id
        assert app.state.stream.client_count == 1
        answer = await client.get(address, headers=bearer(DAVE))
        assert answer.status_code == 401
