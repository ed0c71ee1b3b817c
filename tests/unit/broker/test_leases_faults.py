"""Every provider, at every step, with every fault, through the broker's own lease machine.

A whole life (issue, renewal, the run's end, revocation, confirmation) is lived again and again; at
each next step something fails, until a life is lived without meeting the fault. Killed is SIGKILL
to a process that has journal, machine, client and provider as the broker has them; another one
reads the journal back. Afterwards: nothing lives that no row tells of, nothing was shown as
revoked that lived, and what nobody can end any more says until when it lives.

`vault` and `postgres` are real servers. A byte now and then (slow loris) is in
tests/unit/broker/test_http_client.py: here it is what the broker makes of it, an answer that never
comes. A role that owns a table is in tests/unit/credentials/vault/test_provider_leases.py.
"""

import asyncio
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.broker import revocation
from agent.broker.journal import Journal, Row
from agent.broker.leases import LeaseFailed, Leases
from agent.credentials.discover import providers
from agent.model.audit import AuditEvent, LeaseChanged
from agent.model.ids import LoopName, RunId
from agent.model.lease import LeaseState
from agent.runtime import clock
from tests.unit.broker.fault_subjects import OTHER_WAYS, SUBJECTS, Subject, subject
from tests.unit.broker.faults import KILLS, Fault, Plan
from tests.unit.broker.passing import PassingClock, PassingLoop, be_patient, until

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]
S = LeaseState
DOWN_S, SOON_S = 0.1, 100.0
STEPS_MAX = 60
LOSING = (Fault.LOST, Fault.KILLED_AFTER)
NO_HTTP = ("static", "postgres", "exec")


def _pairs(*faults: Fault) -> list[tuple[str, Fault]]:
    """Return who meets what; 202 is of HTTP. Other ways of a provider meet what loses a name."""
    wanted = faults or [fault for fault in Fault if fault not in KILLS]
    return [
        (name, fault)
        for name in SUBJECTS
        for fault in wanted
        if (fault is not Fault.QUEUED or name not in NO_HTTP)
        and (name not in OTHER_WAYS or fault in LOSING)
    ]


class Life:
    """A broker's leases, and what they told."""

    def __init__(self, made: Subject, folder: Path, plan: Plan) -> None:
        self._made, self._plan = made, plan
        self._clock = PassingClock()
        self.told: list[LeaseState] = []
        self.lies: list[str] = []
        self._journal = Journal(folder / "leases.journal")
        self._client = made.client(plan)
        self.leases = Leases(self._journal, self._client, self._note, clock=self._clock)

    def _note(self, event: AuditEvent) -> None:
        if isinstance(event, LeaseChanged):
            self.told.append(event.state)
            if event.state is S.REVOKED and (alive := self._made.alive()):
                self.lies.append(f"revoked, and alive: {alive}")

    async def live(self) -> None:
        """Live a lease's life; what is down is repaired when it has been tried for a while."""
        run_id = RunId(clock.fresh_ulid())
        try:
            lease = await self.leases.take(run_id, LoopName("nightly"), self._made.target())
        except LeaseFailed:
            pass
        else:
            row = self.leases.find(lease.lease_id)
            assert row is not None
            if row.next_ms:
                self._clock.passed_ms += max(0, row.next_ms - self._clock.unix_ms() + 1)
                await until(self._renewed, SOON_S)
        self.leases.run_ended(run_id)
        self.leases.flows_stopped(run_id)
        await until(self._settled, DOWN_S if self._plan.fault is Fault.DOWN else SOON_S)
        self._plan.repaired = True
        await self.settle()

    async def settle(self) -> None:
        """Wait until all is over, or nobody can end it any more."""
        await until(self._settled, SOON_S)
        assert self._settled(), [(row.state, row.error) for row in self.rows()]
        self.leases.close()
        await asyncio.sleep(0)

    def end(self) -> None:
        """Let go of the journal, when nothing writes to it any more."""
        self._journal.close()

    def rows(self) -> list[Row]:
        """Return what is not over."""
        return self.leases.every(past=False)

    def _settled(self) -> bool:
        return all(row.state is S.DRAINING and not row.revocable for row in self.rows())

    def _renewed(self) -> bool:
        return S.DRAINING in self.told or (S.RENEWING in self.told and self.told[-1] is S.ACTIVE)


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A provider with its backend."""
    with subject(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so at once, and nothing is given up that only takes long."""
    be_patient(monkeypatch)
    monkeypatch.setattr(revocation, "retry_delay_ms", lambda *_: 20)
    monkeypatch.setattr(revocation, "QUARANTINE_RETRY_MS", 50)


@pytest.mark.parametrize(("made", "fault"), _pairs(), indirect=["made"])
def test_a_step_fails(made: Subject, tmp_path: Path, fault: Fault) -> None:
    """Whatever step it is: in the end all is over that can be ended, and was never said before."""
    for step in range(1, STEPS_MAX):
        folder = tmp_path / str(step)
        folder.mkdir()
        plan = Plan(fault, step)
        life = _lived(made, folder, plan)
        _check(made, life, f"{made.provider}, step {step}: {fault}")
        if not plan.met:
            assert step > made.steps
            return
    raise AssertionError(f"more than {STEPS_MAX} steps")


@pytest.mark.parametrize(("made", "fault"), _pairs(*KILLS), indirect=["made"])
def test_the_broker_is_killed(made: Subject, tmp_path: Path, fault: Fault) -> None:
    """At every step: the next broker ends by the journal alone whatever there is."""
    for step in range(1, STEPS_MAX):
        folder = tmp_path / str(step)
        folder.mkdir()
        killed = _killed(made, folder, Plan(fault, step))
        _check(made, _restarted(made, folder), f"{made.provider}, step {step}: {fault}")
        if not killed:
            assert step > made.steps
            return
    raise AssertionError(f"more than {STEPS_MAX} steps")


def test_every_provider_is_here() -> None:
    """A new one needs a subject; see fault_subjects.py."""
    here = {name.partition(",")[0] for name in SUBJECTS}
    assert set(providers()) == here


def _lived(made: Subject, folder: Path, plan: Plan) -> Life:
    async def run() -> Life:
        life = Life(made, folder, plan)
        await life.live()
        return life

    with asyncio.Runner(loop_factory=PassingLoop) as runner:
        life = runner.run(run())
    life.end()
    return life


def _killed(made: Subject, folder: Path, plan: Plan) -> bool:
    """Live a life in a process of its own; return whether it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            _lived(made, folder, plan)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a child of a test's process must not go on
            traceback.print_exc()
            os._exit(70)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code != 0


def _restarted(made: Subject, folder: Path) -> Life:
    async def run() -> Life:
        life = Life(made, folder, Plan(Fault.LOST, 0))
        life.leases.reconcile(frozenset())
        await life.settle()
        return life

    life = asyncio.run(run())
    life.end()
    return life


def _check(made: Subject, life: Life, case: str) -> None:
    """See the module."""
    assert life.lies == [], case
    alive, rows = made.alive(), life.rows()
    assert len(alive) <= len(rows), f"{case}: alive, and in no row: {alive}"
    if not rows:
        return
    assert made.end is not None, f"{case}: {[(row.state, row.error) for row in rows]}"
    for row in rows:
        assert row.expires_ms > clock.unix_ms(), case
        assert not row.revocable, case
    for name in alive:  # nobody but its backend ends it: the test does, for the next life
        made.end(name)
