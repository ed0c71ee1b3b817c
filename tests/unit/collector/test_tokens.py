"""Join tokens: signed here, for this purpose, for a short time."""

import base64
import datetime as dt
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.collector.authority import Authority, open_authority
from agent.collector.tokens import (
    AUDIENCE,
    ISSUER,
    TOKEN_CHARACTERS_MAX,
    TTL_S_MAX,
    TokenRefused,
    ca_of,
    create_token,
    utc_now,
    verify_token,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return open_authority(tmp_path_factory.mktemp("state"), utc_now())


def now_s() -> int:
    """The time at which a test runs: it may be a quarter of an hour after this module is read."""
    return int(utc_now().timestamp())


def claims(now: int, **changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "web1",
        "jti": "0" * 32,
        "iat": now,
        "exp": now + 600,
        "ca": "",
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def test_a_token_names_its_host_and_its_ca(authority: Authority) -> None:
    """What was created is accepted, for the host it names, and carries the CA itself."""
    now = now_s()
    token = create_token(authority, "web1", 600, now)
    verified = verify_token(authority, token)
    assert (verified.host_name, verified.expires_ms) == ("web1", (now + 600) * 1000)
    assert ca_of(token) == (authority.ca_pem, "web1")
    assert create_token(authority, "web1", 600, now) != token


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": -1},
        {"exp": None},
        {"aud": "loopwarden-ingest"},
        {"aud": None},
        {"iss": "someone"},
        {"jti": None},
        {"sub": None},
        {"iat": 3_600},
    ],
)
def test_a_token_with_wrong_claims_is_refused(
    authority: Authority, changes: dict[str, object]
) -> None:
    """Expired, for another audience or issuer, or incomplete, though signed by the right key."""
    now = now_s()
    good = jwt.encode(claims(now), authority.token_key, algorithm="ES256")
    assert verify_token(authority, good).host_name == "web1"
    changed = {
        name: now + value if isinstance(value, int) else value for name, value in changes.items()
    }
    token = jwt.encode(claims(now, **changed), authority.token_key, algorithm="ES256")
    with pytest.raises(TokenRefused):
        verify_token(authority, token)


def test_a_token_of_another_key_or_algorithm_is_refused(authority: Authority) -> None:
    """Another ES256 key, no signature, a keyed hash with the public key: none is accepted."""
    good = claims(now_s())
    other = jwt.encode(good, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256")
    unsigned = jwt.encode(good, "", algorithm="none")
    keyed = jwt.encode(good, "0" * 32, algorithm="HS256")
    for token in (other, unsigned, keyed, "", "a.b.c", "x" * (TOKEN_CHARACTERS_MAX + 1)):
        with pytest.raises(TokenRefused):
            verify_token(authority, token)


@pytest.mark.parametrize(
    ("ttl_s", "good"), [(0, False), (1, True), (86_400, True), (86_401, False)]
)
def test_a_token_lives_for_a_day_at_most(authority: Authority, ttl_s: int, good: bool) -> None:
    """1 to TTL_S_MAX seconds, not 0 and not one more."""
    assert TTL_S_MAX == 86_400
    if good:
        assert create_token(authority, "web1", ttl_s, now_s())
    else:
        with pytest.raises(ValueError, match="lives"):
            create_token(authority, "web1", ttl_s, now_s())


def test_keys_are_kept_and_private(tmp_path: Path) -> None:
    """The CA is made once, for its owner only; the server's certificate is renewed."""
    state = tmp_path / "state"
    now = utc_now()
    first = open_authority(state, now)
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    server = (state / "server.pem").read_bytes()
    assert open_authority(state, now).ca_pem == first.ca_pem
    assert (state / "server.pem").read_bytes() == server
    open_authority(state, now + dt.timedelta(days=800))
    assert (state / "server.pem").read_bytes() != server


def test_a_certificate_of_another_version_is_refused(authority: Authority) -> None:
    """A token's holder gets words for a certificate that says it is X.509 version 8."""
    der = authority.ca.public_bytes(serialization.Encoding.DER)
    changed = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    made = claims(now_s(), ca=base64.b64encode(changed).decode())
    with pytest.raises(TokenRefused, match="join token"):
        ca_of(jwt.encode(made, authority.token_key, algorithm="ES256"))
