"""A real reporter process, with the test as its supervisor and as the proxies that record."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.ipc.endpoint import Endpoint, Received, pair
from agent.ipc.messages import (
    Drain,
    Durable,
    Ready,
    Record,
    ReporterState,
    ReporterStatus,
    SpoolState,
    Wire,
)
from agent.ipc.records import pack_event
from agent.model.audit import AuditEvent

WITHIN_S = 120.0  # a guard against a hang
USER = "65534"


@dataclass(slots=True)
class Worker:
    """One peer of the reporter, as a proxy is."""

    endpoint: Endpoint
    number: int = 0
    durable: int = 0
    states: list[SpoolState] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def record(self, *events: AuditEvent, level: str = "disk", answer: bool = True) -> int:
        """Send a frame; return its number."""
        self.number += 1
        packed = tuple(pack_event(event) for event in events)
        self.endpoint.notify(Record(packed, self.number if answer else 0, level))
        return self.number

    async def until_durable(self, number: int) -> None:
        """Wait for the answer that covers a frame."""
        async with asyncio.timeout(WITHIN_S):
            while self.durable < number:
                self.changed.clear()
                await self.changed.wait()

    async def until_state(self, *, accepting: bool) -> SpoolState:
        """Wait until the last state that was told is this one."""
        async with asyncio.timeout(WITHIN_S):
            while not self.states or self.states[-1].accepting is not accepting:
                self.changed.clear()
                await self.changed.wait()
        return self.states[-1]

    async def until_gone(self) -> None:
        """Wait until the reporter closed."""
        async with asyncio.timeout(WITHIN_S):
            while not self.endpoint.closed:
                self.changed.clear()
                await self.changed.wait()

    def received(self, received: Received) -> None:
        """Take a notice."""
        if isinstance(received.message, Durable):
            self.durable = received.message.durable
        elif isinstance(received.message, SpoolState):
            self.states.append(received.message)
        self.changed.set()


@dataclass(slots=True)
class Reporter:
    """The process; its configuration may be changed between starts."""

    folder: Path
    settings: str = ""
    prefix: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None
    kernel: Endpoint | None = None

    @property
    def spool(self) -> Path:
        """Its spool."""
        return self.folder / "state" / "spool"

    async def start(self) -> None:
        """Start, and wait until it is ready."""
        config = self.folder / "loopwarden.toml"
        config.write_text(
            f'state_dir = "{self.folder}/state"\n{self.settings}\n[users]\nreporter = "{USER}"\n'
        )
        ready = asyncio.Event()
        ours, theirs = pair()
        with theirs, (self.folder / "reporter.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - the pid is needed at once
                [
                    *(*self.prefix, sys.executable, "-m", "agent.reporter"),
                    *("--config", str(config), "--name", "reporter"),
                    *("--fd", str(theirs.fileno())),
                ],
                pass_fds=[theirs.fileno()],
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

        def receive(received: Received) -> None:
            if isinstance(received.message, Ready):
                ready.set()

        self.kernel = Endpoint(
            ours, own="kernel", peer="reporter", receive=receive, on_closed=lambda _why: ready.set()
        )
        async with asyncio.timeout(WITHIN_S):
            await ready.wait()
        if self.kernel.closed:
            raise AssertionError((self.folder / "reporter.log").read_text())

    def wire(self, name: str) -> Worker:
        """Connect a proxy or the broker."""
        assert self.kernel is not None
        ours, theirs = pair()
        with theirs:
            self.kernel.notify(Wire(name), [theirs.fileno()])
        worker: Worker
        endpoint = Endpoint(
            ours,
            own=name,
            peer="reporter",
            receive=lambda received: worker.received(received),  # noqa: PLW0108 - made below
            on_closed=lambda _why: worker.changed.set(),
        )
        worker = Worker(endpoint)
        return worker

    async def worker(self, name: str, *opened: AuditEvent) -> Worker:
        """Connect a proxy for which the broker has recorded these sessions."""
        broker = self.wire("broker")
        await broker.until_durable(broker.record(*opened, level="process"))
        broker.endpoint.close()
        return self.wire(name)

    async def status(self) -> ReporterState:
        """Ask as the broker does."""
        broker = self.wire("broker")
        try:
            return await broker.endpoint.request(ReporterStatus(), ReporterState)
        finally:
            broker.endpoint.close()

    async def wait(self) -> int:
        """Wait for its end; return the exit code."""
        assert self.process is not None
        pidfd = os.pidfd_open(self.process.pid)
        ended = asyncio.Event()
        event_loop = asyncio.get_running_loop()
        event_loop.add_reader(pidfd, ended.set)
        try:
            async with asyncio.timeout(WITHIN_S):
                await ended.wait()
        finally:
            event_loop.remove_reader(pidfd)
            os.close(pidfd)
        return self.process.wait()

    async def drain(self) -> int:
        """End it as the supervisor does; return the exit code."""
        assert self.kernel is not None
        self.kernel.notify(Drain(5.0))
        return await self.wait()

    async def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.process is not None
        self.process.kill()
        await self.wait()


@asynccontextmanager
async def running_reporter(
    folder: Path, settings: str = "", prefix: Sequence[str] = ()
) -> AsyncIterator[Reporter]:
    """Run a reporter; it is killed at the end unless it ended before."""
    os.chmod(folder, 0o755)
    reporter = Reporter(folder, settings, prefix)
    await reporter.start()
    try:
        yield reporter
    finally:
        if reporter.kernel is not None:
            reporter.kernel.close()
        if reporter.process is not None and reporter.process.poll() is None:
            reporter.process.kill()
            reporter.process.wait()
