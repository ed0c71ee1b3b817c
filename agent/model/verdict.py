"""What the policy says of one operation."""

from dataclasses import dataclass, field
from enum import StrEnum

from agent.model.ids import RuleId
from agent.model.reason import Reason
from agent.model.sql import Statement


class Mode(StrEnum):
    """Of a rule: observe records, shadow also evaluates, enforce decides."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    ENFORCE = "enforce"


class Literals(StrEnum):
    """What a record keeps of a query's literals and bound values."""

    KEEP = "keep"
    NORMALIZE = "normalize"  # placeholders stand where they were


@dataclass(frozen=True, slots=True)
class Allow:
    """Go on; the rule that allowed it. max_rows 0: as many rows as there are.

    hides_columns: there are columns that no statement may read, so errors may not quote rows.
    statements: the operation's, with the effects that were decided on; None: as they were asked.
    """

    rule: RuleId
    max_rows: int = 0
    literals: Literals = Literals.KEEP
    hides_columns: bool = False
    statements: tuple[Statement, ...] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse, in the protocol's own words. next_step is one sentence for a person or an agent.

    statements: see Allow.
    """

    rule: RuleId
    reason: Reason
    explanation: str
    next_step: str
    literals: Literals = Literals.KEEP
    statements: tuple[Statement, ...] | None = field(default=None, repr=False, compare=False)


Verdict = Allow | Deny
