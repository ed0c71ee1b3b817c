"""Requests to GitHub's REST API as an app, or with a token.

Source: GitHub REST API 2022-11-28, "Apps" and "Authenticating as a GitHub App".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from agent.credentials.replies import refusal, secret_text
from agent.credentials.settings import check_settings
from agent.credentials.spec import (
    HTTP_BODY_BYTES_MAX,
    Client,
    CredentialError,
    HttpReply,
    HttpRequest,
)
from agent.model.secret import Secret
from agent.policy.declared import items_of, source_of
from agent.policy.parse_github_app import GITHUB_APP

API_URL = "https://api.github.com"
BEFORE_S, AFTER_S = 60, 540  # iat and exp around now: GitHub takes 10 minutes, and no future iat
WHO = "GitHub"
HINTS = {
    401: "it does not take the app's key: compare app_id, the key, and this host's clock",
    403: "the installation is suspended, or a rate limit is reached",
    404: "there is no such installation of this app: compare installation_id and api_url",
    422: "the installation has not all of these repositories and permissions",
}


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Checked. Without repositories or permissions a token has all that the installation has."""

    app_id: str
    installation_id: str
    source: tuple[str, str]
    api_url: str
    ca: str
    repositories: tuple[str, ...]
    permissions: dict[str, str]

    @property
    def installation(self) -> str:
        """Its path."""
        return f"/app/installations/{self.installation_id}"


def read_settings(settings: Mapping[str, str]) -> AppSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    check_settings("github_app", settings, GITHUB_APP)
    pairs = [each.partition(":") for each in items_of(settings, "permissions")]
    return AppSettings(
        settings["app_id"],
        settings["installation_id"],
        source_of(settings),
        settings.get("api_url", API_URL).rstrip("/"),
        settings.get("ca", ""),
        items_of(settings, "repositories"),
        {name: level for name, _, level in pairs},
    )


async def as_app(
    settings: AppSettings, method: str, path: str, content: object, client: Client
) -> HttpReply:
    """Ask as the app itself (RS256, good for less than ten minutes).

    Raises:
        CredentialError: no answer, or the key can't be used.
    """
    pem = await secret_text(client, *settings.source, "the app's private key")
    now_s = client.now_ms() // 1000
    claims = {"iss": settings.app_id, "iat": now_s - BEFORE_S, "exp": now_s + AFTER_S}
    try:
        signed = jwt.encode(claims, pem, "RS256")
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError, UnsupportedAlgorithm):
        text = "the app's private key is no PEM of an RSA key without a passphrase"
        raise CredentialError(text, nothing_made=True) from None
    return await ask(settings, method, path, content, Secret(signed.encode()), client)


async def ask(
    settings: AppSettings, method: str, path: str, content: object, token: Secret, client: Client
) -> HttpReply:
    """Ask with a token; content None for no body.

    Raises:
        CredentialError: no answer.
    """
    headers: dict[str, str | Secret] = {
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "Authorization": Secret(b"Bearer " + token.reveal()),
    }
    body = None
    if content is not None:
        headers["Content-Type"] = "application/json"
        body = Secret(json.dumps(content).encode())
    return await client.http(
        HttpRequest(
            method,
            settings.api_url + path,
            headers,
            body,
            settings.ca,
            body_bytes_max=HTTP_BODY_BYTES_MAX,  # an answer has all of each repository: 6 KB each
        )
    )


def refused(reply: HttpReply) -> CredentialError:
    """Return what an answer that is no success means; a rate limit passes (403 or 429)."""
    error = refusal(reply, WHO, "", HINTS.get(reply.status, ""))
    if reply.status == 403 and (
        error.retry_after_s or reply.header("x-ratelimit-remaining") == "0"
    ):
        error.transient = True
    return error
