"""Grant and statements → verdict, for targets that speak SQL.

An operation is allowed when each of its statements is: no enforced deny rule hits it, and one
enforced allow rule covers it (`agent.policy.sql` says what these mean). Different statements may
be covered by different rules. Nothing depends on the order of rules.

The rule of an Allow is that of the most dangerous statement, the first of equals. All rules that
cover a statement have decided: the smallest `max_rows` of them holds, and literals are left out
of the record if one of them says so. A refusal's are, if any enforced rule of the grant says so.
"""

import collections
import dataclasses
import re
from dataclasses import dataclass

from agent.model.grant import Grant, PostgresOptions, Rule
from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.sql import Statement
from agent.model.verdict import Allow, Deny, Literals, Mode, Verdict
from agent.policy import sql_words as words
from agent.policy.sql import Facts, Matcher, Names

CACHED_VERDICTS_MAX = 1_024  # per grant; the least recently used goes
CACHED_STATEMENTS_MAX = 16  # texts with more are decided, not remembered
STATEMENTS_MAX = 1_000  # of one text; more are refused
DEFAULT_DENY = RuleId("default-deny")
# spaces, semicolons and comments: what any server takes for nothing
_NOTHING = re.compile(r"[\s;]+|--[^\r\n]*|/\*(.*?)\*/", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One statement: what it does, and what the rules say of it."""

    facts: Facts
    verdict: Verdict
    matched: tuple[Rule, ...]  # whether or not they decide


@dataclass(frozen=True, slots=True)
class SqlExplanation:
    """A verdict, and how it came about."""

    verdict: Verdict
    judgements: tuple[Judgement, ...]


class SqlEvaluator:
    """One grant, compiled. A decision costs a microsecond when cached, some dozen when not."""

    def __init__(self, grant: Grant) -> None:
        """Compile the rules.

        Raises:
            ValueError: a rule has a pattern that check_name_pattern refuses.
        """
        self.grant = grant
        names = Names(grant.target.postgres or PostgresOptions())
        self._names = names
        self._fixed = dict(grant.target.postgres.settings) if grant.target.postgres else {}
        matchers = [Matcher(rule, names) for rule in grant.rules if rule.sql is not None]
        self._allow = tuple(one for one in matchers if one.rule.effect == "allow")
        self._deny = tuple(one for one in matchers if one.rule.effect == "deny")
        enforced = [one for one in matchers if one.rule.mode is Mode.ENFORCE]
        self._literals = _strictest([one.match.literals for one in enforced])
        self._hides = any(one.match.columns for one in enforced)
        # by identity: who classifies gives the same object for the same statements, and the object
        # is kept here, so that no other can have its place
        self._cache: collections.OrderedDict[int, tuple[tuple[Statement, ...], Verdict]] = (
            collections.OrderedDict()
        )

    def evaluate(self, operation: Operation) -> Verdict:
        """Decide an operation of the grant's protocol."""
        statements = operation.statements
        key = id(statements)
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return known[1]
        verdict = self.explain(operation.resource, statements).verdict
        decided = tuple(map(self._names.decided, statements))
        if any(new is not old for new, old in zip(decided, statements, strict=True)):
            verdict = dataclasses.replace(verdict, statements=decided)
        if 0 < len(statements) <= CACHED_STATEMENTS_MAX:  # without any, the text decides
            self._cache[key] = (statements, verdict)
            if len(self._cache) > CACHED_VERDICTS_MAX:
                self._cache.popitem(last=False)
        return verdict

    def explain(self, text: str, statements: tuple[Statement, ...]) -> SqlExplanation:
        """Decide, and say what the rules say of each statement."""
        if not statements:
            return SqlExplanation(self._nothing(text), ())
        if len(statements) > STATEMENTS_MAX:
            why = f"one text has more than {STATEMENTS_MAX} statements"
            return SqlExplanation(self._refused(why, "Send them in several parts."), ())
        total = len(statements)
        judged = tuple(
            self._judge(self._names.facts(statement), number, total)
            for number, statement in enumerate(statements, 1)
        )
        for one in judged:
            if isinstance(one.verdict, Deny):
                return SqlExplanation(one.verdict, judged)
        allowed = dataclasses.replace(_together(judged), hides_columns=self._hides)
        return SqlExplanation(allowed, judged)

    def observed(self, operation: Operation) -> tuple[Rule, ...]:
        """Return the matching rules of mode observe and shadow: to be recorded, not obeyed."""
        if all(one.rule.mode is Mode.ENFORCE for one in (*self._allow, *self._deny)):
            return ()
        judged = self.explain(operation.resource, operation.statements).judgements
        matched = {rule.rule_id: rule for one in judged for rule in one.matched}
        return tuple(rule for rule in matched.values() if rule.mode is not Mode.ENFORCE)

    def _judge(self, facts: Facts, number: int, total: int) -> Judgement:
        hits = [(one, hit) for one in self._deny if (hit := one.hit(facts)) is not None]
        covering = [one for one in self._allow if one.objection(facts) is None]
        matched = tuple(one.rule for one in (*covering, *(one for one, _ in hits)))
        said = words.Said(self.grant.loop, self.grant.target.name, facts, number, total)
        verdict = (
            self._changes_fixed(said)
            or self._hit(hits, said)
            or self._uncovered(covering, said)
            or self._maybe_hit(said)
            or _allowed([one for one in covering if one.rule.mode is Mode.ENFORCE], facts)
        )
        return Judgement(facts, verdict, matched)

    def _changes_fixed(self, said: words.Said) -> Deny | None:
        """The target's settings hold: names are resolved by its search_path."""
        for name, value in said.facts.statement.settings if self._fixed else ():
            # None is the value that the session began with, which is the target's
            if name == words.ANY_SETTING or (
                name in self._fixed and value not in (None, self._fixed[name])
            ):
                return self._refused(said.changes(name), words.LEAVE_SETTING)
        return None

    def _hit(self, hits: list[tuple[Matcher, tuple[str, ...]]], said: words.Said) -> Deny | None:
        for one, hit in hits:
            if one.rule.mode is Mode.ENFORCE:
                rule_id = one.rule.rule_id
                return self._refused(said.hit(rule_id, hit), said.ask_for_change(), rule_id)
        return None

    def _uncovered(self, covering: list[Matcher], said: words.Said) -> Deny | None:
        if any(one.rule.mode is Mode.ENFORCE for one in covering):
            return None
        enforced = [one for one in self._allow if one.rule.mode is Mode.ENFORCE]
        nearest = max(enforced, key=lambda one: one.fit(said.facts), default=None)
        objection = nearest.objection(said.facts) if nearest is not None else None
        if nearest is None or objection is None:
            text = said.no_rule()
        else:
            text = said.not_covered(nearest.rule.rule_id, objection)
        return self._refused(text, said.next_step())

    def _maybe_hit(self, said: words.Said) -> Deny | None:
        if not said.facts.unknown:
            return None
        for one in self._deny:
            if one.rule.mode is Mode.ENFORCE:
                rule_id = one.rule.rule_id
                return self._refused(said.may_hit(rule_id), said.tell(), rule_id)
        return None

    def _nothing(self, text: str) -> Verdict:
        """Decide a text without statements: a ping, if it is one."""
        enforced = [one for one in self._allow if one.rule.mode is Mode.ENFORCE]
        if not enforced:
            said = f"no rule of loop {self.grant.loop} allows anything at target"
            return self._refused(f"{said} {self.grant.target.name}", words.ASK_FOR_A_RULE)
        if not _is_nothing(text):
            return self._refused("nobody has told what this text does", "Report this as a defect.")
        return Allow(enforced[0].rule.rule_id, 0, self._literals, self._hides)

    def _refused(self, why: str, next_step: str, rule_id: RuleId = DEFAULT_DENY) -> Deny:
        cut = words.EXPLANATION_CHARACTERS_MAX
        return Deny(
            rule_id,
            Reason.POLICY_DENIED,
            words.bounded(why, cut),
            words.bounded(next_step, cut),
            self._literals,
        )


def _is_nothing(text: str) -> bool:
    """Whether a text has no statement in any reading; a comment within a comment is not judged."""
    at = 0
    while at < len(text):
        match = _NOTHING.match(text, at)
        if match is None or "/*" in (match[1] or ""):
            return False
        at = match.end()
    return True


def _allowed(covering: list[Matcher], facts: Facts) -> Allow:
    limits = [one.match.max_rows for one in covering if one.match.max_rows]
    max_rows = 0 if facts.harmless else min(limits, default=0)
    return Allow(
        covering[0].rule.rule_id, max_rows, _strictest([one.match.literals for one in covering])
    )


def _together(judged: tuple[Judgement, ...]) -> Allow:
    """Return the one verdict of statements that are all allowed."""
    allowed = [(one.facts.danger, one.verdict) for one in judged if isinstance(one.verdict, Allow)]
    worst = max(allowed, key=lambda one: one[0])[1]
    limits = [verdict.max_rows for _, verdict in allowed if verdict.max_rows]
    literals = _strictest([verdict.literals for _, verdict in allowed])
    return Allow(worst.rule, min(limits, default=0), literals)


def _strictest(literals: list[Literals]) -> Literals:
    return Literals.NORMALIZE if Literals.NORMALIZE in literals else Literals.KEEP
