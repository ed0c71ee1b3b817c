"""Issuers' keys: rotation, withdrawal, outage; asked seldom, and over verified TLS alone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.broker.http_client import Http
from agent.broker.identity import fetch, issuers
from agent.broker.identity.fetch import REQUEST_S, fetch_over
from agent.broker.identity.issuers import RETRY_S, UNKNOWN_S, Issuers
from agent.broker.identity.refusal import Check, Unverified
from agent.policy.parse_issuer import default_issuer
from tests.servers.certificates import Authority
from tests.servers.issuer import DISCOVERY, KEYS, Issuer, public_jwk, rsa_key, running_issuer
from tests.unit.broker.identity.rig import URL, Rig


def test_keys_are_fetched_once_and_kept() -> None:
    """One discovery and one set of keys for many tokens, until they are `refresh` old."""
    rig = Rig()
    for _ in range(5):
        rig.verify(rig.issuer.mint())
    assert rig.issuer.asked == [DISCOVERY, KEYS]
    rig.boot_s += 299.9
    rig.verify(rig.issuer.mint())
    assert len(rig.issuer.asked) == 2
    rig.boot_s += 0.1
    rig.verify(rig.issuer.mint())
    assert len(rig.issuer.asked) == 4


def test_keys_are_fetched_before_they_are_stale() -> None:
    """Also where the policy lets them be stale before they are due."""
    rig = Rig()
    rig.change(refresh_s=300, stale_s=60)
    rig.verify(rig.issuer.mint())
    rig.boot_s += 60
    rig.verify(rig.issuer.mint())
    assert len(rig.issuer.asked) == 4


def test_a_new_key_is_known_at_its_first_token() -> None:
    """An unknown key is asked for at once; unknown ones again only after UNKNOWN_S."""
    rig = Rig()
    rig.verify(rig.issuer.mint())
    rig.issuer.keys["two"] = ("RS256", rsa_key(2))
    rig.verify(rig.issuer.mint("two"))
    assert len(rig.issuer.asked) == 4
    for _ in range(5):
        refused = rig.refused(rig.issuer.mint(header={"kid": "three"}))
        assert refused.check is Check.KEY_UNKNOWN
    assert len(rig.issuer.asked) == 4
    rig.boot_s += UNKNOWN_S
    rig.refused(rig.issuer.mint(header={"kid": "three"}))
    assert len(rig.issuer.asked) == 6


def test_a_withdrawn_key_is_used_for_refresh_at_most() -> None:
    """After that the keys are new, and a token of the old one is refused."""
    rig = Rig()
    token = rig.issuer.mint()
    rig.verify(token)
    rig.issuer.keys = {"two": ("RS256", rsa_key(2))}
    rig.verify(token)
    rig.boot_s += 300
    assert rig.refused(token).check is Check.KEY_UNKNOWN
    rig.verify(rig.issuer.mint("two"))


def test_a_new_key_of_an_old_name_is_the_new_key() -> None:
    """Within `refresh` the old one counts, and a token of the new one fails by its signature."""
    rig = Rig()
    rig.verify(rig.issuer.mint())
    rig.issuer.keys["one"] = ("RS256", rsa_key(2))
    token = rig.issuer.mint()
    assert rig.refused(token).check is Check.SIGNATURE
    rig.boot_s += 300
    rig.verify(token)


@pytest.mark.parametrize("mode", ["down", "garbage", "keys-garbage", "no-keys", "redirect"])
def test_an_outage_is_outlived_until_keys_are_stale(mode: str) -> None:
    """Kept keys are used until they are `stale` old, not a moment longer; then it comes back."""
    rig = Rig()
    rig.verify(rig.issuer.mint())
    rig.issuer.mode = mode
    rig.boot_s += 3_599.9
    rig.verify(rig.issuer.mint())
    rig.boot_s += 0.1
    refused = rig.refused(rig.issuer.mint())
    assert refused.check is Check.KEYS_STALE
    assert URL in refused.detail
    rig.issuer.mode = "good"
    rig.boot_s += RETRY_S
    rig.verify(rig.issuer.mint())


@pytest.mark.parametrize("mode", ["down", "garbage", "keys-garbage", "no-keys", "redirect"])
def test_without_keys_nothing_is_taken(mode: str) -> None:
    """An issuer that never answered is asked again every RETRY_S, not for each token."""
    rig = Rig()
    rig.issuer.mode = mode
    for _ in range(3):
        assert rig.refused(rig.issuer.mint()).check is Check.KEYS_UNAVAILABLE
    asked = len(rig.issuer.asked)
    assert asked in {1, 2}
    rig.boot_s += RETRY_S
    rig.refused(rig.issuer.mint())
    assert len(rig.issuer.asked) == 2 * asked


DOCUMENTS: list[dict[str, object]] = [
    {"issuer": "https://evil.example"},
    {"issuer": URL + "/"},
    {"issuer": None},
    {"issuer": [URL]},
    {"jwks_uri": None},
    {"jwks_uri": "http://issuer.example/keys"},
    {"jwks_uri": "file:///etc/passwd"},
    {"jwks_uri": "https://"},
    {"jwks_uri": "https://user@issuer.example/keys"},
    {"jwks_uri": "https://issuer.example:99999/keys"},
    {"jwks_uri": "https://issuer.example/\u00e9"},
    {"jwks_uri": ["https://issuer.example/keys"]},
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_of_somebody_else_is_none(document: dict[str, object]) -> None:
    """Its issuer is exactly ours, and its keys are behind https."""
    rig = Rig()
    rig.issuer.document = document
    refused = rig.refused(rig.issuer.mint())
    assert refused.check is Check.KEYS_UNAVAILABLE
    assert "its discovery document" in refused.detail
    assert rig.issuer.asked == [DISCOVERY]


def test_an_issuer_with_a_slash_behind_is_found() -> None:
    """Its path is joined without a second slash; its name keeps the one it has."""
    rig = Rig()
    rig.issuer.url = f"{URL}/"
    rig.policy = default_issuer(f"{URL}/")
    rig.entries = (replace(rig.entries[0], issuer=f"{URL}/"),)
    rig.issuer.document = {"jwks_uri": URL + KEYS}
    token = rig.issuer.mint()
    asyncio.run(rig.verifier.verify(token, rig.entries, {f"{URL}/": rig.policy}))
    assert rig.issuer.asked == [DISCOVERY, KEYS]


def test_many_at_once_ask_once() -> None:
    """Whoever comes while the issuer is asked waits for the same answer."""
    rig = Rig()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(rig.ask(rig.issuer.mint()))

    asyncio.run(main())
    assert rig.issuer.asked == [DISCOVERY, KEYS]


def test_another_policy_for_the_issuer_starts_afresh() -> None:
    """Keys that came with another CA are not kept; nor are those of an issuer that is gone."""
    rig = Rig()
    rig.verify(rig.issuer.mint())
    rig.change(ca="/other.pem")
    rig.verify(rig.issuer.mint())
    assert len(rig.issuer.asked) == 4
    rig.issuers.forget_others({})
    rig.verify(rig.issuer.mint())
    assert len(rig.issuer.asked) == 6


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an issuer may be slow without being down."""
    monkeypatch.setattr(fetch, "REQUEST_S", 60.0)
    monkeypatch.setattr(issuers, "FETCH_S", 60.0)


def _key(issuer: Issuer, ca: Path, url: str = "") -> Callable[[], object]:
    policy = replace(default_issuer(url or issuer.url), ca=str(ca))

    def ask() -> object:
        asking = Issuers(fetch_over(Http()), lambda: 1_000.0)
        return asyncio.run(asking.key(policy, "one", "RS256"))

    return ask


def _refused(ask: Callable[[], object]) -> str:
    with pytest.raises(Unverified) as caught:
        ask()
    assert caught.value.check is Check.KEYS_UNAVAILABLE
    return caught.value.detail


def test_a_real_issuer_is_asked_over_verified_tls(tmp_path: Path) -> None:
    """The certificate is the named host's, of the policy's CA; nothing else answers for it."""
    with running_issuer(tmp_path) as issuer:
        assert _key(issuer, issuer.ca)()
        other = tmp_path / "other.pem"
        other.write_text(Authority("other").pem)
        asked = len(issuer.asked)
        assert "is not 127.0.0.1" in _refused(_key(issuer, other))
        name = issuer.url.replace("127.0.0.1", "localhost")
        assert "is not localhost" in _refused(_key(issuer, issuer.ca, name))
        assert len(issuer.asked) == asked


def test_a_real_issuer_that_misbehaves_is_bounded(tmp_path: Path) -> None:
    """No redirection is followed, no endless answer is read."""
    with running_issuer(tmp_path) as issuer:
        for mode, said in (
            ("redirect", "answers 302"),
            ("huge", "more than 262144 bytes"),
            ("down", "answers 503"),
        ):
            issuer.mode = mode
            assert said in _refused(_key(issuer, issuer.ca))


def test_a_real_issuer_that_is_slow_is_as_good_as_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after REQUEST_S (lowered)."""
    assert REQUEST_S == 5.0
    monkeypatch.setattr(fetch, "REQUEST_S", 1.0)
    with running_issuer(tmp_path) as issuer:
        issuer.mode = "slow"
        assert "did not answer within 1 s" in _refused(_key(issuer, issuer.ca))
        issuer.released.set()


def test_large_sets_of_keys_are_read(tmp_path: Path) -> None:
    """Certificates beside the keys make some of them larger than a credential may be."""
    with running_issuer(tmp_path) as issuer:
        jwk = public_jwk(issuer.keys["one"][1], "one", "RS256")
        issuer.jwks = [{**jwk, "kid": f"k{n}", "x5c": ["M" * 2_000]} for n in range(40)]
        issuer.jwks.append(jwk)
        assert _key(issuer, issuer.ca)()
