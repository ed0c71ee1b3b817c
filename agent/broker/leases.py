"""One lease for each (run, target): journalled before use, taken away when the run ends.

Lazy: nothing is asked of a provider before a session needs it. What happens to a lease afterwards
is its keeper's (lease_keeper.py); here is who gets which, and who is told to end.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from agent.broker.journal import Journal, JournalDead, Row, RowTooLong
from agent.broker.lease_calls import CallFailed, Calls
from agent.broker.lease_clock import LeaseClock, SystemClock
from agent.broker.lease_keeper import Keeper, Surroundings
from agent.broker.lease_ledger import Alarms, Ledger, first_row
from agent.broker.lease_times import refuse_for_ms
from agent.broker.lease_users import LeaseUsers
from agent.credentials.spec import Client, Issued, RunToken
from agent.ipc.messages import CutLease
from agent.model.audit import AuditEvent
from agent.model.credential import Credential
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import Lease, LeaseState
from agent.model.reason import Reason
from agent.policy.schema import CredentialSource, TargetPolicy
from agent.runtime.clock import fresh_ulid

OPEN_MAX = 16_384  # leases that are not over; one past it, none is issued
OPEN_A_TARGET_MAX = 8  # of a run for one target: older ones that can't be ended yet
DRAIN_MARGIN_S = 1.0  # of a daemon's stop: kept for revocations after its sessions ended

logger = logging.getLogger(__name__)
Key = tuple[RunId, TargetName]


class LeaseFailed(Exception):
    """No lease; the text is for the record and the loop, and holds no secret."""


class Leases:
    """All methods run on the event loop."""

    def __init__(
        self,
        journal: Journal,
        client: Client,
        note: Callable[[AuditEvent], object],
        alarm: Alarms = lambda *_: None,
        tell_workers: Callable[[CutLease], None] = lambda _: None,
        clock: LeaseClock | None = None,
    ) -> None:
        self._journal = journal
        self._clock = clock or SystemClock()
        self._ledger = Ledger(journal, self._clock, note, alarm)
        self._calls = Calls(client, self._clock, journal.keep_handle)
        self.users = LeaseUsers()
        self.users.on_free = self._freed
        self._around = Surroundings(
            self._ledger, self._calls, self.users, self._clock, tell_workers
        )
        self._flights: dict[Key, asyncio.Task[Keeper]] = {}
        self._current: dict[Key, Keeper] = {}
        self._keepers: dict[LeaseId, tuple[Keeper, asyncio.Task[None]]] = {}
        self._of_run: dict[RunId, set[Keeper]] = {}
        self._failures: dict[Key, tuple[int, int, str]] = {}  # in a row, until boot ms, the text
        self._ended: dict[RunId, asyncio.Event] = {}  # set when the kernel stopped its flows
        self._draining = False

    async def take(
        self,
        run_id: RunId,
        loop: LoopName,
        target: TargetPolicy,
        uid: int = 0,
        shown: RunToken | None = None,
    ) -> Lease:
        """Return the run's lease for the target; one flight for all who ask at once.

        shown: the token that let the run start, for a provider that asks for it.

        Raises:
            LeaseFailed: the provider, the journal, a person, or the run's end said no.
        """
        key = (run_id, target.name)
        self._check(key)
        keeper = self._current.get(key)
        lease = None if keeper is None else keeper.lease()
        if lease is not None:
            return lease
        flight = self._flights.get(key)
        if flight is None:
            self._check_again(key)
            issuing = self._issue(run_id, loop, uid, target, shown)
            flight = asyncio.get_running_loop().create_task(issuing)
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        keeper = await asyncio.shield(flight)
        lease = keeper.lease()
        if lease is None:
            raise LeaseFailed(
                f"lease {keeper.row.lease_id} was taken away as it was made: the run ended, its "
                "policy changed, a person did it, or it lasts too short a time"
            )
        return lease

    async def probe(self, target: TargetPolicy, source: CredentialSource) -> str:
        """Return why the target's credential could not be issued now, "" when it could."""
        run_id, loop = RunId(fresh_ulid()), LoopName("doctor")
        row = first_row(run_id, loop, 0, target, source, self._clock.unix_ms())
        try:
            await self._calls.probe(row)
        except CallFailed as failure:
            return str(failure)
        return ""

    def rows(self, run_id: RunId) -> list[Row]:
        """Return the open rows of a run."""
        return [row for row in self._journal.open_rows() if row.run_id == run_id]

    def every(self, *, past: bool) -> list[Row]:
        """Return all open rows, after the last that are over if they are asked for."""
        over = self._journal.past.values() if past else ()
        return [*over, *self._journal.open_rows()]

    def find(self, lease_id: str) -> Row | None:
        """Return a lease's row, open or over."""
        key = LeaseId(lease_id)
        return self._journal.rows.get(key) or self._journal.past.get(key)

    def __len__(self) -> int:
        return len(self._journal.rows)

    @property
    def quarantined(self) -> int:
        """How many leases can't be revoked without a person."""
        return sum(row.state is LeaseState.QUARANTINED for row in self._journal.open_rows())

    def reconcile(self, live: frozenset[RunId]) -> None:
        """At start: take away everything that the journal has.

        The secrets were forgotten with the broker that held them, and the workers cut all
        sessions when it died, so nobody uses what is left.
        """
        for run_id in {run_id for run_id, _ in self._journal.withdrawn} - live:
            self._journal.release(run_id)
        for row in self._journal.open_rows():
            self._keep(row, None)

    def run_ended(self, run_id: RunId) -> None:
        """Take away everything of a run, now and for ever; see flows_stopped.

        The workers were told to cut its sessions.
        """
        self._end_of_run(run_id, Reason.RUN_ENDED, self._ended.setdefault(run_id, asyncio.Event()))

    def flows_stopped(self, run_id: RunId) -> None:
        """The kernel has stopped the flows of a run that ended: its leases may be revoked."""
        stopped = self._ended.get(run_id)
        if stopped is not None:
            stopped.set()
            for keeper in self._of_run.get(run_id, ()):
                keeper.wake()

    def forget(self, run_id: RunId) -> None:
        """Take away the leases of a run that may ask for new ones (its policy changed)."""
        self._end_of_run(run_id, Reason.POLICY_CHANGED, None)

    def run_removed(self, run_id: RunId) -> None:
        """The run is no more: nobody can ask for it again."""
        self._ended.pop(run_id, None)
        self._journal.release(run_id)

    def revoke(self, lease_id: LeaseId, *, rotate: bool) -> None:
        """A person takes a lease away: its sessions are cut, then it is revoked, now.

        rotate: the run may take another; else it gets none for this target any more.
        """
        row = self._journal.rows.get(lease_id)
        if row is None:
            return
        if not rotate:
            row = replace(row, withdrawn=True)
            self._journal.withdraw(row)
        self._flights.pop((row.run_id, row.target), None)
        kept = self._keepers.get(lease_id)
        if kept is not None:
            keeper, _ = kept
            keeper.row = row
            keeper.end(Reason.LEASE_REVOKED)
            keeper.revocation.hurry()

    async def over(self, lease_ids: Iterable[LeaseId], within_s: float) -> None:
        """Return when these are over or can't be soon, or after that time."""
        wanted = frozenset(lease_ids)
        try:
            async with asyncio.timeout(within_s):
                while any(_is_soon(row) for row in self._journal.some(wanted)):
                    self._ledger.changed.clear()
                    await self._ledger.changed.wait()
        except TimeoutError:
            return

    async def settled(self) -> None:
        """Wait until every lease that is being taken away is over."""
        while tasks := [task for keeper, task in self._keepers.values() if keeper.leaving]:
            await asyncio.wait(tasks)

    async def drain(self, within_s: float) -> None:
        """The daemon stops: issue nothing, and revoke what its sessions leave, in this time."""
        self._draining = True
        for keeper, _ in tuple(self._keepers.values()):
            keeper.end(Reason.DRAINING, gently=True)
        await self.over(tuple(self._keepers), within_s - DRAIN_MARGIN_S)
        for keeper, _ in tuple(self._keepers.values()):
            keeper.end(Reason.DRAINING)
        await self.over(tuple(self._keepers), DRAIN_MARGIN_S)

    def close(self) -> None:
        """Let go of the tasks; the journal knows what is left to do."""
        for _, task in self._keepers.values():
            task.cancel()
        for flight in self._flights.values():
            flight.cancel()

    def _check(self, key: Key) -> None:
        run_id, target = key
        if self._draining:
            raise LeaseFailed("the daemon is stopping")
        if run_id in self._ended:
            raise LeaseFailed("the run has ended")
        withdrawn = self._journal.withdrawn.get(key)
        if withdrawn is not None:
            raise LeaseFailed(
                f"lease {withdrawn.lease_id} for target {target} was taken away by a person: "
                "this run gets no other"
            )

    def _check_again(self, key: Key) -> None:
        """Refuse without asking the provider: it failed just now, or has too much to end."""
        _, until_ms, text = self._failures.get(key, (0, 0, ""))
        if self._clock.boot_ms() < until_ms:
            raise LeaseFailed(text)
        mine = sum(keeper.row.target == key[1] for keeper in self._of_run.get(key[0], ()))
        if mine >= OPEN_A_TARGET_MAX:
            raise LeaseFailed(
                f"{mine} earlier leases of this run for target {key[1]} are not ended yet: "
                f"`loopwarden leases --run {key[0]}` shows why"
            )
        if len(self._journal.rows) >= OPEN_MAX:
            raise LeaseFailed(f"{OPEN_MAX} leases are not ended yet: see `loopwarden leases`")

    async def _issue(
        self,
        run_id: RunId,
        loop: LoopName,
        uid: int,
        target: TargetPolicy,
        shown: RunToken | None,
    ) -> Keeper:
        """INTENT, issue, ISSUED, ACTIVE: each on stable storage before the next."""
        source = target.credential
        if source is None:
            raise LeaseFailed(f"target {target.name} has no credential")
        try:
            row = self._ledger.begin(
                first_row(run_id, loop, uid, target, source, self._clock.unix_ms())
            )
        except JournalDead as error:
            logger.error("lease journal: %s", error)  # noqa: TRY400 - the text says it all
            raise LeaseFailed("the lease journal cannot be written") from error
        except RowTooLong as error:
            raise LeaseFailed("the credential's settings are too long for the journal") from error
        try:
            issued = await self._calls.issue(row, shown)
        except CallFailed as failure:
            raise self._not_issued(self._journal.rows[row.lease_id], failure) from failure
        keeper = self._issued(self._journal.rows[row.lease_id], issued)
        key = (run_id, target.name)
        self._failures.pop(key, None)
        if self._flights.get(key) is asyncio.current_task() and not self._draining:
            self._current[key] = keeper
        else:
            keeper.end(
                Reason.RUN_ENDED if run_id in self._ended else Reason.POLICY_CHANGED,
                stopped=self._ended.get(run_id),
            )
        return keeper

    def _issued(self, row: Row, issued: Issued) -> Keeper:
        """Write what is there now; without a journal it is taken away at once."""
        clock = self._clock
        gone_ms = 0
        if issued.expires_ms:
            gone_ms = clock.boot_ms() + issued.expires_ms - clock.unix_ms()
        row = replace(
            row,
            handle=issued.handle,
            provider_id=issued.provider_id,
            expires_ms=issued.expires_ms,
            boot=clock.boot,
            gone_ms=gone_ms,
            renewable=issued.renewable,
            revocable=issued.revocable,
        )
        try:
            row = self._ledger.move(row, LeaseState.ISSUED, LeaseState.ACTIVE)
        except JournalDead as error:
            logger.error("lease journal: %s", error)  # noqa: TRY400 - the text says it all
            self._journal.keep(row)
            self._keep(row, None)
            text = f"lease {row.lease_id}: the lease journal cannot be written"
            raise LeaseFailed(text) from error
        return self._keep(row, issued.credential)

    def _not_issued(self, row: Row, failure: CallFailed) -> LeaseFailed:
        """Return what to raise. What may exist all the same is taken away, by the lease's id."""
        key = (row.run_id, row.target)
        text = (
            f"lease {row.lease_id} for target {row.target}: {failure} "
            f"(`loopwarden leases --all --run {row.run_id}` shows it)"
        )
        logger.warning("no lease for target %s: %s", row.target, failure)
        if failure.nothing_made:
            self._ledger.move_away(row, LeaseState.REVOKED, error=str(failure))
        elif not self._calls.revocable(row.provider):
            self._ledger.move_away(row, LeaseState.FORGOTTEN, error=str(failure))
        else:
            row = replace(row, error=str(failure))
            self._journal.keep(row)
            self._keep(row, None)
        if row.run_id not in self._ended:
            count = self._failures.get(key, (0, 0, ""))[0] + 1
            until_ms = self._clock.boot_ms() + max(refuse_for_ms(count), failure.retry_after_ms)
            self._failures[key] = (count, until_ms, text)
        return LeaseFailed(text)

    def _keep(self, row: Row, credential: Credential | None) -> Keeper:
        keeper = Keeper(self._around, row, credential)
        if keeper.next_ms:
            keeper.row = replace(row, next_ms=keeper.next_ms)
            self._journal.keep(keeper.row)
        task = asyncio.get_running_loop().create_task(keeper.keep())
        self._keepers[row.lease_id] = (keeper, task)
        self._of_run.setdefault(row.run_id, set()).add(keeper)
        task.add_done_callback(lambda done: self._kept(keeper, done))
        return keeper

    def _kept(self, keeper: Keeper, task: "asyncio.Task[None]") -> None:
        """A lease is over. A keeper that failed is a fault of ours: the journal still has it."""
        row = keeper.row
        del self._keepers[row.lease_id]
        same = self._of_run[row.run_id]
        same.discard(keeper)
        if not same:
            del self._of_run[row.run_id]
        key = (row.run_id, row.target)
        if self._current.get(key) is keeper:
            del self._current[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("lease %s: its keeper failed", row.lease_id, exc_info=error)

    def _landed(self, key: Key, flight: "asyncio.Task[Keeper]") -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # who waits hears of it; without anybody the log was told

    def _end_of_run(self, run_id: RunId, reason: Reason, stopped: asyncio.Event | None) -> None:
        for keys in (self._flights, self._failures, self._current):
            for key in [key for key in keys if key[0] == run_id]:
                del keys[key]
        for keeper in tuple(self._of_run.get(run_id, ())):
            keeper.end(reason, told=True, stopped=stopped)

    def _freed(self, lease_id: LeaseId) -> None:
        kept = self._keepers.get(lease_id)
        if kept is not None:
            kept[0].wake()


def _is_soon(row: Row) -> bool:
    """Whether waiting for a lease's end may be worth it."""
    if row.state is LeaseState.DRAINING:
        return row.revocable or not row.expires_ms
    return row.state is not LeaseState.QUARANTINED
