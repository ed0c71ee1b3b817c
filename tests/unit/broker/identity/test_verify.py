"""What is good is taken: as GitHub, GitLab, Kubernetes and the clouds write it."""

from pathlib import Path
from typing import Any

import pytest

from agent.broker.identity.refusal import Check, Unverified
from agent.broker.identity.seen import Seen
from agent.broker.identity.token import KEY_ID_CHARACTERS_MAX
from agent.broker.identity.verify import CLAIM_BYTES_MAX, CLAIMS_BYTES_MAX, Verified
from agent.model.loop import TokenIdentity
from agent.policy.parse_issuer import AGE_S_MAX, CLOCK_SKEW_S_MAX
from agent.policy.schema import Claim, Token
from tests.servers.issuer import AUDIENCE, SUBJECT, Private, ec_key, ed25519_key, p384_key, rsa_key
from tests.unit.broker.identity.rig import CLAIMS, URL, Rig


def test_a_good_token_says_who() -> None:
    """Issuer, subject and the claims that the policy names; nothing else of it."""
    rig = Rig()
    verified = rig.verify(rig.issuer.mint(run_id="7", secret="x"))
    assert verified.identity == TokenIdentity(
        URL, SUBJECT, (("repository", "acme/orders"), ("sub", SUBJECT))
    )
    assert verified.fits == rig.entries


_SMALL = (Claim("c0", ("*",)), Claim("c1", ("7",)), Claim("c2", ("a",)), Claim("c3", (True,)))
GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"typ": None}, {}),
    ({"typ": "jwt"}, {}),
    ({"x5t": "abc", "x5t#S256": "abc", "nonce": "x"}, {}),
    ({}, {"nbf": None}),
    ({}, {"jti": None}),
    ({}, {"aud": [AUDIENCE]}),
    ({}, {"extra": {"deep": [1.5, None, True, {"a": "\u00e9"}]}}),
    ({}, {"azp": "x", "amr": ["pwd"], "kubernetes.io": {"namespace": "ci"}}),
]


@pytest.mark.parametrize(("header", "claims"), GOOD)
def test_forms_of_the_field(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """A missing nbf, jti or typ, a list of one audience, headers and claims of their own."""
    rig = Rig()
    rig.verify(rig.issuer.mint(header=header, **claims))


KEYS: list[tuple[str, Private]] = [
    *((name, rsa_key()) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("ES256", ec_key()),
    ("ES384", p384_key()),
    ("EdDSA", ed25519_key()),
]


@pytest.mark.parametrize(("algorithm", "key"), KEYS)
def test_each_algorithm_when_it_is_pinned(algorithm: str, key: Private) -> None:
    """And refused by its name when it is not."""
    rig = Rig()
    rig.issuer.keys["k"] = (algorithm, key)
    rig.change(algorithms=(algorithm,))
    token = rig.issuer.mint("k")
    rig.verify(token)
    rig.change(algorithms=("RS384",) if algorithm == "RS256" else ("RS256",))
    assert rig.refused(token).check is Check.ALGORITHM


def test_the_longest_name_of_a_key() -> None:
    """KEY_ID_CHARACTERS_MAX are taken, one more is not."""
    rig = Rig()
    for length in (KEY_ID_CHARACTERS_MAX, KEY_ID_CHARACTERS_MAX + 1):
        rig.issuer.keys["k" * length] = ("RS256", rsa_key())
    rig.verify(rig.issuer.mint("k" * KEY_ID_CHARACTERS_MAX))
    refused = rig.refused(rig.issuer.mint("k" * (KEY_ID_CHARACTERS_MAX + 1)))
    assert refused.check is Check.HEADER


def test_times_at_their_edges() -> None:
    """The last second that is taken, and the first that is not, of each time."""
    rig = Rig()
    now = 1_800_000_000
    token = rig.issuer.mint(iat=now, nbf=now, exp=now + 300)
    for moment, check in (
        (now - 60, None),
        (now - 61, Check.NOT_YET),
        (now + 359, None),
        (now + 360, Check.EXPIRED),
    ):
        rig.now_s = moment
        if check is None:
            rig.verify(token)
        else:
            assert rig.refused(token).check is check
    early = rig.issuer.mint(iat=now, nbf=now - 500, exp=now + 300)
    rig.now_s = now - 61
    assert rig.refused(early).check is Check.FUTURE
    long = rig.issuer.mint(iat=now, nbf=now, exp=now + 86_400)
    rig.now_s = now + 3_659
    rig.verify(long)
    rig.now_s = now + 3_660
    assert rig.refused(long).check is Check.TOO_OLD


def test_a_used_token_is_kept_while_any_policy_could_take_it(tmp_path: Path) -> None:
    """A policy with a longer max_age or clock_skew that comes later does not make it new."""
    rig, now = Rig(), 1_800_000_000
    rig.now_s = now
    rig.change(max_age_s=60, clock_skew_s=1)
    token = rig.issuer.mint(iat=now, nbf=now, exp=now + 90_000)
    first = rig.verify(token)
    seen = Seen(tmp_path / "seen", now)
    _use(seen, first, now)
    rig.now_s = now + 86_400 + 299
    assert rig.refused(token).check is Check.TOO_OLD
    rig.change(max_age_s=AGE_S_MAX, clock_skew_s=CLOCK_SKEW_S_MAX)
    again = rig.verify(token)
    with pytest.raises(Unverified, match="used before"):
        _use(Seen(tmp_path / "seen", rig.now_s), again, rig.now_s)
    rig.now_s += 1
    assert rig.refused(token).check is Check.TOO_OLD
    short = rig.issuer.mint(iat=rig.now_s, nbf=rig.now_s, exp=rig.now_s + 300)
    assert rig.verify(short).ends_s == rig.now_s + 300 + CLOCK_SKEW_S_MAX


def _use(seen: Seen, verified: Verified, now_s: int) -> None:
    seen.add(verified.digest, issued_s=verified.issued_s, ends_s=verified.ends_s, uid=1,
             reusable=False, now_s=now_s)  # fmt: skip


def test_an_entry_of_the_loop_must_fit_as_a_whole() -> None:
    """Claims of one entry and the audience of another do not add up."""
    rig = Rig()
    rig.entries = (
        Token(URL, AUDIENCE, (Claim("repository", ("acme/other",)),)),
        Token(URL, "elsewhere", CLAIMS),
    )
    refused = rig.refused(rig.issuer.mint())
    assert refused.check is Check.CLAIMS
    assert refused.detail.endswith("what does not match: repository")
    assert rig.verify(rig.issuer.mint(aud="elsewhere")).fits == rig.entries[1:]
    assert rig.refused(rig.issuer.mint(aud="third")).check is Check.AUDIENCE


def test_one_token_has_one_digest() -> None:
    """By issuer and jti, or by what is signed: a second form of the signature changes nothing."""
    rig = Rig()
    named = [rig.issuer.mint(jti="x"), rig.issuer.mint("ec", jti="x", exp=1 << 33)]
    assert len({rig.verify(token).digest for token in named}) == 1
    unnamed = rig.issuer.mint("ec", jti=None)
    assert rig.verify(unnamed).digest == rig.verify(unnamed).digest
    other = rig.issuer.mint("ec", jti=None, extra=1)
    assert rig.verify(unnamed).digest != rig.verify(other).digest


def test_what_is_recorded_of_claims_is_bounded() -> None:
    """A long value is cut, and claims past CLAIMS_BYTES_MAX are left out."""
    rig = Rig()
    names = [f"c{number}" for number in range(8)]
    wanted = tuple(Claim(name, ("*",)) for name in names)
    rig.entries = (Token(URL, AUDIENCE, (*CLAIMS, *wanted)),)
    values: dict[str, Any] = dict.fromkeys(names, "é" * 200)
    found = rig.verify(rig.issuer.mint(**values)).identity.claims
    assert found[0] == ("c0", "\u00e9" * 126 + "…")
    assert all(len(value.encode()) <= CLAIM_BYTES_MAX for _, value in found)
    assert sum(len(name) + len(value.encode()) for name, value in found) <= CLAIMS_BYTES_MAX
    small: dict[str, Any] = {"c0": "y", "c1": 7, "c2": ["a", 1], "c3": True}
    rig.entries = (Token(URL, AUDIENCE, (*CLAIMS, *_SMALL)),)
    shown = dict(rig.verify(rig.issuer.mint(**small, jti="q")).identity.claims)
    assert (shown["c1"], shown["c2"], shown["c3"]) == ("7", '["a", 1]', "true")
