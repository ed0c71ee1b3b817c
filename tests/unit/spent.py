"""What work costs, as a busy machine can't change it."""

import time
from collections.abc import Callable

TRIES = 5


def cpu_s(work: Callable[[], object]) -> float:
    """Return the least CPU time of this thread that the work took in TRIES times.

    A machine may take the processor away and count that as time of ours; not each time.
    """
    return min(_once(work) for _ in range(TRIES))


def _once(work: Callable[[], object]) -> float:
    began_s = time.thread_time()
    work()
    return time.thread_time() - began_s
