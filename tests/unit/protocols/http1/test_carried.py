"""What requests carry of a credential, beside the secret itself."""

import base64

import pytest

from agent.model.credential import Basic, Bearer, Credential, Header, QueryParameter
from agent.model.secret import Secret
from agent.protocols.http1.carried import (
    TOKEN_BYTES_MIN,
    VALUE_BYTES_MIN,
    VALUES_MAX,
    carried_by,
)

PASSWORD = "Zm9v-YmFy-d84b60a91f3c"  # of a test


def _carried(credential: Credential) -> set[str]:
    return {secret.reveal().decode() for secret in carried_by(credential)}


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (PASSWORD, set()),
        (f"Token {PASSWORD}", {PASSWORD}),
        (f"ApiKey  {PASSWORD}", {PASSWORD}),
        (f'Token token="{PASSWORD}"', {f'token="{PASSWORD}"', PASSWORD}),
        (f"session={PASSWORD}; theme=dark", {PASSWORD}),
        (f"theme=dark;session={PASSWORD}", {PASSWORD}),
        (
            f"Basic {base64.b64encode(f'u:{PASSWORD}'.encode()).decode()}",
            {base64.b64encode(f"u:{PASSWORD}".encode()).decode(), PASSWORD},
        ),
        ("Basic no-base64!", {"no-base64!"}),
        ("a=b " + "c" * (TOKEN_BYTES_MIN - 1), set()),
    ],
)
def test_what_a_server_reads_in_a_field(value: str, parts: set[str]) -> None:
    """The token behind the scheme, parameters, cookies, and Basic's password."""
    assert _carried(Header("Authorization", Secret(value.encode()))) == parts


@pytest.mark.parametrize(("size", "found"), [(VALUE_BYTES_MIN, 1), (VALUE_BYTES_MIN - 1, 0)])
def test_the_length_of_values(size: int, found: int) -> None:
    """A shorter parameter is taken for a setting: hiding it would garble answers."""
    assert len(_carried(Header("Cookie", Secret(b"s=" + b"x" * size)))) == found


@pytest.mark.parametrize("count", [VALUES_MAX, VALUES_MAX + 1])
def test_the_number_of_values(count: int) -> None:
    """The first VALUES_MAX are searched for."""
    text = ";".join(f"s{number}={number:016}" for number in range(count))
    assert len(_carried(Header("Cookie", Secret(text.encode())))) == VALUES_MAX


def test_basic_has_its_pair_and_others_nothing() -> None:
    """The value of Basic is base64 of user and password: it is searched for in all forms."""
    secret = Secret(PASSWORD.encode())
    pair = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
    assert _carried(Basic("robot", secret)) == {pair}
    assert carried_by(Bearer(secret)) == carried_by(QueryParameter("q", secret)) == ()


@pytest.mark.parametrize(
    "credential", [Basic("u", Secret(b"abcdef")), Header("A", Secret(b"B abcdef"))]
)
def test_they_are_made_once(credential: Credential) -> None:
    """Their forms are compiled once a lease, so they are the same objects."""
    [one], [other] = carried_by(credential), carried_by(credential)
    assert one is other
