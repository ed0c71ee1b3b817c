"""Timers by a time that the test moves: a busy machine makes nothing early or late."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Timer:
    """What asyncio.TimerHandle is to its owner."""

    when_s: float
    then: Callable[[], object]
    over: bool = False

    def cancel(self) -> None:
        """Never call it."""
        self.over = True


class Clock:
    """The part of an event loop that tells the time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        """See asyncio."""
        return self.now_s

    def call_at(self, when_s: float, then: Callable[..., object], *arguments: Any) -> Timer:
        """See asyncio."""
        timer = Timer(when_s, lambda: then(*arguments))
        self._timers.append(timer)
        return timer

    def call_later(self, delay_s: float, then: Callable[..., object], *arguments: Any) -> Timer:
        """See asyncio."""
        return self.call_at(self.now_s + delay_s, then, *arguments)

    def advance(self, by_s: float) -> None:
        """Let so much time pass, and call what is due, in its order."""
        until_s = self.now_s + by_s
        while due := [one for one in self._timers if not one.over and one.when_s <= until_s]:
            first = min(due, key=lambda one: one.when_s)
            self.now_s = max(self.now_s, first.when_s)
            first.over = True
            first.then()
        self.now_s = until_s
