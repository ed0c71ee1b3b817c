"""The clocks, in one place. Order is by sequence and monotonic time; the wall is a label (R37)."""

import os
import time

from agent.model.ids import new_ulid

ULID_RANDOM_BYTES = 10
RANDOMNESS_BYTES = 4_000
_randomness = bytearray()


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
    if len(_randomness) < ULID_RANDOM_BYTES:
        _randomness.extend(os.urandom(RANDOMNESS_BYTES))  # a system call for 400, not for each
    drawn = bytes(_randomness[-ULID_RANDOM_BYTES:])
    del _randomness[-ULID_RANDOM_BYTES:]
    return new_ulid(unix_ms(), drawn)
