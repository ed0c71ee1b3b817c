"""The `static` provider.

It can't revoke: the secret lives on wherever it was made. What ends with the run is its use
through us. Its leases are journalled like all others, so that "what did this run hold?" has one
answer.
"""

import re

from agent.credentials.spec import Client, CredentialError, Issued, Wanted
from agent.model.credential import (
    Basic,
    Bearer,
    Credential,
    Header,
    Password,
    QueryParameter,
    Shape,
)
from agent.model.secret import Secret

SETTINGS = ("file", "systemd_credential", "environment")
# RFC 9110 section 5.5 without obs-text: what a field value may carry, no space at either end
_FIELD_VALUE = re.compile(rb"[!-~](?:[ -~\t]*[!-~])?")


class StaticProvider:
    """Reads the secret anew for each lease, so that a rotated file is used by the next run."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Read and shape the secret.

        Raises:
            CredentialError: it can't be read, or does not fit its shape.
        """
        del now_ms  # the secret has no clock
        secret = _strip_newline(await _read(wanted, client))
        credential = _shaped(wanted, secret)
        return Issued(credential, handle="", expires_ms=0, renewable=False, revocable=False)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse.

        Raises:
            CredentialError: always.
        """
        del handle, client, now_ms
        raise CredentialError(f"the static credential of {wanted.target} is not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Do nothing: there is nobody to tell."""
        del wanted, handle, client

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Read and shape the secret, and forget it.

        Raises:
            CredentialError: it can't be read, or does not fit its shape.
        """
        await self.issue(wanted, client, 0)


async def _read(wanted: Wanted, client: Client) -> Secret:
    match dict(wanted.settings):
        case {"file": path, **rest} if not rest:
            return await client.file(path)
        case {"systemd_credential": name, **rest} if not rest:
            return await client.systemd_credential(name)
        case {"environment": name, **rest} if not rest:
            return await client.environment(name)
        case _:
            raise CredentialError(f"a static credential has one of {', '.join(SETTINGS)}")


def _strip_newline(secret: Secret) -> Secret:
    """Strip one line end: editors and echo(1) add it, no credential has it."""
    value = secret.reveal()
    if value.endswith(b"\n"):
        value = value[:-1].removesuffix(b"\r")
    return Secret(value)


def _shaped(wanted: Wanted, secret: Secret) -> Credential:
    value = secret.reveal()
    if not value:
        raise CredentialError(f"the credential of target {wanted.target} is empty")
    match wanted.shape:
        case Shape.BEARER | Shape.HEADER if not _FIELD_VALUE.fullmatch(value):
            raise CredentialError(
                f"the credential of target {wanted.target} has characters that no HTTP field may "
                "carry: is it the right file, of one line?"
            )
        case Shape.BEARER:
            return Bearer(secret)
        case Shape.HEADER:
            return Header(wanted.name, secret)
        case Shape.BASIC:
            return Basic(wanted.user, secret)
        case Shape.QUERY_PARAMETER:
            return QueryParameter(wanted.name, secret)
        case Shape.PASSWORD:
            return Password(wanted.user, secret)
        case Shape.CLIENT_CERTIFICATE | Shape.AWS_KEYS | Shape.SSH_CERTIFICATE:
            raise CredentialError("a static client certificate needs a later version")
