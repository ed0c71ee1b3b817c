"""Tokens that must be refused, and the check that refuses each: the attacks of the field.

Each is made by a function of the rig, so that it is fresh and as good as it can be but for the
one thing that is wrong with it.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from agent.broker.identity.refusal import Check
from agent.broker.identity.standing import SUBJECT_BYTES_MAX, TOKEN_ID_BYTES_MAX
from agent.broker.identity.token import DEPTH_MAX, TOKEN_BYTES_MAX
from tests.servers.issuer import AUDIENCE, Issuer, part, public_jwk, rsa_key, sign

Make = Callable[[Issuer], str]
FORGED: dict[str, tuple[Check, Make]] = {}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def add(name: str, check: Check, make: Make) -> None:
    """Add one; names are unique."""
    assert name not in FORGED
    FORGED[name] = (check, make)


def _parts(issuer: Issuer, key_id: str = "one") -> list[str]:
    return issuer.mint(key_id).split(".")


def _header(issuer: Issuer, **changes: Any) -> str:
    """A good token's claims below another header, signed all the same."""
    return issuer.mint(header=changes)


def _raw(issuer: Issuer, header: bytes | None = None, payload: bytes | None = None) -> str:
    """Bytes as header or payload, signed by the issuer's own key."""
    algorithm, key = issuer.keys["one"]
    head = header if header is not None else b'{"alg":"RS256","kid":"one"}'
    body = payload if payload is not None else json.dumps(issuer.claims()).encode()
    return sign(head, body, key, algorithm)


def _claims_text(issuer: Issuer, old: str, new: str, **changes: Any) -> str:
    """A payload of which one piece of text is another, signed."""
    text = json.dumps(issuer.claims(**changes))
    assert old in text
    return _raw(issuer, payload=text.replace(old, new, 1).encode("utf-8", "surrogatepass"))


# --- no signature, or one that anybody can make ---------------------------------------------------

for _none in ("none", "None", "NONE", "nOnE", "", "none ", "null"):
    add(
        f"alg {_none!r}, no signature",
        Check.FORM,
        lambda issuer, alg=_none: ".".join(  # type: ignore[misc]
            (part(json.dumps({"alg": alg, "kid": "one"}).encode()), _parts(issuer)[1], "")
        ),
    )
    add(
        f"alg {_none!r}, a signature of another token",
        Check.ALGORITHM,
        lambda issuer, alg=_none: ".".join(  # type: ignore[misc]
            (part(json.dumps({"alg": alg, "kid": "one"}).encode()), *_parts(issuer)[1:])
        ),
    )


def _hmac(issuer: Issuer, secret: bytes, algorithm: str = "HS256") -> str:
    """HMAC with what everybody knows (CVE-2015-9235); PyJWT's own signer refuses such a key."""
    header = part(json.dumps({"alg": algorithm, "kid": "one", "typ": "JWT"}).encode())
    signed = f"{header}.{part(json.dumps(issuer.claims()).encode())}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{signed}.{part(hmac.new(secret, signed.encode(), digest).digest())}"


def _public(issuer: Issuer, encoding: str, form: str) -> bytes:
    key = issuer.keys["one"][1].public_key()
    return key.public_bytes(
        getattr(serialization.Encoding, encoding), getattr(serialization.PublicFormat, form)
    )


for _algorithm in ("HS256", "HS384", "HS512"):
    add(
        f"{_algorithm} with the public key",
        Check.ALGORITHM,
        lambda issuer, alg=_algorithm: _hmac(  # type: ignore[misc]
            issuer, _public(issuer, "PEM", "SubjectPublicKeyInfo"), alg
        ),
    )
add(
    "HS256 with the public key in DER",
    Check.ALGORITHM,
    lambda issuer: _hmac(issuer, _public(issuer, "DER", "SubjectPublicKeyInfo")),
)
add(
    "HS256 with the public key as PKCS#1",
    Check.ALGORITHM,
    lambda issuer: _hmac(issuer, _public(issuer, "PEM", "PKCS1")),
)
add(
    "HS256 with the JWK's modulus",
    Check.ALGORITHM,
    lambda issuer: _hmac(issuer, public_jwk(issuer.keys["one"][1], "one", "RS256")["n"].encode()),
)
add("HS256 with an empty secret", Check.ALGORITHM, lambda issuer: _hmac(issuer, b""))
add("no signature at all", Check.FORM, lambda issuer: ".".join(_parts(issuer)[:2]))
add("an empty signature", Check.FORM, lambda issuer: ".".join((*_parts(issuer)[:2], "")))
add("another key's signature", Check.SIGNATURE,
    lambda issuer: sign(b'{"alg":"RS256","kid":"one"}', json.dumps(issuer.claims()).encode(),
                        rsa_key(9), "RS256"))  # fmt: skip
add(
    "zeros for an RSA signature",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer)[:2], part(bytes(256)))),
)
add("an RSA signature cut short", Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer)[:2], part(base64.urlsafe_b64decode(
        _parts(issuer)[2] + "==")[:-1]))))  # fmt: skip
add(
    "garbage of PKCS#1 padding",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer)[:2], part(b"\x00\x01" + b"\xff" * 254))),
)
add(
    "a signature that is 1",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer)[:2], part(bytes(255) + b"\x01"))),
)
add(
    "a long signature",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer)[:2], part(b"\xff" * 4_000))),
)


def _ec(issuer: Issuer, r: int, s: int) -> str:
    return ".".join(
        (*_parts(issuer, "ec")[:2], part(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    )


add("ES256 of zeros (CVE-2022-21449)", Check.SIGNATURE, lambda issuer: _ec(issuer, 0, 0))
add("ES256 with r of zero", Check.SIGNATURE, lambda issuer: _ec(issuer, 0, 1))
add("ES256 with s of zero", Check.SIGNATURE, lambda issuer: _ec(issuer, 1, 0))
add(
    "ES256 of the curve's order",
    Check.SIGNATURE,
    lambda issuer: _ec(issuer, P256_ORDER, P256_ORDER),
)
add(
    "ES256 in DER",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer, "ec")[:2], part(encode_dss_signature(1, 1)))),
)
add(
    "ES256 of 63 bytes",
    Check.SIGNATURE,
    lambda issuer: ".".join((*_parts(issuer, "ec")[:2], part(bytes(63)))),
)

# --- the header names a key, or changes the rules -------------------------------------------------

_OWN = {"alg": "RS256", "kid": "mine"}


def _own_key(issuer: Issuer, **extra: Any) -> str:
    """Signed by the attacker, who brings the key along."""
    head = json.dumps({**_OWN, **extra}).encode()
    return sign(head, json.dumps(issuer.claims()).encode(), rsa_key(9), "RS256")


add(
    "an embedded jwk (CVE-2018-0114)",
    Check.HEADER,
    lambda issuer: _own_key(issuer, jwk=public_jwk(rsa_key(9), "mine", "RS256")),
)
add("a jku", Check.HEADER, lambda issuer: _own_key(issuer, jku="https://evil.example/keys"))
add("a jku of the issuer", Check.HEADER, lambda issuer: _header(issuer, jku=issuer.url + "/keys"))
add("an x5u", Check.HEADER, lambda issuer: _own_key(issuer, x5u="https://evil.example/cert"))
add("an x5c", Check.HEADER, lambda issuer: _own_key(issuer, x5c=["MIIB"]))
add("crit", Check.HEADER, lambda issuer: _header(issuer, crit=["exp"], exp=1 << 40))
add("an empty crit", Check.HEADER, lambda issuer: _header(issuer, crit=[]))
add("b64 of false", Check.HEADER, lambda issuer: _header(issuer, b64=False, crit=["b64"]))
add("zip", Check.HEADER, lambda issuer: _header(issuer, zip="DEF"))
add("a nested token", Check.HEADER, lambda issuer: _header(issuer, cty="JWT"))
add("p2c, to burn time", Check.HEADER, lambda issuer: _header(issuer, p2c=1 << 31))
add("typ of an access token", Check.HEADER, lambda issuer: _header(issuer, typ="at+jwt"))
add("typ of a security event", Check.HEADER, lambda issuer: _header(issuer, typ="secevent+jwt"))
add("typ is no text", Check.HEADER, lambda issuer: _header(issuer, typ=["JWT"]))
add("alg is a list", Check.HEADER, lambda issuer: _header(issuer, alg=["RS256"]))
add("alg is missing", Check.HEADER, lambda issuer: _raw(issuer, header=b'{"kid":"one"}'))
add("alg in small letters", Check.ALGORITHM, lambda issuer: _header(issuer, alg="rs256"))
add("alg with a space", Check.ALGORITHM, lambda issuer: _header(issuer, alg="RS256 "))
add(
    "alg twice",
    Check.HEADER,
    lambda issuer: _raw(issuer, header=b'{"alg":"none","alg":"RS256","kid":"one"}'),
)
add("PS256 for an RS256 key", Check.ALGORITHM, lambda issuer: _header(issuer, alg="PS256"))
add("ES256 for an RSA key", Check.KEY_UNFIT, lambda issuer: _header(issuer, alg="ES256"))
add("RS256 for an EC key", Check.KEY_UNFIT, lambda issuer: _header(issuer, kid="ec"))
add("no kid", Check.HEADER, lambda issuer: _header(issuer, kid=None))
add("kid is a number", Check.HEADER, lambda issuer: _header(issuer, kid=1))
add("kid is an object", Check.HEADER, lambda issuer: _header(issuer, kid={"$ne": None}))
add("kid is empty", Check.HEADER, lambda issuer: _header(issuer, kid=""))
add("kid is too long", Check.HEADER, lambda issuer: _header(issuer, kid="k" * 257))
add("kid of another key", Check.KEY_UNFIT, lambda issuer: _header(issuer, kid="ec"))
for _kid in ("../../../../dev/null", "/etc/passwd", "one'--", "x'UNION/**/SELECT/**/'a", "one|id",
             "$(id)", "http://evil.example/k", "One", "on", "*", "%6fne"):  # fmt: skip
    add(f"kid {_kid}", Check.KEY_UNKNOWN, lambda issuer, kid=_kid: _header(issuer, kid=kid))  # type: ignore[misc]
for _kid in ("one\0", "one\n", "one ", " one", "\u043ene"):
    add(f"kid {_kid!r}", Check.HEADER, lambda issuer, kid=_kid: _header(issuer, kid=kid))  # type: ignore[misc]

# --- one text, two meanings -----------------------------------------------------------------------

add(
    "a claim twice",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub":', '"sub": "repo:evil", "sub":'),
)
add(
    "a claim twice, once escaped",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub":', '"s\\u0075b": "repo:evil", "sub":'),
)
add(
    "a claim twice, deep below",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub":', '"x": [{"a": 1, "a": 2}], "sub":'),
)
add("padding", Check.FORM, lambda issuer: issuer.mint() + "=")
add("padding inside", Check.FORM, lambda issuer: "=.".join(issuer.mint().split(".", 1)))
add("a newline at the end", Check.FORM, lambda issuer: issuer.mint() + "\n")
add("a space before", Check.FORM, lambda issuer: " " + issuer.mint())
add("a newline inside", Check.FORM, lambda issuer: issuer.mint().replace(".", "\n.", 1))
add("the other base64 alphabet", Check.FORM, lambda issuer: "+/".join((issuer.mint()[:-2], "")))
add("a NUL", Check.FORM, lambda issuer: issuer.mint() + "\0")
add("a letter that is no ASCII", Check.FORM, lambda issuer: issuer.mint()[:-1] + "\u017f")
add("four parts", Check.FORM, lambda issuer: issuer.mint() + ".x")
add("an encrypted token (JWE)", Check.FORM, lambda issuer: issuer.mint() + ".x.x")
add("the JSON form of a JWS", Check.FORM,
    lambda issuer: json.dumps(dict(zip(("protected", "payload", "signature"), _parts(issuer),
                                       strict=True))))  # fmt: skip
add("Bearer before it", Check.FORM, lambda issuer: "Bearer " + issuer.mint())
add("empty", Check.FORM, lambda issuer: "")
add("two points", Check.FORM, lambda issuer: "..")
add(
    "a length that no base64 has",
    Check.FORM,
    lambda issuer: ".".join((_parts(issuer)[0], "A" * 9, "AAAA")),
)


def _spare_bits(issuer: Issuer) -> str:
    """Another last letter for the same bytes of the signature: 256 bytes leave four bits."""
    token = issuer.mint()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) ^ 1]


add("spare bits in the signature", Check.FORM, _spare_bits)
add("one byte too long", Check.SIZE, lambda issuer: "a" * (TOKEN_BYTES_MAX + 1))
add("a large claim", Check.SIZE, lambda issuer: issuer.mint(x="a" * TOKEN_BYTES_MAX))
add("a header that is a list", Check.HEADER, lambda issuer: _raw(issuer, header=b"[]"))
add(
    "a header of two objects",
    Check.HEADER,
    lambda issuer: _raw(issuer, header=b'{"alg":"RS256","kid":"one"}{}'),
)
add(
    "a header with a byte order mark",
    Check.HEADER,
    lambda issuer: _raw(issuer, header=b'\xef\xbb\xbf{"alg":"RS256","kid":"one"}'),
)
add(
    "a header in UTF-16",
    Check.HEADER,
    lambda issuer: _raw(issuer, header='{"alg":"RS256","kid":"one"}'.encode("utf-16")),
)
add("a payload that is a text", Check.PAYLOAD, lambda issuer: _raw(issuer, payload=b'"a"'))
add("a payload that is no JSON", Check.PAYLOAD, lambda issuer: _raw(issuer, payload=b"{'a':1}"))
add(
    "a payload with a comma too much", Check.PAYLOAD, lambda issuer: _claims_text(issuer, "}", ",}")
)
add(
    "a payload that is no UTF-8",
    Check.PAYLOAD,
    lambda issuer: _raw(issuer, payload=b'{"a":"\xff"}'),
)
add(
    "a lone surrogate",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub": "', '"sub": "\\ud800'),
)
add("NaN", Check.PAYLOAD, lambda issuer: _claims_text(issuer, '"sub"', '"x": NaN, "sub"'))
add(
    "a number of 5,000 digits",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub"', f'"x": {"9" * 5_000}, "sub"'),
)
add(
    "nested deep",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub"', f'"x": {"[" * 5_000}{"]" * 5_000}, "sub"'),
)
add(
    "nested one too deep",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"sub"', f'"x": {"[" * DEPTH_MAX}{"]" * DEPTH_MAX}, "sub"'),
)

# --- for somebody else, or of somebody else -------------------------------------------------------


def _of(name: str, check: Check, **changes: Any) -> None:
    add(name, check, lambda issuer: issuer.mint(**changes))


add("iss with a slash behind", Check.ISSUER, lambda issuer: issuer.mint(iss=issuer.url + "/"))
add("iss in capitals", Check.ISSUER, lambda issuer: issuer.mint(iss=issuer.url.upper()))
add("iss with a port", Check.ISSUER, lambda issuer: issuer.mint(iss=issuer.url + ":443"))
add(
    "iss as the beginning of another",
    Check.ISSUER,
    lambda issuer: issuer.mint(iss=issuer.url + ".evil.example"),
)
add("iss as a list", Check.ISSUER, lambda issuer: issuer.mint(iss=[issuer.url]))
add("iss with a newline", Check.ISSUER, lambda issuer: issuer.mint(iss=issuer.url + "\n"))
_of("another iss", Check.ISSUER, iss="https://evil.example")
_of("no iss", Check.ISSUER, iss=None)
_of("iss is null in text", Check.ISSUER, iss="null")
_of("another aud", Check.AUDIENCE, aud="other")
_of("no aud", Check.AUDIENCE, aud=None)
_of("aud is empty", Check.AUDIENCE, aud="")
_of("aud is an empty list", Check.AUDIENCE, aud=[])
_of("aud is for several", Check.AUDIENCE, aud=[AUDIENCE, "other"])
_of("aud is for several, ours last", Check.AUDIENCE, aud=["other", AUDIENCE])
_of("aud is ours twice", Check.AUDIENCE, aud=[AUDIENCE, AUDIENCE])
_of("aud is a list in a list", Check.AUDIENCE, aud=[[AUDIENCE]])
_of("aud is an object", Check.AUDIENCE, aud={AUDIENCE: True})
_of("aud is true", Check.AUDIENCE, aud=True)
_of("aud is a text that looks like a list", Check.AUDIENCE, aud=f'["{AUDIENCE}"]')
_of("aud has ours inside", Check.AUDIENCE, aud=f"not-{AUDIENCE}")
_of("aud with a space", Check.AUDIENCE, aud=f"{AUDIENCE} ")
_of("aud in capitals", Check.AUDIENCE, aud=AUDIENCE.upper())
_of("no sub", Check.SUBJECT, sub=None)
_of("sub is empty", Check.SUBJECT, sub="")
_of("sub is a list", Check.SUBJECT, sub=["repo:acme/orders:ref:refs/heads/main"])
_of("sub is a number", Check.SUBJECT, sub=7)
_of("sub with a newline", Check.SUBJECT, sub="repo:acme/orders:ref:refs/heads/main\n")
_of("sub that is written backwards", Check.SUBJECT, sub="\u202erepo")
_of("sub is too long", Check.SUBJECT, sub="s" * (SUBJECT_BYTES_MAX + 1))
_of("another sub", Check.CLAIMS, sub="repo:evil/orders:ref:refs/heads/main")
_of(
    "sub with a letter of another alphabet",
    Check.CLAIMS,
    sub="repo:\u0430cme/orders:ref:refs/heads/main",
)
_of("sub in full-width letters", Check.CLAIMS, sub="repo:\uff41cme/orders:ref:refs/heads/main")
_of("another claim", Check.CLAIMS, repository="acme/other")
_of("a claim is missing", Check.CLAIMS, repository=None)
_of("a claim is an object", Check.CLAIMS, repository={"acme/orders": 1})
_of("a claim is a text around it", Check.CLAIMS, repository="acme/orders ")

# --- at another time ------------------------------------------------------------------------------

NOW = int(time.time())  # as the tests are collected; the issuer and the verifier have it too
_of("expired", Check.EXPIRED, iat=NOW - 900, nbf=NOW - 900, exp=NOW - 600)
_of("expired for years", Check.EXPIRED, iat=1_500_000_000, nbf=1_500_000_000, exp=1_500_000_300)
_of("no exp", Check.TIMES, exp=None)
_of("exp is a text", Check.TIMES, exp=str(NOW + 300))
_of("exp is a fraction", Check.TIMES, exp=NOW + 300.5)
_of("exp is a whole fraction", Check.TIMES, exp=float(NOW + 300))
_of("exp is true", Check.TIMES, exp=True)
_of("exp is negative", Check.TIMES, exp=-1)
_of("exp is zero", Check.TIMES, exp=0)
_of("exp is beyond the year 9999", Check.TIMES, exp=1 << 62)
_of("exp is in milliseconds", Check.TIMES, exp=(NOW + 300) * 1000)
_of("exp is a list", Check.TIMES, exp=[NOW + 300])
add(
    "exp is infinite",
    Check.PAYLOAD,
    lambda issuer: _claims_text(issuer, '"exp": 7', '"exp": 1e400', exp=7),
)
_of("exp is before iat", Check.TIMES, exp=NOW - 10)
_of("nbf is ahead", Check.NOT_YET, nbf=NOW + 250)
_of("nbf is a text", Check.TIMES, nbf=str(NOW))
_of("nbf is behind exp", Check.TIMES, nbf=NOW + 3_000)
add(
    "nbf is null",
    Check.TIMES,
    lambda issuer: _claims_text(issuer, '"nbf": 7', '"nbf": null', nbf=7),
)
_of("iat is ahead", Check.FUTURE, iat=NOW + 250, nbf=NOW)
_of("iat is a fraction", Check.TIMES, iat=NOW + 0.5)
_of("iat is false", Check.TIMES, iat=False)
_of("no iat", Check.TIMES, iat=None)
_of("too old, though not expired", Check.TOO_OLD, iat=NOW - 4_000, nbf=NOW - 4_000, exp=NOW + 300)
_of("jti is a number", Check.JTI, jti=7)
_of("jti is empty", Check.JTI, jti="")
_of("jti is a list", Check.JTI, jti=["a"])
_of("jti is too long", Check.JTI, jti="j" * (TOKEN_ID_BYTES_MAX + 1))
