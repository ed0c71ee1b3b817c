"""Taking a lease away outside: told until it is confirmed, never forgotten."""

import asyncio
import logging

from agent.broker.journal import Row
from agent.broker.lease_calls import CallFailed, Calls
from agent.broker.lease_clock import LeaseClock
from agent.broker.lease_ledger import Ledger
from agent.broker.lease_times import (
    ATTEMPTS_MAX,
    QUARANTINE_RETRY_MS,
    RETRY_MOST_MS,
    remaining_ms,
    retry_delay_ms,
)
from agent.model.lease import OVER, LeaseState

logger = logging.getLogger(__name__)


class Revocation:
    """Of one lease; from any state in which nobody uses it."""

    def __init__(self, ledger: Ledger, calls: Calls, clock: LeaseClock) -> None:
        self._ledger = ledger
        self._calls = calls
        self._clock = clock
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Do not wait for the time of the next attempt (a person asks)."""
        self._hurry.set()

    async def until_over(self, row: Row) -> Row:
        """Return the last row: REVOKED, EXPIRED or FORGOTTEN."""
        if row.state is LeaseState.DRAINING and not row.revocable:
            return await self._outlive(row)
        if row.state in {LeaseState.REVOKE_RETRY, LeaseState.QUARANTINED}:
            await self._pause(row)
        while row.state not in OVER:
            if row.state is not LeaseState.REVOKING:  # if it is, a crash cut the attempt off
                row = self._ledger.move_away(row, LeaseState.REVOKING, next_ms=0)
            row = await self._attempt(row)
            if row.state is LeaseState.DRAINING:
                return await self._outlive(row)
            if row.state not in OVER:
                await self._pause(row)
        return row

    async def _outlive(self, row: Row) -> Row:
        """Wait for the end of what no provider can end; without an end, it is forgotten."""
        if not row.expires_ms:
            return self._ledger.move_away(row, LeaseState.FORGOTTEN, next_ms=0)
        end_ms = self._clock.boot_ms() + self._left_ms(row)
        while self._clock.boot_ms() < end_ms:
            self._hurry.clear()  # nothing can be hurried here
            await self._clock.wait(self._hurry, end_ms)
        return self._ledger.move_away(row, LeaseState.EXPIRED, next_ms=0)

    async def _attempt(self, row: Row) -> Row:
        self._hurry.clear()  # who asks from now on, also while this is under way, gets another
        try:
            await self._calls.revoke(row)
        except CallFailed as failure:
            return await self._failed(row, failure)
        revocable = row.revocable and self._calls.revocable(row.provider)
        over = LeaseState.REVOKED if revocable else LeaseState.FORGOTTEN
        return self._ledger.move_away(row, over, next_ms=0)

    async def _failed(self, row: Row, failure: CallFailed) -> Row:
        if await self._has_expired(row):
            return self._ledger.move_away(row, LeaseState.EXPIRED, next_ms=0)
        if failure.ends_ms:
            return self._lost(row, failure)
        logger.warning("lease %s is not revoked yet: %s", row.lease_id, failure)
        attempts = row.attempts + 1
        if failure.permanent or attempts >= ATTEMPTS_MAX:
            state, delay_ms = LeaseState.QUARANTINED, QUARANTINE_RETRY_MS
        else:
            state = LeaseState.REVOKE_RETRY
            delay_ms = retry_delay_ms(attempts, self._clock.chance())
            delay_ms = max(delay_ms, failure.retry_after_ms)
        row = self._ledger.move_away(
            row,
            state,
            attempts=attempts,
            error=str(failure),
            next_ms=self._clock.unix_ms() + delay_ms,
        )
        if state is LeaseState.QUARANTINED:
            self._ledger.quarantine_alarm(row)
        return row

    def _lost(self, row: Row, failure: CallFailed) -> Row:
        """Nobody can end it any more: it is told so, and outlived."""
        logger.warning("lease %s can't be revoked: %s", row.lease_id, failure)
        clock = self._clock
        return self._ledger.move_away(
            row,
            LeaseState.DRAINING,
            revocable=False,
            expires_ms=failure.ends_ms,
            boot=clock.boot,
            gone_ms=clock.boot_ms() + max(0, failure.ends_ms - clock.unix_ms()),
            error=str(failure),
            next_ms=0,
        )

    async def _has_expired(self, row: Row) -> bool:
        """Whether its time is over and the provider says that it is gone: both, or it is not."""
        if not row.expires_ms or self._left_ms(row):
            return False
        try:
            return await self._calls.is_gone(row) is True
        except CallFailed:
            return False

    def _left_ms(self, row: Row) -> int:
        """Return what remains until the backend's own end of it."""
        if row.boot == self._clock.boot:
            return max(0, row.gone_ms - self._clock.boot_ms())
        return max(0, row.expires_ms - self._clock.unix_ms())

    async def _pause(self, row: Row) -> None:
        quarantined = row.state is LeaseState.QUARANTINED
        longest_ms = QUARANTINE_RETRY_MS if quarantined else 2 * RETRY_MOST_MS
        left_ms = remaining_ms(row.next_ms, self._clock.unix_ms(), longest_ms)
        await self._clock.wait(self._hurry, self._clock.boot_ms() + left_ms)
