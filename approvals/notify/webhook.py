"""Webhooks for programs, signed by the Standard Webhooks specification."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

from approvals.documents import encode_bytes
from approvals.notify.http import Poster
from approvals.notify.ports import Kind, Message

_PREFIX = "whsec_"


def secret_bytes(secret: str) -> bytes:
    """The key of a secret as the specification writes it: `whsec_` and base64 of 24 to 64 bytes.

    Raises:
        ValueError
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be whsec_ and base64") from None
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and base64 of 24 to 64 bytes")
    return key


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Webhook:
    """One receiver. It gets every event of its requests, in order, each with the object as it was then."""

    kind: Kind = "webhook"
    every_event = True

    def __init__(
        self, target: str, url: str, secret: str, *, allow_private: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self.target = target
        self._url = url
        self._key = secret_bytes(secret)
        self._clock = clock
        self._poster = Poster(allow_private=allow_private)

    async def deliver(self, message: Message) -> dict[str, Any] | None:
        body = encode_bytes({"type": message.event, "timestamp": message.at, "data": message.at_event})
        message_id = "msg_" + hashlib.sha256(message.id.encode()).hexdigest()[:32]  # no dot: it is signed with dots
        now = int(self._clock())
        headers = {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(self._key, message_id, now, body),
        }
        await self._poster.send("POST", self._url, body, headers)
        return None

    async def close(self) -> None:
        await self._poster.close()
