"""One lease's life from its credential to its confirmed end; a task of its own.

The order at the end: nobody gets it any more and the secret is forgotten here; its flows are
stopped in the kernel and its sockets closed (both bounded); only then is it revoked outside.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.broker.journal import JournalDead, Row
from agent.broker.lease_calls import CallFailed, Calls
from agent.broker.lease_clock import LeaseClock
from agent.broker.lease_ledger import Ledger
from agent.broker.lease_times import (
    GROWTH_MS,
    RENEW_LEFT_MS,
    cut_at_ms,
    renew_at_ms,
)
from agent.broker.lease_users import LeaseUsers
from agent.broker.revocation import Revocation
from agent.ipc.messages import CutLease
from agent.model.credential import Credential
from agent.model.lease import Lease, LeaseState
from agent.model.reason import Reason

CLOSED_WITHIN_MS = 1_000  # flows stopped, sockets closed: longer, and it is revoked all the same

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all keepers share."""

    ledger: Ledger
    calls: Calls
    users: LeaseUsers
    clock: LeaseClock
    tell_workers: Callable[[CutLease], None]


@dataclass(slots=True)
class Ending:
    """Why and how a lease ends. gently: its sessions may finish what is under way."""

    reason: Reason
    gently: bool
    told: bool  # the workers cut its sessions already
    stopped: asyncio.Event | None  # set when the kernel has stopped the run's flows


class Keeper:
    """All methods run on the event loop."""

    def __init__(self, around: Surroundings, row: Row, credential: Credential | None) -> None:
        """Without a credential (after a crash, or a failed issue) it is only taken away."""
        self._around = around
        self.row = row
        self._credential = credential
        self._born_ms = around.clock.boot_ms()
        self._until_ms = self._cut_ms = self._next_ms = 0  # boot time; 0: with the run
        if credential is not None:
            self._reckon()
        self._wake = asyncio.Event()
        self._used = True
        self._ending: Ending | None = None
        self.revocation = Revocation(around.ledger, around.calls, around.clock)

    @property
    def leaving(self) -> bool:
        """Whether it is being taken away."""
        return self._ending is not None or self._credential is None

    def lease(self) -> Lease | None:
        """Return the lease for one more session, None when it is not handed out any more."""
        if self._credential is None or self._ending is not None:
            return None
        if self._cut_ms and self._around.clock.boot_ms() >= self._cut_ms:
            return None
        self._used = True
        row = self.row
        return Lease(
            row.lease_id, row.run_id, row.target, self._credential, row.expires_ms, row.revocable
        )

    def end(
        self,
        reason: Reason,
        *,
        gently: bool = False,
        told: bool = False,
        stopped: asyncio.Event | None = None,
    ) -> None:
        """Begin to take it away; a gentle ending may become a hard one, never the other way."""
        if self._ending is None or (self._ending.gently and not gently):
            self._ending = Ending(reason, gently, told, stopped)
        self._credential = None
        self.wake()

    def wake(self) -> None:
        """Something changed: look again."""
        self._wake.set()

    async def keep(self) -> None:
        """Live it to its end."""
        if self.row.state in {LeaseState.ISSUED, LeaseState.ACTIVE, LeaseState.RENEWING}:
            if self._credential is not None or self._ending is not None:
                await self._live()
            self.row = self._around.ledger.move_away(self.row, LeaseState.DRAINING, next_ms=0)
            await self._drain()
        self.row = await self.revocation.until_over(self.row)
        self._around.users.forget(self.row.lease_id)

    async def _live(self) -> None:
        while not self._ended:
            await self._until(lambda: self._ended, self._next_ms)
            if not self._ended:
                if self.row.renewable and (self._used or self._users):
                    await self._renew()
                else:
                    self.end(Reason.DRAINING, gently=True)

    async def _renew(self) -> None:
        around = self._around
        try:
            self.row = around.ledger.move(self.row, LeaseState.RENEWING, next_ms=0)
        except JournalDead:
            self.end(Reason.DRAINING, gently=True)
            return
        self._used = False
        call = asyncio.get_running_loop().create_task(around.calls.renew(self.row))
        call.add_done_callback(lambda _: self.wake())
        await self._until(lambda: call.done() or self._ended, self._cut_ms)
        if not call.done():
            call.cancel()
        await asyncio.wait((call,))
        if call.cancelled():
            self._not_renewed(CallFailed("cut off by the lease's end"))
            return
        failure = call.exception()
        if isinstance(failure, CallFailed):
            self._not_renewed(failure)
        elif failure is not None:
            raise failure
        else:
            renewed = call.result()
            self._extend(renewed.expires_ms, renewed.max_ms)

    def _extend(self, expires_ms: int, max_ms: int) -> None:
        """Reckon the new end; one that hardly grew is the last."""
        clock = self._around.clock
        now_ms, boot_ms = clock.unix_ms(), clock.boot_ms()
        gone_ms = boot_ms + max(0, expires_ms - now_ms) if expires_ms else 0
        self.row = replace(self.row, expires_ms=expires_ms, gone_ms=gone_ms, boot=clock.boot)
        before_ms = self._until_ms
        self._reckon()
        grew = not self._until_ms or self._until_ms > before_ms + GROWTH_MS
        if max_ms and expires_ms + GROWTH_MS >= max_ms:
            grew = False
        self._active(grew, error="")
        logger.info("lease %s: renewed%s", self.row.lease_id, "" if grew else " for the last time")

    def _reckon(self) -> None:
        """Set the end of use: the backend's, the target's ttl or its max_ttl, which is first."""
        row, now_ms = self.row, self._around.clock.boot_ms()
        ends = [row.gone_ms] if row.gone_ms else []
        ends += [now_ms + 1000 * row.ttl_s] if row.ttl_s else []
        ends += [self._born_ms + 1000 * row.max_ttl_s] if row.max_ttl_s else []
        self._until_ms = min(ends, default=0)
        self._cut_ms = cut_at_ms(now_ms, self._until_ms) if ends else 0
        self._next_ms = self._plan()

    def _not_renewed(self, failure: CallFailed) -> None:
        left_ms = self._cut_ms - self._around.clock.boot_ms()
        logger.warning("lease %s is not renewed: %s", self.row.lease_id, failure)
        self._used = True  # it was wanted: what comes next is not for want of use
        if failure.gone:  # it opens nothing any more: the next session takes another
            self.row = replace(self.row, error=str(failure))
            self.end(Reason.LEASE_EXPIRED)
        elif left_ms > RENEW_LEFT_MS:
            self._active(failure.transient, error=str(failure))
        else:
            self.row = replace(self.row, error=str(failure))
            self.end(Reason.DRAINING, gently=True)

    def _active(self, renewable: bool, **changes: object) -> None:  # noqa: FBT001 - a fact
        self._next_ms = self._plan()
        if self._ending is not None:
            return
        try:
            self.row = self._around.ledger.move(
                self.row, LeaseState.ACTIVE, renewable=renewable, next_ms=self.next_ms, **changes
            )
        except JournalDead:
            self.end(Reason.DRAINING, gently=True)

    async def _drain(self) -> None:
        """See that nothing of ours uses it: at once, or when what is under way is done."""
        ending = self._ending
        if ending is None:  # read back after a crash: the workers cut all when their broker died
            return
        if ending.gently:
            if self._users:
                self._tell(Reason.DRAINING, when_idle=True)
            await self._until(lambda: not self._users or not self._gently, self._cut_ms)
            ending = self._ending or ending
        if ending.gently and self._users:
            self._tell(Reason.LEASE_EXPIRED, when_idle=False)
        elif not ending.gently and not ending.told:
            self._tell(ending.reason, when_idle=False)
        stopped = ending.stopped
        await self._until(
            lambda: not self._users and (stopped is None or stopped.is_set()),
            self._around.clock.boot_ms() + CLOSED_WITHIN_MS,
        )

    @property
    def _ended(self) -> bool:
        return self._ending is not None

    @property
    def _gently(self) -> bool:
        return self._ending is not None and self._ending.gently

    @property
    def _users(self) -> int:
        return self._around.users.of(self.row.lease_id)

    def _plan(self) -> int:
        if not self._until_ms:
            return 0
        clock = self._around.clock
        return min(self._cut_ms, renew_at_ms(clock.boot_ms(), self._until_ms, clock.chance()))

    @property
    def next_ms(self) -> int:
        """Unix time of the next renewal or replacement, 0 when none is planned."""
        clock = self._around.clock
        return clock.unix_ms() + self._next_ms - clock.boot_ms() if self._next_ms else 0

    def _tell(self, reason: Reason, *, when_idle: bool) -> None:
        row = self.row
        self._around.tell_workers(CutLease(row.run_id, row.lease_id, reason, when_idle))

    async def _until(self, done: Callable[[], bool], until_ms: int) -> None:
        """Wait for something to hold, or for a moment of the boot clock (0: none)."""
        while not done():
            self._wake.clear()
            if until_ms and self._around.clock.boot_ms() >= until_ms:
                return
            await self._around.clock.wait(self._wake, until_ms or None)
