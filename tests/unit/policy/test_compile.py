"""What crosses to the proxy, and when a run is touched by a new policy."""

import dataclasses

import msgspec

from agent.ipc.messages import FRAME_BYTES_MAX, Authorized, PolicyNames
from agent.model.credential import Shape
from agent.model.ids import LoopName, RunId, TargetName
from agent.model.sql import Effect
from agent.policy.compile import (
    NAMES_BYTES_MAX,
    assign_synthetic,
    compile_grant,
    compile_target,
    names_bytes,
    permission_of,
)
from agent.policy.parse_loop import RULE_CHARACTERS_MAX, RULES_MAX, SQL_RULES_MAX
from agent.policy.parse_postgres import SETTINGS_MAX
from agent.policy.parse_target import CA_PEM_BYTES_MAX
from tests.unit.policy.samples import GOOD, parse

NIGHTLY = LoopName("nightly")


def test_a_target_carries_what_the_proxy_needs() -> None:
    """Synthetic addresses, shape and dial; the source of the secret stays behind."""
    policy = parse(GOOD)
    names = assign_synthetic(policy)
    api = compile_target(policy.targets[TargetName("api")], names)
    assert (api.synthetic4, api.synthetic6) == names["api.example.com"]
    assert api.shape is Shape.BEARER
    assert "token" not in repr(api)
    plain = compile_target(policy.targets[TargetName("plain")], names)
    assert (plain.synthetic4, plain.shape) == ("", None)


def test_rule_ids_are_the_policys_positions() -> None:
    """An id is <loop>/<index>, whichever target the rules are compiled for."""
    policy = parse(GOOD)
    target = compile_target(policy.targets[TargetName("plain")], {})
    grant = compile_grant(policy, policy.loops[NIGHTLY], target, RunId("r"), 5)
    assert [rule.rule_id for rule in grant.rules] == ["nightly/2"]
    assert grant.revision == policy.revision


def test_only_what_a_loop_may_do_changes_its_permission() -> None:
    """Another loop's rules do not cut this loop's runs; its own rules and targets do."""
    before = permission_of(parse(GOOD), NIGHTLY)
    assert permission_of(parse(GOOD + "  other: {rules: []}\n"), NIGHTLY) == before
    assert permission_of(parse(GOOD.replace("2h", "3h")), NIGHTLY) == before
    assert permission_of(parse(GOOD.replace("/v1/**", "/v2/**")), NIGHTLY) != before
    assert permission_of(parse(GOOD.replace("api.example.com", "b.example.com")), NIGHTLY) != before
    assert permission_of(parse(GOOD.replace("/token", "/token2")), NIGHTLY) != before
    assert permission_of(parse(""), NIGHTLY) is None


def test_the_largest_grant_fits_a_frame() -> None:
    """Rules, their ids and a CA file, each at its bound."""
    path = "/" + "x" * (RULE_CHARACTERS_MAX // RULES_MAX - 4)
    loop = "l" * 64
    rules = f"      - {{target: t, allow: {{method: GET, path: {path}}}}}\n" * RULES_MAX
    policy = parse(
        "targets:\n  t: {protocol: http, address: https://t.example, ca: /x}\n"
        f"loops:\n  {loop}:\n    rules:\n{rules}"
    )
    target = compile_target(policy.targets[TargetName("t")], assign_synthetic(policy))
    target = dataclasses.replace(target, ca_pem="x" * CA_PEM_BYTES_MAX)
    grant = compile_grant(policy, policy.loops[LoopName(loop)], target, RunId("r" * 26), 1 << 40)
    frame = msgspec.msgpack.encode((1, True, Authorized(LoopName(loop), grant, None, "", "")))
    assert len(frame) <= FRAME_BYTES_MAX


def test_the_largest_grant_for_sql_fits_a_frame() -> None:
    """Rules in the worst mixture, options, ids and a CA file, each at its bound."""
    loop, name = "l" * 64, "x" * 9
    size = RULE_CHARACTERS_MAX // SQL_RULES_MAX
    effects = [each.value for each in Effect]
    size -= sum(len(each) + 2 for each in effects)
    tables = ", ".join([name] * (size // (len(name) + 2)))
    match = (
        f"{{effects: [{', '.join(effects)}], tables: [{tables}], unbounded: true, "
        "max_rows: 4294967294, literals: normalize}"
    )
    rules = f"      - {{target: t, allow: {match}}}\n" * SQL_RULES_MAX
    rules += "      - {target: h, allow: {method: GET}}\n" * (RULES_MAX - SQL_RULES_MAX)
    settings = ", ".join(f"a.b{number}: {'v' * 100}" for number in range(SETTINGS_MAX))
    policy = parse(
        "targets:\n  t:\n    protocol: postgres\n    address: t.example\n    ca: /x\n"
        f"    settings: {{{settings}}}\n  h: {{protocol: http, address: https://h.example}}\n"
        f"loops:\n  {loop}:\n    rules:\n{rules}".replace("method: GET", "path: /**")
    )
    target = compile_target(policy.targets[TargetName("t")], assign_synthetic(policy))
    target = dataclasses.replace(target, ca_pem="x" * CA_PEM_BYTES_MAX)
    grant = compile_grant(policy, policy.loops[LoopName(loop)], target, RunId("r" * 26), 1 << 40)
    frame = msgspec.msgpack.encode((1, True, Authorized(LoopName(loop), grant, None, "", "")))
    assert len(grant.rules) == SQL_RULES_MAX
    assert len(frame) <= FRAME_BYTES_MAX
    endpoint = msgspec.msgpack.decode(frame, type=tuple[int, bool, Authorized])
    assert endpoint[2].grant == grant


def test_sql_changes_permission_and_revision() -> None:
    """A table in a rule, a function of a target: the run is touched by the new policy."""
    text = (
        "targets:\n  db: {protocol: postgres, address: db.example, functions: {f: read}}\n"
        "loops:\n  nightly: {rules: [{target: db, allow: {effects: [read], tables: [a]}}]}\n"
    )
    before = parse(text)
    for old, new in (("[a]", "[b]"), ("f: read", "f: write"), ("[read]", "[read, write]")):
        after = parse(text.replace(old, new))
        assert permission_of(after, NIGHTLY) != permission_of(before, NIGHTLY)
        assert after.revision != before.revision
    same = parse(text.replace("protocol: postgres, address: db.example",
                              "address: db.example, protocol: postgres"))  # fmt: skip
    assert permission_of(same, NIGHTLY) == permission_of(before, NIGHTLY)
    assert same.revision == before.revision


def test_the_most_names_fit_a_frame() -> None:
    """names_bytes is never less than what a name costs."""
    host = "h" * 60 + ".example"
    count = NAMES_BYTES_MAX // names_bytes([host])
    longest = (host, "198.19.255.255", "fd4c:5700::ffff:ffff:ffff:ffff")
    names = (longest,) * count
    frame = msgspec.msgpack.encode((0, False, PolicyNames("f" * 64, names)))
    assert len(frame) <= FRAME_BYTES_MAX
