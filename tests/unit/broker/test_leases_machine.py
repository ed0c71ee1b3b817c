"""Leases under any order of events: hypothesis drives, the backend is the truth.

Runs ask and end, policies change, people revoke, time passes and is set, providers fail in every
way at every step, the process is killed with what was not synced lost or torn. After each step:
what is alive outside has a row on disk; what is shown as over is over; who ended has nothing. At
the end, with everything healthy again, nothing is left.
"""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.broker.journal import Journal
from agent.broker.leases import LeaseFailed
from agent.ipc.messages import CutLease
from agent.model.ids import LeaseId, RunId
from agent.model.lease import OVER, Lease, LeaseState
from tests.unit.broker.lease_harness import DAY, HOUR, MINUTE, World, calm

RUNS = [RunId("r1"), RunId("r2")]
TARGETS = ["api", "db"]
FAULTS = {
    "issue": ["transient", "refused", "late", "broken", "empty", "expired"],
    "renew": ["transient", "refused", "late", "broken"],
    "revoke": ["transient", "permanent", "late", "broken"],
    "confirm": ["transient", "broken"],
}


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="lw-leases-", dir="/dev/shm")
        self.patch = pytest.MonkeyPatch()
        self.event_loop = asyncio.new_event_loop()
        self.held: dict[str, Lease] = {}  # session → what it has
        self.deaf = False  # the worker does not do what it is told
        self.ended: set[RunId] = set()
        self.asking: list[asyncio.Task[None]] = []
        self.do(self._start())

    async def _start(self) -> None:
        self.world = World(Path(self.folder.name), self.patch)
        self.world.told = self.told  # type: ignore[method-assign]
        self.world.leases.close()
        self.world.journal.close()
        self.world.open()

    def do(self, work: object) -> None:
        """Run a step and everything that follows from it."""

        async def whole() -> None:
            await work  # type: ignore[misc]
            await calm()
            for done in [task for task in self.asking if task.done()]:
                self.asking.remove(done)
                if not done.cancelled():
                    done.result()

        self.event_loop.run_until_complete(whole())

    def told(self, cut: CutLease) -> None:
        """A worker that listens ends the sessions of a cut lease, later."""
        for session, lease in list(self.held.items()):
            if lease.lease_id == cut.lease_id and not self.deaf and not cut.when_idle:
                self.leave(session)

    def leave(self, session: str) -> None:
        """A session ends."""
        del self.held[session]
        self.world.leave(session)

    # what may happen

    @rule(run=st.sampled_from(RUNS), name=st.sampled_from(TARGETS))
    def take(self, run: RunId, name: str) -> None:
        """A session needs the credential."""
        if run in self.ended:
            return
        session = f"s{len(self.world.events)}-{len(self.held)}"
        world = self.world

        async def ask() -> None:
            try:
                lease = await world.take(name, run)
            except LeaseFailed:
                return
            assert world.backend.lives(lease.lease_id)
            assert world.state(lease) in {LeaseState.ACTIVE, LeaseState.RENEWING}
            assert run not in self.ended
            self.held[session] = lease
            world.use(lease, session)

        async def work() -> None:
            self.asking.append(asyncio.ensure_future(ask()))

        self.do(work())

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def session_ends(self, data: st.DataObject) -> None:
        """One is done."""
        session = data.draw(st.sampled_from(sorted(self.held)))

        async def work() -> None:
            self.leave(session)

        self.do(work())

    @rule(run=st.sampled_from(RUNS), kernel=st.booleans())
    def run_ends(self, run: RunId, kernel: bool) -> None:
        """The last process is gone; the kernel may be slow to say that the flows are stopped."""

        async def work() -> None:
            self.ended.add(run)
            self.world.leases.run_ended(run)
            for session in [one for one, lease in self.held.items() if lease.run_id == run]:
                self.leave(session)
            if kernel:
                self.world.leases.flows_stopped(run)

        self.do(work())

    @precondition(lambda self: self.ended)
    @rule()
    def new_runs(self) -> None:
        """Ended runs are removed, and others begin under their names."""

        async def work() -> None:
            for run in self.ended:
                self.world.leases.flows_stopped(run)
                self.world.leases.run_removed(run)
            self.ended.clear()

        self.do(work())

    @rule(run=st.sampled_from(RUNS))
    def policy_changes(self, run: RunId) -> None:
        """The run's leases are taken away; its sessions were cut."""

        async def work() -> None:
            for session in [one for one, lease in self.held.items() if lease.run_id == run]:
                self.leave(session)
            self.world.leases.forget(run)

        self.do(work())

    @rule(data=st.data(), rotate=st.booleans())
    def person_revokes(self, data: st.DataObject, rotate: bool) -> None:
        """Any lease that is not over."""
        rows = self.world.journal.open_rows()
        if not rows:
            return
        row = data.draw(st.sampled_from(rows))

        async def work() -> None:
            self.world.leases.revoke(row.lease_id, rotate=rotate)

        self.do(work())

    @rule(ms=st.sampled_from([1, 500, 1_000, MINUTE, 20 * MINUTE, 41 * MINUTE, HOUR, DAY]))
    def time_passes(self, ms: int) -> None:
        """By the clock that counts."""
        self.do(self.world.clock.advance(ms))

    @rule(ms=st.sampled_from([-400 * DAY, -HOUR, HOUR, 400 * DAY]))
    def clock_is_set(self, ms: int) -> None:
        """By somebody."""
        self.world.clock.set_wall(ms)

    @rule(call=st.sampled_from(sorted(FAULTS)), data=st.data(), stays=st.booleans())
    def provider_fails(self, call: str, data: st.DataObject, stays: bool) -> None:
        """At its next call of a kind, or until it is repaired."""
        fault = data.draw(st.sampled_from(FAULTS[call]))
        self.world.backend.faults[call] = [("*" if stays else "") + fault]

    @rule(call=st.sampled_from(sorted(FAULTS)))
    def provider_hangs(self, call: str) -> None:
        """At calls of a kind, until it is repaired."""
        self.world.backend.gates.setdefault(call, asyncio.Event())

    @rule()
    def provider_is_repaired(self) -> None:
        """All of it."""

        async def work() -> None:
            self.repair()

        self.do(work())

    def repair(self) -> None:
        """Let everything go on."""
        self.world.backend.faults.clear()
        for gate in self.world.backend.gates.values():
            gate.set()
        self.world.backend.gates.clear()

    @rule(deaf=st.booleans())
    def worker_listens(self, deaf: bool) -> None:
        """Or not, from now on."""
        self.deaf = deaf

    @rule(lost=st.floats(0, 1), reboot=st.booleans())
    def killed(self, lost: float, reboot: bool) -> None:
        """The process dies; of what was not synced, some reached the disk. Sessions are cut."""
        size = self.world.path.stat().st_size
        # a compaction is durable as a whole; behind it, what announces something was synced
        synced = min(size, max(self.world.journal._kept, _durable(self.world.path, size)))
        keep = synced + round((size - synced) * lost)
        if reboot:
            self.world.clock.reboot(self.world.backend.alive, self.world.backend.born)
        self.held.clear()
        for task in self.asking:
            task.cancel()
        live = frozenset(RUNS) - self.ended
        self.ended.clear()
        self.do(self.world.crash(keep, live))

    # what must hold

    @invariant()
    def alive_outside_means_a_row_on_disk(self) -> None:
        """No credential without its row, in memory and in the file."""
        alive = {one for one in self.world.backend.alive if self.world.backend.lives(one)}
        assert alive <= self.world.journal.rows.keys()
        copy = Path(self.folder.name, "copy")
        copy.write_bytes(self.world.path.read_bytes())
        read = Journal(copy)
        read.close()
        assert alive <= read.rows.keys()
        assert not read.bad_lines

    @invariant()
    def over_means_over(self) -> None:
        """Nothing is shown as revoked or expired that the backend takes."""
        for lease_id in self.world.journal.past:
            assert not self.world.backend.lives(lease_id)

    @invariant()
    def one_lease_is_handed_out(self) -> None:
        """For each run and target at most one is active; of ended runs none."""
        active = [
            (row.run_id, row.target)
            for row in self.world.journal.open_rows()
            if row.state in {LeaseState.ACTIVE, LeaseState.RENEWING}
        ]
        assert len(active) == len(set(active))
        assert not {run for run, _ in active} & self.ended

    def teardown(self) -> None:
        """Everything is healthy again and all runs end: nothing is left."""

        async def work() -> None:
            self.repair()
            await calm()
            for run in RUNS:
                self.world.leases.run_ended(run)
                self.world.leases.flows_stopped(run)
            for session in list(self.held):
                self.leave(session)
            await self.world.clock.advance(2 * DAY)
            await calm()
            assert len(self.world.leases) == 0
            assert not [one for one in self.world.backend.alive if self.world.backend.lives(one)]
            past = self.world.journal.past.values()
            assert {row.state for row in past} <= OVER
            _every_path_is_in_the_table(self.world)
            self.world.leases.close()
            await calm()

        try:
            self.do(work())
        finally:
            self.world.journal.close()
            self.event_loop.close()
            self.patch.undo()
            self.folder.cleanup()


def _durable(path: Path, size: int) -> int:
    """Return the end of the last line that was synced: lines of announcing states are."""
    ends, position = [0], 0
    for line in path.read_bytes()[:size].splitlines(keepends=True):
        position += len(line)
        if line.startswith(b"loopwarden") or any(
            b'"state":"%s"' % word in line
            for word in (b"intent", b"issued", b"active", b"renewing", b"revoking")
        ):
            ends.append(position)
    return ends[-1]


def _every_path_is_in_the_table(world: World) -> None:
    """The journal asserts it for each move; here, that each lease began as an intent."""
    seen: dict[LeaseId, list[LeaseState]] = {}
    for event in world.events:
        lease_id = getattr(event, "lease_id", None)
        if lease_id is not None:
            seen.setdefault(lease_id, []).append(event.state)  # type: ignore[union-attr]
    assert all(states[0] is LeaseState.INTENT for states in seen.values())


TestLeases = Machine.TestCase
TestLeases.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
