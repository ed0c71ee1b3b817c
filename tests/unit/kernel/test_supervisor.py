"""Roles that die come back later and later, roles that hang are ended, and systemd is told."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.ipc.endpoint import Received
from agent.kernel import supervisor
from agent.kernel.roles import RoleSpec
from agent.kernel.supervisor import Supervisor

DIES = RoleSpec("reporter", "agent.no_such_module")
HANGS = RoleSpec("reporter", "tests.servers.quiet_role")
SOON_S = 100.0  # a guard against hanging; nothing here takes so long


class Kept:
    """A supervisor of one role, and how often that died."""

    def __init__(self, role: RoleSpec) -> None:
        self.deaths: list[str] = []
        self.died = asyncio.Event()
        self.faults = 0
        self.supervisor = Supervisor(
            Path("/nonexistent"),
            (role,),
            receive=self._receive,
            on_started=lambda _name, _endpoint: None,
            on_died=self._died,
            on_fault=self._fault,
        )

    def _receive(self, _name: str, received: Received) -> None:
        received.close_fds()

    def _died(self, name: str, why: str) -> None:
        self.deaths.append(f"{name}: {why}")
        self.died.set()

    def _fault(self) -> None:
        self.faults += 1

    async def until_deaths(self, count: int) -> None:
        """Return when it died so often."""
        async with asyncio.timeout(SOON_S):
            while len(self.deaths) < count:
                self.died.clear()
                await self.died.wait()


@asynccontextmanager
async def kept(role: RoleSpec) -> AsyncIterator[Kept]:
    """Yield a supervisor that has started, but for what never gets ready."""
    made = Kept(role)
    starting = asyncio.ensure_future(made.supervisor.start())
    try:
        if role is HANGS:
            await starting
        yield made
    finally:
        starting.cancel()
        await made.supervisor.drain(0.1)
    assert made.supervisor.pids() == {}
    assert made.faults == 0


@pytest.mark.parametrize(
    ("steady_s", "waits"),
    [(3600.0, [0.01, 0.02, 0.04, 0.04]), (0.0, [0.01, 0.01, 0.01, 0.01])],
    ids=["at once", "after it was steady"],
)
def test_a_role_that_dies_is_restarted_later_and_later(
    steady_s: float,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each wait is twice the one before, up to the bound; one that lived long begins anew."""
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor, "BACKOFF_MAX_S", 0.04)
    monkeypatch.setattr(supervisor, "STEADY_S", steady_s)
    caplog.set_level(logging.ERROR, logger=supervisor.__name__)

    async def claim() -> None:
        async with kept(DIES) as made:
            await made.until_deaths(len(waits))
            assert set(made.deaths) == {"reporter: exit code 1"}
            assert not made.supervisor.healthy()

    asyncio.run(claim())
    told = [record.args[2] for record in caplog.records if isinstance(record.args, tuple)]
    assert told[: len(waits)] == waits


def test_a_role_that_is_never_ready_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start is over after READY_WITHIN_S, with the name of who was waited for."""
    monkeypatch.setattr(supervisor, "READY_WITHIN_S", 0.1)

    async def claim() -> None:
        made = Kept(DIES)
        with pytest.raises(TimeoutError, match="not ready in 0 s: reporter"):
            await made.supervisor.start()
        await made.supervisor.drain(0.1)
        assert made.supervisor.pids() == {}

    asyncio.run(claim())


def test_a_role_that_hangs_is_ended_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent past PULSE_MISSED_S it is killed; until it is ready again the watchdog is not fed."""
    monkeypatch.setattr(supervisor, "READY_WITHIN_S", SOON_S)
    monkeypatch.setattr(supervisor, "PULSE_MISSED_S", SOON_S)

    async def claim() -> None:
        async with kept(HANGS) as made:
            assert made.supervisor.healthy()
            before = made.supervisor.pids()["reporter"]
            monkeypatch.setattr(supervisor, "PULSE_MISSED_S", 0.0)
            assert not made.supervisor.healthy()
            await made.until_deaths(1)
            assert made.deaths == ["reporter: SIGKILL"]
            monkeypatch.setattr(supervisor, "PULSE_MISSED_S", SOON_S)
            assert not made.supervisor.healthy()  # it waits to be restarted
            async with asyncio.timeout(SOON_S):
                while not made.supervisor.healthy():  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(0.01)
            after = made.supervisor.pids()["reporter"]
            assert after != before
            with pytest.raises(ProcessLookupError):
                os.kill(before, 0)

    asyncio.run(claim())
