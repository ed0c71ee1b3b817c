"""Time at real servers: clocks that a test lets pass, and waiting for what sets no event."""

import asyncio
import time
from collections.abc import Callable

import pytest

from agent.broker import http_client, sql_client
from agent.broker.lease_clock import SystemClock
from agent.credentials.postgres import removal
from agent.credentials.vault import wire

TICK_S = 0.002
PATIENT_S = 60.0


def be_patient(patch: pytest.MonkeyPatch) -> None:
    """Let servers on a busy machine take their time, where that they hang is not the claim."""
    patch.setattr(http_client, "HTTP_S", PATIENT_S)
    patch.setattr(wire, "REQUEST_S", PATIENT_S)
    for name in ("SQL_CONNECT_S", "SQL_STATEMENT_S"):
        patch.setattr(sql_client, name, PATIENT_S)
    for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
        patch.setitem(sql_client.SETTINGS, name, str(int(1_000 * PATIENT_S)))
    patch.setattr(removal, "TERMINATE_MS", int(500 * PATIENT_S))


async def until(holds: Callable[[], bool], within_s: float = 3_600.0) -> None:
    """Return when it holds, or after that time."""
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:  # noqa: ASYNC110 - servers set no event
        await asyncio.sleep(TICK_S)


class Deadlines:
    """In place of asyncio.timeout: none passes before the test lets it, however slow all is."""

    SOON_S = 0.2

    def __init__(self) -> None:
        self.asked_s: list[float | None] = []
        self._open: tuple[asyncio.AbstractEventLoop, asyncio.Timeout] | None = None
        self._timeout = asyncio.timeout

    def timeout(self, within_s: float | None) -> asyncio.Timeout:
        """See asyncio.timeout."""
        self.asked_s.append(within_s)
        deadline = self._timeout(None)
        self._open = asyncio.get_running_loop(), deadline
        return deadline

    def pass_soon(self) -> None:
        """Let the last one that was begun pass; any thread may say so."""
        assert self._open is not None
        event_loop, deadline = self._open
        event_loop.call_soon_threadsafe(
            lambda: deadline.reschedule(event_loop.time() + self.SOON_S)
        )


class PassingLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers a test can let pass."""

    passed_s = 0.0

    def time(self) -> float:
        """See asyncio.AbstractEventLoop."""
        return super().time() + self.passed_s


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
