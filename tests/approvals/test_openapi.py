"""schemathesis reads the OpenAPI document and tries every operation on a live server: examples, boundaries, generated
and deliberately wrong input. No server error, no undocumented status, no answer or content type beside the document."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from approvals.api import Services, create_app, serve
from approvals.api.examples import APPROVAL_ID
from approvals.gathering import Gatherer
from tests.approvals.conftest import CAROL, Store, request
from tests.approvals.fakes import FakeServices

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 4  # an operation and phase; a full run by hand is --max-examples 200


async def test_the_api_does_what_its_document_says(store: Store, tmp_path: Path) -> None:
    fake = FakeServices()
    services = Services(
        *(store.pool, store.wakeups, fake, fake, fake.sessions, fake, fake.readiness, fake.reloader),
        judge=fake.judge,
        gatherer=Gatherer(store.pool, fake, None, node="n1"),
    )
    for status in ("open", "open", "withdrawn"):
        opened = await store.gateway.open(request(approver_groups=[]))
        if status == "withdrawn":
            await store.gateway.withdraw(opened.id, "left")
    # The document's own example is to be found.
    example = await store.gateway.open(request(approver_groups=[], sql="SELECT '\0'"))
    await rename(store, example.id, APPROVAL_ID)
    app = create_app(services)
    async with serve(app, "127.0.0.1", 0) as server:
        app.state.stream.close()  # else the stream of events never ends
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli", "run"),
            f"http://127.0.0.1:{server.port}/openapi.json",
            *("--checks", CHECKS, "--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--header", f"Authorization: Bearer {CAROL.token}"),
            *("--request-timeout", "30", "--generation-database", "none", "--continue-on-failure"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"Test cases" in output or b"test cases" in output, output.decode()


async def rename(store: Store, approval_id: str, name: str) -> None:
    """Gives a request another id; nothing refers to one that has just been opened but its event."""
    async with store.pool.acquire() as connection, connection.transaction():
        await connection.execute("DELETE FROM approvals.events WHERE approval_id = $1", approval_id)
        await connection.execute("UPDATE approvals.requests SET id = $2 WHERE id = $1", approval_id, name)
