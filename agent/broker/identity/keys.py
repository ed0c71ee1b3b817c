"""An issuer's keys (RFC 7517): each for one algorithm family, found by its name alone.

Keys that can't check a signature here (symmetric, private, for encryption, too small) are as if
they were not there. Two keys of one name that both fit are none: a name says one key.
"""

import json
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from agent.broker.identity.refusal import Check, Unverified

KEYS_MAX = 100
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 8192
EXPONENT_BITS_MAX = 33
# algorithm → kty and crv (RFC 7518 section 3.1, RFC 8037)
FAMILIES = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
_PRIVATE = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_Jwk = dict[str, object]


class BadKeys(Exception):
    """What the issuer gave is no set of keys."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys by name."""

    named: dict[str, tuple[_Jwk, ...]]
    _made: dict[tuple[str, str], jwt.PyJWK] = field(default_factory=dict)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self.named

    def find(self, key_id: str, algorithm: str) -> jwt.PyJWK:
        """Return the key of this name, for this algorithm and no other.

        Raises:
            Unverified: KEY_UNKNOWN, KEY_UNFIT.
        """
        made = self._made.get((key_id, algorithm))
        if made is not None:
            return made
        some = self.named.get(key_id)
        if some is None:
            raise Unverified(Check.KEY_UNKNOWN, "the issuer has no key of that name")
        fitting = [one for one in some if _fits(one, algorithm)]
        if len(fitting) != 1:
            what = "is for another algorithm" if not fitting else "is there more than once"
            raise Unverified(Check.KEY_UNFIT, f"the key of that name {what}")
        key = _make(fitting[0], algorithm)
        self._made[key_id, algorithm] = key
        return key


def parse_keys(raw: bytes) -> Keys:
    """Return the keys that can check a signature.

    Raises:
        BadKeys: no JSON object with a list `keys`, more than KEYS_MAX, or none that is usable.
    """
    try:
        found = json.loads(raw.decode("utf-8"))
        listed = found["keys"]
    except (ValueError, RecursionError, TypeError, KeyError):
        raise BadKeys("no set of keys (RFC 7517 section 5)") from None
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise BadKeys(f"no list of at most {KEYS_MAX} keys")
    named: dict[str, tuple[_Jwk, ...]] = {}
    for one in listed:
        if isinstance(one, dict) and _is_usable(one):
            name = str(one["kid"])
            named[name] = (*named.get(name, ()), one)
    if not named:
        raise BadKeys("no key that can check a signature and has a name")
    return Keys(named)


def _is_usable(one: _Jwk) -> bool:
    operations = one.get("key_ops", ["verify"])
    return (
        isinstance(one.get("kid"), str)
        and (one.get("kty"), one.get("crv", "")) in FAMILIES.values()
        and _PRIVATE.isdisjoint(one)
        and one.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


def _fits(one: _Jwk, algorithm: str) -> bool:
    family = (one.get("kty"), one.get("crv", ""))
    return family == FAMILIES.get(algorithm) and one.get("alg", algorithm) == algorithm


def _make(one: _Jwk, algorithm: str) -> jwt.PyJWK:
    try:
        key = jwt.PyJWK(one, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise Unverified(Check.KEY_UNFIT, "the key of that name is damaged") from None
    if isinstance(key.key, RSAPublicKey):
        exponent = key.key.public_numbers().e
        if not RSA_BITS_MIN <= key.key.key_size <= RSA_BITS_MAX:
            raise Unverified(Check.KEY_UNFIT, f"an RSA key of {key.key.key_size} bits")
        if exponent.bit_length() > EXPONENT_BITS_MAX:
            raise Unverified(Check.KEY_UNFIT, "an RSA key of an uncommon exponent")
    return key
