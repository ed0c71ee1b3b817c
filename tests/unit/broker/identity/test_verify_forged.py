"""Forged, stale and confused tokens: each refused by the check that is there for it."""

import base64

import pytest

from agent.broker.identity.refusal import Check
from tests.servers.issuer import part
from tests.unit.broker.identity.forgeries import FORGED, NOW, P256_ORDER
from tests.unit.broker.identity.rig import Rig


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_refused(name: str) -> None:
    """By its check, at the first and at the second time, and what is told quotes none of it."""
    check, make = FORGED[name]
    rig = Rig(now_s=NOW)
    rig.verify(rig.issuer.mint())  # the rig is good: what follows is refused for its own sake
    token = make(rig.issuer)
    for _ in range(2):
        refused = rig.refused(token)
        assert refused.check is check, refused
        for piece in token.split("."):
            assert len(piece) < 16 or piece not in str(refused)
        assert "evil" not in str(refused)


def test_there_are_enough() -> None:
    """The issue asks for sixty; every check of a token has one."""
    assert len(FORGED) >= 150
    others = {Check.KEYS_UNAVAILABLE, Check.KEYS_STALE, Check.POLICY, Check.REPLAYED,
              Check.REPLAY_UNKNOWN}  # fmt: skip
    assert {check for check, _ in FORGED.values()} == set(Check) - others


def test_nothing_is_fetched_for_a_token_of_nobody() -> None:
    """A form, issuer or algorithm that is not ours reaches no server."""
    rig = Rig(now_s=NOW)
    for check, make in FORGED.values():
        if check in {Check.SIZE, Check.FORM, Check.HEADER, Check.ISSUER, Check.ALGORITHM}:
            rig.refused(make(rig.issuer))
    assert rig.issuer.asked == []


def test_the_second_form_of_an_ec_signature_is_the_same_token() -> None:
    """(r, n - s) is valid too: it must not make a used token a new one."""
    rig = Rig()
    token = rig.issuer.mint("ec", jti=None)
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    other = P256_ORDER - int.from_bytes(raw[32:], "big")
    twin = f"{signed}.{part(raw[:32] + other.to_bytes(32, 'big'))}"
    assert twin != token
    assert rig.verify(twin).digest == rig.verify(token).digest
