"""The first packet of a connection, which has a length but no type byte (manual: "Start-up", "SSL Session
Encryption", "Canceling Requests in Progress"), and the command-line switches in its `options` (manual:
"postgres", "Options").

The server applies `options` before the packet's other settings. Only settings are understood here; every
other switch is refused, because `-F`, `-B` or `-S` change the server in ways no policy speaks about, and
getopt lets one word hold several (`-Ecrole=x`).
"""

from __future__ import annotations

from typing import Final

from pgproxy.protocol import tags
from pgproxy.protocol.body import Body, int32, string
from pgproxy.protocol.violation import (
    INVALID_AUTHORIZATION,
    SYNTAX_ERROR,
    OptionRejected,
    ProtocolViolation,
)

# The server's own limit (MAX_STARTUP_PACKET_LENGTH), which does not count the length word.
MAX_STARTUP_BYTES: Final = 10_000

# The newest minor version of protocol 3 there is. 3.1 was never used ("Protocol Versions").
NEWEST_MINOR: Final = 2

_LENGTH_BYTES: Final = 4

# isspace() in the C locale. A server whose LC_CTYPE is a single-byte locale may call further bytes space,
# which is why `join_options` escapes everything beyond ASCII.
_SPACE: Final = " \t\n\v\f\r"


class StartupMessage:
    """StartupMessage. `parameters` are in the order and spelling sent, duplicates kept: for `user`,
    `database`, `options` and `replication` the server takes the last one, by exact name; every other name is
    a setting, whose name it compares without case and of which the last wins too."""

    def __init__(self, major: int, minor: int, parameters: list[tuple[bytes, bytes]]) -> None:
        self.major: Final[int] = major
        self.minor: Final[int] = minor
        self.parameters: Final[list[tuple[bytes, bytes]]] = parameters

    def get(self, name: bytes) -> bytes | None:
        """The last value sent under exactly this name."""
        found: bytes | None = None
        for key, value in self.parameters:
            if key == name:
                found = value
        return found


class SSLRequest:
    """SSLRequest: may TLS begin? Answered with the single byte S or N."""


class GSSENCRequest:
    """GSSENCRequest: may GSSAPI encryption begin? Answered with the single byte G or N."""


class CancelRequest:
    """CancelRequest: a connection that only asks for another session's statement to be cancelled; no
    answer."""

    def __init__(self, pid: int, secret: bytes) -> None:
        self.pid: Final[int] = pid
        self.secret: Final[bytes] = secret


def startup_packet_bytes(prefix: bytes) -> int:
    """How long the first packet is, from its first four bytes; checked before anything more is read.

    Raises:
        ProtocolViolation: 08P01, as the server, for what can be no first packet. A client that begins with
            TLS or with HTTP lands here.
    """
    length = Body(prefix, 0).uint32()
    if length < 8 or length > MAX_STARTUP_BYTES + _LENGTH_BYTES:
        raise ProtocolViolation("invalid length of startup packet")
    return length


def read_startup(packet: bytes) -> StartupMessage | SSLRequest | GSSENCRequest | CancelRequest:
    """What the first packet asks for; `packet` is exactly one, with its length word.

    A StartupMessage of a major version other than 3 comes back without parameters, since its layout is not
    ours to know; the caller refuses it. Minor versions and `_pq_.` options are the caller's to negotiate.
    """
    if startup_packet_bytes(packet) != len(packet):
        raise ProtocolViolation("invalid length of startup packet")
    body = Body(packet, _LENGTH_BYTES)
    code = body.uint32()
    if code == tags.SSL_REQUEST:
        body.finish()
        return SSLRequest()
    if code == tags.GSSENC_REQUEST:
        body.finish()
        return GSSENCRequest()
    if code == tags.CANCEL_REQUEST:
        pid = body.uint32()
        secret = body.rest()
        if len(secret) < 4 or len(secret) > 256:
            raise ProtocolViolation("invalid length of cancel request packet")
        return CancelRequest(pid, secret)
    major = code >> 16
    minor = code & 0xFFFF
    if major != 3:
        return StartupMessage(major, minor, [])
    startup = StartupMessage(major, minor, _read_parameters(body))
    if not startup.get(b"user"):
        raise ProtocolViolation("no PostgreSQL user name specified in startup packet", INVALID_AUTHORIZATION)
    return startup


def _read_parameters(body: Body) -> list[tuple[bytes, bytes]]:
    """Name and value Strings up to an empty name, which must be the packet's last byte: the server stops
    there, so anything behind it would be judged by nobody."""
    parameters: list[tuple[bytes, bytes]] = []
    while True:
        if body.remaining == 0:
            raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
        name = body.string()
        if not name:
            break
        parameters.append((name, body.string()))
    if body.remaining != 0:
        raise ProtocolViolation("invalid startup packet layout: expected terminator as last byte")
    return parameters


def startup_message(parameters: list[tuple[bytes, bytes]], major: int = 3, minor: int = 0) -> bytes:
    body = int32(major << 16 | minor)
    for name, value in parameters:
        if not name:
            raise ProtocolViolation("empty parameter name in startup packet")
        body += string(name) + string(value)
    body += b"\x00"
    if len(body) > MAX_STARTUP_BYTES:
        raise ProtocolViolation("invalid length of startup packet")
    return int32(len(body) + _LENGTH_BYTES) + body


def ssl_request() -> bytes:
    return int32(8) + int32(tags.SSL_REQUEST)


def gssenc_request() -> bytes:
    return int32(8) + int32(tags.GSSENC_REQUEST)


def cancel_request(pid: int, secret: bytes) -> bytes:
    return int32(len(secret) + 12) + int32(tags.CANCEL_REQUEST) + int32(pid) + secret


def split_options(options: str | bytes) -> list[str]:
    """The words of `options`, by the server's rule: separated by white space, a backslash takes the next
    character as it is, and there are no quotes. Bytes beyond UTF-8 survive as surrogates, for `join_options`
    to give back."""
    if isinstance(options, bytes):
        # Byte by byte, and decoded only then: a backslash may stand inside a multi-byte character.
        words = _split(options.decode("latin-1"))
        return [word.encode("latin-1").decode("utf-8", "surrogateescape") for word in words]
    return _split(options)


def _split(text: str) -> list[str]:
    words: list[str] = []
    word: list[str] = []
    inside = False
    escaped = False
    for char in text:
        if escaped:
            word.append(char)
            escaped = False
        elif char in _SPACE:
            if inside:
                words.append("".join(word))
                word = []
                inside = False
        else:
            inside = True
            if char == "\\":
                escaped = True
            else:
                word.append(char)
    if inside:
        words.append("".join(word))
    return words


def parse_options(words: list[str]) -> list[tuple[str, str]]:
    """The settings that `-c name=value`, `-cname=value` and `--name=value` make, in order.

    Dashes in a name are underscores, as the server's ParseLongOption reads them, in the `-c` form too.

    Raises:
        OptionRejected: for any other switch, a switch without its value, or a word that is none.
    """
    settings: list[tuple[str, str]] = []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word.startswith("--"):
            settings.append(_read_setting("--", word[2:]))
        elif word == "-c":
            if index == len(words):
                raise OptionRejected("-c", "option -c requires a value", SYNTAX_ERROR)
            settings.append(_read_setting("-c", words[index]))
            index += 1
        elif word.startswith("-c"):
            settings.append(_read_setting("-c", word[2:]))
        elif word.startswith("-") and len(word) > 1:
            switch = word[:2]
            raise OptionRejected(switch, f"command-line option {switch} is not supported")
        else:
            raise OptionRejected("", "invalid command-line argument for server process", SYNTAX_ERROR)
    return settings


def _read_setting(switch: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise OptionRejected(switch, f"option {switch} requires a name and a value", SYNTAX_ERROR)
    return name.replace("-", "_"), value


def join_options(settings: list[tuple[str, str]]) -> bytes:
    """`options` that the server splits into exactly these settings again."""
    return b" ".join([b"-c " + _escape(f"{name}={value}") for name, value in settings])


def _escape(word: str) -> bytes:
    escaped = bytearray()
    for byte in word.encode("utf-8", "surrogateescape"):
        if byte >= 0x80 or byte <= 0x20 or byte == 0x5C:
            escaped.append(0x5C)
        escaped.append(byte)
    return bytes(escaped)
