"""A run's token by a login of its own: the token that let the run start, shown at a JWT role.

The server then knows whose run it is: by the role's claims, in its audit log, in templated
policies. The token is an orphan, as every login's is. Its first life is the role's token_ttl, which
is bounded here: of a login that a crash forgets, nobody has the token, it leased nothing, and the
server forgets it then.
"""

from agent.credentials.run_token import token_of_run
from agent.credentials.spec import Client, CredentialError, Wanted
from agent.credentials.vault.child import Child, end_child
from agent.credentials.vault.handle import Handle, serialize_handle
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import number, refusal, send
from agent.model.secret import Secret

FIRST_S_MAX = 900  # of a login's life, before it is renewed


async def log_run_in(settings: VaultSettings, wanted: Wanted, client: Client, now_ms: int) -> Child:
    """Return the run's token.

    Raises:
        CredentialError: the run has no token (any more), the server does not take it, or what
            comes of it could not be bounded.
    """
    shown = token_of_run(wanted, now_ms)
    path = f"auth/{settings.run_mount}/login"
    body: dict[str, object] = {
        "role": settings.run_role,
        "jwt": shown.reveal().decode("ascii"),
    }
    answer = await send(settings, client, "POST", path, body, shown)
    if not answer.good:
        error = refusal(settings, answer, f"log the run in at {path}")
        error.nothing_made = not error.transient
        raise error
    auth = answer.part("auth")
    token, accessor = auth.get("client_token"), auth.get("accessor")
    if not isinstance(token, str) or not isinstance(accessor, str) or not token or not accessor:
        raise CredentialError(f"{settings.url} logs the run in without a token that it can end")
    wanted.keep(serialize_handle(Handle(accessor)))  # its first life is not ours to set
    lasts_s = number(auth.get("lease_duration"))
    if auth.get("token_type") != "service" or not 0 < lasts_s <= FIRST_S_MAX:
        await end_child(settings, client, accessor)
        raise CredentialError(
            f"the role {settings.run_role} at {path} gives tokens that are no service tokens of "
            f"at most {FIRST_S_MAX} s: set token_type=service token_ttl=60s (they are renewed)",
            nothing_made=True,
        )
    return Child(Secret(token.encode()), accessor)
