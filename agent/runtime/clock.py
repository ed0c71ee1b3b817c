"""The clocks, in one place. Order is by sequence and monotonic time; the wall is a label."""

import os
import time
from functools import lru_cache

from agent.model.ids import ulid_randomness, ulid_time

ULID_RANDOM_CHARACTERS = 16
DRAWN_AT_ONCE = 256  # ULIDs of one system call
_drawn: list[str] = []
_time_of = lru_cache(1)(ulid_time)  # many in one millisecond


def unix_ms() -> int:
    """Return Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def monotonic_ns() -> int:
    """Return monotonic nanoseconds."""
    return time.monotonic_ns()


def boot_ns() -> int:
    """Return nanoseconds since boot, suspended time included: the clock of process start times."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def fresh_ulid() -> str:
    """Return a new identifier."""
    if not _drawn:
        text = ulid_randomness(os.urandom(DRAWN_AT_ONCE * ULID_RANDOM_CHARACTERS))
        step = ULID_RANDOM_CHARACTERS
        _drawn.extend(text[start : start + step] for start in range(0, len(text), step))
    return _time_of(unix_ms()) + _drawn.pop()
