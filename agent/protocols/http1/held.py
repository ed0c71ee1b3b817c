"""Bodies held for a signature, counted for each run and target: a loop has many connections.

The count is the worker's: sessions of one run at one target share it by their run_key.
"""

from agent.protocols.http1.limits import RUN_HELD_BYTES_MAX


class Held:
    """How much all sessions of each run and target hold."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def change(self, run_key: bytes, more: int) -> bool:
        """Count so much more, or less; False, and nothing is counted, when it is too much."""
        count = self._counts.get(run_key, 0) + more
        if more > 0 and count > RUN_HELD_BYTES_MAX:
            return False
        if count:
            self._counts[run_key] = count
        else:
            self._counts.pop(run_key, None)
        return True

    def of(self, run_key: bytes) -> int:
        """Return what a run's sessions at one target hold now."""
        return self._counts.get(run_key, 0)


HELD = Held()
