"""SSH certificates: a key that is made here for one lease, and an SSH engine's signature of it.

The private key is in memory alone, so a certificate whose answer was lost opens nothing. The
engine keeps no list of what it signed, and nobody can revoke it: its lease says so until its end.
Source: OpenSSH PROTOCOL.certkeys.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from agent.credentials.spec import Client, CredentialError

SEED_BYTES = 32
CERTIFICATE_BYTES_MAX = 8 << 10


@dataclass(frozen=True, slots=True)
class SshKey:
    """A new key: what is signed, and what stays here."""

    public: str
    private_pem: str

    def __repr__(self) -> str:
        return "SshKey()"


def new_key(client: Client) -> SshKey:
    """Make an Ed25519 key."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(client.random(SEED_BYTES))
    form = serialization
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return SshKey(public.decode(), private.decode())


def signing_request(key: SshKey, user: str, ttl_s: int) -> dict[str, object]:
    """Return the body of MOUNT/sign/ROLE; without a user the role's own default is meant."""
    body: dict[str, object] = {"public_key": key.public, "cert_type": "user", "ttl": f"{ttl_s}s"}
    return body | ({"valid_principals": user} if user else {})


def check_signed(data: Mapping[str, Any], key: SshKey, user: str, by_s: int) -> tuple[str, int]:
    """Return for whom the certificate is and its end (Unix time by the server's clock).

    Raises:
        CredentialError: it is none, of another key, for others too, or good for longer than by_s.
    """
    line = data.get("signed_key")
    if not isinstance(line, str) or len(line) > CERTIFICATE_BYTES_MAX:
        raise CredentialError("the server's answer has no SSH certificate")
    try:
        found = serialization.load_ssh_public_identity(line.strip().encode())
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, serialization.SSHCertificate):
        raise CredentialError("the server's answer is no SSH certificate that we can read")
    form = serialization
    public = found.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    if found.type is not serialization.SSHCertificateType.USER or public.decode() != key.public:
        raise CredentialError("the server signed another key than ours, or not for a user")
    names = [name.decode("utf-8", "replace") for name in found.valid_principals]
    if len(names) != 1 or (user and names != [user]):
        raise CredentialError(
            f"the SSH certificate is for {', '.join(names)[:80] or 'everybody'}: it must name one "
            "user, the target's `user`"
        )
    if found.valid_before > by_s:
        raise CredentialError("the SSH certificate is good for longer than was asked for")
    return names[0], int(found.valid_before)
