"""POST and nothing else: no redirects, no proxies of the environment, bounded answers, and, where asked for, no
private addresses.

The guard looks at the address that is connected to, not at the name beforehand: a name that changes its answer in
between (DNS rebinding) gets nowhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore

from approvals.notify.ports import NotDelivered

MAX_ANSWER_BYTES = 64 * 1024
_CONNECT_S = 5.0
_ANSWER_S = 10.0
_LONGEST_RETRY_AFTER_S = 3600.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


class AddressRefused(Exception):
    """The name leads to a private address."""


def is_public(address: str) -> bool:
    """Whether an address is one of the whole internet's, also inside of those that carry an IPv4 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            carried = ipaddress.IPv4Address(ip.packed[-4:])
        if carried is not None:
            return is_public(str(carried))
    return ip.is_global and not ip.is_multicast


class _Network(httpcore.AsyncNetworkBackend):
    """Resolves, checks and connects to what it has checked. TLS still goes by the name."""

    def __init__(self, *, allow_private: bool) -> None:
        self._real = httpcore.AnyIOBackend()
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise httpcore.ConnectError("the name is not known") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise AddressRefused
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses[:4]:
            try:
                return await self._real.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused

    async def sleep(self, seconds: float) -> None:
        await self._real.sleep(seconds)


class Poster:
    """Connections to one place."""

    def __init__(self, *, allow_private: bool, tls: ssl.SSLContext | None = None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or ssl.create_default_context(),
            network_backend=_Network(allow_private=allow_private),
            max_connections=8,
            keepalive_expiry=30.0,
        )

    async def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer when it is a good one.

        Raises:
            NotDelivered
        """
        answer, retry_after_s = await self._exchange(method, url, body, headers)
        if 200 <= answer.status < 300:
            return answer
        if answer.status == 410:
            raise NotDelivered("the receiver is gone (410)", permanent=True)
        if 300 <= answer.status < 400:
            raise NotDelivered(f"answered {answer.status}: redirects are not followed")
        raise NotDelivered(f"answered {answer.status}", retry_after_s=retry_after_s)

    async def _exchange(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Answer, float | None]:
        timeouts = {"connect": _CONNECT_S, "read": _ANSWER_S, "write": _ANSWER_S, "pool": _CONNECT_S}
        try:
            async with self._pool.stream(
                method,
                url,
                headers=[("user-agent", "pgproxy"), ("accept-encoding", "identity"), *headers.items()],
                content=body,
                extensions={"timeout": timeouts},
            ) as response:
                received = b""
                async for chunk in response.aiter_stream():
                    received += chunk
                    if len(received) > MAX_ANSWER_BYTES:
                        break
                given = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
                return Answer(response.status, received[:MAX_ANSWER_BYTES]), _retry_after(given)
        except AddressRefused:
            raise NotDelivered("the address is a private one (allow_private)") from None
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
        ) as error:
            raise NotDelivered(f"no answer ({type(error).__name__})") from error

    async def close(self) -> None:
        await self._pool.aclose()


def _retry_after(value: bytes | None) -> float | None:
    """RFC 9110, 10.2.3: seconds, or a date."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, min(seconds, _LONGEST_RETRY_AFTER_S))
