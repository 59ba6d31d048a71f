"""TLS on both connections: what is offered to clients, and how the server is asked for it.

Contexts are made of files once and replaced whole by `reload`: connections that are there keep what they have, new
ones get the new certificate, and files that cannot be used leave the old ones in force.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pgproxy.certificates import ALPN, PeerCertificate, client_context, end_point_binding, read_peer, server_context
from pgproxy.errors import InvalidAuthorization
from pgproxy.net.endpoint import Endpoint, HandshakeFailed
from pgproxy.protocol import startup

TLS_HANDSHAKE: Final = 0x16  # a TLS record's type, and no first byte of a start-up packet
_ACCEPTED: Final = b"S"
_REFUSED: Final = b"N"


@dataclass(frozen=True, slots=True)
class Secured:
    """The TLS of one connection. `binding`: its server's `tls-server-end-point`. `peer`: who the other side proved
    to be by a certificate."""

    version: str
    cipher: str
    binding: bytes | None
    peer: PeerCertificate | None

    def describe(self) -> dict[str, str | None]:
        return {
            "version": self.version,
            "cipher": self.cipher,
            "client_certificate": self.peer.subject if self.peer else None,
        }


class ServerTls:
    """Towards clients. Raises CertificateError when the files cannot be used, here and in `reload`."""

    def __init__(
        self,
        mode: Literal["prefer", "require"],
        cert: Path,
        key: Path,
        client_ca: Path | None = None,
        *,
        demand_client_cert: bool = False,
    ) -> None:
        self.is_required = mode == "require"
        self.demands_client_cert = demand_client_cert
        self._files = (cert, key, client_ca)
        self._offer = server_context(*self._files)

    def reload(self) -> None:
        """Takes the files as they are now; the old ones stay in force when it raises."""
        self._offer = server_context(*self._files)

    async def accept(self, client: Endpoint, *, direct: bool = False) -> Secured:
        """The server's side of the handshake. `direct` (no SSLRequest before): the client must name the protocol, or
        a connection meant for another one could be led here ("SSL Session Encryption", ALPACA). Raises
        HandshakeFailed."""
        context, binding = self._offer
        found = await client.start_tls(context, server_side=True)
        if direct and found.selected_alpn_protocol() != ALPN:
            raise HandshakeFailed("direct TLS without ALPN protocol postgresql")
        return _secured(found, binding, found.getpeercert(binary_form=True))

    def check(self, secured: Secured | None, client_addr: str, user: str, database: str) -> None:
        """Whether a client may go on as it came. Raises InvalidAuthorization in the words of pg_hba.conf's `hostssl`
        and `clientcert`."""
        if secured is None and self.is_required:
            raise InvalidAuthorization(
                f'pgproxy: connection refused for host "{client_addr}", user "{user}", database "{database}", '
                "no encryption",
                hint="connect with sslmode=require or stricter: pgproxy is configured with tls.mode: require",
            )
        if self.demands_client_cert and (secured is None or secured.peer is None):
            raise certificate_missing("pgproxy is configured with tls.client_cert: required")


def certificate_missing(why: str) -> InvalidAuthorization:
    return InvalidAuthorization(
        "connection requires a valid client certificate", hint=f"connect with sslcert and sslkey: {why}"
    )


@dataclass(frozen=True, slots=True)
class UpstreamFiles:
    root: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class UpstreamTls:
    """Towards the server, by libpq's sslmode: `allow`, `prefer`, `require`, `verify-ca`, `verify-full`. Raises
    CertificateError when the files cannot be used, here and in `reload`."""

    def __init__(self, sslmode: str, files: UpstreamFiles | None = None, *, direct: bool = False) -> None:
        self._sslmode = sslmode
        self._files = files or UpstreamFiles()
        self._direct = direct
        self._context = self._load()

    def reload(self) -> None:
        """Takes the files as they are now; the old ones stay in force when it raises."""
        self._context = self._load()

    def _load(self) -> ssl.SSLContext:
        return client_context(self._sslmode, self._files.root, self._files.cert, self._files.key)

    @property
    def attempts(self) -> tuple[bool, ...]:
        """Whether to try with TLS, in this order; the next one when the one before is refused."""
        return {"allow": (False, True), "prefer": (True, False)}.get(self._sslmode, (True,))

    async def connect(self, server: Endpoint, host: str) -> Secured | None:
        """The client's side of it on a new connection; None when the server has no TLS and sslmode is `prefer`. Raises
        HandshakeFailed."""
        if not self._direct:
            server.write(startup.ssl_request())
            answer = await server.read_byte()
            # What stands behind the answer came from somebody who need not know the key (CVE-2021-23222).
            if server.has_buffered:
                raise HandshakeFailed("the server sent unencrypted data behind its answer to SSLRequest")
            if answer == _REFUSED:
                if self._sslmode == "prefer":
                    return None
                raise HandshakeFailed("the server does not support TLS, and sslmode asks for it")
            if answer != _ACCEPTED:
                raise HandshakeFailed("the server did not answer the SSLRequest")
        found = await server.start_tls(self._context, server_side=False, server_hostname=host)
        if self._direct and found.selected_alpn_protocol() != ALPN:
            raise HandshakeFailed("direct TLS, and the server did not confirm ALPN protocol postgresql")
        certificate = found.getpeercert(binary_form=True)
        return _secured(found, end_point_binding(certificate) if certificate else None, None)


def _secured(found: ssl.SSLObject, binding: bytes | None, client_certificate: bytes | None) -> Secured:
    cipher = found.cipher()
    return Secured(
        found.version() or "",
        cipher[0] if cipher else "",
        binding,
        read_peer(client_certificate) if client_certificate else None,
    )
