"""The tables of providers and shapes are those of the code behind them."""

from agent.credentials.discover import providers
from agent.policy.parse_credential import ACCEPTS, COMMON_KEYS, PROVIDERS, SHAPES
from agent.policy.parse_target import PROTOCOLS
from agent.protocols import discover


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
