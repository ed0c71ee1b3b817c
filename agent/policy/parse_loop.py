"""One loop of the policy."""

import re
from collections.abc import Callable
from collections.abc import Mapping as Of

from agent.model.ids import LoopName, TargetName
from agent.model.verdict import Mode
from agent.policy.document import Mapping, Node
from agent.policy.errors import Place
from agent.policy.evaluate import SQL_PROTOCOLS
from agent.policy.hours import read_hours
from agent.policy.parse_sql import SQL_KEYS, read_sql_match
from agent.policy.parse_who import read_who
from agent.policy.patterns import check_pattern
from agent.policy.reading import (
    Fields,
    Problems,
    Value,
    choice,
    duration,
    flag,
    items,
    number,
    one_or_more,
    text,
)
from agent.policy.schema import Issuer, LoopPolicy, RulePolicy, Who

RULES_MAX = 128  # of a loop: its grants cross to the proxy in one frame each
CONCURRENT_MAX = 4_096  # what a host has room for
METHODS_MAX = 40
PATHS_MAX = 100
RULE_CHARACTERS_MAX = 8_192  # of all methods, paths, effects and names of one loop
SQL_RULES_MAX = 64  # of them for targets that speak SQL: they are longer
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
LOOP_KEYS = ("who", "max_duration", "max_concurrent", "hours", "adopt_joiners", "rules")
RULE_KEYS = ("target", "allow", "deny", "mode")
LATER_RULE_KEYS = frozenset({"hold", "mask", "approvers", "within", "when"})
MATCH_KEYS = ("method", "path")
_MODE = choice(*(each.value for each in Mode))
_NOBODY: tuple[Who, ...] = ()
_Match = tuple[tuple[str, ...] | None, tuple[str, ...] | None]
_NOTHING: tuple[tuple[Place, RulePolicy], ...] = ()


def read_loop(
    name: LoopName,
    node: Node,
    problems: Problems,
    protocols: Of[TargetName, str],
    issuers: Of[str, Issuer],
) -> tuple[LoopPolicy, tuple[Place, ...]]:
    """Return a loop and where its rules stand; what is wrong is added to problems.

    protocols are those of all targets: they say which keys a rule may have. issuers are the
    declared ones by name.
    """
    fields = Fields(node, f"loop {name!r}", LOOP_KEYS, problems)
    who = fields.optional("who", lambda one, into: read_who(one, into, issuers), _NOBODY)
    seconds = fields.optional("max_duration", duration, 0)
    concurrent = fields.optional("max_concurrent", _concurrent, 0)
    hours = fields.optional("hours", read_hours, None)
    adopt = fields.optional("adopt_joiners", flag, default=False)

    def read_rules(rules: Node, into: Problems) -> tuple[tuple[Place, RulePolicy], ...]:
        return _rules(rules, into, protocols)

    placed = fields.required("rules", read_rules, _NOTHING)
    rules = tuple(rule for _, rule in placed)
    if sum(map(_characters, rules)) > RULE_CHARACTERS_MAX:
        text_ = f"methods, paths, effects and names have over {RULE_CHARACTERS_MAX} characters"
        fields.problem("rules", text_)
    if sum(rule.sql is not None for rule in rules) > SQL_RULES_MAX:
        fields.problem("rules", f"a loop has at most {SQL_RULES_MAX} rules for SQL")
    loop = LoopPolicy(name, who, seconds, adopt, rules, concurrent, hours)
    return loop, tuple(place for place, _ in placed)


def _concurrent(node: Node, problems: Problems) -> int:
    count = number(node, problems)
    if not 1 <= count <= CONCURRENT_MAX:
        problems.add(node.place, f"max_concurrent is 1 to {CONCURRENT_MAX}")
        return 0
    return count


def _characters(rule: RulePolicy) -> int:
    size = sum(len(written) for written in (*(rule.methods or ()), *(rule.paths or ())))
    if rule.sql is not None:
        sql = rule.sql
        for names in (sql.effects, sql.tables, sql.schemas, sql.columns, sql.functions):
            size += sum(len(name.encode("utf-8", "replace")) + 2 for name in names or ())
    return size


def _rules(
    node: Node, problems: Problems, protocols: Of[TargetName, str]
) -> tuple[tuple[Place, RulePolicy], ...]:
    nodes = items(node, "rules", problems)
    if len(nodes) > RULES_MAX:
        problems.add(node.place, f"a loop has at most {RULES_MAX} rules")
        return ()
    return tuple((each.place, _rule(each, problems, protocols)) for each in nodes)


def _rule(node: Node, problems: Problems, protocols: Of[TargetName, str]) -> RulePolicy:
    later = sorted(LATER_RULE_KEYS.intersection(_keys(node)))
    if later:
        problems.add(node.place, f"{', '.join(later)}: needs a later version")
        return RulePolicy(TargetName(""), "deny", Mode.ENFORCE, None, None)
    fields = Fields(node, "a rule", RULE_KEYS, problems)
    target = TargetName(fields.required("target", text, ""))
    mode = Mode(fields.optional("mode", _MODE, "enforce"))
    if ("allow" in fields) == ("deny" in fields):
        problems.add(node.place, "a rule has one of allow and deny")
    effect = "allow" if "allow" in fields else "deny"
    protocol = protocols.get(target)
    if protocol is None:  # which is a problem of its own
        return RulePolicy(target, effect, mode, None, None)
    if protocol in SQL_PROTOCOLS:
        sql = fields.optional(effect, _own(read_sql_match(effect), MATCH_KEYS, protocol), None)
        return RulePolicy(target, effect, mode, None, None, sql)
    nothing: _Match = (None, None)
    methods, paths = fields.optional(effect, _own(_match, SQL_KEYS, protocol), None) or nothing
    return RulePolicy(target, effect, mode, methods, paths)


def _own(
    read: Callable[[Node, Problems], Value], foreign: tuple[str, ...], protocol: str
) -> Callable[[Node, Problems], Value | None]:
    """Return a reader that first objects to the keys of other protocols."""

    def read_own(node: Node, problems: Problems) -> Value | None:
        wrong = [key for key in _keys(node) if key in foreign]
        if not wrong:
            return read(node, problems)
        own = MATCH_KEYS if protocol not in SQL_PROTOCOLS else SQL_KEYS
        text = f"a rule for protocol {protocol} has no {', '.join(wrong)}; it has {', '.join(own)}"
        problems.add(node.place, text)
        return None

    return read_own


def _keys(node: Node) -> tuple[str, ...]:
    return tuple(key.text for key, _ in node.entries) if isinstance(node, Mapping) else ()


def _match(node: Node, problems: Problems) -> _Match:
    fields = Fields(node, "what a rule matches", MATCH_KEYS, problems)
    if "method" not in fields and "path" not in fields:
        problems.add(node.place, "name a method, a path or both; 'path: /**' is everything")
    return fields.optional("method", _methods, None), fields.optional("path", _paths, None)


def _methods(node: Node, problems: Problems) -> tuple[str, ...]:
    found = one_or_more(node, problems)
    if len(found) > METHODS_MAX:
        problems.add(node.place, f"more than {METHODS_MAX} methods")
    for place, method in found:
        if method and not _METHOD.fullmatch(method):
            hint = f"; write {method.upper()}" if _METHOD.fullmatch(method.upper()) else ""
            problems.add(place, f"not an HTTP method: {method[:40]!r}{hint}")
        elif method in {"CONNECT", "TRACE"}:
            problems.add(place, f"{method} is never forwarded (a tunnel or an echo of credentials)")
    return tuple(method for _, method in found)


def _paths(node: Node, problems: Problems) -> tuple[str, ...]:
    found = one_or_more(node, problems)
    if len(found) > PATHS_MAX:
        problems.add(node.place, f"more than {PATHS_MAX} paths")
    for place, path in found:
        objection = check_pattern(path) if path else None
        if objection is not None:
            problems.add(place, objection)
    return tuple(path for _, path in found)
