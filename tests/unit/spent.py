"""What work costs, measured so that a busy machine does not matter."""

import time
from collections.abc import Callable

TRIES = 5


def is_quick(work: Callable[[], object], limit_s: float) -> bool:
    """Return whether the work can be done within so much CPU time of this thread.

    Work that is slow is slow each time. Once in a while a machine counts its own pauses as our
    time, and Python looks through all objects of a long run for garbage: not TRIES times in a row.
    """
    return any(_spent_s(work) < limit_s for _ in range(TRIES))


def _spent_s(work: Callable[[], object]) -> float:
    began_s = time.thread_time()
    work()
    return time.thread_time() - began_s
