"""The collector's CA: its own server certificate, and one certificate a host.

The CA's key never leaves the state directory. A host's certificate lasts HOST_DAYS; renewal
without a new token is a later matter: enroll again with a new token for a new host name, or with
the same name after `hosts` says that it is gone.
"""

import datetime
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.spool.files import place

SERVER_NAME = "loopwarden-collector"  # what agents verify, whatever the address
HOST_URI = re.compile(r"loopwarden:host:([0-7][0-9A-HJKMNP-TV-Z]{25})")
CA_DAYS = 3650
SERVER_DAYS = 825
HOST_DAYS = 365
BACKDATE = datetime.timedelta(minutes=5)  # for hosts whose clock is behind
REQUEST_BYTES_MAX = 8_192


class AuthorityError(Exception):
    """A request that is not signed, or state that can't be used."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Loaded keys and certificates."""

    ca: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    server_pem: bytes
    server_key_pem: bytes
    token_key: ec.EllipticCurvePrivateKey

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate."""
        return self.ca.public_bytes(serialization.Encoding.PEM)

    def sign_host(self, request_pem: bytes, host_id: str, now: datetime.datetime) -> bytes:
        """Return a certificate (PEM) for the request's key; names in the request are ignored.

        Raises:
            AuthorityError: not a valid request for a P-256 key that its sender holds.
        """
        if len(request_pem) > REQUEST_BYTES_MAX:
            raise AuthorityError(f"a certificate request over {REQUEST_BYTES_MAX} bytes")
        try:
            request = x509.load_pem_x509_csr(request_pem)
            valid = request.is_signature_valid
        except ValueError as error:
            raise AuthorityError("not a certificate request") from error
        key = request.public_key()
        if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
            raise AuthorityError("the request must be for an EC key, signed by it")
        if not isinstance(key.curve, ec.SECP256R1):
            raise AuthorityError("the request must be for a P-256 key")
        certificate = (
            _builder(self.ca.subject, host_id, key, now, HOST_DAYS)
            .add_extension(_uri(host_id), critical=False)
            .add_extension(_usage(ExtendedKeyUsageOID.CLIENT_AUTH), critical=False)
            .sign(self.ca_key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def host_id_of(certificate_pem: bytes) -> str | None:
    """Return the host that a (verified) client certificate names."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    match = HOST_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    return match[1] if match else None


def open_authority(state_dir: Path, now: datetime.datetime) -> Authority:
    """Load the CA, or create it; a server certificate near its end is replaced.

    Raises:
        AuthorityError: only a part of it is there, or it can't be read.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_path = state_dir / "ca.pem"
    if not ca_path.exists():
        _create(state_dir, now)
    try:
        ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
        ca_key = _load_key(state_dir / "ca-key.pem")
        token_key = _load_key(state_dir / "token-key.pem")
    except (OSError, ValueError) as error:
        raise AuthorityError(f"the CA in {state_dir} can't be read: {error}") from error
    server_pem, server_key_pem = _server(state_dir, ca, ca_key, now)
    return Authority(ca, ca_key, server_pem, server_key_pem, token_key)


def _create(state_dir: Path, now: datetime.datetime) -> None:
    """Make the keys, then the CA; ca.pem is last, so its presence means that all is there."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"loopwarden collector {os.urandom(4).hex()}")]
    )
    ca = (
        _builder(name, None, ca_key.public_key(), now, CA_DAYS)
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    place(state_dir / "ca-key.pem", key_pem(ca_key))
    place(state_dir / "token-key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))
    place(state_dir / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))


def _server(
    state_dir: Path, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> tuple[bytes, bytes]:
    """Return certificate and key of the server, made anew when missing or near their end."""
    path, key_path = state_dir / "server.pem", state_dir / "server-key.pem"
    if path.exists() and key_path.exists():
        old = x509.load_pem_x509_certificate(path.read_bytes())
        if old.not_valid_after_utc - now > datetime.timedelta(days=30):
            return path.read_bytes(), key_path.read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(ca.subject, SERVER_NAME, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(_usage(ExtendedKeyUsageOID.SERVER_AUTH), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    path.unlink(missing_ok=True)
    place(key_path, key_pem(key))
    place(path, certificate.public_bytes(serialization.Encoding.PEM))
    return path.read_bytes(), key_path.read_bytes()


def _builder(
    issuer: x509.Name,
    common_name: str | None,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    if common_name is None:
        return builder
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    return builder.subject_name(subject).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )


def _uri(host_id: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"loopwarden:host:{host_id}")]
    )


def _usage(oid: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([oid])


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} is not an EC key")
    return key
