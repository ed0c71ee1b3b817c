"""Requests to the server, and what its answers mean.

Its errors are not what they seem (OpenBao http/logical.go): every error without a status of its own
is a 400, a dead database too. So a 400 of renew or revoke means nothing; a look-up decides.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.credentials.spec import Client, CredentialError, HttpRequest
from agent.credentials.vault.settings import VaultSettings
from agent.model.secret import Secret

REQUEST_S = 6.0  # a call of ours is cut off after 20 s, and makes one to four requests
SAID_CHARACTERS_MAX = 200
# sealed, standing by, rate limited, behind, uninitialized: ask again (sys/health's codes too)
LATER = frozenset({412, 429, 472, 473, 500, 501, 502, 503, 504})
GONE = ("invalid lease", "lease not found", "invalid accessor")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON object of an answer; date_ms is the server's clock, 0 when not told.

    errors: what the server said, without what repeats a secret of the request.
    """

    status: int
    tree: Mapping[str, Any]
    errors: tuple[str, ...]
    date_ms: int
    retry_after_s: float

    @property
    def good(self) -> bool:
        """Whether it was done (or, 202, queued)."""
        return 200 <= self.status < 300

    @property
    def says_gone(self) -> bool:
        """Whether the server knows no such lease or token."""
        return self.status in {400, 403, 404} and any(
            word in said for said in self.errors for word in GONE
        )

    def part(self, key: str) -> Mapping[str, Any]:
        """Return an object of the answer, empty when it is none."""
        found = self.tree.get(key)
        return found if isinstance(found, dict) else {}


async def send(
    settings: VaultSettings,
    client: Client,
    method: str,
    path: str,
    body: Mapping[str, object] | None,
    *secrets: Secret,
    token: Secret | None = None,
) -> Answer:
    """Send one request and return its answer, a refusal too. secrets: those in its body.

    Raises:
        CredentialError: there is none, or it is not the JSON of such a server.
    """
    headers: dict[str, str | Secret] = {"X-Vault-Request": "true"}
    if token is not None:
        headers["X-Vault-Token"] = token
    if settings.namespace:
        headers["X-Vault-Namespace"] = settings.namespace
    reply = await client.http(
        HttpRequest(
            method,
            f"{settings.url}/v1/{path}",
            headers,
            None if body is None else Secret(json.dumps(body).encode()),
            settings.ca,
            settings.allow_cleartext,
            REQUEST_S,
        )
    )
    try:
        tree = json.loads(reply.body.reveal() or b"{}")
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        if reply.status < 300:
            text = f"{settings.url} does not answer as a vault does"
            raise CredentialError(text, transient=True)
        tree = {}  # a balancer before it speaks HTML
    errors = _said(tree, secrets if token is None else (token, *secrets))
    retry_after_s = _seconds(reply.header("retry-after"))
    return Answer(reply.status, tree, errors, reply.date_ms, retry_after_s)


def refusal(
    settings: VaultSettings, answer: Answer, what: str, *, hint: str = ""
) -> CredentialError:
    """Return what to raise: what was asked, the status, and what the server said of it."""
    said = " ".join(" ".join(answer.errors).split())[:SAID_CHARACTERS_MAX]
    text = f"{settings.url} refuses to {what} ({answer.status}{': ' if said else ''}{said})"
    if hint:
        text += f": {hint}"
    return CredentialError(
        text, transient=answer.status in LATER, retry_after_s=answer.retry_after_s
    )


def number(value: object) -> int:
    """Return a count of seconds; what is none is 0."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value < 1 << 40 else 0


def _said(tree: Mapping[str, Any], secrets: tuple[Secret, ...]) -> tuple[str, ...]:
    found = tree.get("errors")
    words = [secret.reveal().decode("ascii", "replace") for secret in secrets]
    errors = map(str, found) if isinstance(found, list) else ()
    return tuple(said for said in errors if not any(word in said for word in words))


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0
