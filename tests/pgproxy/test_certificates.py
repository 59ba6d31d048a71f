"""Certificates as names, bindings and files: what is refused, and that nobody is taken for somebody else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pgproxy.certificates import (
    CertificateError,
    CertificateName,
    check_key_file,
    client_context,
    end_point_binding,
    read_peer,
    server_context,
)
from tests.pki import Authority, Kind, pem_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def refusal(cert: Path, key: Path, client_ca: Path | None = None) -> str:
    with pytest.raises(CertificateError) as caught:
        server_context(cert, key, client_ca)
    return f"{caught.value.role}: {caught.value.reason}"


# the binding (RFC 5929, 4.1)


@pytest.mark.parametrize(
    ("kind", "digest", "name"),
    [
        ("ec", hashes.SHA256(), "sha256"),
        ("ec", hashes.SHA384(), "sha384"),
        ("rsa", hashes.SHA512(), "sha512"),
        ("rsa-pss", hashes.SHA384(), "sha384"),
    ],
)
def test_the_binding_is_the_hash_by_the_signatures_hash(
    tmp_path: Path, kind: Kind, digest: hashes.HashAlgorithm, name: str
) -> None:
    der = Authority(tmp_path, kind=kind).issue("db", digest=digest).der
    assert end_point_binding(der) == hashlib.new(name, der).digest()


def test_sha_1_is_too_weak_to_bind_with() -> None:
    """Made by openssl: `cryptography` does not sign with SHA-1 any more."""
    der = (Path(__file__).parent / "data" / "sha1.der").read_bytes()
    assert end_point_binding(der) == hashlib.sha256(der).digest()


def test_a_signature_without_a_hash_defines_no_binding(tmp_path: Path) -> None:
    pair = Authority(tmp_path, kind="ed25519").issue("db")
    assert end_point_binding(pair.der) is None
    assert server_context(pair.cert, pair.key, None)[1] is None
    assert end_point_binding(b"no certificate") is None


# names


def test_a_certificate_is_known_by_cn_subject_or_alternative_name(authority: Authority) -> None:
    pair = authority.issue("etl", organisation="Example, Inc.", hosts=["etl.local"], uris=["spiffe://x/etl"])
    peer = read_peer(pair.der)
    assert peer is not None
    assert peer.subject == "CN=etl,O=Example\\, Inc."
    for name in (("cn", "etl"), ("dn", "CN=etl,O=Example\\, Inc."), ("san", "spiffe://x/etl"), ("san", "etl.local")):
        assert CertificateName(*name).is_of(peer), name  # type: ignore[arg-type]
    for name in (("cn", "ETL"), ("cn", "etl.local"), ("dn", "CN=etl"), ("dn", "etl"), ("san", "etl"), ("cn", "et")):
        assert not CertificateName(*name).is_of(peer), name  # type: ignore[arg-type]


def test_two_cns_name_nobody(authority: Authority) -> None:
    peer = read_peer(authority.issue("etl", "admin").der)
    assert peer is not None and peer.common_name is None


def test_a_nul_in_a_name_takes_every_name_away(authority: Authority) -> None:
    assert read_peer(authority.issue("etl\0.evil").der) is None
    assert read_peer(b"no certificate") is None


# files


def test_a_pair_that_belongs_together_is_taken(authority: Authority) -> None:
    pair = authority.issue("db")
    assert server_context(pair.cert, pair.key, authority.path)[1] == hashlib.sha256(pair.der).digest()


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.issue("db"), authority.issue("db")
    nowhere, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.touch(mode=0o600)
    assert refusal(nowhere, one.key) == f"cert: {nowhere} cannot be read: No such file or directory"
    assert refusal(one.cert, nowhere) == f"key: {nowhere} cannot be read: No such file or directory"
    assert refusal(empty, one.key) == f"cert: {empty} holds no certificate in PEM form"
    assert "key: " in refusal(one.cert, empty)
    assert refusal(one.cert, other.key) == f"key: {other.key} does not belong to the certificate {one.cert}"
    assert refusal(one.cert, one.key, empty) == f"client_ca: {empty} holds no certificate in PEM form"
    assert refusal(one.cert, one.key, nowhere) == f"client_ca: {nowhere} cannot be read: No such file or directory"
    assert refusal(one.cert, tmp_path) == f"key: {tmp_path} is not a regular file"


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(authority: Authority) -> None:
    pair = authority.issue("db")
    pair.key.write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    assert "is protected by a passphrase" in refusal(pair.cert, pair.key)


@pytest.mark.parametrize(
    ("mode", "allowed"), [(0o600, True), (0o400, True), (0o640, False), (0o644, False), (0o604, False), (0o620, False)]
)
def test_a_key_open_to_others_is_refused(authority: Authority, mode: int, allowed: bool) -> None:
    """As the server does; root's own may be readable by a group."""
    key = authority.issue("db").key
    key.chmod(mode)
    if allowed or (mode == 0o640 and os.geteuid() == 0):
        check_key_file("key", key)
    else:
        with pytest.raises(CertificateError, match="group or world access"):
            check_key_file("key", key)


def test_a_key_of_another_user_is_refused(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    key = authority.issue("db").key
    if os.geteuid() == 0:
        os.chown(key, 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(CertificateError, match="must be owned by"):
        check_key_file("key", key)


def test_a_client_needs_authorities_only_to_verify(authority: Authority, tmp_path: Path) -> None:
    client_context("require", None, None, None)
    assert client_context("verify-full", authority.path, None, None).check_hostname
    assert not client_context("verify-ca", authority.path, None, None).check_hostname
    with pytest.raises(CertificateError, match="nowhere"):
        client_context("verify-full", tmp_path / "nowhere", None, None)
