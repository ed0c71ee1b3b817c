"""From a token to who its bearer is: every check, in one order, each with its name.

The form first, then the issuer (one that the loop names, or nothing is fetched), its pinned
algorithms and its key, the signature by PyJWT, what every token must say, and the policy's claims.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jwt

from agent.broker.identity.issuers import Issuers
from agent.broker.identity.refusal import Check, Unverified
from agent.broker.identity.standing import Standing, audience_of, check_standing
from agent.broker.identity.token import Parsed, parse_token
from agent.model.loop import TokenIdentity
from agent.policy.claims import missed
from agent.policy.schema import Issuer, Token

CLAIM_BYTES_MAX = 256  # of one that is recorded
CLAIMS_BYTES_MAX = 1_024  # of all of them, with their names


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that fits an entry of the policy. It is not used up yet (see Seen)."""

    identity: TokenIdentity
    fits: tuple[Token, ...]  # the entries
    digest: bytes
    issued_s: int
    expires_s: int  # as it says itself
    ends_s: int  # from then on no policy can take it
    reusable: bool


class Verifier:
    """All methods run on the event loop."""

    def __init__(self, issuers: Issuers, now_s: Callable[[], int]) -> None:
        self._issuers = issuers
        self._now_s = now_s

    async def verify(
        self, text: str, entries: tuple[Token, ...], issuers: Mapping[str, Issuer]
    ) -> Verified:
        """Return who shows this token; entries are the loop's, issuers the policy's by URL.

        Raises:
            Unverified: a check failed.
        """
        parsed = parse_token(text)
        issuer = _issuer(parsed, entries, issuers)
        if parsed.algorithm not in issuer.algorithms:
            pinned = ", ".join(issuer.algorithms)
            raise Unverified(Check.ALGORITHM, f"not one of {issuer.url}: {pinned}")
        key = await self._issuers.key(issuer, parsed.key_id, parsed.algorithm)
        _check_signature(parsed, key, issuer)
        standing = check_standing(parsed.claims, issuer, self._now_s())
        audience = audience_of(parsed.claims)
        _confirm(parsed, key, issuer, audience)
        mine = tuple(one for one in entries if one.issuer == issuer.url)
        for_us = tuple(one for one in mine if one.audience == audience)
        if not for_us:
            raise Unverified(Check.AUDIENCE, "aud is none that the loop's entries name")
        misses = [missed(one.claims, parsed.claims) for one in for_us]
        fits = tuple(one for one, miss in zip(for_us, misses, strict=True) if not miss)
        if not fits:
            names = ", ".join(sorted(set(misses)))
            raise Unverified(Check.CLAIMS, f"{issuer.url}: what does not match: {names}")
        return _verified(parsed, standing, issuer, fits, _recorded(parsed.claims, for_us))


def _issuer(parsed: Parsed, entries: tuple[Token, ...], issuers: Mapping[str, Issuer]) -> Issuer:
    url = parsed.claims.get("iss")
    if not isinstance(url, str):
        raise Unverified(Check.ISSUER, "iss is no text")
    if url not in {one.issuer for one in entries} or url not in issuers:
        raise Unverified(Check.ISSUER, "iss is none that the loop names")
    return issuers[url]


def _check_signature(parsed: Parsed, key: jwt.PyJWK, issuer: Issuer) -> None:
    try:
        jwt.PyJWS().decode_complete(parsed.text, key=key.key, algorithms=[parsed.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):  # their texts may quote the token
        raise Unverified(Check.SIGNATURE, f"not signed by {issuer.url}") from None


def _confirm(parsed: Parsed, key: jwt.PyJWK, issuer: Issuer, audience: str) -> None:
    """Have PyJWT read all of it too: nothing may be left to how one of us reads it."""
    try:
        found = jwt.decode(
            parsed.text,
            key.key,
            algorithms=[parsed.algorithm],
            audience=audience,
            issuer=issuer.url,
            options={  # times are checked by our clock
                "require": ["iss", "sub", "aud", "exp", "iat"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise Unverified(Check.PAYLOAD, f"PyJWT: {type(error).__name__}") from None
    if found != parsed.claims:
        raise Unverified(Check.PAYLOAD, "it has two meanings")


def _verified(
    parsed: Parsed,
    standing: Standing,
    issuer: Issuer,
    fits: tuple[Token, ...],
    recorded: tuple[tuple[str, str], ...],
) -> Verified:
    named = f"{issuer.url}\0{standing.token_id}".encode()
    return Verified(
        identity=TokenIdentity(issuer.url, standing.subject, recorded),
        fits=fits,
        digest=hashlib.sha256(named).digest() if standing.token_id else parsed.digest,
        issued_s=standing.issued_s,
        expires_s=standing.expires_s,
        ends_s=standing.ends_s,
        reusable=issuer.reusable,
    )


def _recorded(claims: dict[str, object], entries: tuple[Token, ...]) -> tuple[tuple[str, str], ...]:
    """Return the claims that these entries name, as text, within bounds."""
    names = sorted({claim.name for one in entries for claim in one.claims} & claims.keys())
    found: list[tuple[str, str]] = []
    left = CLAIMS_BYTES_MAX
    for name in names:
        value = claims[name]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text.encode()) > CLAIM_BYTES_MAX:
            text = text.encode()[: CLAIM_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"
        left -= len(name.encode()) + len(text.encode())
        if left < 0:
            break
        found.append((name, text))
    return tuple(found)
