"""Issuers' keys, kept: fetched by discovery (OpenID Connect Discovery 1.0, section 4).

Keys are fetched again when they are `refresh` old, and once, at most every UNKNOWN_S, for a token
with an unknown key: so a new key is known at its first token, and a withdrawn one is used for
`refresh` at most. While the issuer can't be asked (at most every RETRY_S), kept keys are used
until they are `stale` old; then its tokens are refused. What is asked for, and whom, is the
policy's word: nothing of a token decides where we connect to. An issuer with a file of keys is
never asked (key_file.py).
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import jwt

from agent.broker.identity.key_file import KeyFiles
from agent.broker.identity.keys import BadKeys, Keys, parse_keys
from agent.broker.identity.refusal import Check, Unverified
from agent.policy.schema import Issuer

UNKNOWN_S = 10.0
RETRY_S = 5.0
FETCH_S = 8.0  # discovery and keys together
WELL_KNOWN = "/.well-known/openid-configuration"

logger = logging.getLogger(__name__)


class FetchFailed(Exception):
    """The issuer could not be asked, or its answer is none; the text is safe to log."""


# URL and the path of a CA file → the body of an answer 200; raises FetchFailed
Fetch = Callable[[str, str], Awaitable[bytes]]


@dataclass(slots=True)
class _Kept:
    """What is known of one issuer. Times are seconds of the clock that nobody sets."""

    issuer: Issuer
    keys: Keys | None = None
    fetched_s: float = 0.0
    tries: int = 0
    tried_s: float = 0.0
    asked_s: float | None = None  # for an unknown key
    problem: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Issuers:
    """All methods run on the event loop."""

    def __init__(self, fetch: Fetch, clock_s: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock_s = clock_s
        self._kept: dict[str, _Kept] = {}
        self._files = KeyFiles()

    async def key(self, issuer: Issuer, key_id: str, algorithm: str) -> jwt.PyJWK:
        """Return the issuer's key of this name for this algorithm.

        Raises:
            Unverified: KEYS_UNAVAILABLE, KEYS_STALE, KEY_UNKNOWN, KEY_UNFIT.
        """
        if issuer.jwks_file:
            return self._files.keys(issuer).find(key_id, algorithm)
        kept = self._kept.get(issuer.url)
        if kept is None or kept.issuer != issuer:
            kept = self._kept[issuer.url] = _Kept(issuer)
        now_s = self._clock_s()
        if kept.keys is None or now_s - kept.fetched_s >= min(issuer.refresh_s, issuer.stale_s):
            await self._refresh(kept, now_s)
        elif key_id not in kept.keys and self._may_ask(kept, now_s):
            kept.asked_s = now_s
            await self._refresh(kept, now_s)
        if kept.keys is None:
            raise Unverified(Check.KEYS_UNAVAILABLE, f"{issuer.url}: {kept.problem}")
        age_s = self._clock_s() - kept.fetched_s
        if age_s >= issuer.stale_s:
            why = f"{issuer.url}: its keys are {age_s:.0f} s old, and {kept.problem}"
            raise Unverified(Check.KEYS_STALE, why)
        return kept.keys.find(key_id, algorithm)

    def forget_others(self, issuers: Mapping[str, Issuer]) -> None:
        """Keep what is known of these issuers alone: the policy names no others any more."""
        for url in self._kept.keys() - issuers.keys():
            del self._kept[url]
        self._files.forget_others(frozenset(one.jwks_file for one in issuers.values()))

    def _may_ask(self, kept: _Kept, now_s: float) -> bool:
        return kept.asked_s is None or now_s - kept.asked_s >= UNKNOWN_S

    async def _refresh(self, kept: _Kept, now_s: float) -> None:
        """Fetch the keys; whoever comes meanwhile waits for the same answer."""
        tries = kept.tries
        async with kept.lock:
            if kept.tries != tries:
                return  # somebody asked while we waited
            if kept.problem and now_s - kept.tried_s < RETRY_S:
                return
            kept.tries += 1
            try:
                async with asyncio.timeout(FETCH_S):
                    keys = await self._ask(kept.issuer)
            except TimeoutError:
                kept.problem = f"no answer within {FETCH_S:.0f} s"
            except (FetchFailed, BadKeys) as error:
                kept.problem = str(error)
            else:
                kept.keys, kept.problem, kept.fetched_s = keys, "", self._clock_s()
            kept.tried_s = self._clock_s()
            if kept.problem:
                logger.warning("issuer %s: %s", kept.issuer.url, kept.problem)

    async def _ask(self, issuer: Issuer) -> Keys:
        url = issuer.url.removesuffix("/") + WELL_KNOWN
        raw = await self._fetch(url, issuer.ca)
        return parse_keys(await self._fetch(_keys_url(raw, issuer), issuer.ca))


def _keys_url(raw: bytes, issuer: Issuer) -> str:
    """Return where the keys are, if the document is this issuer's (section 4.3: exactly)."""
    try:
        found = cast("object", json.loads(raw.decode("utf-8")))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FetchFailed("its discovery document is no JSON object")
    if found.get("issuer") != issuer.url:
        raise FetchFailed("its discovery document names another issuer")
    url = found.get("jwks_uri")
    try:
        good = isinstance(url, str) and url.isascii() and url.isprintable()
        parts = urlsplit(url if good and isinstance(url, str) else "")
        good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None
        _ = parts.port
    except ValueError:
        good = False
    if not good or not isinstance(url, str):
        raise FetchFailed("its discovery document has no https jwks_uri")
    return url
