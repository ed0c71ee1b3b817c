"""When what a server made ends: asserted between two looks at the clock, however far apart."""

from agent.runtime import clock

SLACK_MS = 2_000  # servers count in whole seconds


def lasts(end_ms: float, length_s: int, began_ms: int) -> bool:
    """Whether it ends so long after a moment between began_ms and now."""
    return began_ms - SLACK_MS <= end_ms - 1000 * length_s <= clock.unix_ms() + SLACK_MS
