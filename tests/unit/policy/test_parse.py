"""Parsing: every mistake has its place and the nearest right word; nothing else gets through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.grant import Durability, UpstreamTls
from agent.model.verdict import Mode
from agent.policy import parse as parse_module
from agent.policy.document import Source
from agent.policy.errors import PROBLEMS_MAX, PolicyError
from agent.policy.parse import parse_policy
from agent.policy.parse_loop import METHODS_MAX, PATHS_MAX, RULES_MAX
from agent.policy.parse_who import WHO_MAX
from agent.policy.schema import Group, Policy, Uid, User
from tests.unit.policy.samples import GOOD, parse, problems


def test_a_policy_is_read() -> None:
    """Each key arrives where it belongs."""
    policy = parse(GOOD)
    api, plain = policy.targets.values()
    assert (api.host, api.port, api.tls) == ("api.example.com", 443, UpstreamTls.VERIFY_FULL)
    assert (api.dial_host, api.dial_port) == ("api.example.com", 443)
    assert api.credential is not None
    assert api.credential.settings == (("file", "/etc/loopwarden/token"),)
    assert (plain.host, plain.port, plain.tls) == ("10.0.0.9", 8080, UpstreamTls.NONE)
    assert plain.durability is Durability.PROCESS
    [nightly] = policy.loops.values()
    assert nightly.who == (User("root"), Group("jobs"), Uid(1000))
    assert nightly.max_duration_s == 7200
    assert nightly.adopt_joiners
    assert [rule.mode for rule in nightly.rules] == [Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW]
    assert nightly.rules[1].methods is None


MISTAKES = [
    ("max_duration: 2h", "max_durtion: 2h",
     "a.yaml:11:5: unknown key of loop 'nightly' 'max_durtion'; did you mean 'max_dur"),
    ("targets:", "target:",
     "a.yaml:2:1: unknown key of a policy file 'target'; did you mean 'targets'?"),
    ("durability: process", "durability: proces", "did you mean 'process'?"),
    ("mode: shadow", "mode: shadw", "did you mean 'shadow'?"),
    ("protocol: http\n", "protocol: mysql\n", "needs a later version; now: http, postgres"),
    ("protocol: http\n", "protocol: htp\n", "did you mean 'http'?"),
    ("https://api.example.com", "ftp://api.example.com", "a.yaml:5:14: write https://"),
    ("https://api.example.com", "https://api.example.com/v1", "paths stand in rules"),
    ("https://api.example.com", "https://u:p@api.example.com", "no user or password"),
    ("https://api.example.com", "https://api.exämple.com", "A-label"),
    ("https://api.example.com", "https://10.1", "neither a host name nor a full IPv4"),
    ("https://api.example.com", "https://api.example.com:0", "1 to 65535"),
    ("https://api.example.com", "https://api.example.com:99999", "not a URL"),
    ("https://api.example.com", "https://api.example.com\n    tls: none", "means tls: verify-full"),
    ('http://10.0.0.9:8080"', 'http://10.0.0.9:8080", tls: verify-full', "means tls: none"),
    ('http://10.0.0.9:8080"', 'http://10.0.0.9:8080", ca: /x', "a CA without TLS"),
    ("https://api.example.com", "https://api.example.com\n    ca: x.pem", "absolute path"),
    ("https://api.example.com", "https://api.example.com\n    dial: x", "HOST:PORT"),
    ("https://api.example.com", "https://api.example.com\n    allow_cleartext: yes",
     "true or false"),
    ("provider: static", "provider: mysql", "needs a later version; now: static"),
    ("provider: static", "provider: statc", "unknown provider"),
    ("file: /etc/loopwarden/token", "file: token", "an absolute path"),
    ("file: /etc/loopwarden/token, ", "", "has one of file, systemd_credential, environment"),
    ("shape: bearer", "shape: bearer, environment: X", "has one of"),
    ("file: /etc/loopwarden/token", "environment: 1X", "the name of a variable"),
    ("file: /etc/loopwarden/token", "systemd_credential: ../x", "the name of LoadCredential="),
    ("shape: bearer", "shape: cookie", "unknown value 'cookie'"),
    ("shape: bearer", "shape: basic", "basic needs a user"),
    ("shape: bearer", "shape: basic, user: 'a:b'", "has no ':'"),
    ("shape: bearer", "shape: header", "needs a name"),
    ("shape: bearer", "shape: header, name: 'a b'", "not a header name"),
    ("shape: bearer", "shape: header, name: Transfer-Encoding", "frames the message"),
    ("shape: bearer", "shape: query-parameter, name: 'a&b'", "not a query-parameter name"),
    ("shape: bearer", "shape: bearer, name: x", "has no name"),
    ("shape: bearer", "shape: bearer, user: x", "has no user"),
    ("{user: root}", "{issuer: http://x, claims: {a: b}}", "an issuer's URL is https"),
    ("{user: root}", "{user: root, uid: 0}", "has one of user, group, uid"),
    ("{user: root}", "{}", "has one of user, group, uid"),
    ("{uid: 1000}", "{uid: -1}", "write a number of 0 to 4294967294"),
    ("{uid: 1000}", "{uid: 0755}", "write a number of 0 to 4294967294, without zeros"),
    ("{uid: 1000}", "{uid: 4294967295}", "write a number of 0 to 4294967294"),
    ("max_duration: 2h", "max_duration: 2 hours", "such as 90s, 15m, 2h or 1d"),
    ("max_duration: 2h", "max_duration: 0s", "such as 90s, 15m, 2h or 1d"),
    ("max_duration: 2h", "max_duration: 367d", "1s to 366d"),
    ("target: plain,", "target: plan,", "unknown target 'plan'; did you mean 'plain'?"),
    ("deny: {path: /v1/secret/**}", "deny: {}", "name a method, a path or both"),
    ("deny: {path: /v1/secret/**}", "mode: enforce", "a rule has one of allow and deny"),
    ("deny: {path", "allow: {method: GET}, deny: {path", "a rule has one of allow and deny"),
    ("deny: {path", "hold: {path", "hold: needs a later version"),
    ("method: GET,", "method: get,", "not an HTTP method: 'get'; write GET"),
    ("method: GET,", "method: CONNECT,", "never forwarded"),
    ("path: /v1/**}}\n      - {target: api, deny", "path: v1}}\n      - {target: api, deny",
     "begins with '/'"),
    ("/v1/secret/**", "/v1/s**", "'**' stands alone"),
    ("/v1/secret/**", "/v1/../x", "never stand in a canonical path"),
    ("/v1/secret/**", "'/v1/a b'", "write '%20' for ' '"),
    ("/v1/secret/**", "/v1/%61", "write 'a' for '%61'"),
    ("/v1/secret/**", "/v1/%2f", "write '%2F' for '%2f'"),
    ("/v1/secret/**", "'/v1?x=1'", "no query"),
    ("nightly:", "Nightly:", "the name of a loop"),
    ("rules:\n", "rules: {}\n    xx:\n", "rules must be a list, not a mapping"),
    ("who: [{user: root}, {group: jobs}, {uid: 1000}]", "who: {user: root}", "who must be a list"),
    ("user: root", "user: ~", "a value is missing here"),
    ("user: root", "user: [root]", "this must be a text, not a list"),
    ("user: root", 'user: "ro\\not"', "printable and on one line"),
    ("{user: root}", "!!python/object/apply:os.system {user: root}", "a policy has no tags"),
    ("  plain:", "  api:", "duplicate key 'api', first at a.yaml:3:3"),
    ("{target: api, deny", "{<<: {a: b}, target: api, deny", "unknown key of a rule '<<'"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place(right: str, wrong: str, said: str) -> None:
    """The one mistake is reported, at a line of the file, in words that help."""
    assert right in GOOD
    found = problems(GOOD.replace(right, wrong, 1))
    assert said in found
    assert found.startswith("a.yaml:")


def test_all_mistakes_are_found_at_once() -> None:
    """Problems of several files come together, at most PROBLEMS_MAX and a count of the rest."""
    found = problems(GOOD.replace("mode: shadow", "mode: x"), "loops: {a: {rulez: []}}")
    assert "a.yaml:" in found
    assert "b.yaml:1:13: unknown key of loop 'a' 'rulez'" in found
    many = "loops:\n" + "".join(f"  l{number}: {{x: 1, rules: []}}\n" for number in range(60))
    assert f"{60 - PROBLEMS_MAX} problems more" in problems(many)


def test_files_are_one_policy() -> None:
    """Targets of one file serve loops of another; a second definition is refused with the first."""
    targets, loops = GOOD.split("loops:")
    merged = parse(targets, f"loops:{loops}")
    assert merged.revision == parse(GOOD).revision
    assert "target 'api' is defined already, at a.yaml:3:3" in problems(targets, targets)


def test_the_revision_is_of_the_meaning() -> None:
    """Comments, order of files and keys do not change it; a rule does."""
    before = parse(GOOD).revision
    targets, loops = GOOD.split("loops:")
    assert parse(f"# hello\nloops:{loops}", targets).revision == before
    assert parse(GOOD.replace("/v1/**", "/v2/**")).revision != before
    assert parse(GOOD.replace("{uid: 1000}", "{uid: 1001}")).revision != before


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "targets: {}\nloops: {}"])
def test_a_policy_may_be_empty(text: str) -> None:
    """Nothing is allowed then."""
    assert parse(text).loops == {}


def test_empty_lists_are_kept() -> None:
    """An empty list is not the same as an absent key: it denies all."""
    policy = parse(GOOD.replace("method: GET,", "method: [],").replace(
        "who: [{user: root}, {group: jobs}, {uid: 1000}]", "who: []"
    ))  # fmt: skip
    [nightly] = policy.loops.values()
    assert nightly.rules[0].methods == ()
    assert nightly.who == ()


def test_two_targets_of_a_loop_are_never_one_address() -> None:
    """A connection must have one meaning: the same host and port twice in a loop is refused."""
    twice = GOOD.replace(
        "loops:", "  again: {protocol: http, address: https://API.example.com.:443}\nloops:"
    )
    parse(twice)
    both = twice.replace("target: plain", "target: again")
    assert "are the same host and port" in problems(both)


def test_a_credential_in_clear_text_is_warned_of() -> None:
    """The policy loads (the proxy refuses the injection) and says what to write."""
    text = GOOD.replace("https://api", "http://api")
    [warning] = parse(text).warnings
    assert "allow_cleartext: true" in warning.text
    assert not parse(
        text.replace("    credential", "    allow_cleartext: true\n    credential")
    ).warnings


def test_an_unreadable_ca_is_named() -> None:
    """The CA file's trouble is reported at its key."""

    def fail(path: str) -> str:
        raise PermissionError(13, "Permission denied")

    text = GOOD.replace("https://api.example.com", "https://api.example.com\n    ca: /ca.pem")
    with pytest.raises(PolicyError, match=r"a.yaml:6:5: /ca.pem: Permission denied"):
        parse_policy([Source("a.yaml", text)], fail)


def _rule(match: str) -> str:
    return f"loops: {{a: {{rules: [{{target: t, deny: {match}}}]}}}}"


LISTS = [
    ("loops: {a: {rules: [*]}}", "{target: t, deny: {method: GET}},", RULES_MAX),
    ("loops: {a: {rules: [], who: [*]}}", "{uid: 1},", WHO_MAX),
    (_rule("{method: [*]}"), "GET,", METHODS_MAX),
    (_rule("{path: [*]}"), "/,", PATHS_MAX),
]


@pytest.mark.parametrize(("template", "item", "most"), LISTS)
def test_lists_have_bounds(template: str, item: str, most: int) -> None:
    """At the limit it is a policy, one past it is not."""
    target = "targets: {t: {protocol: http, address: https://t.example}}\n"
    parse(target + template.replace("*", item * most))
    assert str(most) in problems(target + template.replace("*", item * (most + 1)))


@pytest.mark.parametrize("limit", ["TARGETS_MAX", "LOOPS_MAX", "HOSTS_MAX", "NAMES_BYTES_MAX"])
def test_the_whole_has_bounds(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is a policy, one past it is not (limits lowered to what GOOD has)."""
    exact = {"TARGETS_MAX": 2, "LOOPS_MAX": 1, "HOSTS_MAX": 2, "NAMES_BYTES_MAX": 15 + 8 + 120}
    monkeypatch.setattr(parse_module, limit, exact[limit])
    parse(GOOD)
    monkeypatch.setattr(parse_module, limit, exact[limit] - 1)
    assert "are supported" in problems(GOOD)


@given(st.text(max_size=400))
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    """Parsing is total."""
    assert _is_policy_or_error(text)


@given(st.data())
def test_any_mutation_is_a_policy_or_a_policy_error(data: st.DataObject) -> None:
    """Pieces of a real policy, cut and joined anywhere, stay within the two answers."""
    pieces = [GOOD[start : start + 40] for start in range(0, len(GOOD), 20)]
    extra = st.sampled_from(["&a ", "*a", "? ", "!!int ", "---\n", "...", "<<: ", "\0", "%YAML 9\n",
                             "\ufeff", "'", '"\\U00110000"', "[", "{", "|", "@"])  # fmt: skip
    chosen = data.draw(st.lists(st.one_of(st.sampled_from(pieces), extra), max_size=12))
    assert _is_policy_or_error("".join(chosen))


def _is_policy_or_error(text: str) -> bool:
    try:
        return isinstance(parse(text), Policy)
    except PolicyError as error:
        return bool(error.problems)


@pytest.mark.parametrize("rule", ["{hold: {}}", "{allow: {}}", "{target: [], allow: {}}"])
def test_a_rule_without_a_target_is_one_problem(rule: str) -> None:
    """Nothing is said of a target whose name is empty, which nobody wrote."""
    targets = "targets: {api: {protocol: http, address: 'https://a.example'}}\n"
    found = problems(f"{targets}loops: {{j: {{rules: [{rule}]}}}}\n")
    assert "\n" not in found
    assert "''" not in found
