"""The clocks of leases. What counts is a clock that nobody sets; Unix time is for people.

A lease's end is told by its server, turned once into a moment of the host's boot clock, and
awaited there: setting the wall clock neither kills nor extends it, and suspended time counts.
"""

import asyncio
import secrets
from pathlib import Path
from typing import Protocol

from agent.runtime import clock

TICK_S = 30.0  # timers of the event loop stand still while the host sleeps: look again after it
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseClock(Protocol):
    """Time and chance, as leases use them."""

    boot: str  # names this boot: moments of another boot's clock mean nothing

    def unix_ms(self) -> int:
        """Return Unix time."""
        ...

    def boot_ms(self) -> int:
        """Return milliseconds since boot, suspended time included."""
        ...

    def chance(self) -> float:
        """Return a number in [0, 1)."""
        ...

    async def wait(self, event: asyncio.Event, until_boot_ms: int | None) -> None:
        """Return when the event is set, or that moment has come."""
        ...


class SystemClock:
    """The host's own."""

    def __init__(self) -> None:
        self.boot = BOOT_ID.read_text(encoding="ascii").strip()

    def unix_ms(self) -> int:
        """See LeaseClock."""
        return clock.unix_ms()

    def boot_ms(self) -> int:
        """See LeaseClock."""
        return clock.boot_ns() // 1_000_000

    def chance(self) -> float:
        """See LeaseClock."""
        return secrets.randbelow(1 << 32) / (1 << 32)

    async def wait(self, event: asyncio.Event, until_boot_ms: int | None) -> None:
        """See LeaseClock."""
        while not event.is_set():
            left_s = TICK_S
            if until_boot_ms is not None:
                left_s = min(left_s, (until_boot_ms - self.boot_ms()) / 1000)
            if left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await event.wait()
            except TimeoutError:
                continue
