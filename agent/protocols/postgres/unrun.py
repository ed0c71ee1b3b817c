"""Statements that were prepared and not executed: a Parse alone touches no row, and tells of names.

What runs is recorded at Execute, with its values; a Parse whose statement never runs would be
nowhere. It is recorded when it fails, when too many others were prepared after it, and else at the
session's end. A worker that is killed takes those with it that it still remembered.
"""

from agent.protocols.postgres.names import Prepared
from agent.protocols.postgres.step import Stage, Step

UNRUN_MAX = 512  # statements of a session; one more, and the oldest is recorded
UNRUN_BYTES_MAX = 4 * 1024 * 1024  # of them, texts and facts; more, and the oldest are recorded


class Unrun:
    """One session's."""

    __slots__ = ("_steps", "_weight")

    def __init__(self) -> None:
        self._weight = 0
        self._steps: dict[int, tuple[Prepared, Step]] = {}  # the statement is kept, so its id is

    def __bool__(self) -> bool:
        return bool(self._steps)

    def add(self, prepared: Prepared, step: Step) -> list[Step]:
        """Remember a Parse that may go upstream; return the oldest when they are too many."""
        self._steps[id(prepared)] = prepared, step
        self._weight += prepared.weight
        oldest: list[Step] = []
        while len(self._steps) > UNRUN_MAX or self._weight > UNRUN_BYTES_MAX:
            _, first = next(iter(self._steps.values()))
            if first is step:
                break  # it has not gone upstream yet
            self.take(first)
            oldest.append(first)
        return oldest

    def ran(self, prepared: Prepared) -> None:
        """Something else is recorded of it: it was asked to run."""
        if self._steps.pop(id(prepared), None) is not None:
            self._weight -= prepared.weight

    def take(self, step: Step) -> bool:
        """Forget one Parse; whether it was remembered."""
        prepared = step.prepared
        if prepared is None or id(prepared) not in self._steps:
            return False
        self.ran(prepared)
        return True

    def take_all(self) -> list[Step]:
        """Return and forget all."""
        steps = [step for _, step in self._steps.values()]
        self._steps.clear()
        self._weight = 0
        return steps


def went_up(step: Step) -> bool:
    """Whether the server got this Parse, and did not skip it."""
    return not step.wire and step.stage is not Stage.DROPPED
