"""Credentials as they cross from broker to worker: every shape arrives as it went."""

import dataclasses

import pytest

from agent.broker.workers import _parts
from agent.model.credential import (
    AwsKeys,
    Basic,
    Bearer,
    ClientCertificate,
    Credential,
    Header,
    Password,
    QueryParameter,
    Shape,
    SshCertificate,
    type_of,
)
from agent.model.secret import Secret
from agent.proxy.leases import credential_of

ONE, TWO, THREE = (Secret(text) for text in (b"one", b"two", b"three"))
EVERY: tuple[Credential, ...] = (
    Bearer(ONE),
    Basic("user", ONE),
    Header("X-Key", ONE),
    QueryParameter("key", ONE),
    Password("user", ONE),
    ClientCertificate("user", "chain", ONE),
    AwsKeys(ONE, TWO, THREE),
    AwsKeys(ONE, TWO, None),
    SshCertificate("user", "certificate", ONE),
)


def _shown(credential: Credential) -> list[object]:
    values = [getattr(credential, each.name) for each in dataclasses.fields(credential)]
    return [value.reveal() if isinstance(value, Secret) else value for value in values]


@pytest.mark.parametrize("credential", EVERY, ids=lambda each: type(each).__name__)
def test_it_arrives_as_it_went(credential: Credential) -> None:
    """Shape and parts make the same credential again."""
    shape, parts = _parts(credential)
    arrived = credential_of(shape, parts)
    assert type(arrived) is type(credential)
    assert _shown(arrived) == _shown(credential)
    with pytest.raises(ValueError, match="parts are no"):
        credential_of(shape, (*parts, b"more"))


def test_every_shape_is_here() -> None:
    """A new one crosses too."""
    assert {type(each) for each in EVERY} == set(type_of.values())
    assert set(type_of) == set(Shape)
