"""Certificates, private keys, and the TLS contexts made of them ("Secure TCP/IP Connections with SSL").

Shared by the configuration's checks and by the connections, so that what is refused at start-up is exactly what would
not work later. Must not know: sockets, sessions, the configuration.
"""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

ALPN: Final = "postgresql"

# RFC 5929, 4.1: for these two the binding takes SHA-256.
_TOO_WEAK: Final = ("md5", "sha1")


class CertificateError(Exception):
    """A file that cannot be used. `role` is the configuration's word for it: cert, key, client_ca, root."""

    def __init__(self, role: str, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.role = role
        self.reason = f"{path} {reason}"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Who a verified certificate is about. `subject` as PostgreSQL's `clientname=DN` writes it (RFC 2253)."""

    subject: str
    common_name: str | None
    alternative_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class CertificateName:
    """A name that a certificate must have, to the letter: its CN, its whole subject, or one of its alternative names
    (DNS, e-mail, URI)."""

    kind: Literal["cn", "dn", "san"]
    value: str

    def is_of(self, peer: PeerCertificate) -> bool:
        if self.kind == "cn":
            return peer.common_name == self.value
        if self.kind == "dn":
            return peer.subject == self.value
        return self.value in peer.alternative_names


def read_peer(der: bytes) -> PeerCertificate | None:
    """None for one that cannot be read without doubt: it then has no name at all."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        common_names = [
            str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        ]
        subject = certificate.subject.rfc4514_string()
        alternative = _alternative_names(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    # Two CNs are read differently by different programs, and a NUL ends a name early in some (CVE-2009-4034).
    if any("\x00" in name for name in (*common_names, subject, *alternative)):
        return None
    return PeerCertificate(subject, common_names[0] if len(common_names) == 1 else None, alternative)


def _alternative_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    kinds = (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier)
    return frozenset(name.value for name in extension if isinstance(name, kinds))


def end_point_binding(der: bytes) -> bytes | None:
    """`tls-server-end-point` of a server's certificate (RFC 5929, 4): its hash by the hash of its signature. None
    where that is not defined (Ed25519 signs without one)."""
    try:
        algorithm = x509.load_der_x509_certificate(der).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return None
    if algorithm is None:
        return None
    digest = hashes.Hash(hashes.SHA256() if algorithm.name in _TOO_WEAK else algorithm)
    digest.update(der)
    return digest.finalize()


def read_certificate(role: str, path: Path) -> bytes:
    """The first certificate of a PEM file, which is the one shown to peers, as DER."""
    text = _read(role, path)
    try:
        return x509.load_pem_x509_certificates(text)[0].public_bytes(Encoding.DER)
    except ValueError:
        raise CertificateError(role, path, "holds no certificate in PEM form") from None


def check_key_file(role: str, path: Path) -> None:
    """The server's own rule for its key file: ours and closed to everybody else, or root's and readable by a group."""
    try:
        found = path.stat()
    except OSError as error:
        raise CertificateError(role, path, f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise CertificateError(role, path, "is not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise CertificateError(role, path, "must be owned by pgproxy's user or root")
    open_to_others = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
    if found.st_uid == os.geteuid() and found.st_uid != 0:
        open_to_others |= stat.S_IRWXG
    if found.st_mode & open_to_others:
        raise CertificateError(
            role, path, "has group or world access: it must be 0600 or less, or, owned by root, 0640 or less"
        )


def server_context(cert: Path, key: Path, client_ca: Path | None) -> tuple[ssl.SSLContext, bytes | None]:
    """For connections that are accepted, and the binding of its certificate. A client's certificate is asked for with
    `client_ca`, and verified when there is one. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # No resumption, as the server has none: each connection proves its certificate anew.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    before = read_certificate("cert", cert)
    load_pair(context, cert, key)
    if read_certificate("cert", cert) != before:
        raise CertificateError("cert", cert, "changed while it was read")
    if client_ca is not None:
        load_authorities(context, "client_ca", client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context, end_point_binding(before)


def client_context(sslmode: str, root: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """For connections to a server, with libpq's meaning of sslmode: a root certificate makes `require` verify the
    chain too. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols([ALPN])
    context.check_hostname = sslmode == "verify-full"
    if root is not None:
        load_authorities(context, "root", root)
    else:
        assert sslmode not in ("verify-ca", "verify-full"), "checked with the configuration"
        context.verify_mode = ssl.CERT_NONE
    if cert is not None and key is not None:
        read_certificate("cert", cert)
        load_pair(context, cert, key)
    return context


def load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Certificate and key, which must belong together. A key with a passphrase is refused, for nobody is there to
    type it."""
    check_key_file("key", key)
    _read("key", key)

    def no_passphrase() -> str:
        raise CertificateError("key", key, "is protected by a passphrase, which nobody can type here")

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError("key", key, f"does not belong to the certificate {cert}") from None
        raise CertificateError(
            "key", key, f"is no usable key for {cert} ({error.reason or 'not in PEM form'})"
        ) from None
    except OSError as error:
        raise CertificateError("key", key, f"cannot be read: {error.strerror}") from None


def load_authorities(context: ssl.SSLContext, role: str, path: Path) -> None:
    """Whom to trust. Raises CertificateError."""
    _read(role, path)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError):
        raise CertificateError(role, path, "holds no certificate in PEM form") from None


def _read(role: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(role, path, f"cannot be read: {error.strerror}") from None
