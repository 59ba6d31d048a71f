"""One TCP or Unix connection: read message by message during start-up, then handed over to callbacks."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from pgproxy.protocol import startup
from pgproxy.protocol.violation import ProtocolViolation

# Start-up messages (passwords, SASL, ParameterStatus) are small; a GSS token may reach 64 KB.
_STARTUP_MESSAGE_BYTES = 1 << 20
_TLS_GOODBYE_S = 5.0  # for the peer's close_notify


class HandshakeFailed(ConnectionResetError):
    """TLS did not come about; the connection is of no further use."""


class Endpoint(asyncio.Protocol):
    """A connection as both a stream of messages (start-up) and a source of events (`hand_over`)."""

    def __init__(self, on_connected: Callable[[Endpoint], None] | None = None) -> None:
        self._on_connected = on_connected
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ended = False
        self._is_lost = False
        self._is_secured = False
        self._in_handshake = False
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._on_data: Callable[[bytes], None] | None = None
        self._on_end: Callable[[bool], None] | None = None
        self._on_writable: Callable[[bool], None] | None = None
        self.lost = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of asyncio's
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        if self._on_data is not None:
            self._on_data(data)
            return
        self._buffer += data
        if len(self._buffer) > 2 * _STARTUP_MESSAGE_BYTES:
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._end(False)
        # What is written still goes out, and the relay closes. TLS has no half-closed connections.
        return not self._is_secured

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._end(True)
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._drain_waiter = asyncio.get_running_loop().create_future()
        if self._on_writable is not None:
            self._on_writable(False)

    def resume_writing(self) -> None:
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)
        self._drain_waiter = None
        if self._on_writable is not None:
            self._on_writable(True)

    def _end(self, lost: bool) -> None:
        if self._ended and not lost:
            return
        self._ended = True
        self._wake()
        if self._on_end is not None:
            self._on_end(lost)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # start-up: a stream of messages

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            if self._ended:
                raise ConnectionResetError("the peer closed the connection")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def read_message(self) -> tuple[int, bytes]:
        """One message with its header. Loses nothing when cancelled."""
        await self._fill(5)
        length = int.from_bytes(self._buffer[1:5], "big")
        if not 4 <= length <= _STARTUP_MESSAGE_BYTES:
            raise ProtocolViolation("invalid message length")
        await self._fill(length + 1)
        message = self._take(length + 1)
        return message[0], message

    async def read_startup_packet(self) -> bytes:
        """The first packet, which has no type byte."""
        await self._fill(4)
        size = startup.startup_packet_bytes(bytes(self._buffer[:4]))
        await self._fill(size)
        return self._take(size)

    async def read_byte(self) -> bytes:
        """The answer to an SSLRequest, which is no message."""
        await self._fill(1)
        return self._take(1)

    async def peek(self) -> int:
        """The next byte, which stays."""
        await self._fill(1)
        return self._buffer[0]

    async def peek_type(self, besides: int) -> int:
        """The type of the next message that is not of type `besides`; nothing is taken."""
        at = 0
        while True:
            await self._fill(at + 5)
            if self._buffer[at] != besides:
                return self._buffer[at]
            length = int.from_bytes(self._buffer[at + 1 : at + 5], "big")
            if not 4 <= length <= _STARTUP_MESSAGE_BYTES:
                return self._buffer[at]  # whoever takes it refuses it
            at += length + 1

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> ssl.SSLObject:
        """From here on everything is inside TLS, beginning with what is buffered (a ClientHello that came unasked;
        a caller who knows of none refuses buffered bytes first). Raises HandshakeFailed."""
        loop = asyncio.get_running_loop()
        plain = self.transport

        def feed() -> None:
            # What was read before TLS stood behind the transport only we have: its turn is right behind TLS's
            # connection_made, and before the loop looks at sockets again.
            protocol = plain.get_protocol()
            if protocol is self:
                return  # start_tls has failed already
            received = self._take(len(self._buffer))
            buffered = cast(asyncio.BufferedProtocol, protocol)  # uvloop's is no subclass of asyncio's
            while received:
                room = cast(memoryview, buffered.get_buffer(len(received)))
                size = min(len(room), len(received))
                room[:size] = received[:size]
                buffered.buffer_updated(size)
                received = received[size:]

        self._in_handshake = True
        starting = loop.create_task(
            loop.start_tls(
                plain,
                self,
                context,
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_shutdown_timeout=_TLS_GOODBYE_S,
            )
        )
        loop.call_soon(lambda: loop.call_soon(feed))
        try:
            secured = await starting
        except OSError as error:
            self._ended = True
            raise HandshakeFailed(_reason(error)) from error
        if secured is None:  # lost just behind the handshake
            self._ended = True
            raise HandshakeFailed("the peer closed the connection")
        self._transport = secured
        self._is_secured, self._in_handshake = True, False
        found: ssl.SSLObject = secured.get_extra_info("ssl_object")
        return found

    @property
    def has_buffered(self) -> bool:
        """Whether bytes arrived that nobody has read yet."""
        return bool(self._buffer)

    async def until_end(self) -> None:
        """Reads and drops everything until the peer closes."""
        while not self._ended:
            self._buffer.clear()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def write(self, data: bytes) -> None:
        """To a peer that is gone, or with whom a TLS handshake is not done, nothing can be said: uvloop would raise,
        and in the middle of a handshake it would go out in the clear."""
        if not (self._is_lost or self._in_handshake or self.transport.is_closing()):
            self.transport.write(data)

    async def drain(self) -> None:
        if self._drain_waiter is not None:
            await self._drain_waiter

    # the session: events

    def hand_over(
        self, on_data: Callable[[bytes], None], on_end: Callable[[bool], None], on_writable: Callable[[bool], None]
    ) -> None:
        """From now on what arrives goes to the callbacks, beginning with what was buffered. `on_end` is told whether
        the connection is lost, or only the peer's sending half closed (and then once more when it is lost)."""
        self._on_data, self._on_end, self._on_writable = on_data, on_end, on_writable
        self.transport.resume_reading()  # before the callbacks, who may want it paused
        if self._buffer:
            on_data(self._take(len(self._buffer)))
        if self._ended:
            on_end(self._is_lost)

    def close(self) -> None:
        """After everything written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Now."""
        if self._transport is not None:
            self._transport.abort()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    return "the peer closed the connection during the TLS handshake"
