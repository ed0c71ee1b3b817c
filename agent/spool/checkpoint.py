r"""A checkpoint: the head of one host's record chain, signed by the host's collector.

Both sides use this module. What is signed, by ECDSA with SHA-256 and the key of the collector's CA
(the host has its certificate in ca.pem):

    "loopwarden checkpoint v1\0" length:u16 host_id seq:u64 hash:32          (big endian)

The beginning is that of no certificate, so no signature of the one kind serves as the other; host
id and number are part of it, so no head serves another host or for another moment.

As a file (`serialize_checkpoint`) it is five lines of text that people can carry about:

    loopwarden checkpoint v1
    host 01JD…
    seq 1234
    hash <64 hex digits>
    signature <base64>
"""

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from agent.spool.files import place

NAME = "checkpoint"  # in the spool's directory, beside the cursor
TITLE = "loopwarden checkpoint v1"
FILE_BYTES_MAX = 1_024
HASH_BYTES = 32
SEQ_MAX = (1 << 63) - 1
HOST_ID_BYTES_MAX = 64
SIGNATURE_BYTES_MAX = 144  # a DER signature by P-256 has 72
HOST_URI = re.compile(r"loopwarden:host:([0-7][0-9A-HJKMNP-TV-Z]{25})")
_FILE = re.compile(
    rf"{TITLE}\nhost ([0-9A-Za-z]{{1,{HOST_ID_BYTES_MAX}}})\nseq (0|[1-9][0-9]{{0,18}})\n"
    r"hash ([0-9a-f]{64})\nsignature ([0-9A-Za-z+/]{4,192}={0,2})\n?"
)
_SIGNED_BY = ec.ECDSA(hashes.SHA256())


class CheckpointUnreadable(Exception):
    """The file is not a checkpoint."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A collector's word that it holds a host's records up to seq, and that they hash to this."""

    host_id: str
    seq: int
    hash: bytes
    signature: bytes

    def is_signed_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether the signature is this key's, of exactly this host, number and hash."""
        try:
            statement = statement_of(self.host_id, self.seq, self.hash)
            key.verify(self.signature, statement, _SIGNED_BY)
        except (InvalidSignature, ValueError):
            return False
        return True


def statement_of(host_id: str, seq: int, digest: bytes) -> bytes:
    """Return the bytes that are signed (see the module).

    Raises:
        ValueError: no head of a chain has such values.
    """
    name = host_id.encode()
    if not 0 < len(name) <= HOST_ID_BYTES_MAX or not 0 <= seq <= SEQ_MAX:
        raise ValueError("not a host's id, or not a number of a record")
    if len(digest) != HASH_BYTES:
        raise ValueError(f"a chain hash has {HASH_BYTES} bytes")
    return b"".join(
        (TITLE.encode(), b"\0", struct.pack(">H", len(name)), name, struct.pack(">Q", seq), digest)
    )


def sign(key: ec.EllipticCurvePrivateKey, host_id: str, seq: int, digest: bytes) -> Checkpoint:
    """Sign a head.

    Raises:
        ValueError: no head of a chain has such values.
    """
    signature = key.sign(statement_of(host_id, seq, digest), _SIGNED_BY)
    return Checkpoint(host_id, seq, digest, signature)


def signing_key(ca_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a collector's CA certificate names.

    Raises:
        ValueError: not a certificate of an EC key.
    """
    key = x509.load_pem_x509_certificate(ca_pem).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the CA's key is not an EC key")  # noqa: TRY004 - it is what was read
    return key


def host_id_of(certificate_pem: bytes) -> str | None:
    """Return the host that a (verified) client certificate names.

    Raises:
        ValueError: not a certificate.
    """
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    match = HOST_URI.fullmatch(uris[0]) if len(uris) == 1 else None
    return match[1] if match else None


def serialize_checkpoint(checkpoint: Checkpoint) -> str:
    """Return the file's text."""
    return (
        f"{TITLE}\nhost {checkpoint.host_id}\nseq {checkpoint.seq}\n"
        f"hash {checkpoint.hash.hex()}\n"
        f"signature {base64.b64encode(checkpoint.signature).decode()}\n"
    )


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Return the checkpoint of a file's bytes; its signature is not judged here.

    Raises:
        CheckpointUnreadable: it is not one, or over FILE_BYTES_MAX.
    """
    try:
        match = _FILE.fullmatch(data.decode("ascii")) if len(data) <= FILE_BYTES_MAX else None
        if match is None:
            raise CheckpointUnreadable("this is not a checkpoint")
        signature = base64.b64decode(match[4], validate=True)
    except (UnicodeDecodeError, binascii.Error) as error:
        raise CheckpointUnreadable("this is not a checkpoint") from error
    seq = int(match[2])
    if seq > SEQ_MAX or len(signature) > SIGNATURE_BYTES_MAX:
        raise CheckpointUnreadable("this is not a checkpoint")
    return Checkpoint(match[1], seq, bytes.fromhex(match[3]), signature)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint of a file, None when there is no file.

    Raises:
        CheckpointUnreadable: the file is not a checkpoint.
        OSError: it can't be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    return parse_checkpoint(data)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Put the file in place, durably.

    Raises:
        OSError: not done; what was there still is.
    """
    place(path, serialize_checkpoint(checkpoint).encode())
