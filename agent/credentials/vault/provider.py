"""The `vault` provider: a token for each lease of a run, what it makes, and both taken away.

OpenBao 2.x and HashiCorp Vault 1.x: the same paths. The login needs the policy that README.md of
this folder shows; the run's token needs its one path and nothing else.
"""

from agent.credentials.lost import handle_until, lost, until_of
from agent.credentials.spec import (
    PROVIDER_ID_CHARACTERS_MAX,
    Client,
    CredentialError,
    Issued,
    Renewed,
    Wanted,
)
from agent.credentials.vault.child import Child, child_is_gone, end_child, let_live, make_child
from agent.credentials.vault.engines import (
    Made,
    certificate_is_gone,
    lease_is_gone,
    make,
    renew_lease,
    revoke_certificate,
    revoke_lease,
)
from agent.credentials.vault.handle import Handle, parse_handle, serialize_handle
from agent.credentials.vault.probing import check_rights
from agent.credentials.vault.run_login import log_run_in
from agent.credentials.vault.settings import VaultSettings, read_settings
from agent.credentials.vault.shaping import shaped
from agent.credentials.vault.ssh import check_signed, new_key, signing_request
from agent.credentials.vault.unnamed import unnamed_is_gone
from agent.model.credential import Shape
from agent.model.ids import decode_ulid

SIGNED_SLACK_S = 60  # of an SSH engine's certificates: it counts from its own now
NAMELESS_SLACK_S = 300  # of a certificate whose answer was lost: its server's clock may be ahead
TTL_S = 3_600  # of a run's token, when the target says nothing; renewed while it is used


class VaultProvider:
    """It has no state; our login is the client's to share."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Make the run's token, have its accessor kept, and make the credential with it.

        Raises:
            CredentialError: it can't be made.
        """
        settings = read_settings(wanted.settings)
        if settings.run_role:
            child = await log_run_in(settings, wanted, client, now_ms)
        else:
            child = await make_child(settings, wanted, client)
        try:
            wanted.keep(serialize_handle(Handle(child.accessor)))
            return await _issue(settings, wanted, client, now_ms, child)
        except CredentialError as error:
            if error.nothing_made:
                wanted.keep(serialize_handle(Handle(child.accessor)))
            ended = await _try_to_end(settings, client, child.accessor)
            error.nothing_made = error.nothing_made and ended
            raise

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Renewed:
        """Let the token and its lease last longer; the end that comes first counts.

        Raises:
            CredentialError: see Provider.renew.
        """
        settings, found = read_settings(wanted.settings), parse_handle(handle)
        if found is None or not found.lease:
            raise CredentialError(f"the credential of {wanted.target} is not renewable")
        ttl_s, max_ms = _ttl_s(wanted, now_ms), _max_ms(wanted)
        if max_ms and now_ms >= max_ms:
            raise CredentialError("it has lasted for the target's max_ttl")
        token_s = await let_live(settings, client, found.accessor, ttl_s)
        lease_s = await renew_lease(settings, client, found.lease, ttl_s)
        return Renewed(now_ms + 1000 * _least(token_s, lease_s, wanted.ttl_s), max_ms)

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """End the lease, then the token, whatever became of the lease.

        Raises:
            CredentialError: something of it may still live.
        """
        settings = read_settings(wanted.settings)
        if until_of(handle):
            raise lost(handle, "an SSH certificate can't be revoked")
        found = parse_handle(handle)
        if found is None:
            return  # a token that was never kept leased nothing, and is over soon by itself
        failed: CredentialError | None = None
        try:
            if found.lease:
                await revoke_lease(settings, client, found.lease)
            if found.serial:
                await revoke_certificate(settings, client, found.mount, found.serial)
        except CredentialError as error:
            failed = error
        await end_child(settings, client, found.accessor)
        if failed is not None:
            raise failed
        if found.nameless_until_ms:
            text = "a certificate was asked for and its name never came; nobody has its key"
            raise CredentialError(text, permanent=True, ends_ms=found.nameless_until_ms)

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Ask the server whether all of it is gone.

        Raises:
            CredentialError: it does not say.
        """
        settings = read_settings(wanted.settings)
        if until_of(handle):
            return client.now_ms() >= until_of(handle)
        found = parse_handle(handle)
        if found is None:
            return True
        if found.lease and not await lease_is_gone(settings, client, found.lease):
            return False
        if found.serial and not await certificate_is_gone(
            settings, client, found.mount, found.serial, found.ends_s
        ):
            return False
        if not await child_is_gone(settings, client, found.accessor):
            return False
        if found.lease or found.serial:
            return True
        if found.nameless_until_ms:
            return client.now_ms() >= found.nameless_until_ms
        return await unnamed_is_gone(settings, client, wanted)  # its answer never came

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Log in, and ask what we and a run's token may do; that token is ended at once.

        Raises:
            CredentialError: issue would not work.
        """
        settings = read_settings(wanted.settings)
        await check_rights(settings, wanted, client)


async def _issue(
    settings: VaultSettings, wanted: Wanted, client: Client, now_ms: int, child: Child
) -> Issued:
    ttl_s = _ttl_s(wanted, now_ms)
    token_s = await let_live(settings, client, child.accessor, ttl_s)
    if wanted.shape in {Shape.CLIENT_CERTIFICATE, Shape.SSH_CERTIFICATE}:  # not the token's to end
        ends_s = now_ms // 1000 + ttl_s + NAMELESS_SLACK_S
        wanted.keep(serialize_handle(Handle(child.accessor, ends_s=ends_s)))
    if wanted.shape is Shape.SSH_CERTIFICATE:
        return await _signed(settings, wanted, client, now_ms, child, ttl_s)
    made = await make(settings, client, child.token, ttl_s)
    if made.stored:
        return await _stored(settings, wanted, client, now_ms, child, made)
    handle = Handle(child.accessor, made.lease, made.mount, made.serial, made.ends_s)
    wanted.keep(serialize_handle(handle))
    credential = shaped(settings, wanted, made.data)
    lasts_s = _least(made.lasts_s, wanted.ttl_s, token_s if made.lease else 0)
    return Issued(
        credential,
        serialize_handle(handle),
        now_ms + 1000 * lasts_s,
        renewable=made.renewable,
        revocable=True,
        provider_id=made.lease or made.serial,
        max_ms=_max_ms(wanted),
    )


async def _stored(
    settings: VaultSettings,
    wanted: Wanted,
    client: Client,
    now_ms: int,
    child: Child,
    made: Made,
) -> Issued:
    """It lives on at the server: what ends, after our own ttl, is its use. The token ends now."""
    await end_child(settings, client, child.accessor)
    return Issued(
        shaped(settings, wanted, made.data),
        handle="",
        expires_ms=now_ms + 1000 * wanted.ttl_s if wanted.ttl_s else 0,
        renewable=False,
        revocable=False,
        provider_id=settings.path,
    )


async def _signed(
    settings: VaultSettings,
    wanted: Wanted,
    client: Client,
    now_ms: int,
    child: Child,
    ttl_s: int,
) -> Issued:
    """An SSH certificate: the token is of no more use, and the certificate ends by itself."""
    key = new_key(client)
    body = signing_request(key, wanted.user, ttl_s)
    made = await make(settings, client, child.token, ttl_s, body)
    await end_child(settings, client, child.accessor)
    asked_s = (made.date_ms or now_ms) // 1000
    user, ends_s = check_signed(made.data, key, wanted.user, asked_s + ttl_s + SIGNED_SLACK_S)
    data = {"username": user, "signed_key": made.data["signed_key"], "private_key": key.private_pem}
    end_ms = now_ms + 1000 * max(1, ends_s - asked_s)
    return Issued(
        shaped(settings, wanted, data),
        handle=handle_until(end_ms),
        expires_ms=end_ms,
        renewable=False,
        revocable=False,
        provider_id=str(made.data.get("serial_number", ""))[:PROVIDER_ID_CHARACTERS_MAX],
    )


async def _try_to_end(settings: VaultSettings, client: Client, accessor: str) -> bool:
    """End the token of an issue that failed; if that fails too, revoke does it again."""
    try:
        await end_child(settings, client, accessor)
    except CredentialError:
        return False
    return True


def _ttl_s(wanted: Wanted, now_ms: int) -> int:
    ttl_s, max_ms = wanted.ttl_s or TTL_S, _max_ms(wanted)
    return min(ttl_s, max(1, (max_ms - now_ms) // 1000)) if max_ms else ttl_s


def _max_ms(wanted: Wanted) -> int:
    """Return the Unix time past which the target lets no lease last, 0 for none."""
    if not wanted.max_ttl_s:
        return 0
    began_ms = int.from_bytes(decode_ulid(wanted.lease_id)[:6], "big")
    return began_ms + 1000 * wanted.max_ttl_s


def _least(*seconds: int) -> int:
    """Return the least of the bounds; 0 is none."""
    return min((each for each in seconds if each), default=0)
