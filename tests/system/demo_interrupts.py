"""Ctrl-C in the demonstration: at once in a fact; while parts start, after the one that starts.

A part whose start is cut in the middle may be running and known to nobody: a process whose number
was not yet noted, a folder whose removal was not yet due.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What the signals do; came: whether there was one."""

    def __init__(self) -> None:
        self.came = False
        self._starting = False
        for number in ENDING:
            signal.signal(number, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        self.ignore()
        if not self._starting:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """Let no second Ctrl-C stop the removal."""
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Put an interrupt off to the end of this block."""
        self._starting = True
        try:
            yield
        finally:
            self._starting = False
        if self.came:
            raise KeyboardInterrupt
