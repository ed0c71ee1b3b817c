"""The `oauth2` provider: a token is asked for when a run first needs it, and revoked at its end.

Source: RFC 6749 (client credentials, refresh token), RFC 8693 (token exchange), RFC 7523 (JWT
bearer), RFC 7009 (revocation), RFC 7662 (introspection). Who ends a token shows it: it is held in
the broker's memory until then; after a crash its lease says that it can only expire.
"""

from agent.credentials.lost import asked_ms, handle_until, hold_key, lost
from agent.credentials.oauth2 import refreshing
from agent.credentials.oauth2.endpoint import (
    Form,
    assertion,
    error_code,
    post,
    refused,
)
from agent.credentials.oauth2.settings import OAuthSettings, read_settings
from agent.credentials.replies import END_MS_MAX, object_of, secret_text, text_of, token_of
from agent.credentials.run_token import token_of_run
from agent.credentials.spec import Client, CredentialError, Issued, Wanted
from agent.model.credential import Bearer
from agent.model.secret import Secret

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - no secret
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PROBE = "urn:loopwarden:grant-type:none"  # of no server: it says who we are, and gets nothing
TOKEN_END, REVOKE_END, INTROSPECT_END = (
    f"the {name} endpoint" for name in ("token", "revocation", "introspection")
)

_ENDED = Secret(b"")  # held until it is confirmed, in the place of a token that was revoked


class OAuth2Provider:
    """It has no state; the broker holds the tokens."""

    async def issue(self, wanted: Wanted, client: Client, now_ms: int) -> Issued:
        """Ask for a token.

        Raises:
            CredentialError: there is none, or it can't be used.
        """
        settings = read_settings(wanted.settings)
        if settings.grant != "refresh_token":
            form = _form(settings, await _shown(settings, wanted, client, now_ms))
            return await _issue(settings, wanted, form, client, now_ms)
        async with client.turn(settings.refresh_key):
            token, digest = await refreshing.current(settings, client)
            form = [("grant_type", "refresh_token"), ("refresh_token", token)]
            return await _issue(settings, wanted, form, client, now_ms, digest)

    async def renew(self, wanted: Wanted, handle: str, client: Client, now_ms: int) -> Issued:
        """Refuse: a token's life is fixed, and another one is asked for before its end.

        Raises:
            CredentialError: always.
        """
        raise CredentialError(f"an access token of {wanted.target} is not renewable")

    async def revoke(self, wanted: Wanted, handle: str, client: Client) -> None:
        """Show the token to the revocation endpoint (RFC 7009).

        Raises:
            CredentialError: it may still be alive; ends_ms: nobody can end it.
        """
        settings = read_settings(wanted.settings)
        token = client.held(hold_key(wanted))
        if token is None:
            if handle:
                raise lost(handle, "the token was held in memory only, and is lost")
            return  # nothing was asked for
        if not token.reveal():
            return  # done before
        if not settings.revoke_url:
            raise lost(handle, "the target has no revoke_url")
        form = [("token", token.reveal().decode()), ("token_type_hint", "access_token")]
        reply = await post(settings, settings.revoke_url, form, client)
        if reply.status != 200:
            if error_code(reply, REVOKE_END) == "unsupported_token_type":
                raise lost(handle, "the server does not revoke tokens of this type")
            raise refused(reply, REVOKE_END)
        if not settings.introspect_url:
            client.hold(hold_key(wanted), _ENDED)

    async def confirm(self, wanted: Wanted, handle: str, client: Client) -> bool:
        """Ask the introspection endpoint; without one the revocation's 200 is the word.

        Raises:
            CredentialError: it does not say.
        """
        settings = read_settings(wanted.settings)
        token = client.held(hold_key(wanted))
        if token is None:
            return True
        if not token.reveal():
            client.let_go(hold_key(wanted))
            return True
        if not settings.introspect_url:
            return False
        form = [("token", token.reveal().decode()), ("token_type_hint", "access_token")]
        reply = await post(settings, settings.introspect_url, form, client)
        if reply.status != 200:
            raise refused(reply, INTROSPECT_END)
        active = object_of(reply, INTROSPECT_END).get("active")
        if not isinstance(active, bool):
            raise CredentialError(f"{INTROSPECT_END} does not say whether it is active")
        if not active:
            client.let_go(hold_key(wanted))
        return not active

    async def probe(self, wanted: Wanted, client: Client) -> None:
        """Say who we are, with a grant that no server has.

        Raises:
            CredentialError: the server does not answer, or does not know us.
        """
        settings = read_settings(wanted.settings)
        if settings.grant == "refresh_token":
            await refreshing.current(settings, client)
        elif not settings.of_run:  # nobody's run is asked about
            await _shown(settings, wanted, client, 0)
        reply = await post(settings, settings.token_url, [("grant_type", PROBE)], client)
        code = error_code(reply, TOKEN_END)
        if code in {"unsupported_grant_type", "invalid_request", "unauthorized_client"}:
            return
        raise refused(reply, TOKEN_END)


async def _shown(settings: OAuthSettings, wanted: Wanted, client: Client, now_ms: int) -> str:
    """Return the token that the grant shows, or the assertion; "" for none."""
    if settings.of_run:
        return token_of_run(wanted, now_ms).reveal().decode("ascii")
    match settings.grant:
        case "token_exchange":
            path = settings.subject_token_file
            return await secret_text(client, "file", path, "the subject token")
        case "jwt_bearer":
            return await assertion(settings, settings.issuer, settings.subject, client)
        case _:
            return ""


def _form(settings: OAuthSettings, shown: str) -> Form:
    match settings.grant:
        case "token_exchange":
            form = [
                ("grant_type", TOKEN_EXCHANGE),
                ("subject_token", shown),
                ("subject_token_type", settings.subject_token_type),
            ]
            if settings.requested_token_type:
                form.append(("requested_token_type", settings.requested_token_type))
            return form
        case "jwt_bearer":
            return [("grant_type", JWT_BEARER), ("assertion", shown)]
        case _:
            return [("grant_type", "client_credentials")]


async def _issue(
    settings: OAuthSettings,
    wanted: Wanted,
    form: Form,
    client: Client,
    now_ms: int,
    digest: str = "",
) -> Issued:
    """Ask, and hold the token before anything else is looked at. digest: of a refresh token."""
    if settings.scope:
        form.append(("scope", " ".join(settings.scope)))
    form += [("audience", each) for each in settings.audience]
    form += [("resource", each) for each in settings.resource]
    wanted.keep(handle_until(asked_ms(wanted) + 1000 * settings.longest_s))
    reply = await post(settings, settings.token_url, form, client)
    if reply.status != 200:
        raise refused(reply, TOKEN_END)
    found = object_of(reply, TOKEN_END)
    token = token_of(found, "access_token", TOKEN_END)
    client.hold(hold_key(wanted), token)
    fresh = text_of(found, "refresh_token")
    if digest and fresh:
        await refreshing.replace(settings, digest, fresh, client)
    _check_type(settings, text_of(found, "token_type"))
    end_ms = _end_ms(found, settings, now_ms)
    handle = handle_until(end_ms)
    revocable = bool(settings.revoke_url)
    if not revocable:
        client.let_go(hold_key(wanted))
    elif wanted.ttl_s:
        end_ms = min(end_ms, now_ms + 1000 * wanted.ttl_s)  # it is revoked then
    return Issued(Bearer(token), handle, end_ms, renewable=False, revocable=revocable)


def _check_type(settings: OAuthSettings, kind: str) -> None:
    """RFC 6749 section 7.1: a type that is not understood is not used."""
    other = settings.requested_token_type not in {
        "",
        "urn:ietf:params:oauth:token-type:access_token",
    }
    if kind.lower() != "bearer" and not (other and kind == "N_A"):  # RFC 8693 section 2.2.1
        raise CredentialError("the token endpoint gives a token that is no bearer token")


def _end_ms(found: dict[str, object], settings: OAuthSettings, now_ms: int) -> int:
    """Return its end. What the server says is a duration: counted from before it was asked."""
    value = found.get("expires_in", settings.longest_s)
    if isinstance(value, str) and value.isdecimal():  # some servers write it so
        value = int(value[:12])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise CredentialError("the token endpoint says no possible expires_in")
    return min(now_ms + 1000 * value, END_MS_MAX - 1)
