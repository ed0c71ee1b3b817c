"""Secrets do not print, compare, or travel by accident."""

import copy
import json
import pickle  # noqa: TID251 - that a Secret is not pickled is the claim

import pytest

from agent.model.credential import Basic, Bearer, Header, QueryParameter, secrets_of
from agent.model.secret import DERIVED_MAX, Secret

CANARY = b"canary-3f9a"


def test_no_rendering_shows_it() -> None:
    """repr, str and format of the secret, and of credentials that hold it, hide the bytes."""
    secret = Secret(CANARY)
    for thing in (secret, Bearer(secret), Basic("u", secret), Header("h", secret)):
        for text in (repr(thing), str(thing), f"{thing}", f"{thing!r}"):
            assert "canary" not in text
    assert "canary" not in f"{secret:>40}"


def test_it_is_not_copied_out() -> None:
    """pickle, copy and JSON refuse it; its truth and equality tell nothing."""
    secret = Secret(CANARY)
    for action in (pickle.dumps, copy.deepcopy, json.dumps, bool):
        with pytest.raises(TypeError):
            action(secret)
    assert secret != Secret(CANARY)


def test_reveal_gives_the_bytes_and_secrets_of_finds_every_one() -> None:
    """Each shape names what must be scrubbed."""
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    for credential in (
        Bearer(secret),
        Basic("u", secret),
        Header("h", secret),
        QueryParameter("q", secret),
    ):
        assert secrets_of(credential) == (secret,)


def test_what_is_derived_is_computed_once_a_label() -> None:
    """DERIVED_MAX results stay; one past it takes the place of the oldest. Nothing shows them."""
    secret, computed = Secret(CANARY), []

    def derive(label: int) -> tuple[int, int]:
        def compute(value: bytes) -> tuple[int, int]:
            computed.append(label)
            return label, len(value)

        return secret.derive(label, compute)

    for label in (*range(DERIVED_MAX), *range(DERIVED_MAX)):
        assert derive(label) == (label, len(CANARY))
    assert computed == list(range(DERIVED_MAX))
    derive(DERIVED_MAX)
    derive(1)
    assert computed == list(range(DERIVED_MAX + 1))
    derive(0)
    assert computed[-1] == 0
    assert "canary" not in repr(secret)
