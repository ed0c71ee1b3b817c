"""The live sessions of a worker: bounded, found by run, closed exactly once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from agent.model.audit import SessionClosed
from agent.model.ids import LeaseId, RunId, TargetName
from agent.model.reason import Reason
from agent.proxy.intents import OpenOperations
from agent.proxy.session import Session
from agent.runtime.clock import monotonic_ns

CONNECTIONS_MAX = 8_192  # of a worker; at it, connections wait in the kernel's backlog
CONNECTIONS_A_RUN_MAX = 4_096  # one past it is reset, and recorded as overloaded
A_RUNS_SHARE = 2  # and no run gets more than this part of what the worker takes: there are others


class Live(Protocol):
    """Whatever serves a session (a driver, or a refusal)."""

    session: Session

    def cut(self, reason: Reason) -> None:
        """End now with this cause."""

    def drain(self) -> None:
        """End when nothing is under way."""

    def stop(self, target: TargetName, name: bytes) -> bool:
        """Give up what is held, if it answers to this name; whether there was something."""


@dataclass(slots=True, eq=False)
class Arriving:
    """A connection of a run that is no session yet. cut: its run was cut meanwhile."""

    cut: Reason | None = None


class Sessions:
    """The registry."""

    def __init__(
        self,
        on_closed: Callable[[Session, SessionClosed], None],
        connections_max: int = CONNECTIONS_MAX,
        workers: int = 1,
    ) -> None:
        """on_closed is told once a session, with its last record. workers: of the host."""
        self._by_run: dict[RunId, set[Live]] = {}
        self._arriving: dict[RunId, set[Arriving]] = {}
        self._count = 0
        self.operations = OpenOperations(workers)
        self._on_closed = on_closed
        self._a_run_max = max(1, min(CONNECTIONS_A_RUN_MAX, connections_max // A_RUNS_SHARE))

    def __len__(self) -> int:
        return self._count

    def has_room(self, run_id: RunId) -> bool:
        """Whether the run may have one more."""
        known = len(self._by_run.get(run_id, ())) + len(self._arriving.get(run_id, ()))
        return known < self._a_run_max

    @contextmanager
    def arriving(self, run_id: RunId) -> Iterator[Arriving]:
        """Know of a connection while others are asked about it: a cut must not miss it."""
        one = Arriving()
        same = self._arriving.setdefault(run_id, set())
        same.add(one)
        try:
            yield one
        finally:
            same.discard(one)
            if not same:
                self._arriving.pop(run_id, None)

    def stop(self, run_id: RunId, target: TargetName, name: bytes) -> bool:
        """Have the session that answers to this name give up what it holds; whether it did."""
        return any(live.stop(target, name) for live in tuple(self._by_run.get(run_id, ())))

    def opened(self, live: Live) -> None:
        """Know of one more."""
        self._by_run.setdefault(live.session.run_id, set()).add(live)
        self._count += 1

    def replace(self, live: Live, successor: Live) -> None:
        """The same session is served by another now."""
        same = self._by_run[live.session.run_id]
        same.remove(live)
        same.add(successor)

    def closed(self, live: Live, reason: Reason) -> None:
        """Take the accounts of one that ended, once; again does nothing."""
        last = live.session.close(reason, monotonic_ns())
        if last is None:
            return
        same = self._by_run.get(live.session.run_id)
        if same is not None and live in same:
            self._count -= 1
            same.remove(live)
            if not same:
                del self._by_run[live.session.run_id]
        self._on_closed(live.session, last)

    def never_served(self, session: Session, reason: Reason) -> None:
        """Close one that the broker opened, and that was refused before anything served it."""
        last = session.close(reason, monotonic_ns())
        if last is not None:
            self._on_closed(session, last)

    def cut_run(self, run_id: RunId, reason: Reason) -> None:
        """End every session of a run now, and what is about to be one."""
        for one in self._arriving.get(run_id, ()):
            one.cut = reason
        for live in tuple(self._by_run.get(run_id, ())):
            live.cut(reason)

    def cut_lease(self, run_id: RunId, lease_id: LeaseId, reason: Reason) -> None:
        """End every session of the run that has this lease's credential."""
        for live in tuple(self._by_run.get(run_id, ())):
            if live.session.lease_id == lease_id:
                live.cut(reason)

    def drain_lease(self, run_id: RunId, lease_id: LeaseId) -> None:
        """Let each session with this lease's credential end when nothing of it is under way."""
        for live in tuple(self._by_run.get(run_id, ())):
            if live.session.lease_id == lease_id:
                live.drain()

    def cut_all(self, reason: Reason) -> None:
        """End every session now."""
        for run_id in {*self._by_run, *self._arriving}:
            self.cut_run(run_id, reason)

    def drain(self) -> None:
        """Let each end when nothing of it is under way."""
        for same in tuple(self._by_run.values()):
            for live in tuple(same):
                live.drain()
