"""One loop of the policy."""

import re

from agent.model.ids import LoopName, TargetName
from agent.model.verdict import Mode
from agent.policy.document import Mapping, Node
from agent.policy.errors import Place
from agent.policy.patterns import check_pattern
from agent.policy.reading import (
    Fields,
    Problems,
    choice,
    duration,
    flag,
    items,
    number,
    one_or_more,
    text,
)
from agent.policy.schema import Group, LoopPolicy, RulePolicy, Uid, User, Who

RULES_MAX = 128  # of a loop: its grants cross to the proxy in one frame each
WHO_MAX = 100
METHODS_MAX = 40
PATHS_MAX = 100
RULE_CHARACTERS_MAX = 8_192  # of all methods and paths of one loop
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
LOOP_KEYS = ("who", "max_duration", "adopt_joiners", "rules")
RULE_KEYS = ("target", "allow", "deny", "mode")
LATER_RULE_KEYS = frozenset({"hold", "mask", "approvers", "within", "when"})
MATCH_KEYS = ("method", "path")
WHO_KEYS = ("user", "group", "uid", "issuer", "claims")
_MODE = choice(*(each.value for each in Mode))
_NOBODY: tuple[Who, ...] = ()
_NOTHING: tuple[tuple[Place, RulePolicy], ...] = ()


def read_loop(
    name: LoopName, node: Node, problems: Problems
) -> tuple[LoopPolicy, tuple[Place, ...]]:
    """Return a loop and where its rules stand; what is wrong is added to problems."""
    fields = Fields(node, f"loop {name!r}", LOOP_KEYS, problems)
    who = fields.optional("who", _who_list, _NOBODY)
    seconds = fields.optional("max_duration", duration, 0)
    adopt = fields.optional("adopt_joiners", flag, default=False)
    placed = fields.required("rules", _rules, _NOTHING)
    rules = tuple(rule for _, rule in placed)
    size = sum(
        len(written) for rule in rules for written in (*(rule.methods or ()), *(rule.paths or ()))
    )
    if size > RULE_CHARACTERS_MAX:
        fields.problem("rules", f"methods and paths have over {RULE_CHARACTERS_MAX} characters")
    return LoopPolicy(name, who, seconds, adopt, rules), tuple(place for place, _ in placed)


def _who_list(node: Node, problems: Problems) -> tuple[Who, ...]:
    nodes = items(node, "who", problems)
    if len(nodes) > WHO_MAX:
        problems.add(node.place, f"who has more than {WHO_MAX} entries")
        return ()
    return tuple(who for each in nodes if (who := _who(each, problems)) is not None)


def _who(node: Node, problems: Problems) -> Who | None:
    fields = Fields(node, "an entry of who", WHO_KEYS, problems)
    if "issuer" in fields or "claims" in fields:
        problems.add(
            node.place,
            "identity tokens (issuer, claims) need a later version; this one knows user, group "
            "and uid",
        )
        return None
    given = [key for key in ("user", "group", "uid") if key in fields]
    if len(given) != 1:
        problems.add(node.place, "an entry of who has one of user, group, uid")
        return None
    if given[0] == "uid":
        return Uid(fields.optional("uid", number, 0))
    name = fields.optional(given[0], text, "")
    return User(name) if given[0] == "user" else Group(name)


def _rules(node: Node, problems: Problems) -> tuple[tuple[Place, RulePolicy], ...]:
    nodes = items(node, "rules", problems)
    if len(nodes) > RULES_MAX:
        problems.add(node.place, f"a loop has at most {RULES_MAX} rules")
        return ()
    return tuple((each.place, _rule(each, problems)) for each in nodes)


def _rule(node: Node, problems: Problems) -> RulePolicy:
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
    nothing: tuple[tuple[str, ...] | None, tuple[str, ...] | None] = (None, None)
    methods, paths = fields.optional(effect, _match, nothing)
    return RulePolicy(target, effect, mode, methods, paths)


def _keys(node: Node) -> tuple[str, ...]:
    return tuple(key.text for key, _ in node.entries) if isinstance(node, Mapping) else ()


def _match(node: Node, problems: Problems) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
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
