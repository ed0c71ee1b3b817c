"""An authorisation server: clients, grants, tokens that live and die, and who may ask of them.

It does what these say: RFC 6749 (clients, errors), RFC 8693 sections 2.1 and 2.2 (exchange), RFC
7523 section 3 (assertions: signature, iss, sub, aud, exp, one use of a jti), RFC 7009 section 2
(only the client that has a token ends it; 200 for one that is unknown), RFC 7662 section 2.
"""

import base64
import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers.https import HERE, Answer, Asked, Https, Where, https_server
from tests.servers.issuer import Issuer

CANARY = "c4n4ry"
CLIENT, CLIENT_SECRET = "robot", "s3cret: +/%é"
RUNS_AUDIENCE = "loopwarden"  # of an issuer's tokens that it takes
SUBJECT_TYPES = tuple(f"urn:ietf:params:oauth:token-type:{name}" for name in ("jwt", "id_token"))
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(eq=False)
class OAuth:
    """The server's books. tokens: access token → its end (time.time), and what it is for."""

    public_key: ec.EllipticCurvePublicKey
    tokens: dict[str, tuple[float, dict[str, str]]] = field(default_factory=dict)
    refresh: str = "first-refresh-token"
    rotates: bool = True
    reused: list[str] = field(default_factory=list)  # refresh tokens that came twice
    subject: str = "subject-token"
    # algorithm and key of an issuer that it trusts, by the issuer's URL
    trusted: dict[str, tuple[str, Any]] = field(default_factory=dict)
    exchanged: list[str] = field(default_factory=list)  # whose tokens it took: their sub
    subjects: dict[str, str] = field(default_factory=dict)  # whom each of its tokens is for
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, grant
    expires_in: object = 3_600
    token_type: str = "Bearer"
    revokes: bool = True
    seen: set[str] = field(default_factory=set)  # jti
    https: Https | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        assert self.https is not None
        return self.https.url

    def alive(self, token: str) -> bool:
        """Whether a resource server would take it."""
        return token in self.tokens and self.tokens[token][0] > time.time()

    def respond(self, asked: Asked) -> Answer:
        """Answer a request."""
        form = {key: values[0] for key, values in parse_qs(asked.body.decode()).items()}
        many = parse_qs(asked.body.decode())
        if asked.method != "POST":
            return Answer(405)
        known = self._knows(asked, form)
        self.asked.append((asked.path, form.get("grant_type", "")))
        match asked.path:
            case "/token" if form.get("grant_type") == JWT_BEARER and not known:
                return self._token(form, many)
            case _ if not known:
                return Answer(401, {"error": "invalid_client"}, {"WWW-Authenticate": "Basic"})
            case "/token":
                return self._token(form, many)
            case "/revoke" if not self.revokes:
                return Answer(400, {"error": "unsupported_token_type"})
            case "/revoke" | "/introspect" if not form.get("token"):
                return Answer(400, {"error": "invalid_request"})
            case "/revoke":
                self.tokens.pop(form["token"], None)
                return Answer(200)
            case "/introspect" if not self.alive(form["token"]):
                return Answer(200, {"active": False})
            case "/introspect":
                end_s, kept = self.tokens[form["token"]]
                found = {"active": True, "sub": self.subjects[form["token"]], "exp": int(end_s)}
                return Answer(200, {**kept, **found})
        return Answer(404)

    def _knows(self, asked: Asked, form: dict[str, str]) -> bool:
        basic = asked.headers.get("authorization", "")
        if basic.startswith("Basic "):
            user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            return (unquote_plus(user), unquote_plus(password)) == (CLIENT, CLIENT_SECRET)
        if "client_secret" in form:
            return (form["client_id"], form["client_secret"]) == (CLIENT, CLIENT_SECRET)
        if "client_assertion" in form:
            return self._signed(form["client_assertion"]) == (CLIENT, CLIENT)
        return form.get("client_id") == "public"

    def _signed(self, statement: str) -> tuple[str, str] | None:
        """Return issuer and subject of an assertion that is ours to believe, once."""
        try:
            claims = jwt.decode(
                statement,
                self.public_key,
                ["ES256"],
                audience=f"{self.url}/token",
                options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
            )
        except jwt.PyJWTError:
            return None
        if claims["jti"] in self.seen or claims["exp"] - claims["iat"] > 600:
            return None
        self.seen.add(claims["jti"])
        return claims["iss"], claims["sub"]

    def _takes(self, form: dict[str, str]) -> bool:
        return form["subject_token_type"] in SUBJECT_TYPES and self._trusts(form["subject_token"])

    def _trusts(self, token: str, *, once: bool = False) -> bool:
        """Whether a trusted issuer made it, for runs, and it has not expired."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False})["iss"]
            algorithm, key = self.trusted[issuer]
            claims = jwt.decode(
                token, key, [algorithm], issuer=issuer, audience=RUNS_AUDIENCE,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )  # fmt: skip
        except (jwt.PyJWTError, KeyError):
            return False
        if once and claims.get("jti") in self.seen:
            return False
        self.seen.add(claims.get("jti", ""))
        self.exchanged.append(claims["sub"])
        return True

    def trust(self, issuer: Issuer) -> None:
        """Take tokens of an issuer, by its key "one"."""
        algorithm, key = issuer.keys["one"]
        self.trusted[issuer.url] = algorithm, key.public_key()

    def _token(self, form: dict[str, str], many: dict[str, list[str]]) -> Answer:
        more: dict[str, object] = {}
        before = len(self.exchanged)
        match form.get("grant_type"):
            case "client_credentials":
                pass
            case "refresh_token":
                if form["refresh_token"] != self.refresh:
                    self.reused.append(form["refresh_token"])
                    return Answer(400, {"error": "invalid_grant", "error_description": CANARY})
                if self.rotates:
                    self.refresh = f"refresh-{secrets.token_hex(8)}"
                    more["refresh_token"] = self.refresh
            case grant if grant == EXCHANGE:
                if form["subject_token"] != self.subject and not self._takes(form):
                    return Answer(400, {"error": "invalid_grant"})
                more["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
            case grant if grant == JWT_BEARER:
                ours = self._signed(form["assertion"]) == ("issuer", "user@example")
                if not ours and not self._trusts(form["assertion"], once=True):
                    return Answer(400, {"error": "invalid_grant"})
            case _:
                return Answer(400, {"error": "unsupported_grant_type"})
        if "forbidden" in form.get("scope", "").split():
            return Answer(400, {"error": "invalid_scope"})
        token = f"{CANARY}-{secrets.token_hex(16)}"
        life = self.expires_in if isinstance(self.expires_in, int) else 3_600
        kept: dict[str, str] = {
            key: " ".join(many[key]) for key in ("scope", "audience", "resource") if key in many
        }
        self.tokens[token] = time.time() + life, kept
        self.subjects[token] = (self.exchanged[before:] or [CLIENT])[0]
        if self.expires_in is not None:
            more["expires_in"] = self.expires_in
        return Answer(200, {"access_token": token, "token_type": self.token_type, **more})


@contextlib.contextmanager
def oauth_server(
    folder: Path, public_key: ec.EllipticCurvePublicKey, where: Where = HERE
) -> Iterator[OAuth]:
    """Run one until the test is done."""
    books = OAuth(public_key)
    with https_server(books.respond, folder, where) as https:
        books.https = https
        yield books
