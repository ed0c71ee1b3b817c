"""The part of a Kubernetes API server that makes tokens: bound to objects, and checked by them.

It does what these pages of kubernetes.io say: "TokenRequest" and "TokenReview" of the API reference
(v1), "Managing Service Accounts" (a bound token is refused once its object is gone, by uid; ten
minutes at least), "API Concepts" (dry run of a deletion, Status). A real server remembers a token
that it took for some 10 s more (its token cache); this one does not.
"""

import contextlib
import datetime as dt
import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.https import HERE, Answer, Asked, Https, Where, https_server

CANARY = "c4n4ry"
NAMESPACE, ACCOUNT = "jobs", "report-reader"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
TOKEN = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TOKEN_REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
REVIEWER = "own-token-of-an-application"  # an account that may create TokenReviews
_DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Bound:
    """A token's end, audiences, and the Secret that it dies with."""

    end_s: float
    audiences: tuple[str, ...]
    name: str
    uid: str


@dataclass(eq=False)
class Cluster:
    """What is there. own: the token that our account has now."""

    own: str = "own-token-1"
    secrets: dict[str, str] = field(default_factory=dict)  # name → uid
    tokens: dict[str, Bound] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)  # (verb, resource)
    binds: bool = True
    https: Https | None = None

    def alive(self, token: str) -> bool:
        """Whether TokenReview says that it is authenticated."""
        bound = self.tokens.get(token)
        if bound is None or bound.end_s <= time.time():
            return False
        return not bound.uid or self.secrets.get(bound.name) == bound.uid

    def respond(self, asked: Asked) -> Answer:
        """Answer a request."""
        path, _, query = asked.path.partition("?")
        if (asked.method, path) == ("POST", TOKEN_REVIEW):
            return self._reviewed(asked)
        if asked.headers.get("authorization") != f"Bearer {self.own}":
            return _status(401, "Unauthorized")
        content = json.loads(asked.body or b"{}")
        if asked.method == "POST" and path == REVIEW:
            return self._review(content["spec"]["resourceAttributes"])
        if not path.startswith((f"{SECRETS}/", SECRETS, TOKEN)):
            return _status(404, "NotFound")
        verb = {"POST": "create", "DELETE": "delete", "GET": "get"}[asked.method]
        if (verb, "token" if path == TOKEN else "secrets") in self.denied:
            return _status(403, "Forbidden")
        match asked.method, path:
            case "POST", path if path == TOKEN:
                return self._token(content)
            case "POST", path if path == SECRETS:
                return self._make(content)
            case "DELETE", _:
                return self._delete(path.rpartition("/")[2], "dryRun=All" in query)
        return _status(405, "MethodNotAllowed")

    def _reviewed(self, asked: Asked) -> Answer:
        """Say whose a token is, and for which of the audiences that are asked about."""
        if asked.headers.get("authorization") != f"Bearer {REVIEWER}":
            return _status(401, "Unauthorized")
        spec = json.loads(asked.body)["spec"]
        bound = self.tokens.get(spec["token"])
        audiences = [] if bound is None else [a for a in spec["audiences"] if a in bound.audiences]
        if not self.alive(spec["token"]) or not audiences:
            status: dict[str, object] = {"authenticated": False, "error": "invalid bearer token"}
        else:
            user = {"username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"}
            status = {"authenticated": True, "user": user, "audiences": audiences}
        return Answer(201, {"kind": "TokenReview", "status": status})

    def _review(self, attributes: dict[str, str]) -> Answer:
        what = attributes.get("subresource") or attributes["resource"]
        known = attributes["namespace"] == NAMESPACE
        known = known and attributes.get("name", ACCOUNT) == ACCOUNT
        allowed = known and (attributes["verb"], what) not in self.denied
        return Answer(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}})

    def _make(self, content: dict[str, object]) -> Answer:
        metadata = content["metadata"]
        assert isinstance(metadata, dict)
        name = metadata["name"]
        if not _DNS.fullmatch(name):
            return _status(422, "Invalid")
        if name in self.secrets:
            return _status(409, "AlreadyExists")
        self.secrets[name] = secrets.token_hex(16)
        made = {"kind": "Secret", "metadata": {**metadata, "uid": self.secrets[name]}}
        return Answer(201, made)

    def _delete(self, name: str, dry: bool) -> Answer:
        if name not in self.secrets:
            return _status(404, "NotFound")
        if not dry:
            del self.secrets[name]
        return Answer(200, {"kind": "Status", "status": "Success"})

    def _token(self, content: dict[str, object]) -> Answer:
        spec = content["spec"]
        assert isinstance(spec, dict)
        if spec["expirationSeconds"] < 600:
            return _status(422, "Invalid")
        bound = spec["boundObjectRef"]
        if self.secrets.get(bound["name"]) != bound["uid"]:
            return _status(409, "Conflict")
        end_s = time.time() + spec["expirationSeconds"]
        token = f"eyJ{CANARY}.{secrets.token_hex(16)}.x"
        uid = bound["uid"] if self.binds else ""
        self.tokens[token] = Bound(end_s, tuple(spec["audiences"]), bound["name"], uid)
        end = dt.datetime.fromtimestamp(end_s, dt.UTC)
        status = {"token": token, "expirationTimestamp": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
        spec = {**spec, "boundObjectRef": bound if self.binds else None}
        return Answer(201, {"kind": "TokenRequest", "spec": spec, "status": status})


def _status(code: int, reason: str) -> Answer:
    found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason}
    return Answer(code, found | {"code": code, "message": "words of the server"})


@contextlib.contextmanager
def cluster(folder: Path, where: Where = HERE) -> Iterator[Cluster]:
    """Run one until the test is done."""
    found = Cluster()
    with https_server(found.respond, folder, where) as https:
        found.https = https
        yield found
