"""Claims: exact, glob and list; types are not confused."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.claims import ITEMS_MAX, fits, missed
from agent.policy.schema import Claim

GOOD: list[tuple[str | bool, object]] = [
    ("acme/orders", "acme/orders"),
    ("repo:acme/*:ref:refs/heads/main", "repo:acme/orders:ref:refs/heads/main"),
    ("*", ""),
    ("*", "anything"),
    ("7", 7),
    ("7", "7"),
    (True, True),
    (False, False),
    ("ops", ["dev", "ops"]),
    ("o*", ["dev", "ops"]),
    ("7", [1, 7]),
]
BAD: list[tuple[str | bool, object]] = [
    ("acme/orders", "acme/orders "),
    ("acme/orders", "ACME/orders"),
    ("acme/orders", "acme/orders\n"),
    ("acme/orders", "acme/orders\0"),
    ("acme/orders", "\u0430\u0441me/orders"),  # Cyrillic letters
    ("caf\u00e9", "cafe\u0301"),
    ("main", "xmain"),
    ("acme/*", "acme"),
    ("*/orders", "acme/orders2"),
    ("a*a", "a"),
    ("a*b*b", "ab"),
    ("true", True),
    (True, "true"),
    (True, 1),
    ("1", True),
    (False, 0),
    (False, ""),
    (False, None),
    ("*", None),
    ("*", 1.5),
    ("1", 1.0),
    ("*", {"a": "b"}),
    ("a", {"a": "b"}),
    ("a", [["a"]]),
    ("*", []),
    ("a", ["b"] * ITEMS_MAX + ["a"]),
    ("['a']", ["a"]),
]


@pytest.mark.parametrize(("wanted", "found"), GOOD)
def test_what_matches(wanted: str | bool, found: object) -> None:
    """The value itself, a glob over it, or an item of it."""
    assert missed((Claim("c", (wanted,)),), {"c": found}) == ""


@pytest.mark.parametrize(("wanted", "found"), BAD)
def test_what_does_not_match(wanted: str | bool, found: object) -> None:
    """Another case, alphabet, normal form, type or depth is another value."""
    assert missed((Claim("c", (wanted,)),), {"c": found}) == "c"


def test_every_claim_is_needed_and_any_of_its_values_will_do() -> None:
    """The first that lacks is named; an empty list matches nothing."""
    both = (Claim("a", ("1", "2")), Claim("b", ("x",)))
    assert missed(both, {"a": "2", "b": "x", "c": "y"}) == ""
    assert missed(both, {"a": "3", "b": "x"}) == "a"
    assert missed(both, {"a": "1"}) == "b"
    assert missed((Claim("a", ()),), {"a": ""}) == "a"


def test_a_list_has_a_bound() -> None:
    """At ITEMS_MAX it is read; BAD has one past it."""
    assert missed((Claim("c", ("a",)),), {"c": ["b"] * (ITEMS_MAX - 1) + ["a"]}) == ""


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_globs_agree_with_the_library(pattern: str, text: str) -> None:
    """The same answer as fnmatch for patterns of letters and stars."""
    assert fits(pattern, text) == fnmatch.fnmatchcase(text, pattern)
