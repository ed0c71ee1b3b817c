"""One lease for each (run, target): journalled before use, taken away when the run ends."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from agent.broker.journal import Journal, JournalDead, Row
from agent.credentials.discover import providers
from agent.credentials.spec import (
    HANDLE_CHARACTERS_MAX,
    Client,
    CredentialError,
    Issued,
    Provider,
    Wanted,
)
from agent.model.audit import AuditEvent, LeaseChanged
from agent.model.credential import Shape
from agent.model.ids import LeaseId, LoopName, RunId, TargetName
from agent.model.lease import Lease, LeaseState
from agent.policy.schema import TargetPolicy
from agent.runtime import clock

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 60.0
ISSUE_TIMEOUT_S = 20.0

logger = logging.getLogger(__name__)
Key = tuple[RunId, TargetName]


class LeaseFailed(Exception):
    """No lease; the text is for the record and the loop, and holds no secret."""


class Leases:
    """All methods run on the event loop."""

    def __init__(
        self, journal: Journal, client: Client, note: Callable[[AuditEvent], object]
    ) -> None:
        self._journal = journal
        self._client = client
        self._note = note
        self._held: dict[Key, asyncio.Task[Lease]] = {}
        self._ended: set[RunId] = set()
        self._revoking: dict[LeaseId, asyncio.Task[None]] = {}

    async def take(self, run_id: RunId, loop: LoopName, target: TargetPolicy) -> Lease:
        """Return the run's lease for the target; one flight for all who ask at once.

        Raises:
            LeaseFailed: the provider, the journal, or the run's end said no.
        """
        key = (run_id, target.name)
        if run_id in self._ended:
            raise LeaseFailed("the run has ended")
        flight = self._held.get(key)
        if flight is None or (flight.done() and _failed(flight)):
            flight = asyncio.get_running_loop().create_task(self._issue(run_id, loop, target))
            # whoever waits hears of the failure; without anybody it was told to the log
            flight.add_done_callback(_failed)
            self._held[key] = flight
        return await asyncio.shield(flight)

    def rows(self, run_id: RunId) -> list[Row]:
        """Return the open rows of a run."""
        return [row for row in self._journal.open_rows() if row.run_id == run_id]

    def __len__(self) -> int:
        return len(self._journal.open_rows())

    def reconcile(self, live: frozenset[RunId]) -> None:
        """At start: take away what runs that are gone had, and what was never confirmed.

        A lease of a live run stays in force until the run ends: its sessions may be using it.
        """
        for row in self._journal.open_rows():
            if row.run_id not in live or row.state is not LeaseState.ACTIVE:
                self._revoke(row)

    def run_ended(self, run_id: RunId) -> None:
        """Take away everything of a run, now and for ever."""
        self._ended.add(run_id)
        self.forget(run_id)

    def forget(self, run_id: RunId) -> None:
        """Take away the leases of a run that may ask for new ones (its policy changed)."""
        for key in [key for key in self._held if key[0] == run_id]:
            del self._held[key]
        for row in self.rows(run_id):
            if row.state is not LeaseState.INTENT:
                self._revoke(row)

    def run_removed(self, run_id: RunId) -> None:
        """The run is no more: nobody can ask for it again."""
        self._ended.discard(run_id)

    async def settled(self) -> None:
        """Wait for the revocations under way (tests and draining)."""
        while self._revoking:
            await asyncio.wait(tuple(self._revoking.values()))

    async def _issue(self, run_id: RunId, loop: LoopName, target: TargetPolicy) -> Lease:
        """INTENT, issue, ISSUED, ACTIVE: each on stable storage before the next."""
        row = _row(run_id, loop, target)
        wanted = _wanted(row)
        try:
            self._journal.begin(row)
            self._changed(row)
            issued = await self._ask(row, wanted)
            states = (LeaseState.ISSUED, LeaseState.ACTIVE)
            row = self._journal.move(
                row.lease_id,
                states,
                clock.unix_ms(),
                handle=issued.handle,
                revocable=issued.revocable,
            )
        except JournalDead as error:
            logger.error("lease journal: %s", error)  # noqa: TRY400 - the text says it all
            raise LeaseFailed("the lease journal cannot be written") from error
        self._note(LeaseChanged(row.lease_id, run_id, target.name, row.provider, states[0]))
        self._changed(row)
        if run_id in self._ended or self._held.get((run_id, target.name)) is not (
            asyncio.current_task()
        ):
            self._revoke(row)
            raise LeaseFailed("the run ended, or its policy changed, while the lease was made")
        return Lease(
            row.lease_id,
            run_id,
            target.name,
            issued.credential,
            issued.expires_ms,
            issued.revocable,
        )

    async def _ask(self, row: Row, wanted: Wanted) -> Issued:
        try:
            provider = _provider(row.provider)
            async with asyncio.timeout(ISSUE_TIMEOUT_S):
                issued = await provider.issue(wanted, self._client, clock.unix_ms())
            if len(issued.handle) > HANDLE_CHARACTERS_MAX:
                raise CredentialError("the provider's handle is too long for the journal")
        except (CredentialError, TimeoutError) as error:
            self._revoke(row)
            text = str(error) or f"no answer within {ISSUE_TIMEOUT_S:.0f} s"
            logger.warning("no lease for target %s: %s", row.target, text)
            raise LeaseFailed(text) from error
        return issued

    def _revoke(self, row: Row) -> None:
        """Begin to take a lease away; it is tried until it is confirmed."""
        if row.lease_id in self._revoking:
            return
        if row.state is not LeaseState.REVOKING:
            with contextlib.suppress(JournalDead):  # it is taken away all the same
                row = self._journal.move(row.lease_id, (LeaseState.REVOKING,), clock.unix_ms())
                self._changed(row)
        task = asyncio.get_running_loop().create_task(self._revoke_until_done(row))
        self._revoking[row.lease_id] = task
        task.add_done_callback(lambda _: self._revoking.pop(row.lease_id, None))

    async def _revoke_until_done(self, row: Row) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with asyncio.timeout(ISSUE_TIMEOUT_S):
                    await _provider(row.provider).revoke(_wanted(row), row.handle, self._client)
                break
            except (CredentialError, TimeoutError) as error:
                logger.warning("lease %s is not revoked yet: %s", row.lease_id, error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)
        with contextlib.suppress(JournalDead):  # the next start revokes it again, which is harmless
            row = self._journal.move(row.lease_id, (LeaseState.REVOKED,), clock.unix_ms())
            self._changed(row)

    def _changed(self, row: Row) -> None:
        self._note(LeaseChanged(row.lease_id, row.run_id, row.target, row.provider, row.state))


def _failed(flight: "asyncio.Task[Lease]") -> bool:
    return flight.cancelled() or flight.exception() is not None


def _provider(name: str) -> Provider:
    spec = providers().get(name)
    if spec is None:
        raise CredentialError(f"this version has no provider {name!r}")
    return spec.make()


def _row(run_id: RunId, loop: LoopName, target: TargetPolicy) -> Row:
    source = target.credential
    if source is None:
        raise LeaseFailed(f"target {target.name} has no credential")
    return Row(
        LeaseId(clock.fresh_ulid()),
        run_id,
        loop,
        target.name,
        source.provider,
        source.settings,
        source.shape.value,
        source.name,
        source.user,
        "",
        LeaseState.INTENT,
        revocable=False,
        at_ms=clock.unix_ms(),
    )


def _wanted(row: Row) -> Wanted:
    return Wanted(
        row.lease_id,
        row.run_id,
        row.loop,
        row.target,
        dict(row.settings),
        Shape(row.shape),
        row.name,
        row.user,
    )
