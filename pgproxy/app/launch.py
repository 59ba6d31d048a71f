"""Starting and stopping a whole run: `pgproxy up` and `pgproxy serve`."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg

from approvals.lifecycle import reap
from approvals.reviewers import ReviewerSpec, sync_reviewers
from pgproxy import metrics
from pgproxy.app.reload import Reloader
from pgproxy.config import Address, Settings, build
from pgproxy.document import Document
from pgproxy.dsn import Dsn
from pgproxy.embedded import EmbeddedError, EmbeddedServer, kept_password
from pgproxy.sample import ensure_sample
from pgproxy.store import migrate, open_pool
from pgproxy.supervisor import Child, Supervisor

_log = logging.getLogger("pgproxy.app")
_MIGRATIONS = {"approvals": "approvals", "audit": "pgproxy.audit"}  # component: the package that brings them
_STORE_PATIENCE_S = 30.0
_LOOK_S = 1.0
_LOGIN_PATIENCE_S = 10.0


class LaunchError(Exception):
    """The run cannot start; the message is for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What `pgproxy up` tells about itself, on the terminal and in `up.json`."""

    facts: dict[str, Any]
    path: Path

    def write(self) -> None:
        """`up.json`, readable by its owner alone: it holds passwords and tokens."""
        draft = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(self.facts, file, indent=2)
            file.write("\n")
        draft.replace(self.path)

    def tell(self) -> str:
        agent, reviewer = self.facts["agents"][0], self.facts["reviewers"][-1]
        program = "pgproxy" if shutil.which("pgproxy") else sys.argv[0]
        return f"""
agent       psql '{agent["dsn"]}'
            (no psql here? `{program} psql` has one)
owner       {agent["owner"]}, who may never approve for it
api         {self.facts["api"]}   console {self.facts["console"]}
reviewer    {reviewer["name"]}
token       {reviewer["token"]}

Type in one terminal:
    psql '{agent["dsn"]}' -c "\\copy customers to 'customers.csv'"
It waits. In another:
    export PGPROXY_API={self.facts["api"]} PGPROXY_TOKEN={reviewer["token"]}
    {program} approvals list
    {program} approvals approve ID --comment 'fine'
"""


def serve(load: Callable[[], Settings], settings: Settings) -> None:
    """`pgproxy serve`: until SIGTERM or SIGINT. `load` reads the configuration again, on SIGHUP."""
    asyncio.run(_serve(settings, load=load))


def up(*, upstream: str | None, listen: str, api: str, data_dir: Path) -> None:
    """`pgproxy up`: with everything it needs, until SIGTERM or SIGINT."""
    asyncio.run(_up(upstream, listen, api, data_dir))


async def _up(upstream: str | None, listen: str, api: str, data_dir: Path) -> None:
    data_dir = _private(data_dir)
    async with contextlib.AsyncExitStack() as stack:
        if upstream is None:
            password = kept_password(data_dir / "secrets" / "upstream")
            server = EmbeddedServer(data_dir / "upstream", password=password, tcp_port=_kept_port(data_dir))
            await _run_server(stack, server)
            login = await ensure_sample(server)
            observer = await _ensure_observer(server, data_dir)
            upstream_dsn = server.dsn_for("postgres", password, login.database)
            target = Dsn.parse(server.dsn_for(login.user, login.password, login.database))
        else:
            upstream_dsn = upstream
            target = Dsn.parse(upstream)
            observer = _login(target)  # it reads catalogs alone, in read-only transactions
        settings, demo = _demo(target, upstream_dsn, observer, listen, api, data_dir)
        if upstream is not None:
            await _try_login(target)

        async def ready() -> None:
            demo.write()
            print(demo.tell(), flush=True)  # noqa: T201
            print("ready", flush=True)  # noqa: T201

        await _serve(settings, ready)


def _login(target: Dsn) -> dict[str, str]:
    login = {"user": target.user or "postgres"}
    if target.password is not None:
        login["password"] = target.password.get_secret_value()
    return login


async def _try_login(target: Dsn) -> None:
    """A DSN that does not work is better told now than to the first agent."""
    try:
        async with asyncio.timeout(_LOGIN_PATIENCE_S):
            await (await asyncpg.connect(target.uri())).close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise LaunchError(f"--upstream: cannot log in there: {error or type(error).__name__}") from error


async def _ensure_observer(server: EmbeddedServer, data_dir: Path) -> dict[str, str]:
    """A login that owns nothing and may do nothing: PostgreSQL's catalogs are readable by everybody."""
    login = {"user": "pgproxy_observer", "password": kept_password(data_dir / "secrets" / "observer")}
    admin = await asyncpg.connect(server.dsn)
    try:
        if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", login["user"]):
            await admin.execute(f"CREATE ROLE {login['user']}")
        statement = await admin.fetchval(
            "SELECT format('ALTER ROLE %I LOGIN PASSWORD %L', $1::text, $2::text)", *login.values()
        )
        await admin.execute(statement)
    finally:
        await admin.close()
    return login


def _demo(
    target: Dsn, upstream_dsn: str, observer: dict[str, str], listen: str, api: str, data_dir: Path
) -> tuple[Settings, Demo]:
    """One agent with an owner, two reviewers of whom one is that owner."""
    keep = data_dir / "secrets"
    database = target.database or "postgres"
    owner, other = "alice@example.com", "bob@example.com"
    agent = {"name": "demo-agent", "owner": owner, "password": kept_password(keep / "demo-agent")}
    reviewers = [
        {"name": owner, "token": kept_password(keep / "alice"), "roles": ["reviewer"], "groups": ["shop"]},
        {"name": other, "token": kept_password(keep / "bob"), "roles": ["reviewer", "admin"], "groups": ["dba"]},
    ]
    data = {
        "listen": listen,
        "api": {"listen": api},
        "upstream": {"dsn": target.uri(password=False), "observer": observer},
        "auth": {"mode": "broker"},
        "agents": [{**agent, "upstream": _login(target)}],
        "reviewers": reviewers,
        "data_dir": str(data_dir),
        "log_level": "warning",
    }
    settings = build(Document("pgproxy up", data), {})
    place = Address.model_validate(listen)
    reached = "127.0.0.1" if place.host in ("0.0.0.0", "::") else place.host  # noqa: S104 (asked for)
    url = f"http://{settings.api.listen}"
    facts = {
        "listen": str(place),
        "api": url,
        "console": f"{url}/",
        "agents": [
            {
                "name": agent["name"],
                "owner": owner,
                "dsn": Dsn.model_validate(
                    {
                        "host": reached,
                        "port": place.port,
                        "user": agent["name"],
                        "password": agent["password"],
                        "database": database,
                    }
                ).uri(),
            }
        ],
        "reviewers": [{"name": r["name"], "token": r["token"]} for r in reviewers],
        "upstream_dsn": upstream_dsn,
    }
    return settings, Demo(facts, data_dir / "up.json")


async def _serve(
    settings: Settings,
    ready: Callable[[], Awaitable[None]] | None = None,
    load: Callable[[], Settings] | None = None,
) -> None:
    read = settings
    data_dir = _private(settings.data_dir)
    node = _kept(data_dir / "node", lambda: secrets.token_hex(4))
    mock_key = _kept(data_dir / "secrets" / "mock-key", lambda: secrets.token_hex(32))
    async with contextlib.AsyncExitStack() as stack:
        if settings.store.dsn is None:
            password = kept_password(data_dir / "secrets" / "store")
            server = EmbeddedServer(data_dir / "store", password=password)
            await _run_server(stack, server)
            settings = settings.model_copy(update={"store": settings.store.model_validate({"dsn": server.dsn})})
        assert settings.store.dsn is not None
        await _refuse_shared_cluster(settings)
        pool = await _prepare_store(settings, node)
        stack.callback(pool.terminate)
        metrics.prepare(data_dir / "run" / "metrics")

        async def on_exit(child: Child) -> None:
            metrics.mark_process_dead(child.pid)
            found = await reap(pool, node, child.instance)
            if found.withdrawn or found.unknown:
                _log.warning("%s left: withdrawn=%d unknown=%d", child.name, len(found.withdrawn), len(found.unknown))

        supervisor = Supervisor(
            settings.to_wire(),
            workers=settings.workers,
            node=node,
            on_exit=on_exit,
            drain_timeout_s=settings.limits.drain_timeout_s,
            extra={"mock_key": mock_key},
        )
        key = hmac.digest(bytes.fromhex(mock_key), b"settings digest", "sha256")
        reloader = Reloader(load, read, settings, supervisor, partial(_sync_reviewers, pool), key)
        supervisor.router.handle("reload", lambda params: reloader.reload(str(params["by"])))
        if load is not None:
            supervisor.on_hangup = partial(reloader.reload, "SIGHUP")

        async def started() -> None:
            reloader.note("start", by="the operator")
            if ready is not None:
                await ready()

        await supervisor.run(started)


async def _run_server(stack: contextlib.AsyncExitStack, server: EmbeddedServer) -> None:
    """Started now, started again should it die, stopped when the stack closes."""
    await server.start()
    stack.push_async_callback(server.stop)
    keeping = asyncio.get_running_loop().create_task(_keep_running(server))

    async def stop_keeping() -> None:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    stack.push_async_callback(stop_keeping)


async def _keep_running(server: EmbeddedServer) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        if server.is_running:
            continue
        _log.error("the embedded server in %s has ended, starting it again", server.directory)
        try:
            await server.stop()
            await server.start()
        except EmbeddedError as error:
            _log.error("%s", error)


async def _prepare_store(settings: Settings, node: str) -> asyncpg.Pool[asyncpg.Record]:
    """The store with its tables, the configured reviewers, and nothing left of an earlier run of this node."""
    assert settings.store.dsn is not None
    try:
        async with asyncio.timeout(_STORE_PATIENCE_S):
            pool = await open_pool(settings.store.dsn.get_secret_value())
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise LaunchError(f"store.dsn: the store cannot be reached ({type(error).__name__}: {error})") from error
    try:
        for component, package in _MIGRATIONS.items():
            await migrate(pool, component, files(package) / "migrations")
        await _sync_reviewers(pool, settings)
        await reap(pool, node)
    except BaseException:
        pool.terminate()
        raise
    return pool


async def _sync_reviewers(pool: asyncpg.Pool[asyncpg.Record], settings: Settings) -> None:
    """Their tokens are good from now on, and no others."""
    await sync_reviewers(
        pool,
        [
            ReviewerSpec(r.name, r.token.get_secret_value(), r.groups, r.roles)
            for r in settings.reviewers
            if r.token is not None
        ],
    )


async def _refuse_shared_cluster(settings: Settings) -> None:
    """The audited must not reach the evidence: a store in the same cluster as the upstream is refused.

    Compared by address, and by the clusters' system identifiers where pgproxy can log in at the upstream.
    """
    assert settings.store.dsn is not None
    store = Dsn.parse(settings.store.dsn.get_secret_value())
    upstream = settings.upstream.dsn
    same = (store.host, store.port) == (upstream.host, upstream.port)
    if not same:
        one = await _system_identifier(store)
        logins = [a.upstream for a in settings.agents if a.upstream is not None]
        for login in logins[:1]:
            at_upstream = upstream.model_copy(update={"user": login.user, "password": login.password})
            same = one is not None and one == await _system_identifier(at_upstream)
    if same:
        raise LaunchError(
            "store.dsn: the store is in the same PostgreSQL cluster as the upstream; whoever is audited could reach "
            "the evidence there. Use another cluster, or leave store.dsn out for an embedded one."
        )


async def _system_identifier(dsn: Dsn) -> int | None:
    """Of the cluster; None when it does not tell (the connection comes up later, or is not allowed to ask)."""
    try:
        async with asyncio.timeout(5):
            connection = await asyncpg.connect(dsn.uri())
            try:
                found: int = await connection.fetchval("SELECT system_identifier FROM pg_control_system()")
            finally:
                await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    return found


def _private(directory: Path) -> Path:
    """The data directory: made when missing. Its secrets are in a folder only its owner may enter."""
    directory = directory.expanduser().absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "secrets").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"data directory {directory}: {error.strerror}") from error
    return directory


def _kept(path: Path, make: Callable[[], str]) -> str:
    """A value made once and kept beside the data."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make() + "\n")
    return path.read_text().strip()


def _kept_port(data_dir: Path) -> int:
    """The embedded upstream's port: one that was free at the first start, and stays."""
    import socket

    def free() -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return str(sock.getsockname()[1])

    return int(_kept(data_dir / "upstream.port", free))
