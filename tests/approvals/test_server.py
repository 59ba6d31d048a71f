"""The API's own listener: TLS, certificates that are renewed, and whose X-Forwarded headers are believed."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from fastapi import FastAPI, Request

from approvals.api.certificates import Certificate
from approvals.api.server import serve
from tests.certificates import Pair, make_pair


class _Stream:
    def close(self) -> None:
        return None


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    app.state.stream = _Stream()

    @app.get("/")
    async def show(request: Request) -> dict[str, Any]:
        return {"scheme": request.url.scheme, "client": request.client.host if request.client else None}

    return app


async def serial_of(port: int, pair: Pair) -> int:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=pair.cert)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).serial_number


async def test_https_and_nothing_older_than_tls_1_2(app: FastAPI, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "api")
    certificate = Certificate(pair.cert, pair.key)
    async with serve(app, "127.0.0.1", 0, tls=certificate.context) as server:
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=pair.cert)) as client:
            assert (await client.get(f"https://127.0.0.1:{server.port}/")).json()["scheme"] == "https"
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.HTTPError):
                await client.get(f"http://127.0.0.1:{server.port}/")
        old = ssl.create_default_context(cafile=pair.cert)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=old)


async def test_a_renewed_certificate_is_used_and_half_a_pair_is_not(app: FastAPI, tmp_path: Path) -> None:
    first = make_pair(tmp_path, "api")
    certificate = Certificate(first.cert, first.key)
    async with serve(app, "127.0.0.1", 0, tls=certificate.context) as server:
        assert await serial_of(server.port, first) == first.serial
        assert not certificate.reload()
        old_cert, old_key = first.cert.read_bytes(), first.key.read_bytes()
        second = make_pair(tmp_path, "api")
        new_key = second.key.read_bytes()
        second.key.write_bytes(old_key)
        assert not certificate.reload()
        first.cert.with_name("old.crt").write_bytes(old_cert)
        old = Pair(first.cert.with_name("old.crt"), first.key, first.serial)
        assert await serial_of(server.port, old) == first.serial
        second.key.write_bytes(new_key)
        assert certificate.reload()
        assert await serial_of(server.port, second) == second.serial
        second.cert.unlink()
        assert not certificate.reload()


@pytest.mark.parametrize(
    ("proxies", "scheme", "client"),
    [
        ([], "http", "127.0.0.1"),
        (["10.0.0.0/8"], "http", "127.0.0.1"),
        (["127.0.0.1/32"], "https", "203.0.113.7"),
        (["127.0.0.0/8", "203.0.113.0/24"], "https", "198.51.100.1"),
    ],
)
async def test_forwarded_headers_are_believed_of_proxies_alone(
    app: FastAPI, proxies: list[str], scheme: str, client: str
) -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
    async with serve(app, "127.0.0.1", 0, proxies=proxies) as server, httpx.AsyncClient() as api:
        found = (await api.get(f"http://127.0.0.1:{server.port}/", headers=headers)).json()
    assert found == {"scheme": scheme, "client": client}
