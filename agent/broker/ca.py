"""The host's own CA: trusted by runs alone, its key in this process alone.

Leaves are for the worker's own key and for names of the policy in force; one name each, at most
48 hours in all, backdated one hour for clocks that are behind.
"""

import datetime as dt
import ipaddress
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = dt.timedelta(days=365)
LEAF_LIFETIME = dt.timedelta(hours=48)  # from the backdated start
BACKDATED = dt.timedelta(hours=1)
PUBLIC_KEY_BYTES_MAX = 512
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class LeafRefused(Exception):
    """No certificate for this name or key."""


@dataclass(frozen=True, slots=True)
class HostCa:
    """The key and certificate of this host's CA."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def not_after_ms(self) -> int:
        """When it ends, in Unix milliseconds."""
        return round(self.certificate.not_valid_after_utc.timestamp() * 1000)

    def sign(
        self, name: str, public_key_der: bytes, names: Collection[str], now: dt.datetime
    ) -> tuple[bytes, int]:
        """Return the chain (leaf first, PEM) and its end in Unix milliseconds.

        Raises:
            LeafRefused: the name is not one of names, or the key is none that we sign.
        """
        if name not in names:
            raise LeafRefused(f"{name[:100]!r} is no TLS target of the policy in force")
        end = min(now - BACKDATED + LEAF_LIFETIME, self.certificate.not_valid_after_utc)
        leaf = _leaf(self, name, _public_key(public_key_der), now - BACKDATED, end)
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        return pem + self.pem, round(end.timestamp() * 1000)


def load_or_make(directory: Path, host: str, now: dt.datetime, stem: str = "ca") -> HostCa:
    """Return the CA of the directory; make one if there is none.

    Raises:
        OSError: the directory can't be read or written.
        ValueError: key and certificate are there and are not a pair that can be used.
    """
    try:
        key_pem = (directory / f"{stem}-key.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate((directory / f"{stem}.pem").read_bytes())
    except FileNotFoundError:
        return _make(directory, host, now, stem)
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        raise ValueError(f"{directory}: {stem}-key.pem and {stem}.pem are no pair; remove both")
    return HostCa(key, certificate)


def _make(directory: Path, host: str, now: dt.datetime, stem: str) -> HostCa:
    key = ec.generate_private_key(ec.SECP256R1())
    # lower case with single spaces: what OpenSSL's canonical form (the CApath hash) makes of it
    label = "".join(letter for letter in host.lower() if letter.isascii() and letter.isalnum())
    common_name = f"loopwarden {label[:20]} {os.urandom(4).hex()}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    ca = HostCa(key, builder.sign(key, hashes.SHA256()))
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    # the certificate goes first: a crash between the two leaves a pair that is refused or remade
    (directory / f"{stem}-key.pem").unlink(missing_ok=True)
    write_private(directory / f"{stem}.pem", ca.pem)
    write_private(directory / f"{stem}-key.pem", key_pem)
    return ca


def _leaf(
    ca: HostCa,
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    start: dt.datetime,
    end: dt.datetime,
) -> x509.Certificate:
    try:
        san: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        san = x509.DNSName(name)
    common_name = name if len(name) <= 64 else "loopwarden"  # X.520 upper bound
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(ca.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([san]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()),
            critical=False,
        )
    )
    return builder.sign(ca.key, hashes.SHA256())


def _public_key(der: bytes) -> ec.EllipticCurvePublicKey:
    if len(der) > PUBLIC_KEY_BYTES_MAX:
        raise LeafRefused(f"a public key of more than {PUBLIC_KEY_BYTES_MAX} bytes")
    try:
        key = serialization.load_der_public_key(der)
    except Exception as error:  # the library raises several unrelated kinds
        raise LeafRefused("not a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise LeafRefused("only keys on P-256 or P-384 are signed")
    return key


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def write_private(path: Path, data: bytes) -> None:
    """Write a file that is its owner's alone: whole, durable, or not at all. Raises OSError."""
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(fresh, path)
