"""A small real OpenID issuer over TLS: discovery, keys, and tokens as bad as a test asks."""

import base64
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.servers.certificates import Authority
from tests.servers.scripted import server_context

AUDIENCE = "loopwarden"
SUBJECT = "repo:acme/orders:ref:refs/heads/main"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return an RSA key; the same for the same number."""
    del number
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Return a P-256 key; the same for the same number."""
    del number
    return ec.generate_private_key(ec.SECP256R1())


@cache
def p384_key() -> ec.EllipticCurvePrivateKey:
    """Return a P-384 key."""
    return ec.generate_private_key(ec.SECP384R1())


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    """Return an Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: Private, key_id: str, algorithm: str) -> dict[str, Any]:
    """Return the public half as the issuer publishes it."""
    maker = jwt.get_algorithm_by_name(algorithm)
    found: dict[str, Any] = json.loads(maker.to_jwk(key.public_key()))
    fields = {name: found[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in found}
    return fields | {"kid": key_id, "alg": algorithm, "use": "sig"}


def part(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header: bytes, payload: bytes, key: Any, algorithm: str) -> str:
    """Return a token of these very bytes, signed."""
    signed = f"{part(header)}.{part(payload)}"
    maker = jwt.get_algorithm_by_name(algorithm)
    return f"{signed}.{part(maker.sign(signed.encode(), key))}"


@dataclass(eq=False)
class Issuer:
    """A running issuer. Change `keys`, `mode` and `document` as it runs."""

    url: str
    ca: Path
    keys: dict[str, tuple[str, Private]] = field(default_factory=dict)  # name → algorithm, key
    jwks: list[dict[str, Any]] | None = None  # instead of what keys say
    document: dict[str, Any] = field(default_factory=dict)  # changes of the discovery document
    mode: str = "good"  # or down, garbage, redirect, huge, slow, no-keys, keys-garbage
    now_s: int = 0  # 0: as the wall says
    asked: list[str] = field(default_factory=list)
    heard: threading.Event = field(default_factory=threading.Event)  # it was asked something
    released: threading.Event = field(default_factory=threading.Event)  # slow ends

    def claims(self, **changes: object) -> dict[str, object]:
        """Return the claims of a good token; a change to None takes one away."""
        now = self.now_s or int(time.time())
        self._number = getattr(self, "_number", 0) + 1
        good: dict[str, object] = {
            "iss": self.url, "aud": AUDIENCE, "sub": SUBJECT, "repository": "acme/orders",
            "iat": now, "nbf": now, "exp": now + 300, "jti": f"token-{self._number}",
        }  # fmt: skip
        return {key: value for key, value in (good | changes).items() if value is not None}

    def mint(
        self, key_id: str = "one", header: Mapping[str, object] | None = None, **changes: Any
    ) -> str:
        """Return a token of one of our keys."""
        algorithm, key = self.keys[key_id]
        head: dict[str, object] = {"alg": algorithm, "typ": "JWT", "kid": key_id, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        payload = json.dumps(self.claims(**changes)).encode()
        return sign(json.dumps(head).encode(), payload, key, algorithm)

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        self.asked.append(path)
        self.heard.set()
        if self.mode == "slow":
            self.released.wait(20)
        if self.mode in {"down", "redirect"}:
            return (503 if self.mode == "down" else 302), b"{}"
        if self.mode == "huge":
            return 200, b" " * (300 << 10) + b"{}"
        if self.mode == "garbage" or (self.mode == "keys-garbage" and path == KEYS):
            return 200, b"<html>sign in</html>"
        if path == DISCOVERY:
            found = {"issuer": self.url, "jwks_uri": self.url + KEYS, **self.document}
            return 200, json.dumps(found).encode()
        if path == KEYS:
            jwks = self.jwks
            if jwks is None:
                jwks = [public_jwk(key, name, alg) for name, (alg, key) in self.keys.items()]
            return 200, json.dumps({"keys": [] if self.mode == "no-keys" else jwks}).encode()
        return 404, b"{}"


class _Server(http.server.ThreadingHTTPServer):
    issuer: Issuer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is its own affair."""


class _Conversation(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        status, body = self.server.issuer.answer(self.path)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.issuer.url + KEYS)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def running_issuer(folder: Path, algorithm: str = "RS256") -> Iterator[Issuer]:
    """Run an issuer on a loopback address; its key "one" is of this algorithm."""
    authority = Authority("issuer")
    ca = folder / "issuer-ca.pem"
    ca.write_text(authority.pem)
    ca.chmod(0o644)
    server = _Server(("127.0.0.1", 0), _Conversation)
    context = server_context(authority.identity("127.0.0.1"))
    # each connection's thread makes the handshake: one that hangs holds nobody up
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    key: Private = rsa_key() if algorithm.startswith(("RS", "PS")) else ec_key()
    url = f"https://127.0.0.1:{server.server_port}"
    issuer = Issuer(url, ca, {"one": (algorithm, key)})
    server.issuer = issuer
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
