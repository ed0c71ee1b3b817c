"""Refresh tokens: the operator's first one, and those that the server gives in its place.

A server may take a refresh token once only, and then ends the whole family (RFC 9700 section
4.14.2). So: one use at a time; the new one is on stable storage before the access token is used.
A crash between the server's answer and that storage loses it: the operator writes a new file,
which is seen by its hash, and counts from then on.
"""

import hashlib
import json

from agent.credentials.oauth2.settings import OAuthSettings
from agent.credentials.replies import secret_text
from agent.credentials.spec import Client
from agent.model.secret import Secret


async def current(settings: OAuthSettings, client: Client) -> tuple[str, str]:
    """Return the refresh token to use now, and the hash of the operator's.

    Raises:
        CredentialError: it can't be read.
    """
    seed = await secret_text(client, "file", settings.refresh_token_file, "the refresh token")
    digest = hashlib.sha256(seed.encode()).hexdigest()
    kept = client.held(settings.refresh_key)
    if kept is None:
        kept = await client.recall(settings.refresh_key)
    if kept is None:
        return seed, digest
    try:
        found = json.loads(kept.reveal())
        if found["of"] == digest and isinstance(found["token"], str) and found["token"]:
            return found["token"], digest
    except (ValueError, KeyError, TypeError):
        return seed, digest  # of another version, or cut: the operator's counts
    return seed, digest


async def replace(settings: OAuthSettings, digest: str, token: str, client: Client) -> None:
    """Keep what the server gave in its place: in memory too, for a disk that is full.

    Raises:
        CredentialError: it is not on stable storage.
    """
    record = Secret(json.dumps({"of": digest, "token": token}).encode())
    client.hold(settings.refresh_key, record)
    await client.remember(settings.refresh_key, record)
