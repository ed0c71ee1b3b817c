"""Whether issue, renew and revoke would work, asked of the server's own rules."""

from agent.credentials.spec import Client, CredentialError, Wanted
from agent.credentials.vault.child import end_child, make_child
from agent.credentials.vault.login import ask
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import refusal
from agent.model.credential import Shape

# what our own token must be allowed; README.md of this folder has it as a policy
RIGHTS = (
    "auth/token/lookup-accessor",
    "auth/token/renew-accessor",
    "auth/token/revoke-accessor",
    "sys/leases/lookup",
    "sys/leases/renew",
    "sys/leases/revoke",
)
_ALL = frozenset({"root", "update"})


async def check_rights(settings: VaultSettings, wanted: Wanted, client: Client) -> None:
    """Return when all that is needed is allowed; what a run's own login may do can't be asked.

    Raises:
        CredentialError: something is not; the text names it.
    """
    paths = list(RIGHTS)
    if settings.token_role:
        paths.append(f"auth/token/create/{settings.token_role}")
    answer = await ask(settings, client, "POST", "sys/capabilities-self", {"paths": paths})
    if not answer.good:
        raise refusal(settings, answer, "tell what our login may do")
    lacking = [path for path in paths if not _ALL & _allowed(answer.part("data").get(path))]
    if lacking:
        text = f"our login at {settings.url} may not update {', '.join(lacking)}"
        raise CredentialError(text, nothing_made=True)
    if settings.run_role:
        return
    child = await make_child(settings, wanted, client)
    try:
        body: dict[str, object] = {"accessor": child.accessor, "paths": [settings.path]}
        answer = await ask(settings, client, "POST", "sys/capabilities-accessor", body)
    finally:
        await end_child(settings, client, child.accessor)
    if not answer.good:
        raise refusal(settings, answer, "tell what a run's token may do")
    makes = settings.common_name or wanted.shape is Shape.SSH_CERTIFICATE
    needed = {"root", "update" if makes else "read"}
    if not needed & _allowed(answer.part("data").get(settings.path)):
        text = f"a run's token of role {settings.token_role} may not use {settings.path}"
        raise CredentialError(text, nothing_made=True)


def _allowed(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()
