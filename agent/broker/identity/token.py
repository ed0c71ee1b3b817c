"""A compact JWS (RFC 7515, 7519), taken apart strictly, before anything of it is believed.

One text has one meaning here: no padding, no spaces, no spare bits in base64url, no key twice, no
numbers that are none. What PyJWT reads later is what was read here.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass

import msgspec

from agent.broker.identity.refusal import Check, Unverified

TOKEN_BYTES_MAX = 16_384
DEPTH_MAX = 16  # of header and payload
KEY_ID_CHARACTERS_MAX = 256
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
_KEY_ID = re.compile(rf"[!-~]{{1,{KEY_ID_CHARACTERS_MAX}}}")
# they name a key, or change what is signed; keys come from the issuer, and all of it is signed
FORBIDDEN = frozenset(
    ("crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc", "epk", "apu", "apv", "p2s", "p2c",
     "cty", "iv", "tag")
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Parsed:
    """Nothing of it is verified. digest is of what is signed: a signature has many forms."""

    text: str
    algorithm: str
    key_id: str
    claims: dict[str, object]
    digest: bytes


def parse_token(text: str) -> Parsed:
    """Return the parts.

    Raises:
        Unverified: SIZE, FORM, HEADER, PAYLOAD.
    """
    if len(text) > TOKEN_BYTES_MAX:
        raise Unverified(Check.SIZE, f"more than {TOKEN_BYTES_MAX} bytes")
    found = _PARTS.fullmatch(text)
    if found is None:
        parts = text.count(".") + 1
        what = "encrypted tokens are not taken" if parts == 5 else "not three base64url parts"
        raise Unverified(Check.FORM, what)
    header = _object(_decode(found[1]), Check.HEADER)
    algorithm, key_id = _header(header)
    claims = _object(_decode(found[2]), Check.PAYLOAD)
    _decode(found[3])
    signed = text.rpartition(".")[0]
    return Parsed(text, algorithm, key_id, claims, hashlib.sha256(signed.encode()).digest())


def _decode(part: str) -> bytes:
    """Decode the one text that encodes these bytes (RFC 4648, 3.5 and 5)."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise Unverified(Check.FORM, "a part is no base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise Unverified(Check.FORM, "a part has spare bits")
    return raw


def _object(raw: bytes, check: Check) -> dict[str, object]:
    try:
        msgspec.json.decode(raw)  # strict in what json lets pass: lone surrogates, control letters
        found = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except RecursionError:
        raise Unverified(check, f"nested deeper than {DEPTH_MAX}") from None
    except (ValueError, msgspec.MsgspecError):  # their texts quote the input
        raise Unverified(check, "no JSON, or a key twice") from None
    if not isinstance(found, dict):
        raise Unverified(check, "no JSON object")
    if not _is_shallow(found):
        raise Unverified(check, f"nested deeper than {DEPTH_MAX}")
    return found


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(_: str) -> object:
    raise ValueError("no number")


def _is_shallow(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(DEPTH_MAX):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return True
        level = below
    return not any(isinstance(one, dict | list) for one in level)


def _header(header: dict[str, object]) -> tuple[str, str]:
    forbidden = sorted(FORBIDDEN.intersection(header))
    if forbidden:
        raise Unverified(Check.HEADER, f"it has {', '.join(forbidden)}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise Unverified(Check.HEADER, "typ is not JWT")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Unverified(Check.HEADER, "alg is no text")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        text = f"kid is no text of 1 to {KEY_ID_CHARACTERS_MAX} visible characters"
        raise Unverified(Check.HEADER, text)
    return algorithm, key_id
