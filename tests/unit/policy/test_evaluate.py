"""Deciding: default deny, deny over allow, in any order, and only by enforced rules."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.grant import Grant
from agent.model.ids import LoopName, OperationId, RunId, TargetName
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny
from agent.policy import evaluate as module
from agent.policy.compile import assign_synthetic, compile_grant, compile_target
from agent.policy.evaluate import CACHED_VERDICTS_MAX, DEFAULT_DENY, Evaluator, evaluate
from tests.unit.policy.samples import parse

TARGET = "targets: {api: {protocol: http, address: https://api.example}}\n"


def _grant(*rules: str) -> Grant:
    written = "".join(f"      - {{target: api, {rule}}}\n" for rule in rules) or "      []\n"
    policy = parse(f"{TARGET}loops:\n  l:\n    rules:\n{written}")
    target = compile_target(policy.targets[TargetName("api")], assign_synthetic(policy))
    return compile_grant(policy, policy.loops[LoopName("l")], target, RunId("r"), 0)


def _ask(grant: Grant, method: str, path: str) -> Allow | Deny:
    return evaluate(grant, Operation(OperationId("o"), "http", method, path, ()))


def test_the_default_is_no() -> None:
    """Without a matching rule the answer names the loop, the target and the next step."""
    verdict = _ask(_grant("allow: {method: GET, path: /a}"), "GET", "/b")
    assert isinstance(verdict, Deny)
    assert (verdict.rule, verdict.reason) == (DEFAULT_DENY, Reason.POLICY_DENIED)
    assert "no rule of loop l allows GET /b at target api" in verdict.explanation
    assert "ask whoever keeps the policy" in verdict.next_step


def test_a_rule_needs_all_it_names() -> None:
    """Method and path both; an absent one means any."""
    grant = _grant("allow: {method: [GET, HEAD], path: [/a, /b/*]}", "allow: {method: POST}")
    assert _ask(grant, "HEAD", "/b/x") == Allow(grant.rules[0].rule_id)
    assert isinstance(_ask(grant, "HEAD", "/c"), Deny)
    assert _ask(grant, "POST", "/anything") == Allow(grant.rules[1].rule_id)
    assert isinstance(_ask(grant, "get", "/a"), Deny)


def test_deny_overrides_allow_in_every_order() -> None:
    """The verdict's kind is the same for all orders of the rules."""
    rules = ["allow: {path: /a/**}", "deny: {path: /a/secret/**}", "allow: {path: /a/secret/x}"]
    for order in itertools.permutations(rules):
        grant = _grant(*order)
        assert isinstance(_ask(grant, "GET", "/a/secret/x"), Deny)
        assert isinstance(_ask(grant, "GET", "/a/public"), Allow)


@pytest.mark.parametrize("mode", ["observe", "shadow"])
def test_rules_that_are_not_enforced_never_decide(mode: str) -> None:
    """Neither to allow nor to deny; they are reported."""
    grant = _grant(f"allow: {{path: /a}}, mode: {mode}", f"deny: {{path: /b}}, mode: {mode}",
                   "allow: {path: /b}")  # fmt: skip
    assert isinstance(_ask(grant, "GET", "/a"), Deny)
    assert isinstance(_ask(grant, "GET", "/b"), Allow)
    operation = Operation(OperationId("o"), "http", "GET", "/b", ())
    assert Evaluator(grant).observed(operation) == (grant.rules[1],)
    assert [rule.rule_id for rule in Evaluator(grant).explain("GET", "/b").matched] == [
        "l/1",
        "l/2",
    ]


def test_an_empty_list_denies_all() -> None:
    """In allow it matches nothing; in deny it stands for everything."""
    assert isinstance(_ask(_grant("allow: {method: [], path: /**}"), "GET", "/a"), Deny)
    assert isinstance(_ask(_grant("allow: {path: []}"), "GET", "/a"), Deny)
    assert isinstance(_ask(_grant("allow: {path: /**}", "deny: {method: []}"), "GET", "/a"), Deny)
    assert isinstance(_ask(_grant("allow: {path: /**}", "deny: {path: []}"), "GET", "/a"), Deny)
    assert isinstance(_ask(_grant(), "GET", "/a"), Deny)


ODD = ["/a%2Fsecret%2Fx", "/a//secret/x", "/a%5Csecret/x", "/a/secret%2fx", "//a/secret/x"]


@pytest.mark.parametrize("path", ODD)
def test_no_spelling_passes_a_deny_rule(path: str) -> None:
    """Deny holds in any reading of the path."""
    grant = _grant("allow: {path: /**}", "deny: {path: /a/secret/**}")
    verdict = _ask(grant, "GET", path)
    assert isinstance(verdict, Deny)
    assert verdict.rule == "l/1"


@pytest.mark.parametrize("pattern", ["/a/dt=1/**", "/a/dt%3D1/**", "/*/d*=1/**", "/**/dt=1/*"])
@pytest.mark.parametrize("path", ["/a/dt=1/x", "/a/dt%3D1/x", "/a/dt%3d1/x"])
def test_no_escape_passes_a_deny_rule(pattern: str, path: str) -> None:
    """Servers read `=` and `%3D` of a path as one (S3's keys); allow takes what it was written."""
    grant = _grant("allow: {path: /**}", f"deny: {{path: {pattern}}}")
    assert isinstance(_ask(grant, "GET", path), Deny)
    assert isinstance(_ask(grant, "GET", path.replace("1", "2")), Allow)
    assert isinstance(_ask(_grant("allow: {path: /a/dt=1/x}"), "GET", "/a/dt%3D1/x"), Deny)


@pytest.mark.parametrize("character", "!$&'()*+,;=:@")
def test_no_escape_of_any_character_passes_a_deny_rule(character: str) -> None:
    """Of all that may stand plain or escaped in a path, a star too."""
    escaped = f"%{ord(character):02X}"
    for written in {escaped, character} - {"*"}:
        grant = _grant("allow: {path: /**}", f'deny: {{path: "/a{written}b"}}')
        for path in (f"/a{character}b", f"/a{escaped}b", f"/a{escaped.lower()}b"):
            assert isinstance(_ask(grant, "GET", path), Deny), path
        assert isinstance(_ask(grant, "GET", "/axb"), Allow)


@pytest.mark.parametrize(
    "path",
    ["/a;v=1/secret/x", "/a/secret;/x", "/a/secret%3Bj=1/x", "/a/secret/;x", "/a;/secret;/x;"],
)
def test_no_parameter_of_a_segment_passes_a_deny_rule(path: str) -> None:
    """Servlet containers take "/a;v=1" for "/a"; an allow rule has to name what is sent."""
    grant = _grant("allow: {path: /**}", "deny: {path: /a/secret/**}")
    assert isinstance(_ask(grant, "GET", path), Deny)
    assert isinstance(_ask(grant, "GET", "/a;v=1/b"), Allow)
    assert isinstance(_ask(_grant("allow: {path: /a;v=1/b}"), "GET", "/a;v=1/b"), Allow)
    assert isinstance(_ask(_grant("allow: {path: /a/b}"), "GET", "/a;v=1/b"), Deny)


@pytest.mark.parametrize("path", ["/a/x%2Fy", "/a/x//y", "/a/%2F", "/a%2Fx"])
def test_allow_needs_every_reading(path: str) -> None:
    """One segment in our eyes that is two in the server's is not allowed by `*`."""
    assert isinstance(_ask(_grant("allow: {path: /a/*}"), "GET", path), Deny)


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        (["allow: {path: /npm/**}"], "/npm/@a%2Fb"),
        (["allow: {method: GET}"], "/npm/@a%2Fb"),
        (["allow: {path: /npm/@*%2F*}"], "/npm/@a%2Fb"),
        (["allow: {path: [/npm/**, /npm/@*%2F*]}"], "/npm/@a%2fb"),
        (["allow: {path: [/npm/**, /npm/@*%2F*]}"], "/npm/a%2Fb"),
        (["allow: {path: [/npm/**, /npm/@*%2F*]}"], "/npm/@a%2Fb/c%2Fd"),
        (["allow: {path: [/npm/*/*, /npm/@*%2F*]}"], "/npm/@a%2Fb%2Fc"),
        (["allow: {path: /npm/**}", "allow: {path: /npm/@*%2F*}"], "/npm/@a%2Fb"),
        (["allow: {path: [/npm/**, /npm/@*%2F*]}", "deny: {path: /npm/@a/**}"], "/npm/@a%2Fb"),
    ],
)
def test_an_encoded_slash_has_to_be_written_in_a_rule(rules: list[str], path: str) -> None:
    """One rule has to write %2F in a pattern that matches, and to allow every reading."""
    verdict = _ask(_grant(*rules), "GET", path)
    assert isinstance(verdict, Deny)
    if verdict.rule == DEFAULT_DENY:
        assert "write %2F" in verdict.next_step


@pytest.mark.parametrize("path", ["/npm/@a%2Fb", "/npm/@a/b", "/npm/@a/b/-/b-1.tgz", "/npm/c"])
def test_a_rule_that_writes_an_encoded_slash_allows_it(path: str) -> None:
    """A registry of npm asks for scoped packages so."""
    grant = _grant("allow: {method: GET, path: [/npm/**, /npm/@*%2F*]}")
    assert isinstance(_ask(grant, "GET", path), Allow)


@pytest.mark.parametrize("path", ["/npm/@a%2Fb", "/npm/@a/b", "/npm/@a/b;v=1", "/npm/@a%2fb"])
def test_a_deny_rule_that_writes_an_encoded_slash_denies_a_plain_one(path: str) -> None:
    """To a server that decodes it both are one path; a pattern that is none when decoded stays."""
    allow = "allow: {path: [/npm/**, /npm/@*%2F*]}"
    for written in ("/npm/@a%2Fb", "/npm/@*%2Fb", "/npm/@a%2F*"):
        grant = _grant(allow, f"deny: {{path: {written}}}")
        assert isinstance(_ask(grant, "GET", path), Deny)
        assert isinstance(_ask(grant, "GET", "/npm/c/d"), Allow)
    assert isinstance(_ask(_grant(allow, "deny: {path: /npm%2F..}"), "GET", "/npm/@a%2Fb"), Allow)


def test_an_ambiguous_path_is_denied_whatever_the_rules() -> None:
    """Dot segments behind an encoded slash have no one meaning."""
    verdict = _ask(_grant("allow: {path: /**}"), "GET", "/a%2F..%2Fb")
    assert isinstance(verdict, Deny)
    assert "dot segments" in verdict.explanation


def test_the_cache_is_bounded_and_changes_no_answer() -> None:
    """The limit's worth of paths stay, one more puts the oldest out; answers stay the same."""
    evaluator = Evaluator(_grant("allow: {path: /even/*}"))
    for number in range(CACHED_VERDICTS_MAX + 1):
        path = f"/{'even' if number % 2 == 0 else 'odd'}/{number}"
        operation = Operation(OperationId("o"), "http", "GET", path, ())
        first = evaluator.evaluate(operation)
        assert evaluator.evaluate(operation) is first
        assert isinstance(first, Allow) == (number % 2 == 0)
    assert len(evaluator._cache) == CACHED_VERDICTS_MAX
    long = Operation(OperationId("o"), "http", "GET", "/even/" + "x" * 600, ())
    assert isinstance(evaluator.evaluate(long), Allow)
    assert ("GET", long.resource) not in evaluator._cache


def test_another_grant_is_never_answered_for() -> None:
    """evaluate() keys its compiled forms by the grant object, and bounds them."""
    for number in range(module.EVALUATORS_MAX + 20):
        grant = (
            _grant(f"allow: {{path: /{number}}}") if number % 50 == 0 else _grant("deny: {path: /}")
        )
        expected = Allow if number % 50 == 0 else Deny
        assert isinstance(_ask(grant, "GET", f"/{number}"), expected)
    assert len(module._evaluators) <= module.EVALUATORS_MAX


PATHS = st.sampled_from(["/a", "/a/b", "/a/**", "/**", "/*", "/a/*", "/b/**/c"])
RULES = st.tuples(st.sampled_from(["allow", "deny"]), PATHS,
                  st.sampled_from(["enforce", "shadow"]))  # fmt: skip


@given(st.lists(RULES, max_size=6), st.sampled_from(["/a", "/a/b", "/b/c", "/b/x/c", "/q"]),
       st.randoms())  # fmt: skip
def test_order_never_matters(
    rules: list[tuple[str, str, str]], path: str, shuffled: random.Random
) -> None:
    """Any permutation of the rules gives the same kind of verdict."""
    written = [f"{effect}: {{path: {glob}}}, mode: {mode}" for effect, glob, mode in rules]
    before = _ask(_grant(*written), "GET", path)
    shuffled.shuffle(written)
    assert isinstance(_ask(_grant(*written), "GET", path), type(before))
