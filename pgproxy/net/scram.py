"""SCRAM-SHA-256, both sides, without I/O (RFC 5802, RFC 7677; manual: "SASL Authentication").

The library `scramp` gives SASLprep only. Its exchange differs from the server's where drivers would notice:
it refuses fewer than 4,096 iterations (`scram_iterations = 1` is legal), fails on a password SASLprep cannot
prepare (the server takes its bytes as they are), and has no exchange for a user it doesn't know.

PBKDF2 is the only slow part, and it is in `derive` and `ClientExchange.salt_password` alone: callers run
these in a thread. Everything else is a few HMACs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from scramp.utils import ScramException, saslprep  # type: ignore[import-untyped]  # has no py.typed

from pgproxy.protocol.violation import FEATURE_NOT_SUPPORTED, INVALID_AUTHORIZATION, ProtocolViolation

MECHANISM: Final = b"SCRAM-SHA-256"
MECHANISM_PLUS: Final = b"SCRAM-SHA-256-PLUS"
_BINDING_TYPE: Final = b"tls-server-end-point"

# The server's defaults: scram_iterations, SCRAM_DEFAULT_SALT_LEN, SCRAM_RAW_NONCE_LEN.
ITERATIONS: Final = 4096
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 18

# A peer chooses how long our PBKDF2 takes. Precedents: scramp stops at 10,000,000, GUC scram_iterations has
# no limit below 2^31; this many take a second or so of one thread.
MAX_ITERATIONS: Final = 5_000_000

_KEY_BYTES: Final = 32
_VERIFIER_PREFIX: Final = "SCRAM-SHA-256$"


class ServerNotTrusted(Exception):
    """The server did not prove that it knows the password, or its SCRAM messages are wrong."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a server keeps instead of the password (pg_authid.rolpassword)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return "Verifier(…)"


def is_verifier(secret: str) -> bool:
    return secret.startswith(_VERIFIER_PREFIX)


def parse_verifier(text: str) -> Verifier:
    """Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as pg_authid shows it.

    Raises:
        ValueError: when it is not one; the message does not quote it.
    """
    try:
        _, cost, keys = text.split("$")
        iterations, salt = cost.split(":")
        stored_key, server_key = keys.split(":")
        verifier = Verifier(int(iterations), _unbase64(salt), _unbase64(stored_key), _unbase64(server_key))
    except ValueError:
        raise ValueError("malformed SCRAM-SHA-256 verifier") from None
    key_sizes = {len(verifier.stored_key), len(verifier.server_key)}
    if not is_verifier(text) or verifier.iterations < 1 or not verifier.salt or key_sizes != {_KEY_BYTES}:
        raise ValueError("malformed SCRAM-SHA-256 verifier")
    return verifier


def format_verifier(verifier: Verifier) -> str:
    salt, stored, server = (
        base64.b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{_VERIFIER_PREFIX}{verifier.iterations}:{salt}${stored}:{server}"


def derive(password: str, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """The verifier of a password. Slow: run it in a thread."""
    salted = _salted_password(password, salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return Verifier(iterations, salt, stored_key, _hmac(salted, b"Server Key"))


def prepare_password(password: str) -> bytes:
    """SASLprep, or the password as it is where that forbids it or leaves nothing, as the server and libpq
    do."""
    if password.isascii():
        return password.encode()
    try:
        prepared: str = saslprep(password)
    except ScramException:
        prepared = ""
    return (prepared or password).encode("utf-8", "surrogatepass")


class ServerExchange:
    """The server's side for one client: `first` answers its first message, `final` judges its proof.

    `binding`: the `tls-server-end-point` of our own certificate on this connection; None: -PLUS was not offered.
    """

    def __init__(self, verifier: Verifier, nonce: str | None = None, *, binding: bytes | None = None) -> None:
        self._verifier = verifier
        self._nonce = (nonce or _new_nonce()).encode()
        self._binding = binding
        self._bound = b""  # what the client's final message must repeat: its gs2-header, and with -PLUS the binding
        self._client_first_bare = b""
        self._server_first = b""

    def first(self, client_first: bytes, mechanism: bytes = MECHANISM) -> bytes:
        """Answers client-first-message with server-first-message.

        Raises:
            ProtocolViolation: 08P01 for a malformed message, channel binding other than was offered, or a client
                that was kept from seeing the offer; 0A000 for an authorization identity.
        """
        flag, comma, rest = client_first.partition(b",")
        if not comma:
            raise ProtocolViolation("malformed SCRAM message")
        self._check_flag(flag, mechanism)
        authzid, comma, bare = rest.partition(b",")
        if not comma:
            raise ProtocolViolation("malformed SCRAM message")
        if authzid:
            raise ProtocolViolation(
                "client uses authorization identity, but it is not supported", FEATURE_NOT_SUPPORTED
            )
        fields = bare.split(b",")
        if fields[0][:2] == b"m=":
            raise ProtocolViolation("client requires an unsupported SCRAM extension", FEATURE_NOT_SUPPORTED)
        if len(fields) < 2 or fields[0][:2] != b"n=" or fields[1][:2] != b"r=":
            raise ProtocolViolation("malformed SCRAM message")
        client_nonce = fields[1][2:]
        if not client_nonce or any(not 0x21 <= byte <= 0x7E for byte in client_nonce):
            raise ProtocolViolation("non-printable characters in SCRAM nonce")
        self._bound = flag + b",," + (self._binding or b"" if mechanism == MECHANISM_PLUS else b"")
        self._client_first_bare = bare
        self._nonce = client_nonce + self._nonce
        salt = base64.b64encode(self._verifier.salt)
        self._server_first = b"r=%s,s=%s,i=%d" % (self._nonce, salt, self._verifier.iterations)
        return self._server_first

    def _check_flag(self, flag: bytes, mechanism: bytes) -> None:
        """gs2-cbind-flag against what was offered and what was chosen (RFC 5802, 6)."""
        wants_binding = flag.startswith(b"p=")
        if flag not in {b"n", b"y"} and not wants_binding:
            raise ProtocolViolation("malformed SCRAM message: unexpected channel-binding flag")
        if mechanism != MECHANISM_PLUS:
            if wants_binding:
                raise ProtocolViolation(
                    "malformed SCRAM message: client selected SCRAM-SHA-256 without channel binding, but the message "
                    "includes channel binding data"
                )
            if flag == b"y" and self._binding is not None:
                # It could bind the channel and saw no offer, yet one was made: somebody between took it out.
                raise ProtocolViolation(
                    "SCRAM channel binding negotiation error: client supports channel binding but thinks the server "
                    "does not"
                )
        elif not wants_binding:
            raise ProtocolViolation(
                "malformed SCRAM message: client selected SCRAM-SHA-256-PLUS, but the message does not include channel "
                "binding data"
            )
        elif flag[2:] != _BINDING_TYPE:
            raise ProtocolViolation("unsupported SCRAM channel-binding type")

    def final(self, client_final: bytes) -> bytes | None:
        """Answers client-final-message with server-final-message; None when the proof is wrong.

        Raises:
            ProtocolViolation: 08P01 for a malformed message, another nonce, or other channel binding than
                agreed; 28000 for the binding of another channel.
        """
        without_proof, comma, proof_text = client_final.rpartition(b",p=")
        fields = without_proof.split(b",")
        if not comma or len(fields) < 2 or fields[0][:2] != b"c=" or fields[1][:2] != b"r=":
            raise ProtocolViolation("malformed SCRAM message")
        if not hmac.compare_digest(fields[0][2:], base64.b64encode(self._bound)):
            if self._bound.startswith(b"p="):
                raise ProtocolViolation("SCRAM channel binding check failed", INVALID_AUTHORIZATION)
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        if fields[1][2:] != self._nonce:
            raise ProtocolViolation("invalid SCRAM response: nonce does not match")
        try:
            proof = _unbase64(proof_text)
        except ValueError:
            proof = b""
        if len(proof) != _KEY_BYTES:
            raise ProtocolViolation("malformed SCRAM message: malformed proof in client-final-message")
        auth_message = b",".join((self._client_first_bare, self._server_first, without_proof))
        client_key = _xor(proof, _hmac(self._verifier.stored_key, auth_message))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key):
            return None
        return b"v=" + base64.b64encode(_hmac(self._verifier.server_key, auth_message))


class ClientExchange:
    """The client's side. In order: `first`, `salt_password` (slow), `final`, `verify`.

    `binding`: the `tls-server-end-point` of the server's certificate, where -PLUS was offered and this side can do
    it. Without, the flag says why: `y` that it could have and saw no offer, which a server that made one takes for an
    attack; `n` that it could not.
    """

    def __init__(
        self, password: str, nonce: str | None = None, *, binding: bytes | None = None, could_bind: bool = False
    ) -> None:
        self._password = password
        self._gs2_header = b"p=" + _BINDING_TYPE + b",," if binding is not None else b"y,," if could_bind else b"n,,"
        self._bound = self._gs2_header + (binding or b"")
        self._nonce = (nonce or _new_nonce()).encode()
        # The server takes the user from the start-up packet and ignores this one.
        self._first_bare = b"n=,r=" + self._nonce
        self._server_first = b""
        self._server_nonce = b""
        self._salted = b""
        self._server_signature: bytes | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the proof was made, so that only the server's signature is still due."""
        return self._server_signature is not None

    def first(self) -> bytes:
        return self._gs2_header + self._first_bare

    def salt_password(self, server_first: bytes) -> None:
        """Takes server-first-message and derives the salted password: run it in a thread.

        Raises:
            ServerNotTrusted: for a malformed message, a nonce that does not begin with ours, absurd
            iterations.
        """
        fields = server_first.split(b",")
        if len(fields) < 3 or [field[:2] for field in fields[:3]] != [b"r=", b"s=", b"i="]:
            raise ServerNotTrusted("malformed SCRAM message from the server")
        nonce, salt_text, iterations_text = (field[2:] for field in fields[:3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ServerNotTrusted("the server's SCRAM nonce does not continue ours")
        try:
            salt = _unbase64(salt_text)
            iterations = int(iterations_text)
        except ValueError:
            raise ServerNotTrusted("malformed SCRAM message from the server") from None
        if not salt or not 1 <= iterations <= MAX_ITERATIONS:
            raise ServerNotTrusted("unacceptable SCRAM salt or iteration count from the server")
        self._server_first = server_first
        self._server_nonce = nonce
        self._salted = _salted_password(self._password, salt, iterations)

    def final(self) -> bytes:
        """client-final-message, with the proof."""
        assert self._salted, "salt_password comes first"
        client_key = _hmac(self._salted, b"Client Key")
        without_proof = b"c=" + base64.b64encode(self._bound) + b",r=" + self._server_nonce
        auth_message = b",".join((self._first_bare, self._server_first, without_proof))
        signature = _hmac(hashlib.sha256(client_key).digest(), auth_message)
        self._server_signature = _hmac(_hmac(self._salted, b"Server Key"), auth_message)
        return without_proof + b",p=" + base64.b64encode(_xor(client_key, signature))

    def verify(self, server_final: bytes) -> None:
        """Checks that the server knows the password too: only then is it the server we think.

        Raises:
            ServerNotTrusted: when it doesn't.
        """
        assert self._server_signature is not None, "final comes first"
        expected = b"v=" + base64.b64encode(self._server_signature)
        if not hmac.compare_digest(server_final.split(b",")[0], expected):
            raise ServerNotTrusted("the server's SCRAM signature is wrong")


def _salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def _unbase64(text: str | bytes) -> bytes:
    """Raises ValueError (binascii.Error is one) for anything outside the alphabet."""
    return base64.b64decode(text, validate=True)


def _new_nonce() -> str:
    return base64.b64encode(secrets.token_bytes(NONCE_BYTES)).decode()
