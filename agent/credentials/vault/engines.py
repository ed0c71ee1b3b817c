"""What engines make at a path, and how each kind is renewed and taken away.

leased: dynamic secrets (databases, and all that has a lease_id). certificate: of PKI, by its
serial number. stored: KV; it is as static as a file, and is never shown as revoked. signed: an SSH
certificate (ssh.py), which nobody can revoke.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.credentials.spec import Client, CredentialError
from agent.credentials.vault.login import ask
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import Answer, number, refusal, send
from agent.model.secret import Secret

LEASE_CHARACTERS_MAX = 512


@dataclass(frozen=True, slots=True)
class Made:
    """What an engine made. lasts_s: 0 when the server sets it no end."""

    data: Mapping[str, Any]
    lasts_s: int
    renewable: bool
    lease: str = ""
    mount: str = ""
    serial: str = ""
    ends_s: int = 0
    date_ms: int = 0  # the server's clock, when it told it

    @property
    def stored(self) -> bool:
        """Whether it was there before, and will be."""
        return not self.lease and not self.serial


async def make(
    settings: VaultSettings,
    client: Client,
    token: Secret,
    ttl_s: int,
    body: dict[str, object] | None = None,
) -> Made:
    """Ask the engine, as the run. body: what it is to sign; without one it is read.

    Raises:
        CredentialError: nothing_made: the engine said no.
    """
    if settings.common_name:
        body = {"common_name": settings.common_name, "ttl": f"{ttl_s}s"}
    method = "GET" if body is None else "POST"
    answer = await send(settings, client, method, settings.path, body, token=token)
    if not answer.good:
        hint = {
            403: "do the token role's policies allow it?",
            404: "is there such an engine, role or secret?",
        }.get(answer.status, "")
        error = refusal(settings, answer, f"make {settings.path}", hint=hint)
        error.nothing_made = not error.transient
        raise error
    return _made(settings, answer)


def _made(settings: VaultSettings, answer: Answer) -> Made:
    data, lease = answer.part("data"), answer.tree.get("lease_id") or ""
    if not isinstance(lease, str) or len(lease) > LEASE_CHARACTERS_MAX:
        raise CredentialError("the server's lease has no possible name", transient=True)
    if lease:
        lasts_s = number(answer.tree.get("lease_duration"))
        return Made(data, lasts_s, answer.tree.get("renewable") is True, lease)
    if isinstance(data.get("serial_number"), str) and "private_key" in data:
        ends_s = number(data.get("expiration"))
        lasts_s = ends_s - answer.date_ms // 1000  # by the server's own clock
        if not answer.date_ms or lasts_s <= 0:
            raise CredentialError("the certificate's end can't be told by the server's clock")
        mount = settings.path.rpartition("/issue/")[0]
        return Made(data, lasts_s, False, "", mount, data["serial_number"], ends_s)
    inner = data.get("data")
    if isinstance(inner, dict) and isinstance(data.get("metadata"), dict):  # KV version 2
        return Made(inner, 0, False)
    return Made(data, 0, False, date_ms=answer.date_ms)


async def renew_lease(settings: VaultSettings, client: Client, lease: str, ttl_s: int) -> int:
    """Ask for so many seconds from now; return how many there are.

    Raises:
        CredentialError: gone: the server has no such lease; transient: its backend is in trouble.
    """
    body: dict[str, object] = {"lease_id": lease, "increment": ttl_s}
    answer = await ask(settings, client, "POST", "sys/leases/renew", body)
    if answer.good:
        return number(answer.tree.get("lease_duration"))
    error = refusal(settings, answer, "renew the lease")
    if answer.status == 400:
        found = await _look_up(settings, client, lease)
        if found is None:
            raise CredentialError("the server has no such lease any more", gone=True)
        error.transient = found.get("renewable") is True  # a dead database is a 400 too
    raise error


async def revoke_lease(settings: VaultSettings, client: Client, lease: str) -> None:
    """End it now. 204 is done, 202 is queued: who confirms finds out.

    Raises:
        CredentialError: it may still live; permanent: the server has given it up.
    """
    body: dict[str, object] = {"lease_id": lease, "sync": True}
    answer = await ask(settings, client, "POST", "sys/leases/revoke", body)
    if answer.good:
        return
    error = refusal(settings, answer, "revoke the lease")
    error.permanent = answer.status == 403
    if answer.status == 400:
        found = await _look_up(settings, client, lease)
        if found is None:
            return
        error.transient = True
        error.permanent = bool(found.get("revoke_error"))  # irrevocable, as the server calls it
    raise error


async def lease_is_gone(settings: VaultSettings, client: Client, lease: str) -> bool:
    """Ask the server.

    Raises:
        CredentialError: it does not say.
    """
    return await _look_up(settings, client, lease) is None


async def _look_up(settings: VaultSettings, client: Client, lease: str) -> Mapping[str, Any] | None:
    answer = await ask(settings, client, "POST", "sys/leases/lookup", {"lease_id": lease})
    if answer.says_gone:
        return None
    if not answer.good:
        raise refusal(settings, answer, "look the lease up")
    return answer.part("data")


async def revoke_certificate(
    settings: VaultSettings, client: Client, mount: str, serial: str
) -> None:
    """Put it on its CA's list of revoked ones.

    Raises:
        CredentialError: it is not there; permanent: its role does not store certificates.
    """
    answer = await ask(settings, client, "POST", f"{mount}/revoke", {"serial_number": serial})
    if answer.good:
        return
    hint = "a role with no_store=true makes certificates that nobody can revoke"
    error = refusal(settings, answer, f"revoke certificate {serial}", hint=hint)
    error.permanent = not error.transient
    raise error


async def certificate_is_gone(
    settings: VaultSettings, client: Client, mount: str, serial: str, ends_s: int
) -> bool:
    """Whether it is revoked, or over by the server's clock.

    Raises:
        CredentialError: the server does not say.
    """
    answer = await ask(settings, client, "GET", f"{mount}/cert/{serial}")
    if answer.date_ms and ends_s and answer.date_ms // 1000 > ends_s:
        return True
    if answer.status == 404:
        return False  # it is not stored, and good until its end
    if not answer.good:
        raise refusal(settings, answer, f"look certificate {serial} up")
    return number(answer.part("data").get("revocation_time")) > 0
