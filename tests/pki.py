"""Certificate authorities and certificates for tests, made anew each run."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID

_numbers = itertools.count(1)
Kind = Literal["ec", "rsa", "rsa-pss", "ed25519"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path, name: str = "test authority", kind: Kind = "ec") -> None:
        self.directory = directory
        self._kind = kind
        self._key = _new_key(kind)
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key, authority=True)
        self.path = directory / f"authority-{next(_numbers)}.crt"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *common_names: str,
        hosts: Sequence[str] = (),
        organisation: str | None = None,
        digest: hashes.HashAlgorithm | None = None,
        to: Pair | None = None,
        uris: Sequence[str] = (),
    ) -> Pair:
        """A certificate for these CNs and alternative names; `to`: in the place of that one."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
        attributes += [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names]
        key = _new_key("ec")
        certificate = self._sign(x509.Name(attributes), key, hosts=hosts, digest=digest, uris=uris)
        stem = self.directory / f"pair-{next(_numbers)}"
        cert, private = (to.cert, to.key) if to else (stem.with_suffix(".crt"), stem.with_suffix(".key"))
        private.touch(mode=0o600)
        private.write_bytes(pem_of(key))
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Pair(cert, private, certificate)

    def _sign(
        self,
        subject: x509.Name,
        key: PrivateKey,
        *,
        authority: bool = False,
        hosts: Sequence[str] = (),
        digest: hashes.HashAlgorithm | None = None,
        uris: Sequence[str] = (),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        names: list[x509.GeneralName] = [_host(host) for host in hosts]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        algorithm = None if self._kind == "ed25519" else digest or hashes.SHA256()
        if self._kind == "rsa-pss":
            assert algorithm is not None
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
            return builder.sign(self._key, algorithm, rsa_padding=pss)  # type: ignore[arg-type]
        return builder.sign(self._key, algorithm)  # type: ignore[arg-type]


def pem_of(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
    )


def _new_key(kind: Kind) -> PrivateKey:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, 2048)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
