"""The host CA: one name a leaf, 48 hours, for the worker's key, checked by OpenSSL itself."""

import datetime as dt
import ipaddress
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from agent.broker.ca import BACKDATED, HostCa, LeafRefused, load_or_make

NOW = dt.datetime.now(dt.UTC)
NAMES = frozenset({"api.example.com", "10.0.0.9", "2001:db8::1"})


def _der(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


KEY = _der(ec.generate_private_key(ec.SECP256R1()).public_key())


def _leaf(ca: HostCa, name: str) -> x509.Certificate:
    chain, _ = ca.sign(name, KEY, NAMES, NOW)
    return x509.load_pem_x509_certificates(chain)[0]


def test_a_leaf_is_for_one_name_and_at_most_48_hours(tmp_path: Path) -> None:
    """Backdated an hour, serverAuth, no CA, the worker's key, a random serial."""
    ca = load_or_make(tmp_path, "host", NOW)
    leaf = _leaf(ca, "api.example.com")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("api.example.com")]
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime == dt.timedelta(hours=48)
    assert abs(NOW - leaf.not_valid_before_utc - BACKDATED) < dt.timedelta(seconds=2)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert _der(leaf.public_key()) == KEY
    assert leaf.serial_number != _leaf(ca, "api.example.com").serial_number


@pytest.mark.parametrize("name", ["10.0.0.9", "2001:db8::1"])
def test_an_address_is_an_address_in_the_certificate(tmp_path: Path, name: str) -> None:
    """Not a DNS name that looks like one."""
    names = _leaf(load_or_make(tmp_path, "h", NOW), name).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert list(names.value) == [x509.IPAddress(ipaddress.ip_address(name))]


def test_openssl_accepts_the_chain(tmp_path: Path) -> None:
    """`openssl verify` with purpose and name, and refuses another name."""
    ca = load_or_make(tmp_path, "host", NOW)
    chain, _ = ca.sign("api.example.com", KEY, NAMES, NOW)
    (tmp_path / "leaf.pem").write_bytes(chain)
    for name, code in (("api.example.com", 0), ("evil.example.com", 2)):
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname",
             name, "-CAfile", tmp_path / "ca.pem", tmp_path / "leaf.pem"],
            check=False, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "key",
    [
        _der(rsa.generate_private_key(65537, 2048).public_key()),
        _der(ed25519.Ed25519PrivateKey.generate().public_key()),
        _der(ec.generate_private_key(ec.SECP521R1()).public_key()),
        b"",
        b"\x30\x00",
        KEY[:-1],
        b"x" * 513,
    ],
)
def test_other_keys_are_refused(tmp_path: Path, key: bytes) -> None:
    """A worker has a P-256 or P-384 key; bytes that are no key are no crash."""
    with pytest.raises(LeafRefused):
        load_or_make(tmp_path, "h", NOW).sign("api.example.com", key, NAMES, NOW)


def test_a_name_outside_the_policy_is_refused(tmp_path: Path) -> None:
    """Whatever its form."""
    ca = load_or_make(tmp_path, "h", NOW)
    for name in ("", "*.example.com", "API.example.com", "evil.example"):
        with pytest.raises(LeafRefused):
            ca.sign(name, KEY, NAMES, NOW)


def test_the_ca_is_kept_and_private(tmp_path: Path) -> None:
    """The same one after a restart; mode 0600; no pair, no start."""
    first = load_or_make(tmp_path, "host.example", NOW)
    assert load_or_make(tmp_path, "host.example", NOW).pem == first.pem
    for name in ("ca-key.pem", "ca.pem"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    (tmp_path / "ca-key.pem").unlink()
    assert load_or_make(tmp_path, "h", NOW).pem != first.pem
    (tmp_path / "ca.pem").write_bytes(first.pem)
    with pytest.raises(ValueError, match="no pair"):
        load_or_make(tmp_path, "h", NOW)


def test_a_leaf_never_outlives_the_ca(tmp_path: Path) -> None:
    """Near the CA's end a leaf ends with it."""
    ca = load_or_make(tmp_path, "h", NOW)
    end = ca.certificate.not_valid_after_utc
    chain, not_after_ms = ca.sign("10.0.0.9", KEY, NAMES, end - dt.timedelta(hours=5))
    assert x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc == end
    assert not_after_ms == ca.not_after_ms
