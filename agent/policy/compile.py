"""Policy → what crosses to the proxy: targets, grants, names."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from agent.model.grant import Grant, Rule, SqlMatch, Target
from agent.model.ids import LoopName, RuleId, RunId, TargetName
from agent.policy.address import is_literal
from agent.policy.schema import Issuer, LoopPolicy, Policy, RulePolicy, SqlRulePolicy, TargetPolicy
from agent.policy.synthetic import Pair, assign

NAMES_BYTES_MAX = 48 << 10  # PolicyNames is one frame
NAME_OVERHEAD_BYTES = 60  # two addresses and their framing
Synthetic = Mapping[str, Pair]


def revision_of(
    targets: Mapping[TargetName, TargetPolicy],
    loops: Mapping[LoopName, LoopPolicy],
    issuers: Mapping[str, Issuer],
) -> str:
    """Return the hex SHA-256 of the canonical form: the same for any order of files and keys."""
    tree = {
        "targets": [asdict(targets[name]) for name in sorted(targets)],
        "loops": [_loop_form(loops[name]) for name in sorted(loops)],
        "issuers": [asdict(issuers[url]) for url in sorted(issuers)],
    }
    form = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(form.encode()).hexdigest()


def _loop_form(loop: LoopPolicy) -> dict[str, object]:
    # who is a union: its kinds are told apart by name
    who = [[type(who).__name__, asdict(who)] for who in loop.who]
    return asdict(loop) | {"who": who}


def names_bytes(hosts: Iterable[str]) -> int:
    """Return what the names of these hosts cost in one PolicyNames frame, at most."""
    return sum(len(host) + NAME_OVERHEAD_BYTES for host in hosts)


def assign_synthetic(policy: Policy, before: Synthetic | None = None) -> dict[str, Pair]:
    """Return the synthetic addresses of the policy's names; literals have none."""
    return assign((name for name in _hosts(policy) if not is_literal(name)), before)


def _hosts(policy: Policy) -> set[str]:
    return {target.host for target in policy.targets.values()}


def compile_target(target: TargetPolicy, synthetic: Synthetic) -> Target:
    """Return the target as the proxy uses it."""
    synthetic4, synthetic6 = synthetic.get(target.host, ("", ""))
    return Target(
        name=target.name,
        protocol=target.protocol,
        host=target.host,
        port=target.port,
        tls=target.tls,
        ca_pem=target.ca_pem,
        dial_host=target.dial_host,
        dial_port=target.dial_port,
        allow_cleartext=target.allow_cleartext,
        durability=target.durability,
        synthetic4=synthetic4,
        synthetic6=synthetic6,
        shape=target.credential.shape if target.credential is not None else None,
        postgres=target.postgres,
        aws=target.aws,
    )


def compile_rules(loop: LoopPolicy, target: TargetName) -> tuple[Rule, ...]:
    """Return the loop's rules for a target; ids are "<loop>/<index of the rule>".

    An empty list denies all: in `allow` it matches nothing, so the rule is left out; in `deny`
    it stands for everything.
    """
    return tuple(
        _rule(RuleId(f"{loop.name}/{index}"), rule)
        for index, rule in enumerate(loop.rules)
        if rule.target == target and not _allows_nothing(rule)
    )


def _allows_nothing(rule: RulePolicy) -> bool:
    sql = rule.sql
    lists: tuple[tuple[object, ...] | None, ...] = (rule.methods, rule.paths)
    if sql is not None:
        lists = (sql.effects, sql.tables, sql.schemas, sql.columns, sql.functions)
    return rule.effect == "allow" and () in lists


def _rule(rule_id: RuleId, rule: RulePolicy) -> Rule:
    methods = frozenset(rule.methods or ())
    sql = None if rule.sql is None else _sql_match(rule.sql)
    return Rule(rule_id, rule.effect, rule.mode, methods, rule.paths or (), sql)


def _sql_match(sql: SqlRulePolicy) -> SqlMatch:
    return SqlMatch(
        frozenset(sql.effects or ()),
        sql.tables or (),
        sql.schemas or (),
        sql.columns or (),
        sql.functions or (),
        sql.unbounded,
        sql.max_rows,
        sql.literals,
    )


def compile_grant(
    policy: Policy, loop: LoopPolicy, target: Target, run_id: RunId, expires_ms: int
) -> Grant:
    """Return what a run of the loop may do at the target."""
    rules = compile_rules(loop, target.name)
    return Grant(run_id, loop.name, target, policy.revision, rules, expires_ms)


def targets_of(loop: LoopPolicy) -> frozenset[TargetName]:
    """Return the targets that the loop's rules name."""
    return frozenset(rule.target for rule in loop.rules)


def permission_of(policy: Policy, name: LoopName) -> object:
    """Return a value that is equal for two policies in which the loop may do the same."""
    loop = policy.loops.get(name)
    if loop is None:
        return None
    targets = [policy.targets[target] for target in sorted(targets_of(loop))]
    return loop.rules, targets
