"""A run that dials as fast as it can waits for itself, and nobody waits for it.

The broker answers in the order it is asked, and has the reporter write a session's first record
before it does. So it is asked about so many connections of one run at once; what is behind them
waits here, in the order it came. Another run's connection finds that many of each other run before
it at the broker, however many wait.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.model.ids import RunId

ASKING_A_RUN_MAX = 32  # of a worker, that the broker is asked about; one past it waits
WAITING_A_RUN_MAX = 1_024  # behind those; one past it is reset, and recorded as overloaded
WAIT_S = 5.0  # then so is one that waits


class Crowded(Exception):
    """The run dials faster than its connections can be taken; the message says more."""


@dataclass(slots=True)
class _Line:
    """One run's."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ASKING_A_RUN_MAX))
    known: int = 0  # asked about, and waiting


class Turns:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._lines: dict[RunId, _Line] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @asynccontextmanager
    async def turn(self, run_id: RunId) -> AsyncIterator[None]:
        """Wait until it is this one's turn, and have it until the end of the block.

        Raises:
            Crowded: too many of the run wait, or it waited for too long.
        """
        line = self._lines.setdefault(run_id, _Line())
        if line.known >= ASKING_A_RUN_MAX + WAITING_A_RUN_MAX:
            raise Crowded(f"{line.known} connections of the run wait for the broker")
        line.known += 1
        try:
            await _acquire(line.free)
            try:
                yield
            finally:
                line.free.release()
        finally:
            line.known -= 1
            if not line.known:
                del self._lines[run_id]


async def _acquire(free: asyncio.Semaphore) -> None:
    if not free.locked():
        await free.acquire()  # at once
        return
    try:
        async with asyncio.timeout(WAIT_S):
            await free.acquire()
    except TimeoutError:
        text = f"a connection waited {WAIT_S:.0f} s behind others of its run"
        raise Crowded(text) from None
