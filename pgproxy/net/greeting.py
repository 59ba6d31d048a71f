"""The client's StartupMessage, judged ("Start-up", "Protocol Versions").

The packet is parsed and a new one, built from what was judged, goes to the server: every setting in it is put to the
classifier as the SET it amounts to, and one that would be privileged as a statement is refused here, because nobody
can be asked before there is a session. `pgproxy.*` settings are what an agent says about itself; they are taken out
and never sent on. In mode `observe` everything else goes on as it came, for the server to accept or refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from classifier.model import Classification
from pgproxy.errors import FeatureNotSupported, InvalidAuthorization
from pgproxy.policy import Mode, is_privileged
from pgproxy.protocol import backend, frontend, startup
from pgproxy.protocol.startup import StartupMessage
from pgproxy.protocol.violation import OptionRejected, ProtocolViolation
from pgproxy.session.annotations import read_context
from pgproxy.session.settings import Settings, codec_of

_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]*\Z")
_CONTEXT_BYTES = 8192
_NOT_SETTINGS = frozenset({b"user", b"database", b"options", b"replication"})


class ProtocolTooOld(FeatureNotSupported, sqlstate="0A000", severity="FATAL"):
    """Protocol 1 or 2, whose clients read an ErrorResponse as one line of text."""


@dataclass(slots=True)
class Greeting:
    """What the client's start-up packet says, judged. `raw_user` and `raw_database` are its own bytes."""

    user: str
    database: str
    application_name: str
    raw_user: bytes
    raw_database: bytes
    parameters: list[tuple[bytes, bytes]]
    said: dict[str, str]  # pgproxy.* settings
    minor: int  # of the protocol spoken with the client
    negotiate: bytes | None
    replication: str | None  # `database`, `true`

    @property
    def secret_bytes(self) -> int:
        """How long a cancel key this client can take ("BackendKeyData"); as long as the server makes them."""
        return 32 if self.minor >= 2 else 4

    @property
    def reason(self) -> str | None:
        return self.said.get("reason")

    @property
    def ticket(self) -> str | None:
        return self.said.get("ticket")

    @property
    def wait(self) -> bool:
        """Whether a session waits for its approvals; else it is told at once that one is required."""
        return self.said.get("wait", "park").lower() != "return"

    @property
    def context(self) -> Any:
        return read_context(self.said.get("context"))


def read_greeting(message: StartupMessage, mode: Mode, classify: Callable[[str], Classification]) -> Greeting:
    """Judges a StartupMessage. Raises ProxyError or ProtocolViolation."""
    if message.major != 3:
        error = ProtocolTooOld if message.major < 3 else FeatureNotSupported
        raise error(
            f"unsupported frontend protocol {message.major}.{message.minor}: "
            f"server supports 3.0 to 3.{startup.NEWEST_MINOR}"
        )
    raw_user = message.get(b"user") or b""
    if not raw_user:
        raise InvalidAuthorization("no PostgreSQL user name specified in startup packet")
    raw_database = message.get(b"database") or raw_user
    replication = _read_replication(message.get(b"replication"))
    # The server applies `options` first, so that the packet's other settings win.
    said: dict[str, str] = {}
    options = _judge_options(message.get(b"options"), said, mode, classify)
    parameters: list[tuple[bytes, bytes]] = [(b"options", options)] if options else []
    if replication is not None:
        parameters.append((b"replication", replication.encode()))
    unrecognised: list[bytes] = []
    for name, value in message.parameters:
        if name.startswith(b"_pq_."):
            unrecognised.append(name)
        elif name not in _NOT_SETTINGS and not _take_own(name, value, said):
            _judge(name, value, mode, classify)
            parameters.append((name, value))
    minor = min(message.minor, startup.NEWEST_MINOR)
    negotiate = None
    if message.minor > minor or unrecognised:
        negotiate = backend.negotiate_protocol_version(minor, unrecognised)
    return Greeting(
        _name(raw_user, "user name", mode),
        _name(raw_database, "database name", mode),
        (message.get(b"application_name") or b"").decode("utf-8", "replace"),
        raw_user,
        raw_database,
        parameters,
        said,
        minor,
        negotiate,
        replication,
    )


def _read_replication(value: bytes | None) -> str | None:
    """`database`, `true` or None, as the server reads it: that one word exactly, else a boolean, which may be cut
    short and written in any case. The session decides what becomes of it."""
    if value is None or value == b"database":
        return None if value is None else "database"
    word = value.lower()
    if (word and any(whole.startswith(word) for whole in (b"true", b"yes"))) or word in (b"on", b"1"):
        return "true"
    if (word and any(whole.startswith(word) for whole in (b"false", b"no"))) or word in (b"of", b"off", b"0"):
        return None
    shown = value.decode("utf-8", "backslashreplace")
    raise ProtocolViolation(f'invalid value for parameter "replication": "{shown}"', "22023")


def _name(value: bytes, what: str, mode: Mode) -> str:
    """Of a user or database, as the server will take it: cut at 63 bytes, so that a longer one does not stand for
    somebody else here. Two names must never look like one to a policy, so in `enforce` they are UTF-8."""
    if mode is Mode.ENFORCE:
        _text(value, what)
    return frontend.truncate_name(value).decode("utf-8", "backslashreplace")


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolViolation(f"{what} in startup packet is not valid UTF-8", "22021") from None


def _take_own(name: bytes, value: bytes, said: dict[str, str]) -> bool:
    """`pgproxy.reason` and its like; whether it was one of them."""
    prefix, _, key = name.decode("utf-8", "replace").lower().partition(".")
    if prefix != "pgproxy" or not key:
        return False
    text = value.decode("utf-8", "replace")
    if len(value) > _CONTEXT_BYTES:
        raise ProtocolViolation(f'setting "pgproxy.{key}" is larger than {_CONTEXT_BYTES} bytes', "54000")
    if key == "wait" and text.lower() not in ("park", "return"):
        raise ProtocolViolation(f'invalid value for parameter "pgproxy.wait": "{text}"', "22023")
    said[key] = text
    return True


def _judge_options(
    options: bytes | None, said: dict[str, str], mode: Mode, classify: Callable[[str], Classification]
) -> bytes:
    """The settings of `options`, judged, without our own, written anew. What is no setting is refused, or (in
    `observe`) left to the server."""
    if not options:
        return b""
    kept: list[tuple[str, str]] = []
    try:
        settings = startup.parse_options(startup.split_options(options))
    except OptionRejected as rejected:
        if mode is Mode.OBSERVE:
            return options
        raise FeatureNotSupported(
            f"pgproxy: option {rejected.switch} is not allowed in a connection string",
            hint="only settings can be given there: -c name=value",
        ) from None
    for name, value in settings:
        raw_name, raw_value = name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")
        if not _take_own(raw_name, raw_value, said):
            _judge(raw_name, raw_value, mode, classify)
            kept.append((name, value))
    return startup.join_options(kept) if kept else b""


def _judge(raw_name: bytes, raw_value: bytes, mode: Mode, classify: Callable[[str], Classification]) -> None:
    if mode is Mode.OBSERVE:
        return
    name = _text(raw_name, "setting")
    if not _SETTING_NAME.match(name):
        raise FeatureNotSupported("pgproxy: invalid name of a setting in the startup packet")
    if name.lower() == "application_name":
        return  # the server keeps the printable ASCII of it, whatever it is
    value = _text(raw_value, "setting's value")
    if name.lower() == "client_encoding":
        if codec_of(value) is None:
            raise _encoding_refused(value)
        return
    # As a constant with standard_conforming_strings on, in which a backslash is itself.
    quoted = value.replace("'", "''")
    if is_privileged(classify(f"SET {name} TO '{quoted}'")):
        raise InvalidAuthorization(
            f'pgproxy: setting "{name.lower()}" is not allowed in a connection string',
            detail="it would need an approval as a statement, and there is no session yet that could wait for one",
            hint=f"connect without it and use SET {name.lower()}",
        )


def check_encoding(settings: Settings, mode: Mode) -> None:
    """Once the server has reported its settings: the encoding may come from ALTER ROLE or ALTER DATABASE, too."""
    if mode is Mode.ENFORCE and settings.codec is None:
        raise _encoding_refused(settings.client_encoding)


def _encoding_refused(encoding: str) -> FeatureNotSupported:
    return FeatureNotSupported(
        f'pgproxy: client_encoding "{encoding}" is not supported',
        detail="in this encoding a character can hide a quote, or pgproxy has no table of it",
        hint="use UTF8",
    )
