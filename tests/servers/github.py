"""GitHub's part of an app's installation: what its REST API answered, and tokens that die.

The bodies have the fields of real answers (API version 2022-11-28), and their size. It does what
these pages of docs.github.com say: "Generating a JSON Web Token for a GitHub App" (RS256, iat in
the past, exp within ten minutes), "Create an installation access token for an app" (narrowed, or
422; an hour), "Revoke an installation access token" (204, and 401 from then on), "List
repositories accessible to the app installation", "Getting started with the REST API" (403 without
User-Agent).
"""

import contextlib
import datetime as dt
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.https import HERE, Answer, Asked, Https, Where, https_server

CANARY = "c4n4ry"
BAD = {
    "message": "Bad credentials",
    "documentation_url": "https://docs.github.com/rest",
    "status": "401",
}
LEVELS = ["read", "write", "admin"]


@dataclass(eq=False)
class GitHub:
    """One app with one installation."""

    public_key: rsa.RSAPublicKey
    tokens: dict[str, float] = field(default_factory=dict)  # → its end
    granted: dict[str, str] = field(
        default_factory=lambda: {"contents": "write", "metadata": "read", "issues": "read"}
    )
    repositories: list[str] = field(default_factory=lambda: ["orders", "reports", "secret"])
    suspended: bool = False
    narrows: bool = True
    skew_s: float = 0.0  # of its clock
    last: dict[str, object] = field(default_factory=dict)  # what the last token is for
    https: Https | None = None

    def alive(self, token: str) -> bool:
        """Whether the API takes it."""
        return self.tokens.get(token, 0) > time.time()

    def respond(self, asked: Asked) -> Answer:
        """Answer a request."""
        _, _, token = asked.headers.get("authorization", "").partition(" ")
        if "user-agent" not in asked.headers:
            return Answer(403, {"message": "Request forbidden by administrative rules."})
        path = asked.path.partition("?")[0]
        match asked.method, path:
            case "POST", "/app/installations/77/access_tokens":
                return self._app(token) or self._token(json.loads(asked.body or b"{}"))
            case "GET", "/app/installations/77":
                suspended = "2026-01-01T00:00:00Z" if self.suspended else None
                found = {"id": 77, "permissions": self.granted, "suspended_at": suspended}
                return self._app(token) or Answer(200, found)
            case "GET", "/installation/repositories" if self.alive(token):
                found = {"total_count": 1, "repositories": [_repository("orders")]}
                return Answer(200, found)
            case "DELETE", "/installation/token" if self.alive(token):
                del self.tokens[token]
                return Answer(204)
            case _, "/installation/repositories" | "/installation/token":
                return Answer(401, BAD)
            case _ if self._app(token):
                return Answer(401, BAD)
        return Answer(404, {"message": "Not Found", "status": "404"})

    def _app(self, token: str) -> Answer | None:
        """Return a refusal unless this is the app's own statement, as GitHub bounds it."""
        now_s = time.time() + self.skew_s
        try:
            checks = {"verify_iat": False, "verify_exp": False, "require": ["iss", "iat", "exp"]}
            claims = jwt.decode(token, self.public_key, ["RS256"], options=checks)  # type: ignore[arg-type]
        except jwt.PyJWTError:
            return Answer(401, {"message": "A JSON web token could not be decoded"})
        if claims["iss"] != "12345" or claims["iat"] > now_s or claims["exp"] < now_s:
            return Answer(401, {"message": "'Issued at' claim ('iat') must be in the past"})
        if claims["exp"] > now_s + 600:
            return Answer(401, {"message": "'Expiration time' claim ('exp') is too far"})
        return None

    def _token(self, wanted: dict[str, object]) -> Answer:
        if self.suspended:
            return Answer(403, {"message": "This installation has been suspended"})
        permissions, names = self.granted, self.repositories
        if self.narrows:
            asked = wanted.get("permissions", self.granted)
            assert isinstance(asked, dict)
            for name, level in asked.items():
                have = self.granted.get(name)
                if have is None or LEVELS.index(level) > LEVELS.index(have):
                    return Answer(422, {"message": "The permissions requested are not granted"})
            permissions = {"metadata": "read", **asked}
            listed = wanted.get("repositories", self.repositories)
            assert isinstance(listed, list)
            if not set(listed) <= set(self.repositories):
                return Answer(422, {"message": "There is at least one repository that does not"})
            names = listed
        token = f"ghs_{CANARY}{secrets.token_hex(16)}"
        self.tokens[token] = time.time() + 3_600
        end = dt.datetime.fromtimestamp(time.time() + 3_600, dt.UTC)
        selected = self.narrows and "repositories" in wanted
        self.last = {"permissions": permissions, "repositories": names}
        found: dict[str, object] = {
            "token": token,
            "expires_at": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "permissions": permissions,
            "repository_selection": "selected" if selected else "all",
        }
        if selected:
            found["repositories"] = [_repository(name) for name in names]
        return Answer(201, found)


def _repository(name: str) -> dict[str, object]:
    """A repository as answers have it: 6 KB of URLs."""
    base = f"https://api.github.com/repos/octo/{name}"
    urls = {f"{index}_url": f"{base}/{'x' * 60}{{/sha}}" for index in range(48)}
    return {"id": 1, "name": name, "full_name": f"octo/{name}", "private": True, **urls}


@contextlib.contextmanager
def github_server(
    folder: Path, public_key: rsa.RSAPublicKey, where: Where = HERE
) -> Iterator[GitHub]:
    """Run one until the test is done."""
    github = GitHub(public_key)
    with https_server(github.respond, folder, where) as https:
        github.https = https
        yield github
