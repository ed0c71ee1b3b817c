"""Issuers: what is trusted is written down, and bounded."""

import pytest

from agent.policy.document import Source
from agent.policy.errors import PolicyError
from agent.policy.parse import parse_policy
from agent.policy.parse_issuer import ALGORITHMS, ISSUERS_MAX
from agent.policy.schema import Issuer
from tests.unit.policy.samples import parse, problems

WHOLE = """
issuers:
  ci:
    url: https://ci.example/tenant/
    audience: hosts
    ca: /etc/loopwarden/ci-ca.pem
    algorithms: [ES256, EdDSA]
    clock_skew: 5s
    max_age: 10m
    refresh: 1m
    stale: 2h
    reusable: true
"""


def test_an_issuer_is_read() -> None:
    """Each key arrives where it belongs; its URL stays as it is written."""
    [issuer] = parse(WHOLE).issuers.values()
    assert issuer == Issuer("https://ci.example/tenant/", "hosts", "/etc/loopwarden/ci-ca.pem",
                            ("ES256", "EdDSA"), 5, 600, 60, 7200, True)  # fmt: skip


def test_an_issuer_has_defaults() -> None:
    """Tokens for us alone, an hour old at most, with the algorithms of the field."""
    [issuer] = parse("issuers: {a: {url: 'https://a.example'}}").issuers.values()
    assert issuer == Issuer("https://a.example", "loopwarden", "", ("RS256", "ES256"),
                            60, 3600, 300, 3600, False)  # fmt: skip


OFFLINE = """
issuers:
  ci:
    url: https://ci.example
    jwks_file: /etc/loopwarden/ci.json
"""


def test_an_issuer_may_have_its_keys_in_a_file() -> None:
    """Then it is another policy, too."""
    policy = parse(OFFLINE)
    [issuer] = policy.issuers.values()
    assert issuer.jwks_file == "/etc/loopwarden/ci.json"
    assert policy.revision != parse(OFFLINE.replace("ci.json", "other.json")).revision


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("jwks_file: keys.json", "5:16: write the key file's absolute path"),
        ("jwks_file: ''", "5:16: "),
        ("jwks_file: /k\n    ca: /ca.pem", "6:5: an issuer with a jwks_file is not asked"),
        ("jwks_file: /k\n    refresh: 1m", "6:5: an issuer with a jwks_file is not asked"),
        ("jwks_file: /k\n    stale: 1h", "6:5: an issuer with a jwks_file is not asked"),
    ],
)
def test_a_file_of_keys_has_no_fetching_beside_it(wrong: str, said: str) -> None:
    """What would have no meaning is a mistake, at its place."""
    assert said in problems(OFFLINE.replace("jwks_file: /etc/loopwarden/ci.json", wrong))


def test_what_is_trusted_is_in_the_revision() -> None:
    """A policy with another issuer is another policy."""
    assert parse(WHOLE).revision != parse(WHOLE.replace("5s", "6s")).revision


MISTAKES = [
    ("url: https://ci.example/tenant/", "url: http://ci.example", "an issuer's URL is https"),
    ("    url: https://ci.example/tenant/\n", "", "issuer 'ci' needs the key 'url'"),
    ("url:", "uri:", "did you mean 'url'?"),
    ("[ES256, EdDSA]", "[HS256]", "unknown algorithm 'HS256'"),
    ("[ES256, EdDSA]", "none", "unknown algorithm 'none'"),
    ("[ES256, EdDSA]", "[None]", "unknown algorithm 'None'"),
    ("[ES256, EdDSA]", "[]", "no algorithms"),
    ("5s", "301s", "clock_skew is 1s to 300s"),
    ("10m", "25h", "max_age is 1s to 86400s"),
    ("1m", "29s", "refresh is 30s to 86400s"),
    ("2h", "8d", "stale is 1s to 604800s"),
    ("true", "yes", "write true or false"),
    ("ci:", "CI:", "the name of an issuer"),
]


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """No HMAC, no `none`, no unbounded clock."""
    assert right in WHOLE
    found = problems(WHOLE.replace(right, wrong, 1))
    assert said in found
    assert found.startswith("a.yaml:")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithms_are_asymmetric(name: str) -> None:
    """None has a key that both makes and checks."""
    assert not name.startswith(("HS", "none"))
    assert "unknown algorithm" in problems(WHOLE.replace("EdDSA", name.lower() + "x"))


def test_bounds_hold_at_the_limit() -> None:
    """The longest of each is a policy."""
    for right, most in (("5s", "300s"), ("10m", "24h"), ("1m", "30s"), ("2h", "7d")):
        parse(WHOLE.replace(right, most))


def test_one_url_is_one_issuer() -> None:
    """Or its tokens would have two rules."""
    two = WHOLE + "  again: {url: https://ci.example/tenant/}\n"
    assert "two issuers have the URL https://ci.example/tenant/" in problems(two)


def test_the_number_of_issuers_has_a_bound() -> None:
    """At ISSUERS_MAX it is a policy, one past it is not."""
    some = [f"  i{number}: {{url: 'https://i{number}.example'}}\n" for number in range(65)]
    parse("issuers:\n" + "".join(some[:ISSUERS_MAX]))
    assert "65 issuers; at most 64" in problems("issuers:\n" + "".join(some))


def test_a_ca_that_cannot_be_read_is_a_mistake() -> None:
    """At load, not at the first token."""

    def fail(path: str) -> str:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PolicyError, match=r"ca: /etc/loopwarden/ci-ca.pem: Permission denied"):
        parse_policy([Source("a.yaml", WHOLE)], fail)
