"""The control process's own TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from fastapi import FastAPI

from approvals.api.server import serve
from pgproxy.app.control import ApiCertificateReload
from pgproxy.config import Settings
from tests.pki import Authority


class _Stream:
    def close(self) -> None:
        return None


async def shown(port: int, authority: Authority) -> bytes:
    context = ssl.create_default_context(cafile=str(authority.path))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b'"alive"')
    certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return certificate


async def test_the_api_gets_its_new_certificate_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("api.test", hosts=["127.0.0.1"])
    settings = Settings.model_validate({"api": {"tls": {"cert": pair.cert, "key": pair.key}}})
    app = FastAPI()
    app.state.stream = _Stream()
    app.get("/alive")(lambda: "alive")
    async with serve(app, "127.0.0.1", 0, certificate=pair.cert, key=pair.key) as server:
        reload = ApiCertificateReload(settings, server)
        assert await shown(server.port, authority) == pair.der
        newer = authority.issue("api.test", hosts=["127.0.0.1"], to=pair)
        assert await reload.answer(None) == []
        assert await shown(server.port, authority) == newer.der
        pair.key.write_text("broken")
        (said,) = await reload.answer(None)
        assert str(pair.key) in said and "the old one stays in force" in said
        assert await shown(server.port, authority) == newer.der
        assert [r.levelname for r in caplog.records if r.name == "pgproxy.app"] == ["ERROR"]
