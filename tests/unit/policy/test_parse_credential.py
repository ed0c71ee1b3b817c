"""The tables of providers and shapes are those of the code behind them."""

import pytest

from agent.credentials.discover import providers
from agent.model.credential import Shape
from agent.model.ids import TargetName
from agent.policy.parse_credential import ACCEPTS, COMMON_KEYS, PROVIDERS, SHAPES
from agent.policy.parse_target import PROTOCOLS
from agent.protocols import discover
from tests.unit.policy.samples import GOOD, parse, problems


def test_the_policy_knows_what_protocols_accept() -> None:
    """The same shapes as each SPEC, and no protocol without a SPEC."""
    specs = discover()
    assert {name: set(shapes) for name, shapes in ACCEPTS.items()} == {
        name: set(specs[name].accepts) for name in PROTOCOLS
    }


def test_the_policy_knows_the_providers() -> None:
    """Their names, settings and shapes; a setting has no name that every credential has."""
    specs = providers()
    assert set(PROVIDERS) == set(specs)
    for name, spec in specs.items():
        assert set(PROVIDERS[name]) == set(spec.settings) - set(COMMON_KEYS), name
        assert SHAPES[name] == spec.shapes, name


TARGET = """
targets:
  it:
    protocol: {protocol}
    address: {address}
    credential:
      provider: {provider}
      shape: {shape}
"""
ADDRESSES = {"http": "https://it.example", "postgres": "it.example"}


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize("provider", list(PROVIDERS))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shape_that_does_not_fit_is_named_with_its_place(
    protocol: str, provider: str, shape: Shape
) -> None:
    """Of all protocols, providers and shapes: at line and column, and only when it does not fit."""
    found = problems(
        TARGET.format(
            protocol=protocol, address=ADDRESSES[protocol], provider=provider, shape=shape
        )
    )
    if shape not in ACCEPTS[protocol]:
        said = f"a.yaml:8:7: protocol {protocol} does not take shape {shape}; it takes "
    elif shape not in SHAPES[provider]:
        said = f"a.yaml:8:7: provider {provider} does not make shape {shape}"
    else:
        assert "a.yaml:8:7:" not in found
        return
    assert said in found


@pytest.mark.parametrize(
    ("times", "good"),
    [("ttl: 1h, max_ttl: 1h", True), ("ttl: 1h, max_ttl: 3599s", False), ("max_ttl: 1s", True)],
)
def test_a_longest_life_is_no_shorter_than_one(times: str, good: bool) -> None:
    """As long as ttl is enough; a second less is a mistake, with its place."""
    text = GOOD.replace("shape: bearer}", f"shape: bearer, {times}}}")
    if good:
        parse(text)
        return
    column = text.splitlines()[5].index("max_ttl") + 1
    assert f"a.yaml:6:{column}: max_ttl is how long renewals may take it" in problems(text)


@pytest.mark.parametrize(
    ("protocol", "address", "more"),
    [("http", "http://it.example", ""), ("postgres", "it.example", "    tls: none\n")],
)
def test_a_client_certificate_needs_tls(protocol: str, address: str, more: str) -> None:
    """It is shown in TLS: a target without it is a mistake, whatever else it allows."""
    text = TARGET.format(
        protocol=protocol, address=address, provider="exec", shape="client-certificate"
    )
    text = text.replace("    credential:", f"{more}    allow_cleartext: true\n    credential:")
    text += "      command: /usr/local/bin/make-one\n"
    line = text.splitlines().index("    credential:") + 1
    said = f"a.yaml:{line}:5: shape client-certificate is shown in TLS, and this target has none"
    assert said in problems(text)


def test_http_names_no_user_beside_a_certificate() -> None:
    """PostgreSQL's login has one; in HTTP it would mean nothing."""
    text = TARGET.format(
        protocol="http", address="https://it.example", provider="exec", shape="client-certificate"
    )
    text += "      command: /usr/local/bin/make-one\n"
    assert parse(text).targets[TargetName("it")].credential is not None
    assert "a.yaml:10:7: protocol http names no user" in problems(f"{text}      user: robot\n")
