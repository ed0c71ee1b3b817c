"""A run's own token: an orphan, made through a token role, and all that it leased dies with it.

It is born with a short life, which grows only when its accessor is on stable storage: of what a
crash forgets, nobody has the token, and the server forgets it BIRTH_S later. If the journal itself
is lost, nobody renews the token, and it ends with all that it leased after what it had left: the
target's ttl at most (agent/README.md, "a vault is not swept").
"""

from dataclasses import dataclass

from agent.credentials.spec import Client, CredentialError, Wanted
from agent.credentials.vault.login import ask
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import number, refusal
from agent.model.secret import Secret

BIRTH_S = 60
PATH = "auth/token"


@dataclass(frozen=True, slots=True)
class Child:
    """A run's token."""

    token: Secret
    accessor: str


async def make_child(settings: VaultSettings, wanted: Wanted, client: Client) -> Child:
    """Make it; it lasts BIRTH_S.

    Raises:
        CredentialError: it can't be made as it must be.
    """
    path = f"{PATH}/create/{settings.token_role}"
    body: dict[str, object] = {
        "ttl": f"{BIRTH_S}s",
        "renewable": True,
        "no_default_policy": True,
        "display_name": f"loopwarden-{wanted.loop}",
        "meta": {
            "loop": wanted.loop,
            "run": wanted.run_id,
            "lease": wanted.lease_id,
            "target": wanted.target,
            "host": client.host,
        },
    }
    if settings.policies:
        body["policies"] = list(settings.policies)
    if wanted.max_ttl_s:
        body["explicit_max_ttl"] = f"{wanted.max_ttl_s}s"
    answer = await ask(settings, client, "POST", path, body)
    if not answer.good:
        error = refusal(settings, answer, f"make a run's token at {path}")
        error.nothing_made = not error.transient
        raise error
    auth = answer.part("auth")
    token, accessor = auth.get("client_token"), auth.get("accessor")
    if not isinstance(token, str) or not isinstance(accessor, str) or not token or not accessor:
        raise CredentialError(f"{settings.url} makes a token without an accessor", transient=True)
    if auth.get("orphan") is not True or auth.get("token_type") != "service":
        await end_child(settings, client, accessor)
        raise CredentialError(
            f"the token role {settings.token_role} does not make orphans of type service: set "
            "orphan=true token_type=service, or a new login of ours would end all runs' leases",
            nothing_made=True,
        )
    lasts_s = number(auth.get("lease_duration"))
    if not 0 < lasts_s <= BIRTH_S:  # of a token that we forget, this is all that ends it
        await end_child(settings, client, accessor)
        lives = f"{lasts_s} s" if lasts_s else "ever"
        raise CredentialError(
            f"the token role {settings.token_role} makes tokens that live for {lives}, not for the "
            f"{BIRTH_S} s that were asked for: set token_period=0, or one that a crash forgets "
            "would outlive its run",
            nothing_made=True,
        )
    return Child(Secret(token.encode()), accessor)


async def let_live(settings: VaultSettings, client: Client, accessor: str, ttl_s: int) -> int:
    """Let it live for so long from now, as far as it may; return for how long it does.

    Raises:
        CredentialError: gone: the server knows it no more; else it may be asked again.
    """
    body: dict[str, object] = {"accessor": accessor, "increment": f"{ttl_s}s"}
    answer = await ask(settings, client, "POST", f"{PATH}/renew-accessor", body)
    if answer.says_gone:
        raise CredentialError("the run's token is gone, and all that it leased", gone=True)
    if any("past the max TTL" in said for said in answer.errors):  # a 500
        raise CredentialError("the run's token is at its longest")
    if not answer.good:
        raise refusal(settings, answer, "renew the run's token")
    return number(answer.part("auth").get("lease_duration"))


async def end_child(settings: VaultSettings, client: Client, accessor: str) -> None:
    """End it; the server then ends what it leased, on its own time.

    Raises:
        CredentialError: it may still live.
    """
    body: dict[str, object] = {"accessor": accessor}
    answer = await ask(settings, client, "POST", f"{PATH}/revoke-accessor", body)
    if not answer.good and not answer.says_gone:
        error = refusal(settings, answer, "end the run's token")
        error.permanent = answer.status == 403
        raise error


async def child_is_gone(settings: VaultSettings, client: Client, accessor: str) -> bool:
    """Ask the server.

    Raises:
        CredentialError: it does not say.
    """
    body: dict[str, object] = {"accessor": accessor}
    answer = await ask(settings, client, "POST", f"{PATH}/lookup-accessor", body)
    if answer.says_gone:
        return True
    if not answer.good:
        raise refusal(settings, answer, "look the run's token up")
    return False
