"""Synthetic addresses: in their networks, unique, and the same tomorrow."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy import synthetic
from agent.policy.synthetic import HOSTS_MAX, NETWORK4, NETWORK6, assign


@given(st.sets(st.integers(0, 10_000), max_size=60))
def test_addresses_are_unique_and_in_their_networks(numbers: set[int]) -> None:
    """For both families, whatever the names."""
    pairs = assign(f"host-{number}.example" for number in numbers)
    assert len({pair[0] for pair in pairs.values()}) == len(numbers)
    assert len({pair[1] for pair in pairs.values()}) == len(numbers)
    for four, six in pairs.values():
        assert ipaddress.IPv4Address(four) in NETWORK4
        assert ipaddress.IPv6Address(six) in NETWORK6


def test_an_address_is_a_function_of_the_name() -> None:
    """Known values: a change of the function would break runs across an upgrade."""
    assert assign(["api.example.com"]) == {
        "api.example.com": ("198.18.19.158", "fd4c:5700::7cd9:309c:5f00:139e")
    }


def test_names_that_meet_are_probed_and_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """With two addresses for two names, a later name never takes an earlier one's."""
    monkeypatch.setattr(synthetic, "_LAST4", synthetic._FIRST4 + 1)
    before = assign(["b.example"])
    after = assign(["a.example", "b.example"], before)
    assert after["b.example"] == before["b.example"]
    assert after["a.example"][0] != after["b.example"][0]


def test_the_number_of_hosts_is_bounded() -> None:
    """At the limit all have an address, one past it is an error."""
    hosts = [f"h{number}" for number in range(HOSTS_MAX)]
    assert len({pair[0] for pair in assign(hosts).values()}) == HOSTS_MAX
    with pytest.raises(ValueError, match=str(HOSTS_MAX)):
        assign([*hosts, "one-more"])
