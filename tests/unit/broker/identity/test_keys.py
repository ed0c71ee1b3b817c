"""Sets of keys: what is no public key for signatures is not there."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker.identity.keys import KEYS_MAX, BadKeys, parse_keys
from agent.broker.identity.refusal import Check, Unverified
from tests.servers.issuer import public_jwk, rsa_key

GOOD = public_jwk(rsa_key(), "one", "RS256")


def _set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


UNUSABLE: list[dict[str, Any]] = [
    {"kid": None},
    {"kid": 1},
    {"kty": "oct", "k": "AAAA"},
    {"kty": "oct"},
    {"kty": "rsa"},
    {"kty": ["RSA"]},
    {"crv": "P-256"},
    {"kty": "EC", "crv": "secp256k1"},
    {"kty": "OKP", "crv": "X25519"},
    {"use": "enc"},
    {"use": None},
    {"key_ops": ["sign"]},
    {"key_ops": "verify"},
    {"d": "AQAB"},
    {"k": "AAAA"},
]


@pytest.mark.parametrize("change", UNUSABLE)
def test_an_unusable_key_is_not_there(change: dict[str, Any]) -> None:
    """Symmetric, private, nameless, for encryption: as if it was not listed."""
    with pytest.raises(BadKeys):
        parse_keys(_set(GOOD | change))
    keys = parse_keys(_set(GOOD | change, GOOD | {"kid": "two"}))
    assert list(keys.named) == ["two"]


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"alg": "PS256"}, "for another algorithm"),
    ({"alg": "HS256"}, "for another algorithm"),
    ({"alg": None}, "for another algorithm"),
    ({"n": "AQAB"}, "damaged"),
    ({"n": "!"}, "damaged"),
    ({"n": None}, "damaged"),
    ({"e": "AA"}, "damaged"),
    ({"e": "AQAAAAAB" * 4}, ""),
    ({"n": public_jwk(rsa_key(1, 1024), "x", "RS256")["n"]}, "an RSA key of 1024 bits"),
]


@pytest.mark.parametrize(("change", "said"), UNFIT)
def test_an_unfit_key_checks_nothing(change: dict[str, Any], said: str) -> None:
    """Another algorithm, damaged, too small: refused by its name."""
    keys = parse_keys(_set(GOOD | change))
    with pytest.raises(Unverified) as caught:
        keys.find("one", "RS256")
    assert caught.value.check is Check.KEY_UNFIT
    assert said in caught.value.detail


def test_two_keys_of_one_name_are_none() -> None:
    """Unless they are of different kinds, as some issuers have it."""
    keys = parse_keys(_set(GOOD, GOOD | {"n": public_jwk(rsa_key(2), "x", "RS256")["n"]}))
    with pytest.raises(Unverified) as caught:
        keys.find("one", "RS256")
    assert caught.value.check is Check.KEY_UNFIT
    assert "more than once" in caught.value.detail
    mixed = parse_keys(_set(GOOD, GOOD | {"alg": "PS256"}))
    assert mixed.find("one", "RS256").algorithm_name == "RS256"


def test_the_number_of_keys_has_a_bound() -> None:
    """At KEYS_MAX they are keys, one past it they are none."""
    some = [GOOD | {"kid": f"k{number}"} for number in range(KEYS_MAX + 1)]
    assert len(parse_keys(_set(*some[:KEYS_MAX])).named) == KEYS_MAX
    with pytest.raises(BadKeys, match=str(KEYS_MAX)):
        parse_keys(_set(*some))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 9_999, b"null"]
)
def test_what_is_no_set_of_keys(raw: bytes) -> None:
    """Words, not a traceback."""
    with pytest.raises(BadKeys):
        parse_keys(raw)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda below: st.lists(below, max_size=3)
                    | st.dictionaries(st.sampled_from(["kid", "kty", "n", "e", "use", "key_ops"]),
                                      below, max_size=4)))  # fmt: skip
def test_any_json_is_keys_or_none(value: object) -> None:
    """And whatever is found by a name is a key or refused."""
    try:
        keys = parse_keys(_set(value, GOOD | {"kid": "x"}))
    except BadKeys:
        return
    for name in keys.named:
        with contextlib.suppress(Unverified):
            assert keys.find(name, "RS256").algorithm_name == "RS256"
