"""Transitions of leases, written to the journal and then recorded; a row's first and next."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent.broker.journal import Journal, JournalDead, Row
from agent.broker.lease_clock import LeaseClock
from agent.model.audit import Alarm, AuditEvent, LeaseChanged
from agent.model.ids import LeaseId, LoopName, RunId
from agent.model.lease import LeaseState
from agent.policy.schema import CredentialSource, TargetPolicy
from agent.runtime import clock as clocks

logger = logging.getLogger(__name__)
Alarms = Callable[[Alarm, str, RunId | None], None]
NEXT_ACTION = {
    LeaseState.INTENT: "issue",
    LeaseState.ISSUED: "hand out",
    LeaseState.ACTIVE: "replace",
    LeaseState.RENEWING: "renew",
    LeaseState.DRAINING: "close its sessions, then revoke",
    LeaseState.REVOKING: "revoke",
    LeaseState.REVOKE_RETRY: "revoke again",
    LeaseState.QUARANTINED: "revoke again",
}


class Ledger:
    """All methods run on the event loop."""

    def __init__(
        self,
        journal: Journal,
        clock: LeaseClock,
        note: Callable[[AuditEvent], object],
        alarm: Alarms,
    ) -> None:
        self.journal = journal
        self._clock = clock
        self._note = note
        self._alarm = alarm
        self.changed = asyncio.Event()  # set at each transition, for who waits for a state

    def begin(self, row: Row) -> Row:
        """Write and record an INTENT.

        Raises:
            JournalDead, RowTooLong: see Journal.begin; nothing was recorded.
        """
        self.journal.begin(row)
        self._changed(row)
        return row

    def move(self, row: Row, *states: LeaseState, **changes: Any) -> Row:
        """Make transitions in one sync, with changes of other fields.

        Raises:
            JournalDead: they are not on stable storage.
        """
        steps = self._steps(row, states, changes)
        self.journal.move(*steps)
        for step in steps:
            self._changed(step)
        return steps[-1]

    def move_away(self, row: Row, state: LeaseState, **changes: Any) -> Row:
        """Make a transition on the way out: without a journal too, for it must not stop it.

        What the next start reads is then an earlier row, and revoking again is harmless.
        """
        try:
            return self.move(row, state, **changes)
        except JournalDead as error:
            logger.error("lease journal: %s", error)  # noqa: TRY400 - the text says it all
        [step] = self._steps(row, (state,), changes)
        self.journal.keep(step)
        self._changed(step)
        return step

    def quarantine_alarm(self, row: Row) -> None:
        """Tell a person."""
        detail = (
            f"lease {row.lease_id} of target {row.target} ({row.provider}) cannot be revoked: "
            f"{row.error}. End it at the backend, then `loopwarden revoke {row.lease_id}`."
        )
        self._alarm(Alarm.LEASE_QUARANTINED, detail, row.run_id)

    def _steps(
        self, row: Row, states: tuple[LeaseState, ...], changes: dict[str, Any]
    ) -> list[Row]:
        now_ms = self._clock.unix_ms()
        steps: list[Row] = []
        for state in states:
            row = replace(row, state=state, at_ms=now_ms, **changes)
            steps.append(row)
        return steps

    def _changed(self, row: Row) -> None:
        self.changed.set()
        self._note(LeaseChanged(row.lease_id, row.run_id, row.target, row.provider, row.state))


def first_row(
    run_id: RunId,
    loop: LoopName,
    uid: int,
    target: TargetPolicy,
    source: CredentialSource,
    now_ms: int,
) -> Row:
    """Return a new lease's INTENT."""
    return Row(
        LeaseId(clocks.fresh_ulid()),
        run_id,
        loop,
        target.name,
        uid,
        source.provider,
        source.settings,
        source.shape.value,
        source.name,
        source.user,
        source.ttl_s,
        source.max_ttl_s,
        LeaseState.INTENT,
        now_ms,
        now_ms,
    )


def next_action(row: Row) -> str:
    """Return what is done next, in words; "" when nothing is."""
    match row.state:
        case LeaseState.ACTIVE if not row.next_ms:
            return "revoke when the run ends" if row.revocable else "forget when the run ends"
        case LeaseState.ACTIVE if row.renewable:
            return "renew, or revoke if unused"
        case LeaseState.DRAINING if not row.revocable:
            return "expire: it cannot be revoked"
        case state:
            return NEXT_ACTION.get(state, "")
