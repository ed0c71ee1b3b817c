"""SSH certificates of a vault: made for a new key of ours, and checked before they are used."""

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

from agent.broker.sources import BrokerClient
from agent.credentials.spec import CredentialError
from agent.credentials.vault.ssh import (
    CERTIFICATE_BYTES_MAX,
    SshKey,
    check_signed,
    new_key,
    signing_request,
)

END_S = int(time.time()) + 900


@dataclass(frozen=True)
class Said:
    """What a server signs."""

    names: tuple[bytes, ...] = (b"robot",)
    kind: SSHCertificateType = SSHCertificateType.USER
    end_s: int = END_S
    everybody: bool = False

    def line(self, key: SshKey) -> str:
        """Sign a key."""
        public = load_ssh_public_key(key.public.encode())
        assert isinstance(public, Ed25519PublicKey)
        made = (
            SSHCertificateBuilder()
            .public_key(public)
            .type(self.kind)
            .key_id(b"run")
            .valid_after(END_S - 2_000)
            .valid_before(self.end_s)
        )
        if self.everybody:
            made = made.valid_for_all_principals()  # type: ignore[no-untyped-call]
        else:
            made = made.valid_principals(list(self.names))
        return made.sign(Ed25519PrivateKey.generate()).public_bytes().decode()


@pytest.fixture
def key() -> SshKey:
    """A new key."""
    return new_key(BrokerClient({}, {}))


def test_a_key_is_one_for_openssh(key: SshKey, tmp_path: Path) -> None:
    """ssh-keygen reads it, and finds the same public key; two are not the same."""
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(key.private_pem)
    done = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[:2] == key.public.split()[:2]
    assert new_key(BrokerClient({}, {})).public != key.public
    assert key.private_pem.splitlines()[1] not in repr(key)


def test_what_is_asked_for(key: SshKey) -> None:
    """A user's certificate for one name and a time; without a name the role's own."""
    asked = {"public_key": key.public, "cert_type": "user", "ttl": "900s"}
    assert signing_request(key, "robot", 900) == asked | {"valid_principals": "robot"}
    assert signing_request(key, "", 900) == asked


def test_what_is_taken(key: SshKey) -> None:
    """Its user and its end are the certificate's own."""
    for user in ("robot", ""):
        found = check_signed({"signed_key": Said().line(key) + "\n"}, key, user, END_S)
        assert found == ("robot", END_S)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said(kind=SSHCertificateType.HOST), "not for a user"),
        (Said(names=(b"root",)), "is for root"),
        (Said(names=(b"robot", b"root")), "robot, root"),
        (Said(everybody=True), "everybody"),
        (Said(end_s=END_S + 1), "longer"),
    ],
)
def test_what_says_too_much_is_refused(key: SshKey, said: Said, words: str) -> None:
    """For a host, for others or everybody, for longer."""
    with pytest.raises(CredentialError, match=words):
        check_signed({"signed_key": said.line(key)}, key, "robot", END_S)


def test_another_key_is_refused(key: SshKey) -> None:
    """The certificate must be of the key whose other half is here."""
    other = new_key(BrokerClient({}, {}))
    with pytest.raises(CredentialError, match="another key"):
        check_signed({"signed_key": Said().line(other)}, key, "robot", END_S)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"signed_key": 7},
        {"signed_key": "x"},
        {"signed_key": "ssh-ed25519-cert-v01@openssh.com AAAA"},
        {"signed_key": "x" * (CERTIFICATE_BYTES_MAX + 1)},
    ],
)
def test_what_is_none_is_refused(key: SshKey, data: Mapping[str, object]) -> None:
    """Whatever the server answers instead; a plain key is none either."""
    for each in (data, {"signed_key": key.public}):
        with pytest.raises(CredentialError, match="SSH certificate"):
            check_signed(each, key, "robot", END_S)
