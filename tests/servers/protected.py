"""An API that takes a bearer token if the server that made it says, each time, that it is good.

Source: RFC 6750 (bearer tokens), RFC 7662 (introspection), Kubernetes' TokenReview.
"""

import base64
import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus, urlencode, urlsplit

from tests.servers.certificates import Authority
from tests.servers.https import Answer, Asked, Https, Where, https_server
from tests.servers.kubernetes import REVIEWER, TOKEN_REVIEW
from tests.servers.oauth import CLIENT, CLIENT_SECRET

ASK_S = 60.0
Check = Callable[[str], str]  # whose a token is, "" when it is not good (any more)


def ask(
    server: Https, method: str, path: str, headers: dict[str, str], body: str = ""
) -> tuple[int, dict[str, object]]:
    """Send one request over verified TLS; return status and the answer's object."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    context = ssl.create_default_context(cafile=server.ca)
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port, timeout=ASK_S, context=context
    )
    with contextlib.closing(connection):
        connection.request(method, path, body or None, {"User-Agent": "tests", **headers})
        answer = connection.getresponse()
        content = answer.read()
    found: dict[str, object] = json.loads(content) if content else {}
    return answer.status, found


def by_introspection(server: Https) -> Check:
    """Return a check that asks an authorisation server."""
    pair = f"{quote_plus(CLIENT)}:{quote_plus(CLIENT_SECRET)}".encode()
    headers = {
        "Authorization": f"Basic {base64.b64encode(pair).decode()}",
        "Content-Type": "application/x-www-form-urlencoded",
    }

    def check(token: str) -> str:
        form = urlencode({"token": token})
        status, found = ask(server, "POST", "/introspect", headers, form)
        assert status == 200
        return str(found["sub"]) if found["active"] is True else ""

    return check


def by_token_review(server: Https, audience: str) -> Check:
    """Return a check that asks a Kubernetes API server."""
    headers = {"Authorization": f"Bearer {REVIEWER}", "Content-Type": "application/json"}

    def check(token: str) -> str:
        review = {
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            "spec": {"token": token, "audiences": [audience]},
        }
        code, found = ask(server, "POST", TOKEN_REVIEW, headers, json.dumps(review))
        assert code == 201
        status = found["status"]
        assert isinstance(status, dict)
        if status["authenticated"] is not True or audience not in status["audiences"]:
            return ""
        return str(status["user"]["username"])

    return check


@dataclass(eq=False)
class Protected:
    """A running API. served: token and status of each request."""

    check: Check
    served: list[tuple[str, int]] = field(default_factory=list)
    https: Https | None = None

    def respond(self, asked: Asked) -> Answer:
        """Answer a request: whose the token is, and what was sent, as a careless API may."""
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        whose = self.check(token) if scheme == "Bearer" and token else ""
        self.served.append((token, 200 if whose else 401))
        if not whose:
            wrong = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            return Answer(401, {"error": "invalid_token"}, wrong)
        return Answer(200, {"path": asked.path, "for": whose, "headers": dict(asked.headers)})


@contextlib.contextmanager
def protected_api(
    check: Check, folder: Path, where: Where, authority: Authority | None = None
) -> Iterator[Protected]:
    """Run one until the test is done."""
    api = Protected(check)
    with https_server(api.respond, folder, where, authority) as https:
        api.https = https
        yield api
