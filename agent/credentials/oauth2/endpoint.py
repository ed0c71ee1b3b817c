"""Requests to an authorisation server: who we are, and what its refusals mean.

Source: RFC 6749 sections 2.3.1 and 5.2, RFC 7523, RFC 8693 section 2.2.2.
"""

import base64
from urllib.parse import quote_plus, urlencode

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from agent.credentials.oauth2.settings import OAuthSettings
from agent.credentials.replies import object_of, refusal, secret_text, text_of
from agent.credentials.spec import Client, CredentialError, HttpReply, HttpRequest
from agent.model.secret import Secret

ASSERTION_S = 60  # how long what we sign is good for
JTI_BYTES = 16
CLIENT_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
Form = list[tuple[str, str]]
# what the server may say is wrong (an unknown code is not repeated), and what to do
HINTS = {
    "invalid_request": "it does not take this grant as we ask for it",
    "invalid_client": "it does not know the client, or its secret or key: compare client_id, "
    "client_auth and the secret",
    "invalid_grant": "it does not take the refresh token, subject token or assertion (any more): "
    "get a new one",
    "unauthorized_client": "the client may not use this grant: allow it at the server",
    "unsupported_grant_type": "the server does not offer this grant",
    "unsupported_token_type": "the server does not revoke tokens of this type",
    "invalid_scope": "it does not give the client these scopes",
    "invalid_target": "it does not give the client this audience or resource",
    "server_error": "",
    "temporarily_unavailable": "",
}
_LATER = frozenset({"server_error", "temporarily_unavailable"})


async def post(settings: OAuthSettings, url: str, form: Form, client: Client) -> HttpReply:
    """Send a form as the client that we are, and return whatever is answered.

    Raises:
        CredentialError: no answer, or our own secret can't be read.
    """
    headers: dict[str, str | Secret] = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    match settings.client_auth:
        case "basic":  # RFC 6749 section 2.3.1: each part form-encoded, then RFC 7617
            secret = await secret_text(client, *settings.source, "the client's secret")
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
            encoded = base64.b64encode(pair.encode())
            headers["Authorization"] = Secret(b"Basic " + encoded)
        case "post":
            secret = await secret_text(client, *settings.source, "the client's secret")
            form = [*form, ("client_id", settings.client_id), ("client_secret", secret)]
        case "private_key_jwt":
            signed = await assertion(settings, settings.client_id, settings.client_id, client)
            form = [
                *form,
                ("client_id", settings.client_id),
                ("client_assertion_type", CLIENT_ASSERTION),
                ("client_assertion", signed),
            ]
        case _ if settings.client_id:
            form = [*form, ("client_id", settings.client_id)]
    body = Secret(urlencode(form).encode())
    return await client.http(HttpRequest("POST", url, headers, body, settings.ca))


async def assertion(settings: OAuthSettings, issuer: str, subject: str, client: Client) -> str:
    """Return a signed statement of who we are (RFC 7523 section 3), good for ASSERTION_S.

    Raises:
        CredentialError: the key can't be read, or does not fit the algorithm.
    """
    pem = await secret_text(client, *settings.source, "the signing key")
    now_s = client.now_ms() // 1000
    claims = {
        "iss": issuer,
        "sub": subject,
        "aud": settings.assertion_audience,
        "iat": now_s,
        "exp": now_s + ASSERTION_S,
        "jti": client.random(JTI_BYTES).hex(),
    }
    headers = {"kid": settings.key_id} if settings.key_id else None
    try:
        return jwt.encode(claims, pem, settings.algorithm, headers)
    except (ValueError, TypeError, jwt.PyJWTError, UnsupportedAlgorithm, AttributeError):
        raise CredentialError(
            f"the signing key is no PEM of a private key for {settings.algorithm} without a "
            "passphrase",
            nothing_made=True,
        ) from None


def refused(reply: HttpReply, who: str) -> CredentialError:
    """Return what an answer that is no success means (RFC 6749 section 5.2)."""
    code = error_code(reply, who)
    error = refusal(reply, who, code, HINTS.get(code, ""))
    if code in _LATER:
        error.transient, error.nothing_made = True, False
    return error


def error_code(reply: HttpReply, who: str) -> str:
    """Return the error's code if it is one that we know, else ""."""
    try:
        code = text_of(object_of(reply, who), "error")
    except CredentialError:
        return ""
    return code if code in HINTS else ""
