"""What the policy says of one operation."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.ids import RuleId
from agent.model.reason import Reason


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
    """

    rule: RuleId
    max_rows: int = 0
    literals: Literals = Literals.KEEP
    hides_columns: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuse, in the protocol's own words. next_step is one sentence for a person or an agent."""

    rule: RuleId
    reason: Reason
    explanation: str
    next_step: str
    literals: Literals = Literals.KEEP


Verdict = Allow | Deny
