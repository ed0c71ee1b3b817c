"""What is said of a statement that is not allowed: to a person, or to an agent that can act on it.

Names out of the text are shown cut and printable. The next step has the YAML that would allow
this statement and no more, for whoever keeps the policy to judge.
"""

import json
import re
from dataclasses import dataclass

from agent.model.ids import LoopName, RuleId, TargetName
from agent.model.sql import Effect
from agent.policy.sql import DANGER, Facts
from agent.policy.sql_names import write_name

EXPLANATION_CHARACTERS_MAX = 1_000  # of an explanation, and of a next step
TABLES_SHOWN_MAX = 8
KIND_CHARACTERS_MAX = 64
ASK = "If the loop needs this, ask whoever keeps the policy to"
ASK_FOR_A_RULE = f"{ASK} add a rule with allow: {{effects: [read]}} or more."
LEAVE_SETTING = f"Leave the setting as it is. {ASK} take it out of the target's settings."
ANY_SETTING = "?"  # only the server can know which one a statement changes
_YAML_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.$-]*")


@dataclass(frozen=True, slots=True)
class Said:
    """One statement of one text, to be spoken of."""

    loop: LoopName
    target: TargetName
    facts: Facts
    number: int
    total: int

    @property
    def statement(self) -> str:
        """The statement in a few words."""
        kind = bounded(self.facts.statement.kind, KIND_CHARACTERS_MAX) or "not parsed"
        which = f"statement {self.number} of {self.total}" if self.total > 1 else "the statement"
        return f"{which} ({kind})"

    def hit(self, rule_id: RuleId, hit: tuple[str, ...]) -> str:
        """A deny rule means it."""
        said = f": it {' and '.join(hit)}" if hit else ""
        return f"rule {rule_id} denies {self.statement} at target {self.target}{said}"

    def may_hit(self, rule_id: RuleId) -> str:
        """An unknown statement may be what a deny rule means."""
        return (
            f"rule {rule_id} may deny {self.statement} at target {self.target}: "
            f"nobody can tell what it does, {self._why()}"
        )

    def changes(self, setting: str) -> str:
        """It changes a setting that the target has fixed."""
        which = "a setting that can't be told" if setting == ANY_SETTING else setting
        return (
            f"target {self.target} fixes its settings, and {self.statement} may change "
            f"{bounded(which, KIND_CHARACTERS_MAX)}"
        )

    def no_rule(self) -> str:
        """There is no allow rule at all."""
        effect = _worst(self.facts)
        return (
            f"no rule of loop {self.loop} allows {self.statement} at target {self.target}: "
            f"it has the effect {effect}{self._because()}"
        )

    def not_covered(self, rule_id: RuleId, objection: str) -> str:
        """The nearest allow rule lacks something."""
        return (
            f"no rule of loop {self.loop} allows {self.statement} at target {self.target}: "
            f"it {objection}{self._because()}, beyond rule {rule_id}"
        )

    def ask_for_change(self) -> str:
        """A deny rule is changed by its owner only."""
        return f"{ASK} change that rule."

    def next_step(self) -> str:
        """What would allow it."""
        if self.facts.unknown:
            return self.tell()
        step = f"{ASK} add to loop {self.loop}: {self._rule()}"
        if self.facts.statement.unbounded:
            return f"Add a WHERE condition. {step}"
        return step

    def tell(self) -> str:
        """What makes an unknown statement known."""
        calls = [call for call in self.facts.statement.calls if call.effect is Effect.UNKNOWN]
        if Effect.UNKNOWN in self.facts.statement.effects or not calls:
            return (
                "Send it in a form whose effects can be told; if that can't be, ask whoever keeps "
                f"the policy about allow: {{effects: [unknown]}} for target {self.target}."
            )
        name = yaml_text(write_name(calls[0].schema, calls[0].name))
        known = ", ".join(effect for effect in DANGER if effect is not Effect.UNKNOWN)
        return (
            f"If the loop needs this, ask whoever keeps the policy to say what the function does, "
            f"at target {self.target}: functions: {{{name}: EFFECT}}, where EFFECT is one of "
            f"{known}."
        )

    def _because(self) -> str:
        return f" ({self._why()})" if self.facts.unknown else ""

    def _why(self) -> str:
        statement = self.facts.statement
        if statement.why:
            return bounded(statement.why, 200)
        for call in statement.calls:
            if call.effect is Effect.UNKNOWN:
                return f"for no list has the function {write_name(call.schema, call.name)}"
        return "for its effects can't be told from the text"

    def _rule(self) -> str:
        """The YAML of a rule that covers the statement."""
        effects = [effect for effect in DANGER if effect in self.facts.effects]
        wanted = [effect for effect in effects if effect is not Effect.SESSION] or effects
        parts = [f"effects: [{', '.join(wanted)}]"]
        tables = [write_name(one.schema, one.name) for one in self.facts.relations]
        if 0 < len(tables) <= TABLES_SHOWN_MAX:
            parts.append(f"tables: [{', '.join(map(yaml_text, tables))}]")
            if self.facts.changing:
                calls = [write_name(one.schema, one.name) for one in self.facts.statement.calls]
                parts.append(f"functions: [{', '.join(map(yaml_text, dict.fromkeys(calls)))}]")
        if self.facts.statement.unbounded:
            parts.append("unbounded: true")
        return f"{{target: {self.target}, allow: {{{', '.join(parts)}}}}}"


def _worst(facts: Facts) -> Effect:
    return max(facts.effects, key=DANGER.index)


def yaml_text(text: str) -> str:
    """Return a text as YAML's flow style takes it."""
    return text if _YAML_PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def bounded(text: str, characters_max: int) -> str:
    """Return printable text of at most so many characters."""
    printable = text if text.isprintable() else "".join(map(_printable, text))
    return printable if len(printable) <= characters_max else printable[: characters_max - 1] + "…"


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}"
