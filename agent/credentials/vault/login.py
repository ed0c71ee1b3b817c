"""Our own token: one login for all runs, renewed while it is used, replaced before its longest.

Tokens of runs are orphans, so a new login takes nothing from them. With auth: token an agent of
the server's keeps the file fresh; it is read each time.
"""

import hashlib
import re
from dataclasses import dataclass

from agent.credentials.spec import Client, CredentialError, Kept
from agent.credentials.vault.settings import VaultSettings
from agent.credentials.vault.wire import Answer, number, refusal, send
from agent.model.secret import Secret

FRESH = 2 / 3  # of its life a login is used as it is; then it is renewed
WORN = 1 / 2  # a renewal that gives less than this of the first life: it is near its longest
FRESH_S_MAX = 3_600.0
LAST_S = 30.0  # how long a worn login that can't be replaced is used before it is tried again
FOREVER_S = 1e8


@dataclass(frozen=True, slots=True)
class Login:
    """A token of ours. lasts_s: how long it lasted at first, 0: for ever."""

    token: Secret
    lasts_s: int
    renewable: bool


async def log_in(settings: VaultSettings, client: Client) -> Login:
    """Return our token, one flight for all who ask at once.

    Raises:
        CredentialError: we can't log in; nothing was made.
    """

    async def make(old: Login | None) -> Kept[Login]:
        return await _renewed_or_new(settings, client, old)

    try:
        if settings.auth == "token":
            return Login(await settings.secret(client), 0, renewable=False)
        return await client.shared(settings.login_key, make)
    except CredentialError as error:
        error.nothing_made = True  # a login is ours, and not of the lease
        raise


async def ask(
    settings: VaultSettings,
    client: Client,
    method: str,
    path: str,
    body: dict[str, object] | None = None,
) -> Answer:
    """Send a request with our own token; one that died meanwhile is replaced once.

    Raises:
        CredentialError: no answer, or no login.
    """
    login = await log_in(settings, client)
    answer = await send(settings, client, method, path, body, token=login.token)
    if answer.status == 403 and settings.auth != "token":
        own = await send(settings, client, "GET", "auth/token/lookup-self", None, token=login.token)
        if own.status == 403:  # it is dead, and not merely without that right
            client.forget(settings.login_key, login)
            login = await log_in(settings, client)
            answer = await send(settings, client, method, path, body, token=login.token)
    return answer


async def _renewed_or_new(
    settings: VaultSettings, client: Client, old: Login | None
) -> Kept[Login]:
    left_s = 0
    if old is not None and old.renewable:
        answer = await send(settings, client, "POST", "auth/token/renew-self", {}, token=old.token)
        left_s = number(answer.part("auth").get("lease_duration")) if answer.good else 0
        if left_s >= WORN * old.lasts_s:
            return Kept(old, min(FRESH * left_s, FRESH_S_MAX))
    try:
        login = await _new(settings, client)
    except CredentialError:
        if old is None or not left_s:
            raise
        return Kept(old, min(LAST_S, FRESH * left_s))  # its SecretID is used up, say
    fresh_s = FRESH * login.lasts_s if login.lasts_s else FRESH_S_MAX
    return Kept(login, min(fresh_s, FRESH_S_MAX))


async def _new(settings: VaultSettings, client: Client) -> Login:
    secret = await settings.secret(client)
    if settings.wrapped:
        secret = await _unwrapped(settings, client, secret)
    value = secret.reveal().decode("ascii")
    body: dict[str, object] = (
        {"role_id": settings.role, "secret_id": value}
        if settings.auth == "approle"
        else {"role": settings.role, "jwt": value}
    )
    path = f"auth/{settings.mount}/login"
    answer = await send(settings, client, "POST", path, body, secret)
    if not answer.good:
        raise refusal(settings, answer, f"log us in at {path}")
    auth = answer.part("auth")
    token = auth.get("client_token")
    if not isinstance(token, str) or not token:
        raise CredentialError(f"{settings.url} logs us in without a token", transient=True)
    if auth.get("token_type", "service") != "service":
        raise CredentialError(
            f"{path} gives a {auth['token_type']} token, which can make none for runs: set "
            "token_type=service"
        )
    lasts_s = number(auth.get("lease_duration"))
    return Login(Secret(token.encode()), lasts_s, auth.get("renewable") is True)


async def _unwrapped(settings: VaultSettings, client: Client, wrapping: Secret) -> Secret:
    """Return what the wrapping token holds: taken once, kept in memory for logins to come."""
    digest = hashlib.sha256(wrapping.reveal()).hexdigest()

    async def unwrap(_old: Secret | None) -> Kept[Secret]:
        return Kept(await _unwrap(settings, client, wrapping), FOREVER_S)

    return await client.shared(f"{settings.login_key}\0{digest}", unwrap)


async def _unwrap(settings: VaultSettings, client: Client, wrapping: Secret) -> Secret:
    body: dict[str, object] = {"token": wrapping.reveal().decode("ascii")}
    answer = await send(settings, client, "POST", "sys/wrapping/lookup", body, wrapping)
    if answer.status == 400:
        raise _taken(settings, client, answer)
    if not answer.good:
        raise refusal(settings, answer, "look the wrapping token up")
    made_by = str(answer.part("data").get("creation_path"))
    if not re.fullmatch(rf"auth/{re.escape(settings.mount)}/role/[^/]+/secret-id", made_by):
        client.alarm(
            f"the wrapping token of {' '.join(settings.source)} is not of a SecretID of "
            f"auth/{settings.mount}: somebody put another in its place"
        )
        raise CredentialError("the wrapping token is not of a SecretID: see the alarm")
    answer = await send(settings, client, "POST", "sys/wrapping/unwrap", {}, token=wrapping)
    if answer.status == 400:
        raise _taken(settings, client, answer)
    if not answer.good:
        raise refusal(settings, answer, "unwrap the SecretID")
    secret_id = answer.part("data").get("secret_id")
    if not isinstance(secret_id, str) or not secret_id:
        raise CredentialError("the wrapping token holds no SecretID")
    return Secret(secret_id.encode())


def _taken(settings: VaultSettings, client: Client, answer: Answer) -> CredentialError:
    """Tell a person: what was for us alone is not there (any more)."""
    source = " ".join(settings.source)
    client.alarm(
        f"the wrapping token of {source} at {settings.url} is not valid: another unwrapped its "
        "SecretID, or it had expired, or we unwrapped it before a restart. Unless it is the last, "
        "destroy that SecretID; then deliver a new wrapped one"
    )
    return refusal(settings, answer, f"unwrap the SecretID of {source}", hint="see the alarm")
