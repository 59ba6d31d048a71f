"""A Listener in this process, before a real server; store and trail are fakes that remember."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from classifier.classify import classify
from classifier.model import Classification, Environment
from pgproxy.certificates import CertificateName
from pgproxy.dsn import Dsn
from pgproxy.embedded import EmbeddedServer
from pgproxy.metrics import NullMetrics
from pgproxy.net.auth import AgentAuthenticator
from pgproxy.net.errands import Errands
from pgproxy.net.listener import Listener, ListenerOptions, Terms
from pgproxy.net.ports import Parking, Services
from pgproxy.net.startup import Access, AgentAccount
from pgproxy.net.tls import ServerTls
from pgproxy.net.token import TokenAuthenticator
from pgproxy.net.upstream import Upstream
from pgproxy.policy import Mode, Policy, Replication
from pgproxy.protocol import backend, frontend, startup, tags
from pgproxy.session.ports import ApprovalRequest, OpenedApproval, ResolvedApproval

PATIENCE_S = 60.0


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what must happen, however slow the machine."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - others set no event
            await asyncio.sleep(0.01)


async def until_asleep(server: EmbeddedServer, pid: int) -> None:
    """The server has come to this session's pg_sleep."""
    admin = await asyncpg.connect(host=str(server.socket_dir), port=server.port, user="postgres", database="postgres")
    try:
        async with asyncio.timeout(PATIENCE_S):
            look = "select wait_event from pg_stat_activity where pid = $1"
            while await admin.fetchval(look, pid) != "PgSleep":  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
    finally:
        await admin.close()


class Analyzer:
    def lookup(self, text: str, environment: Environment) -> Classification | None:
        return classify(text, environment)

    async def analyze(self, text: str, environment: Environment) -> Classification:
        return classify(text, environment)


class Metrics(NullMetrics):
    """Remembers the errors of the server's side."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def upstream_error(self, kind: str) -> None:
        super().upstream_error(kind)
        self.errors.append(kind)


@dataclass
class Trail:
    entries: list[dict[str, Any]] = field(default_factory=list)

    async def append(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)

    def append_soon(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)

    def kinds(self) -> list[str]:
        return [e["kind"] for e in self.entries]


@dataclass
class Store:
    requests: dict[str, ApprovalRequest] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[ResolvedApproval]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    modified: dict[str, str] = field(default_factory=dict)  # by a reviewer: the sha256 of what they wrote
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    slow: asyncio.Event | None = None  # `open` answers once this is set

    async def open(self, request: ApprovalRequest) -> OpenedApproval:
        id_ = f"a{len(self.requests) + 1}"
        self.requests[id_], self.status[id_] = request, "pending"
        self.answers[id_] = asyncio.get_running_loop().create_future()
        self.arrived.set()
        if self.slow is not None:
            await self.slow.wait()
        return OpenedApproval(id_, datetime(2030, 1, 1, tzinfo=UTC))

    async def decided(self, id_: str, status: str, **more: Any) -> None:
        """The request with this id, once it is here."""
        await until(lambda: id_ in self.requests)
        self.status[id_] = status
        if "sql" in more:
            self.modified[id_] = hashlib.sha256(more["sql"].encode()).hexdigest()
        self.answers[id_].set_result(ResolvedApproval(id_, status, "bob", "because", ("bob",), **more))

    async def wait(self, approval_id: str) -> ResolvedApproval:
        return await asyncio.shield(self.answers[approval_id])

    async def claim(self, approval_id: str, binding: str, sha256: str) -> bool:
        request = self.requests[approval_id]
        bound = request.binding if request.wait else request.retry_binding
        voted_on = self.modified.get(approval_id, request.sha256)
        ok = self.status[approval_id] == "approved" and (bound, voted_on) == (binding, sha256)
        if ok:
            self.status[approval_id] = "executing"
        return ok

    async def withdraw(self, approval_id: str, reason: str) -> bool:
        ok = self.status[approval_id] in ("pending", "approved")
        if ok:
            self.status[approval_id], self.reasons[approval_id] = "withdrawn", reason
        return ok

    async def finish(self, approval_id: str, status: str, outcome: dict[str, Any]) -> None:
        self.status[approval_id], self.outcomes[approval_id] = status, outcome

    async def decide(self, id_: str, status: str) -> None:
        await self.arrived.wait()
        self.status[id_] = status
        self.answers[id_].set_result(ResolvedApproval(id_, status, "bob", "because", ("bob",)))


class Client:
    """A raw client: messages as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.key: tuple[int, bytes] = (0, b"")
        self.parameters: dict[bytes, bytes] = {}

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def message(self) -> tuple[int, bytes]:
        head = await self.reader.readexactly(5)
        return head[0], head + await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4)

    async def until_ready(self) -> list[tuple[int, bytes]]:
        seen = []
        while True:
            seen.append(await asyncio.wait_for(self.message(), PATIENCE_S))
            if seen[-1][0] == tags.READY_FOR_QUERY:
                return seen

    async def until_closed(self) -> list[tuple[int, bytes]]:
        seen: list[tuple[int, bytes]] = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                seen.append(await asyncio.wait_for(self.message(), PATIENCE_S))
        return seen

    async def query(self, sql: bytes) -> list[tuple[int, bytes]]:
        self.send(frontend.query(sql))
        return await self.until_ready()

    async def fatal(self) -> dict[str, str]:
        """The connection ends with one ErrorResponse; its fields."""
        seen = await self.until_closed()
        return backend.read_error([data for kind, data in seen if kind == tags.ERROR_RESPONSE][-1])

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def values(seen: list[tuple[int, bytes]]) -> list[bytes]:
    """The first column of each row."""
    rows = [data for kind, data in seen if kind == tags.DATA_ROW]
    return [row[11 : 11 + int.from_bytes(row[7:11], "big")] for row in rows]


def errors(seen: list[tuple[int, bytes]]) -> list[dict[str, str]]:
    return [backend.read_error(data) for kind, data in seen if kind == tags.ERROR_RESPONSE]


@dataclass
class Proxy:
    port: int
    listener: Listener
    services: Services
    store: Store
    trail: Trail
    terms: Terms

    def sessions(self) -> list[dict[str, Any]]:
        return [live.describe() for live in self.listener.directory.live()]

    @property
    def counted(self) -> list[str]:
        metrics = self.services.metrics
        assert isinstance(metrics, Metrics)
        return metrics.errors

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def start(self, *parameters: tuple[bytes, bytes], user: bytes = b"agent", minor: int = 0) -> Client:
        """A session; the connection's first packet has these parameters beside user and database."""
        client = await self.connect()
        fixed = [(b"user", user), (b"database", b"postgres")]
        client.send(startup.startup_message([*fixed, *parameters], minor=minor))
        for kind, data in await client.until_ready():
            if kind == tags.BACKEND_KEY_DATA:
                client.key = backend.read_backend_key_data(data)
            elif kind == tags.PARAMETER_STATUS:
                name, value = backend.read_parameter_status(data)
                client.parameters[name] = value
        return client

    async def refused(self, *parameters: tuple[bytes, bytes], user: bytes = b"agent") -> dict[str, str]:
        client = await self.connect()
        client.send(startup.startup_message([(b"user", user), (b"database", b"postgres"), *parameters]))
        try:
            return await client.fatal()
        finally:
            await client.close()

    async def quiet(self) -> None:
        """Until no session is left."""
        await until(lambda: not self.sessions())


def trusting(server: EmbeddedServer) -> Upstream:
    return Upstream(str(server.socket_dir), server.port)


@asynccontextmanager
async def proxy(
    upstream: Upstream,
    *,
    mode: Mode = Mode.ENFORCE,
    authenticator: AgentAuthenticator | None = None,
    tokens: TokenAuthenticator | None = None,
    accounts: dict[str, AgentAccount] | None = None,
    parked: int = 10,
    parked_per_agent: int = 0,
    replication: Replication = Replication.DENY,
    tls: ServerTls | None = None,
    certificates: dict[str, CertificateName] | None = None,
    databases: dict[str, tuple[str, ...]] | None = None,
    rules: Policy | None = None,
    **options: Any,
) -> AsyncIterator[Proxy]:
    store, trail, errands = Store(), Trail(), Errands()
    services = Services(upstream, store, trail, Analyzer(), Metrics(), errands, Parking(parked, parked_per_agent))
    access = Access(
        mode,
        authenticator,
        accounts or {},
        {"agent": "alice"},
        databases=databases or {},
        tls=tls,
        certificates=certificates or {},
        tokens=tokens,
    )

    async def nowhere(_pid: int, _secret: bytes) -> None:
        return None

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    policy = rules or Policy(mode, replication=replication)
    terms = Terms(access, policy, ListenerOptions("http://c", **options))
    listener = Listener(services, terms, classify, nowhere)
    async with asyncio.TaskGroup() as tasks:
        await listener.start(tasks, sock)
        try:
            yield Proxy(sock.getsockname()[1], listener, services, store, trail, terms)
        finally:
            listener.stop()
            await errands.close(2)


def dsn_of(server: EmbeddedServer) -> Dsn:
    return Dsn.parse(server.dsn)
