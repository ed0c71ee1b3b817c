"""The host's clock, for leases."""

import asyncio

import pytest

from agent.broker import lease_clock
from agent.broker.lease_clock import SystemClock
from tests.unit.broker.harness import run_async


def test_waiting_ends_with_the_event_or_the_moment() -> None:
    """At once when either is there already."""

    async def main() -> None:
        clock, event = SystemClock(), asyncio.Event()
        assert len(clock.boot) == 36
        assert all(0 <= clock.chance() < 1 for _ in range(100))
        before = clock.boot_ms()
        await clock.wait(event, before)
        await clock.wait(event, before + 30)
        assert clock.boot_ms() >= before + 30
        asyncio.get_running_loop().call_later(0.01, event.set)
        await clock.wait(event, None)
        await clock.wait(event, clock.boot_ms() + 3_600_000)

    run_async(main())


def test_a_host_that_slept_is_noticed_at_the_next_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop's timers stand still in suspend; the clock that counts is looked at again."""
    monkeypatch.setattr(lease_clock, "TICK_S", 0.01)

    async def main() -> None:
        clock = SystemClock()
        until = clock.boot_ms() + 3_600_000
        real = clock.boot_ms
        slept = [0, 0, 3_600_001]
        monkeypatch.setattr(
            clock, "boot_ms", lambda: real() + (slept.pop(0) if slept else 3_600_001)
        )
        async with asyncio.timeout(60):
            await clock.wait(asyncio.Event(), until)

    run_async(main())
