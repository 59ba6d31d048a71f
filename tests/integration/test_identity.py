"""`pgproxy serve` with the API over TLS and an identity provider: people log in, programs show their tokens."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import yaml

from pgproxy.dsn import Dsn
from tests.approvals.provider import FakeProvider
from tests.certificates import make_pair
from tests.conftest import free_port
from tests.integration.system import System, clean_environment, eventually


@contextmanager
def provider_in_a_thread() -> Iterator[FakeProvider]:
    """The test itself blocks, so the provider has a loop of its own."""
    provider, up, done = FakeProvider(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with provider.running():
            up.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert up.wait(10)
        yield provider
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


def test_a_reviewer_logs_in_over_tls_and_decides(system: System, short_directory: Path) -> None:
    listen, api = free_port(), free_port()
    pair = make_pair(short_directory, "api")
    upstream = Dsn.parse(system.upstream_dsn)
    with provider_in_a_thread() as provider:
        provider.user["groups"] = ["dba"]
        document = {
            "listen": f"127.0.0.1:{listen}",
            "api": {
                "listen": f"127.0.0.1:{api}",
                "tls": {"cert": str(pair.cert), "key": str(pair.key)},
                "oidc": {
                    "issuer": provider.issuer,
                    "client_id": "pgproxy",
                    "client_secret": {"env": "OIDC_SECRET"},
                    "groups_claim": "groups",
                    "role_map": {"dba": ["reviewer"]},
                },
            },
            "upstream": {"dsn": f"postgresql://{upstream.host}:{upstream.port}"},
            "auth": {"mode": "passthrough", "default_owner": "alice@example.com"},
            "data_dir": str(short_directory / "data"),
        }
        config = short_directory / "pgproxy.yaml"
        config.write_text(yaml.safe_dump(document))
        with (short_directory / "out").open("w") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "pgproxy", "serve", "--config", str(config)],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=clean_environment() | {"OIDC_SECRET": provider.client_secret or ""},
            )
        try:
            origin = f"https://127.0.0.1:{api}"
            with httpx.Client(base_url=origin, verify=ssl.create_default_context(cafile=pair.cert)) as web:

                def ready() -> bool:
                    assert process.poll() is None, (short_directory / "out").read_text()
                    try:
                        return web.get("/readyz").status_code == 200
                    except httpx.TransportError:
                        return False

                eventually(ready, "pgproxy serve is ready")
                assert web.get("/login", headers={"Host": "evil.example"}).status_code == 421
                sent_to = web.get("/oidc/start").headers["location"]
                assert web.get(provider.authorize(sent_to)).status_code == 303
                me = web.get("/v1/me").json()
                assert (me["name"], me["via"]) == ("bob@example.com", "console")
                dsn = upstream.model_copy(update={"host": "127.0.0.1", "port": listen}).uri()
                with psycopg.connect(dsn, autocommit=True) as agent:
                    notices: list[str] = []
                    agent.add_notice_handler(lambda notice: notices.append(str(notice.message_hint)))
                    asking = threading.Thread(target=lambda: agent.execute("create table by_oidc (a int)"))
                    asking.start()

                    def pending() -> str | None:
                        items = web.get("/v1/approvals", params={"status": "pending"}).json()["items"]
                        return items[0]["id"] if items else None

                    path = f"/v1/approvals/{eventually(pending, 'the request is pending')}/decision"
                    assert web.post(path, json={"decision": "approve"}).status_code == 403
                    headers = {"X-CSRF-Token": me["csrf_token"], "Origin": origin}
                    decided = web.post(path, json={"decision": "approve"}, headers=headers)
                    assert decided.json()["decisions"][0]["via"] == "console"
                    asking.join(20)
                    assert not asking.is_alive()
                    assert notices == [f"a reviewer decides at {origin}"]
                    agent.execute("select from by_oidc")
                bearer = {"Authorization": f"Bearer {provider.token()}"}
                assert httpx.get(f"{origin}/v1/me", headers=bearer, verify=web_context(pair.cert)).status_code == 200
                with pytest.raises(httpx.TransportError):
                    httpx.get(f"http://127.0.0.1:{api}/healthz")
        finally:
            process.terminate()
            process.wait(60)
            print((short_directory / "out").read_text()[-20_000:])


def web_context(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca)
