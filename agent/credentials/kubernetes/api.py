"""Requests to a Kubernetes API server with our own token, which is read anew each time.

Source: Kubernetes API reference v1 (TokenRequest, Secret), API concepts (dry-run, Status).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from agent.credentials.replies import refusal, secret_text
from agent.credentials.settings import check_settings
from agent.credentials.spec import Client, CredentialError, HttpReply, HttpRequest, Wanted
from agent.model.secret import Secret
from agent.policy.declared import items_of, source_of
from agent.policy.parse_kubernetes import KUBERNETES

WHO = "the API server"
HINTS = {
    401: "it does not take our own token: is it of this cluster, and not expired?",
    403: "our own account may not do this: see the roles in agent/credentials/kubernetes/README.md",
    404: "there is no such namespace or service account",
}


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Checked. Without audiences a token is for the API server itself."""

    server: str
    ca: str
    source: tuple[str, str]
    namespace: str
    service_account: str
    audiences: tuple[str, ...]

    @property
    def secrets(self) -> str:
        """The path of the namespace's Secrets."""
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    @property
    def token(self) -> str:
        """The path of TokenRequest."""
        return f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{self.service_account}/token"


def read_settings(settings: Mapping[str, str]) -> ClusterSettings:
    """Check and return the settings.

    Raises:
        CredentialError: one is missing, unknown or wrong.
    """
    check_settings("kubernetes", settings, KUBERNETES)
    return ClusterSettings(
        settings["server"].rstrip("/"),
        settings.get("ca", ""),
        source_of(settings),
        settings["namespace"],
        settings["service_account"],
        items_of(settings, "audiences"),
    )


def object_name(wanted: Wanted) -> str:
    """Return the name of the Secret that a lease's token is bound to: from the lease's id alone."""
    return f"loopwarden-{wanted.lease_id.lower()}"


async def ask(
    settings: ClusterSettings, method: str, path: str, content: object, client: Client
) -> HttpReply:
    """Send JSON, and return whatever is answered.

    Raises:
        CredentialError: no answer, or our own token can't be read.
    """
    token = await secret_text(client, *settings.source, "our own token")
    headers: dict[str, str | Secret] = {
        "Accept": "application/json",
        "Authorization": Secret(b"Bearer " + token.encode()),
        "Content-Type": "application/json",
    }
    body = Secret(json.dumps(content).encode())
    return await client.http(
        HttpRequest(method, settings.server + path, headers, body, settings.ca)
    )


def refused(reply: HttpReply) -> CredentialError:
    """Return what an answer that is no success means."""
    return refusal(reply, WHO, "", HINTS.get(reply.status, ""))
