"""Who may start: units, containers and tokens, each mistake with its place."""

import pytest

from agent.policy.parse_loop import CONCURRENT_MAX
from agent.policy.parse_who import CLAIMS_MAX, STARS_MAX, VALUE_CHARACTERS_MAX, VALUES_MAX
from agent.policy.schema import Claim, Container, LoopPolicy, Policy, Token, Unit
from tests.unit.policy.samples import parse, problems

GITHUB = "https://token.actions.githubusercontent.com"
POD = "12345678-1234-1234-1234-123456789abc"


def _loop(policy: Policy) -> LoopPolicy:
    [loop] = policy.loops.values()
    return loop


def _with(who: str) -> str:
    return f"loops:\n  a:\n    rules: []\n    who: [{who}]\n"


def test_each_kind_is_read() -> None:
    """Unit, container, and a token of an issuer by its URL or its declared name."""
    text = f"""
issuers:
  github: {{url: "{GITHUB}", audience: acme}}
loops:
  a:
    max_concurrent: 3
    rules: []
    who:
      - {{unit: backup.service}}
      - {{container: {{runtime: docker, id: 0123456789ab, parent: /ci.slice}}}}
      - {{container: {{runtime: containerd, pod: {POD}}}}}
      - {{issuer: github, claims: {{repository: acme/orders, ref: ["refs/heads/*", x]}}}}
      - {{issuer: "{GITHUB}", audience: other, claims: {{ref_protected: true, n: 7}}}}
      - {{issuer: "https://other.example", claims: {{sub: "*", flag: "true"}}}}
"""
    policy = parse(text)
    loop = _loop(policy)
    assert loop.max_concurrent == 3
    assert loop.who == (
        Unit("backup.service"),
        Container("docker", "0123456789ab", "/ci.slice", ""),
        Container("containerd", "", "", POD.replace("-", "")),
        Token(GITHUB, "acme", (Claim("repository", ("acme/orders",)),
                               Claim("ref", ("refs/heads/*", "x")))),
        Token(GITHUB, "other", (Claim("ref_protected", (True,)), Claim("n", ("7",)))),
        Token("https://other.example", "loopwarden", (Claim("sub", ("*",)),
                                                      Claim("flag", ("true",)))),
    )  # fmt: skip
    assert set(policy.issuers) == {GITHUB, "https://other.example"}
    assert policy.issuers["https://other.example"].audience == "loopwarden"


MISTAKES = [
    ("{unit: backup}", "a unit's name ends in .service or .scope"),
    ("{unit: /system.slice/backup.service}", "a unit's name ends in"),
    ("{unit: a.service, user: b}", "an entry of who has one of"),
    ("{audience: a}", "an entry of who has one of"),
    ("{user: a, claims: {b: c}}", "claims goes with an issuer"),
    ("{unit: a.service, audience: b}", "audience goes with an issuer"),
    ("{container: docker}", "a container must be a mapping of keys"),
    ("{container: {id: 0123456789ab}}", "needs the key 'runtime'"),
    ("{container: {runtime: dockr}}", "did you mean 'docker'?"),
    ("{container: {runtime: docker, name: x}}", "unknown key of a container 'name'"),
    ("{container: {runtime: docker, id: 0123456789a}}", "id is 12 to 64 digits"),
    ("{container: {runtime: docker, id: 0123456789AB}}", "id is 12 to 64 digits"),
    ("{container: {runtime: docker, parent: ci.slice}}", "parent is the cgroup above it"),
    ("{container: {runtime: docker, pod: x}}", "pod is a pod's uid"),
    ("{issuer: 'https://a.example'}", "needs the key 'claims'"),
    ("{issuer: 'https://a.example', claims: {}}", "every token of the issuer will do"),
    ("{issuer: 'https://a.example', claims: [a]}", "claims must be a mapping"),
    ("{issuer: 'https://a.example', claims: {aud: a}}", "aud is checked in every token"),
    ("{issuer: 'https://a.example', claims: {a: {b: c}}}", "a text or a list of texts"),
    ("{issuer: 'https://a.example', claims: {a: [[b]]}}", "a text or a list of texts"),
    ("{issuer: 'https://a.example', claims: {a: ~}}", "a value is missing"),
    ("{issuer: 'http://a.example', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: 'https://a.example/?x', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: 'https://a.example/#', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: 'https://u@a.example', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: 'https://a.example:x', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: 'https://a b.example', claims: {a: b}}", "an issuer's URL is https"),
    ("{issuer: github, claims: {a: b}}", "none is declared; or write its URL"),
    ("{issuer: 'https://a.example', claim: {a: b}}", "unknown key of an entry of who 'claim'"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(entry: str, said: str) -> None:
    """Line and column, in words that help."""
    found = problems(_with(entry))
    assert said in found
    assert all(line.startswith("a.yaml:4:") for line in found.splitlines())


def test_an_unknown_name_of_an_issuer_gets_the_nearest() -> None:
    """At the place where it stands."""
    declared = f"issuers: {{github: {{url: '{GITHUB}'}}}}\n"
    found = problems(declared + _with("{issuer: githb, claims: {a: b}}"))
    assert found == "a.yaml:5:20: unknown issuer 'githb'; did you mean 'github'?; or write its URL"


BOUNDS = [
    ("{issuer: 'https://a.example', claims: {*}}", "c%d: x,", CLAIMS_MAX),
    ("{issuer: 'https://a.example', claims: {a: [*]}}", "x%d,", VALUES_MAX),
]


@pytest.mark.parametrize(("template", "item", "most"), BOUNDS)
def test_lists_have_bounds(template: str, item: str, most: int) -> None:
    """At the limit it is a policy, one past it is not."""
    some = [item % number for number in range(most + 1)]
    parse(_with(template.replace("*", "".join(some[:most]))))
    assert str(most) in problems(_with(template.replace("*", "".join(some))))


@pytest.mark.parametrize("letter", ["x", "*"])
def test_a_value_has_bounds(letter: str) -> None:
    """VALUE_CHARACTERS_MAX characters, STARS_MAX of them stars."""
    most = VALUE_CHARACTERS_MAX if letter == "x" else STARS_MAX
    template = "{issuer: 'https://a.example', claims: {a: '%s'}}"
    parse(_with(template % (letter * most)))
    assert "a claim's value has at most" in problems(_with(template % (letter * (most + 1))))


@pytest.mark.parametrize("count", ["0", str(CONCURRENT_MAX + 1), "x", "-1"])
def test_concurrent_runs_are_a_number(count: str) -> None:
    """1 to CONCURRENT_MAX; 0 would be a loop that never runs."""
    parse(f"loops: {{a: {{rules: [], max_concurrent: {CONCURRENT_MAX}}}}}")
    assert "max_concurrent is 1 to" in problems(
        f"loops: {{a: {{rules: [], max_concurrent: {count}}}}}"
    )
