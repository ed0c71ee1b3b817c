"""A cheap look at long text before the parser gets it.

The parser writes its tree by recursion: some 60 000 levels overflow a stack of 8 MiB and end
the process. Brackets end earlier, at its own bound of 10 000, but chains of operators, casts,
joins and unions nest to the left without a bound. A level takes two bytes of text at least, so
that short text is safe, and long text is counted: tokens since the last comma, on each level of
brackets. It is no promise (the caller runs this in a child), but makes crashes rare.
"""

import re
from typing import Final

from agent.protocols.postgres.sql.lexis import tokens

SAFE_BYTES: Final = 64 << 10
TOKENS_MAX: Final = 30_000  # of one chain, with all brackets around it
COMMENTS_MAX: Final = 1_000  # nested ones cost the parser the square of their number
COMBINED_MAX: Final = 15_000  # joins and unions, which commas do not end

_COMBINING = re.compile(r"\b(?:join|union|intersect|except)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"between", re.IGNORECASE)


def too_deep(text: str) -> bool:
    """Whether the text may nest deeper than the parser's stack bears."""
    if text.count("/*") > COMMENTS_MAX:
        return True
    if len(text) <= SAFE_BYTES:
        return False
    if sum(1 for _ in _COMBINING.finditer(text)) > COMBINED_MAX:
        return True
    # makes AND part of a chain, which otherwise starts anew there
    flat = frozenset({"and", "or"}) if _BETWEEN.search(text) is None else frozenset({"or"})
    levels = [0]
    total = 0
    for kind, start, end in tokens(text):
        if kind == "open":
            levels.append(0)
        elif kind == "close":
            if len(levels) > 1:
                total -= levels.pop()
        elif kind == "end" or (
            kind == "name" and end - start < 4 and text[start:end].lower() in flat
        ):
            total -= levels[-1]
            levels[-1] = 0
        elif kind != "comment":
            levels[-1] += 1
            total += 1
            if total > TOKENS_MAX:
                return True
    return False
