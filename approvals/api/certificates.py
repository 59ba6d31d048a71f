"""The API's certificate, followed when its files are renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger("pgproxy.approvals")

LOOK_S = 5.0


@dataclass(slots=True)
class Certificate:
    """A certificate chain with its key. `context` is for the server and stays the same: new connections get
    what was loaded last.

    Raises:
        OSError, ssl.SSLError: the files cannot be read, do not fit together, or the key is encrypted (a password
            is given so that OpenSSL does not ask for one on the terminal).
    """

    chain: Path
    key: Path
    context: ssl.SSLContext = field(init=False)
    _loaded: tuple[object, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self.context.set_alpn_protocols(["http/1.1"])
        self._loaded = self._look()
        self.context.load_cert_chain(self.chain, self.key, password="")

    def reload(self) -> bool:
        """Loads the files again if they changed; whether a new certificate is in force.

        Tried on a context of its own first: a certificate whose key has not been renewed yet leaves the old
        pair in force.
        """
        found = self._look()
        if found == self._loaded or None in found:
            return False
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.key, password="")
            self.context.load_cert_chain(self.chain, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            log.warning("new certificate not loaded, the old one stays file=%s error=%s", self.chain, error)
            self._loaded = found
            return False
        self._loaded = found
        log.info("certificate loaded file=%s", self.chain)
        return True

    def _look(self) -> tuple[object, ...]:
        return (_identity(self.chain), _identity(self.key))

    async def follow(self, interval_s: float = LOOK_S) -> None:
        """Looks at the files until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            self.reload()


def _identity(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content, through symbolic links too (as Kubernetes renews mounted secrets)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
