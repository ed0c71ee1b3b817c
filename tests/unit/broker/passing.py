"""Leases at real servers: a clock that a test lets pass, and waiting for what sets no event."""

import asyncio
import time
from collections.abc import Callable

from agent.broker.lease_clock import SystemClock

TICK_S = 0.002


async def until(holds: Callable[[], bool], within_s: float = 3_600.0) -> None:
    """Return when it holds, or after that time."""
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:  # noqa: ASYNC110 - servers set no event
        await asyncio.sleep(TICK_S)


class PassingClock(SystemClock):
    """The host's, but time can be let pass; servers have their own."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_ms = 0

    def boot_ms(self) -> int:
        """See LeaseClock."""
        return super().boot_ms() + self.passed_ms

    async def wait(self, event: asyncio.Event, until_boot_ms: int | None) -> None:
        """See LeaseClock."""
        await until(
            lambda: (
                event.is_set() or (until_boot_ms is not None and self.boot_ms() >= until_boot_ms)
            )
        )
