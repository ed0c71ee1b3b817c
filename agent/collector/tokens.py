"""Join tokens: a JWT (ES256) that lets one host of this name enroll once, for a short time.

The token carries the collector's CA certificate itself: gRPC verifies by certificate, and a
host that has only a fingerprint would have to fetch the certificate from a server that it can't
verify yet.
"""

import base64
import datetime as dt
import os
from dataclasses import dataclass

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from agent.collector.authority import Authority

ALGORITHM = "ES256"
ISSUER = "loopwarden-collector"
AUDIENCE = "loopwarden-enroll"
TTL_S_MAX = 86_400
TOKEN_CHARACTERS_MAX = 8_192
_REQUIRED = ["iss", "aud", "sub", "jti", "iat", "exp", "ca"]


class TokenRefused(Exception):
    """The token is not valid here; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A verified token."""

    token_id: str
    host_name: str
    expires_ms: int


def create_token(authority: Authority, host_name: str, ttl_s: int, now_s: int) -> str:
    """Return a token for a host of this name.

    Raises:
        ValueError: the time to live is not within 1 s and a day.
    """
    if not 0 < ttl_s <= TTL_S_MAX:
        raise ValueError(f"a token lives for 1 to {TTL_S_MAX} seconds")
    der = authority.ca.public_bytes(serialization.Encoding.DER)
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": host_name,
        "jti": os.urandom(16).hex(),
        "iat": now_s,
        "exp": now_s + ttl_s,
        "ca": base64.b64encode(der).decode(),
    }
    return jwt.encode(claims, authority.token_key, algorithm=ALGORITHM)


def verify_token(authority: Authority, token: str) -> JoinToken:
    """Check signature, issuer, audience and expiry. Whether it was used is the store's to say.

    Raises:
        TokenRefused: with why.
    """
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise TokenRefused("the token is too long")
    try:
        claims = jwt.decode(
            token,
            authority.token_key.public_key(),
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"require": _REQUIRED},
        )
    except jwt.ExpiredSignatureError as error:
        raise TokenRefused("the token has expired: create a new one") from error
    except jwt.PyJWTError as error:
        raise TokenRefused("the token is not one of this collector's") from error
    return JoinToken(str(claims["jti"]), str(claims["sub"]), int(claims["exp"]) * 1000)


def ca_of(token: str) -> tuple[bytes, str]:
    """Return the CA (PEM) and host name in a token, as its holder reads it: not verified.

    Raises:
        TokenRefused: not a token of a collector.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        ca = x509.load_der_x509_certificate(base64.b64decode(claims["ca"], validate=True))
        name = claims["sub"]
    except (jwt.PyJWTError, KeyError, TypeError, ValueError, x509.InvalidVersion) as error:
        raise TokenRefused("this is not a collector's join token") from error
    return ca.public_bytes(serialization.Encoding.PEM), str(name)


def fingerprint(ca: x509.Certificate) -> str:
    """Return SHA-256 over the CA's DER, for people to compare."""
    return ca.fingerprint(hashes.SHA256()).hex(":")


def utc_now() -> dt.datetime:
    """Return the time for certificates."""
    return dt.datetime.now(dt.UTC)
