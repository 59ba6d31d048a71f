"""Listening sockets: bound before anything else starts, so that a taken port is one clear line."""

from __future__ import annotations

import os
import socket

from pgproxy.config import Address


class AddressError(Exception):
    """An address cannot be listened on; the message names the key and the reason."""


def bind(key: str, address: Address, *, shared: bool = False) -> socket.socket:
    """A socket bound to the address. `shared` (SO_REUSEPORT): each worker accepts for itself, and the kernel spreads
    the clients."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AddressError(f"{key} {address}: {error.strerror}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared and os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)
    except OSError as error:
        sock.close()
        raise AddressError(f"{key} {address}: {error.strerror}") from error
    sock.setblocking(False)
    return sock
