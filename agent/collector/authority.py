"""The collector's CA: its own server certificate, and one certificate a host.

The CA's key never leaves the state directory; it signs checkpoints too (agent/spool/checkpoint.py),
since its certificate is what every enrolled host has. A host's certificate lasts HOST_DAYS. Renewal
over the certificate that is about to end is a later matter; until then a host is enrolled anew,
under a new name, with a chain of its own.
"""

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.spool import checkpoint
from agent.spool.checkpoint import Checkpoint, signing_key
from agent.spool.files import place

SERVER_NAME = "loopwarden-collector"  # what agents verify, whatever the address
CA_DAYS = 3650
SERVER_DAYS = 825
SERVER_RENEWAL = dt.timedelta(days=60)  # a start within so long of its end makes a new one
HOST_DAYS = 365
BACKDATE = dt.timedelta(minutes=5)  # for hosts whose clock is behind
REQUEST_BYTES_MAX = 8_192


class AuthorityError(Exception):
    """A request that is not signed, or state that can't be used."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Loaded keys and certificates."""

    ca: x509.Certificate
    ca_key: ec.EllipticCurvePrivateKey
    token_key: ec.EllipticCurvePrivateKey

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate."""
        return self.ca.public_bytes(serialization.Encoding.PEM)

    def sign_host(self, request_pem: bytes, host_id: str, now: dt.datetime) -> bytes:
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

    def sign_checkpoint(self, host_id: str, seq: int, digest: bytes) -> Checkpoint:
        """Sign the head of a host's chain; it may leave only when what it says is durable."""
        return checkpoint.sign(self.ca_key, host_id, seq, digest)


def open_authority(state_dir: Path, now: dt.datetime) -> Authority:
    """Load the CA, or create it; a server certificate near its end is replaced.

    Raises:
        AuthorityError: only a part of it is there, or it can't be read.
    """
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (state_dir / "ca.pem").exists():
        _create(state_dir, now)
    authority = load_authority(state_dir)
    _renew_server(state_dir, authority, now)
    return authority


def load_authority(state_dir: Path) -> Authority:
    """Load the CA and change nothing.

    Raises:
        AuthorityError: there is none, or it can't be read.
    """
    path = state_dir / "ca.pem"
    if not path.exists():
        raise AuthorityError(f"there is no CA in {state_dir}: start `serve`, or run `init`")
    try:
        ca = x509.load_pem_x509_certificate(path.read_bytes())
        ca_key = _load_key(state_dir / "ca-key.pem")
        return Authority(ca, ca_key, _load_key(state_dir / "token-key.pem"))
    except OSError as error:
        raise AuthorityError(f"{error.filename or path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"the CA in {state_dir} can't be read: {error}") from error


def load_signing_key(ca_path: Path) -> ec.EllipticCurvePublicKey:
    """Return what checkpoints are verified with: the key of a CA certificate's file.

    Raises:
        AuthorityError: there is no such certificate.
    """
    try:
        return signing_key(ca_path.read_bytes())
    except OSError as error:
        raise AuthorityError(f"no CA certificate in {ca_path}: {error.strerror}") from error
    except ValueError as error:
        raise AuthorityError(f"no CA certificate in {ca_path}: it is no PEM of one") from error


def server_pair(state_dir: Path) -> tuple[bytes, bytes]:
    """Return the server's key and certificate, PEM, as gRPC wants them."""
    return (state_dir / "server-key.pem").read_bytes(), (state_dir / "server.pem").read_bytes()


def _create(state_dir: Path, now: dt.datetime) -> None:
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
    _keep(state_dir / "ca-key.pem", key_pem(ca_key))
    _keep(state_dir / "token-key.pem", key_pem(ec.generate_private_key(ec.SECP256R1())))
    _keep(state_dir / "ca.pem", ca.public_bytes(serialization.Encoding.PEM))


def _keep(path: Path, data: bytes) -> None:
    """Write a file for the directory's owner, also when root runs `init` for the service."""
    place(path, data)
    give_to_owner(path)


def give_to_owner(path: Path) -> None:
    """As root, give a file to whom its directory belongs."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _renew_server(state_dir: Path, authority: Authority, now: dt.datetime) -> None:
    """Make the server's certificate, or make it anew when it is near its end."""
    path, key_path = state_dir / "server.pem", state_dir / "server-key.pem"
    if path.exists() and key_path.exists():
        old = x509.load_pem_x509_certificate(path.read_bytes())
        if old.not_valid_after_utc - now > SERVER_RENEWAL:
            return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(authority.ca.subject, SERVER_NAME, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(_usage(ExtendedKeyUsageOID.SERVER_AUTH), critical=False)
        .sign(authority.ca_key, hashes.SHA256())
    )
    path.unlink(missing_ok=True)
    _keep(key_path, key_pem(key))
    _keep(path, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    issuer: x509.Name,
    common_name: str | None,
    key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
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
        digital_signature=True,  # of checkpoints
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
        raise TypeError(f"{path.name} is not an EC key")
    return key
