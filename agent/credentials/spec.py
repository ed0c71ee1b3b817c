"""The contract of a credential provider: issue, renew, revoke, probe.

A provider is a folder with a `SPEC`. It does no input or output itself: the broker hands it a
`Client`. Its handle is what the journal keeps of a lease: enough to revoke it after a crash, and
never the secret. Every method may be called again after a crash with the same arguments; revoke
of what is gone succeeds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from agent.model.credential import Credential, Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.secret import Secret

SECRET_BYTES_MAX = 16 << 10  # a credential crosses to the proxy in one frame
HANDLE_CHARACTERS_MAX = 1_024


class CredentialError(Exception):
    """The provider could not do it. The text names cause and next step, never a secret.

    transient says that trying again later may help.
    """

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class Client(Protocol):
    """What a provider may do in the world. All answers are bounded by SECRET_BYTES_MAX."""

    async def file(self, path: str) -> Secret:
        """Return a secret file's bytes.

        Raises:
            CredentialError: absent, not a regular file, a link, readable by others, too large.
        """
        ...

    async def systemd_credential(self, name: str) -> Secret:
        """Return a credential that systemd gave the service (LoadCredential=).

        Raises:
            CredentialError: there is none of that name.
        """
        ...

    async def environment(self, name: str) -> Secret:
        """Return a variable of the broker's own environment.

        Raises:
            CredentialError: it is not set.
        """
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to issue, for whom. lease_id is unique: a provider may name its credential by it."""

    lease_id: LeaseId
    run_id: RunId
    loop: LoopName
    target: TargetName
    settings: Mapping[str, str]
    shape: Shape
    name: str
    user: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential that exists now. expires_ms is Unix time; 0: it does not expire by itself."""

    credential: Credential
    handle: str
    expires_ms: int
    renewable: bool
    revocable: bool


class Provider(Protocol):
    """One provider; it has no state of its own between calls."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make a credential.

        Raises:
            CredentialError: it can't be made; nothing is left behind.
        """
        ...

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Make a renewable credential last longer.

        Raises:
            CredentialError: it is not renewable, or gone.
        """
        ...

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End a credential; handle "" when it is not known whether it was issued.

        Raises:
            CredentialError: it may still be alive; the broker tries again.
        """
        ...

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Check that issue would work, without making anything.

        Raises:
            CredentialError: it would not.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """What a provider's folder exports as `SPEC`."""

    name: str
    shapes: frozenset[Shape]
    settings: tuple[str, ...]
    make: Callable[[], Provider]
