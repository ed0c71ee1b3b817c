"""Grant and operation → verdict: default deny, deny over allow, whatever the order of rules.

Rules of mode observe and shadow never decide; `explain` reports what they would have said.
Statements of SQL are decided in `evaluate_sql`.
"""

import collections
import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.model.grant import Grant, Rule
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny, Mode, Verdict
from agent.policy.evaluate_sql import DEFAULT_DENY, SqlEvaluator
from agent.policy.patterns import (
    check_pattern,
    compile_pattern,
    is_ambiguous,
    loose_readings,
    readings,
)

CACHED_VERDICTS_MAX = 1_024  # per grant; the least recently used goes
CACHED_PATH_CHARACTERS_MAX = 512  # longer paths are decided, not remembered
EVALUATORS_MAX = 256
ENCODED_SLASH = "%2F"
ENCODED = (
    ". Servers differ on an encoded slash: the rule's paths have to write %2F where it is, "
    "and to allow the path with / for it too"
)
SQL_PROTOCOLS = frozenset({"postgres"})
__all__ = ["DEFAULT_DENY", "Evaluator", "Explanation", "evaluate", "evaluator_of"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict, and each rule that matches, whether or not it decides."""

    verdict: Verdict
    matched: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class _Matcher:
    """A rule with its compiled patterns."""

    rule: Rule
    patterns: tuple[re.Pattern[str], ...]

    def matches(self, verb: str, every_reading: tuple[str, ...]) -> bool:
        """Allow: in all readings of the path. Deny: in any, also escaped or without parameters."""
        if self.rule.methods and verb not in self.rule.methods:
            return False
        allows = self.rule.effect == "allow"
        if allows and _has_slash(every_reading[0]) and not self._writes_slash(every_reading[0]):
            return False
        if not self.patterns:
            return True
        quantifier = all if allows else any
        return quantifier(
            any(pattern.fullmatch(reading) for pattern in self.patterns)
            for reading in (every_reading if allows else loose_readings(every_reading))
        )

    def _writes_slash(self, path: str) -> bool:
        """Whether a pattern that matches says itself that a slash may be encoded."""
        return any(
            ENCODED_SLASH in written and pattern.fullmatch(path)
            for written, pattern in zip(self.rule.paths, self.patterns, strict=True)
        )


class Evaluator:
    """One grant, compiled. A decision costs a microsecond when cached, a few when not."""

    def __init__(self, grant: Grant) -> None:
        """Compile the rules.

        Raises:
            ValueError: a rule has a pattern that check_pattern refuses.
        """
        self.grant = grant
        self._matchers = tuple(_Matcher(rule, tuple(_compiled(rule))) for rule in grant.rules)
        self._cache: collections.OrderedDict[tuple[str, str], Verdict] = collections.OrderedDict()

    def evaluate(self, operation: Operation) -> Verdict:
        """Decide an operation of the grant's protocol."""
        key = (operation.verb, operation.resource)
        verdict = self._cache.get(key)
        if verdict is not None:
            self._cache.move_to_end(key)
            return verdict
        verdict = self.explain(*key).verdict
        if len(operation.resource) <= CACHED_PATH_CHARACTERS_MAX:
            self._cache[key] = verdict
            if len(self._cache) > CACHED_VERDICTS_MAX:
                self._cache.popitem(last=False)
        return verdict

    def explain(self, verb: str, path: str) -> Explanation:
        """Decide, and say which rules match."""
        every_reading = readings(path)
        matched = tuple(
            matcher.rule for matcher in self._matchers if matcher.matches(verb, every_reading)
        )
        return Explanation(self._decide(verb, path, matched), matched)

    def observed(self, operation: Operation) -> tuple[Rule, ...]:
        """Return the matching rules of mode observe and shadow: to be recorded, not obeyed."""
        if all(matcher.rule.mode is Mode.ENFORCE for matcher in self._matchers):
            return ()
        matched = self.explain(operation.verb, operation.resource).matched
        return tuple(rule for rule in matched if rule.mode is not Mode.ENFORCE)

    def _decide(self, verb: str, path: str, matched: tuple[Rule, ...]) -> Verdict:
        enforced = [rule for rule in matched if rule.mode is Mode.ENFORCE]
        shown = _shown(verb, path)
        if is_ambiguous(path):
            return Deny(
                DEFAULT_DENY,
                Reason.POLICY_DENIED,
                f"{shown} has dot segments behind an encoded slash: servers differ in its meaning",
                "Send the path without encoded slashes or dots.",
            )
        for rule in enforced:
            if rule.effect == "deny":
                return self._denied(rule, shown)
        for rule in enforced:
            if rule.effect == "allow":
                return Allow(rule.rule_id)
        return self._unmatched(shown, ENCODED if _has_slash(path) else "")

    def _denied(self, rule: Rule, shown: str) -> Deny:
        return Deny(
            rule.rule_id,
            Reason.POLICY_DENIED,
            f"rule {rule.rule_id} denies {shown} at target {self.grant.target.name}",
            "If the loop needs this, ask whoever keeps the policy to change that rule.",
        )

    def _unmatched(self, shown: str, hint: str) -> Deny:
        loop, target = self.grant.loop, self.grant.target.name
        return Deny(
            DEFAULT_DENY,
            Reason.POLICY_DENIED,
            f"no rule of loop {loop} allows {shown} at target {target}",
            f"If the loop needs this, ask whoever keeps the policy to add to loop {loop}: "
            f"{{target: {target}, allow: {{method: …, path: …}}}}{hint}",
        )


def _compiled(rule: Rule) -> Iterator[re.Pattern[str]]:
    """Yield a rule's patterns: of deny also what each is to a server that decodes slashes."""
    for path in rule.paths:
        yield compile_pattern(path, loose=rule.effect != "allow")
        plain = path.replace(ENCODED_SLASH, "/")
        if rule.effect != "allow" and plain != path and check_pattern(plain) is None:
            yield compile_pattern(plain, loose=True)


def _has_slash(path: str) -> bool:
    return ENCODED_SLASH in path or ENCODED_SLASH.lower() in path


def _shown(verb: str, path: str) -> str:
    cut = path if len(path) <= 200 else f"{path[:200]}…"
    return f"{verb[:32]} {cut}"


def evaluator_of(grant: Grant) -> Evaluator | SqlEvaluator:
    """Return the evaluator of a grant's protocol.

    Raises:
        ValueError: a rule has a pattern that can't be compiled.
    """
    return SqlEvaluator(grant) if grant.target.protocol in SQL_PROTOCOLS else Evaluator(grant)


_evaluators: dict[int, Evaluator | SqlEvaluator] = {}


def evaluate(grant: Grant, operation: Operation) -> Verdict:
    """Decide an operation by a grant; the compiled form is kept while the grant object lives on."""
    evaluator = _evaluators.get(id(grant))
    if evaluator is None or evaluator.grant is not grant:
        if len(_evaluators) >= EVALUATORS_MAX:
            _evaluators.pop(next(iter(_evaluators)))
        evaluator = _evaluators[id(grant)] = evaluator_of(grant)
    return evaluator.evaluate(operation)
