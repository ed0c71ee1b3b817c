"""What the provider reads again: the journal is a file, its texts are checked as a policy is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.credentials.spec import CredentialError
from agent.credentials.vault.handle import Handle, parse_handle, serialize_handle
from agent.credentials.vault.settings import read_settings
from agent.policy.vault_words import VAULT_KEYS

GOOD = {
    "address": "https://bao.internal:8200",
    "auth": "approle",
    "role_id": "r",
    "file": "/etc/secret",
    "token_role": "loopwarden",
    "path": "database/creds/orders",
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extra": "x"}, "unknown setting 'extra'"),
        ({"auth": "root"}, "auth: write one of"),
        ({"address": "ftp://x"}, "write https://"),
        ({"address": "http://192.0.2.1"}, "in clear"),
        ({"path": ""}, "path: a printable text"),
        ({"path": "sys/../x"}, "a path is"),
        ({"role": "x"}, "auth: approle has no role"),
        ({"environment": "X"}, "one of file"),
        ({"token_role": ""}, "token_role: a printable text"),
        ({"run_mount": "jwt"}, "by token_role has no run_mount"),
        ({"run_role": "runs"}, "by run_role has no token_role"),
        ({"wrapped": "yes"}, "wrapped: write true or false"),
        ({"policies": "x"}, "no JSON list"),
        ({"policies": "[1]"}, "no list of texts"),
        ({"policies": '["a b"]'}, "a name is"),
        ({"policies": "[" * 100_000}, "no JSON list"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, str], said: str) -> None:
    """And nothing was made."""
    with pytest.raises(CredentialError, match="provider vault") as caught:
        read_settings(GOOD | changes)
    assert said in str(caught.value)
    assert caught.value.nothing_made


def test_logins_are_told_apart() -> None:
    """Two targets share a login if all that makes it is the same, and only then."""
    key = read_settings(GOOD).login_key
    assert read_settings(GOOD | {"path": "secret/data/x", "policies": '["a"]'}).login_key == key
    for changes in (
        {"address": "https://other.internal:8200"},
        {"namespace": "a"},
        {"mount": "other"},
        {"role_id": "s"},
        {"file": "/etc/other"},
    ):
        assert read_settings(GOOD | changes).login_key != key


@given(st.dictionaries(st.sampled_from(VAULT_KEYS), st.text()))
def test_any_settings(settings: dict[str, str]) -> None:
    """They are read, or a CredentialError."""
    try:
        read_settings(settings)
    except CredentialError as error:
        assert error.nothing_made  # noqa: PT017 - either is right


@given(st.text(min_size=1))
def test_any_handle(text: str) -> None:
    """It is read, or a CredentialError that a person is told of."""
    try:
        parse_handle(text)
    except CredentialError as error:
        assert error.permanent  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"accessor": 1}', '{"accessor": "a", "token": "t"}', "[" * 90_000]
)
def test_handles_that_are_none(text: str) -> None:
    """Nothing is sent with them."""
    with pytest.raises(CredentialError):
        parse_handle(text)


def test_a_handle_there_and_back() -> None:
    """What was written is read; one that is too long for the journal is refused."""
    for handle in (Handle("a"), Handle("a", "l"), Handle("a", "", "pki", "11:22", 5)):
        assert parse_handle(serialize_handle(handle)) == handle
    assert parse_handle("") is None
    with pytest.raises(CredentialError, match="too long"):
        serialize_handle(Handle("a", "l" * 1_024))
