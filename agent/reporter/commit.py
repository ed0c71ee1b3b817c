"""Group commit: nothing is answered before it is as durable as was asked.

What arrives in one turn of the event loop is one write; what was written while a flush ran is
covered by the next one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.model.audit import Alarm, Alarmed, AuditEvent, OperationIntended
from agent.model.grant import Durability
from agent.reporter.encoding import serialize_record
from agent.reporter.work import OPEN_MAX, OpenWork
from agent.runtime import clock
from agent.runtime.offload import Offload
from agent.spool.errors import SpoolDead, SpoolFull
from agent.spool.writer import Spool

PENDING_FRAMES_MAX = 262_144  # frames that wait for space; past it the reporter gives up
IDLE_SYNC_S = 0.2  # records that asked for no flush are on the disk, and uploaded, after this
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Frame:
    """What one sender sent at once."""

    events: Sequence[AuditEvent]
    durable: int  # 0: no answer wanted
    to_disk: bool
    unix_ms: int
    monotonic_ns: int

    @property
    def begins(self) -> bool:
        """Whether it begins an operation: refused when the spool is full."""
        return any(isinstance(event, OperationIntended) for event in self.events)


@dataclass(slots=True, eq=False)
class Sender:
    """A peer: its frames are appended in its order, and answered by their highest number."""

    role: str
    key: str  # of this connection: the role's next process is another one
    answer: Callable[[int], None]  # Durable(number)
    violated: Callable[[str], None]  # it sent what can't be recorded: end it
    pending: deque[Frame] = field(default_factory=deque)
    awaiting_disk: deque[tuple[int, int]] = field(default_factory=deque)  # (seq, number)


class GroupCommit:
    """Between the senders and the spool. All methods run on the event loop."""

    def __init__(
        self,
        spool: Spool,
        work: OpenWork,
        offload: Offload,
        *,
        boot_id: str,
        on_state: Callable[[bool, str], None],
        on_durable: Callable[[], None],
    ) -> None:
        """on_state hears (accepting, detail) at each change, on_durable of each finished flush."""
        self._spool = spool
        self._work = work
        self._offload = offload
        self._boot_id = boot_id
        self._on_state = on_state
        self._on_durable = on_durable
        self._event_loop = asyncio.get_running_loop()
        self._writing: dict[Sender, None] = {}  # senders with pending frames, in order
        self._waiting: dict[Sender, None] = {}  # senders that wait for the disk
        self._scheduled = False
        self._syncing: asyncio.Task[None] | None = None
        self._idle_sync: asyncio.TimerHandle | None = None
        self._own = Sender("reporter", "reporter", lambda _number: None, lambda _why: None)
        self.accepting = True
        self.stopped = False  # for ever: the process must end
        self.detail = ""

    # --- in ---

    def submit(
        self, sender: Sender, events: Sequence[AuditEvent], durable: int, level: str
    ) -> None:
        """Queue a frame; it is written at the end of this turn of the event loop."""
        if self.stopped:
            return
        to_disk = durable > 0 and level != Durability.PROCESS
        frame = Frame(events, durable, to_disk, clock.unix_ms(), clock.monotonic_ns())
        if len(sender.pending) >= PENDING_FRAMES_MAX:
            self._stop("too many records wait for space")
            return
        sender.pending.append(frame)
        self._writing[sender] = None
        if not self._scheduled:
            self._scheduled = True
            self._event_loop.call_soon(self._flush)

    def record(self, *events: AuditEvent, to_disk: bool = False) -> None:
        """Queue events of the reporter itself."""
        level = Durability.DISK if to_disk else Durability.PROCESS
        self.submit(self._own, events, 1 if to_disk else 0, level)

    def gone(self, sender: Sender) -> None:
        """The peer closed: what it began and did not end is ended as unknown."""
        sender.answer = lambda _number: None
        self._event_loop.call_soon(self._abandon, sender)  # behind what is queued of it

    def _abandon(self, sender: Sender) -> None:
        if sender.pending:
            self._flush()
        if ends := self._work.abandoned_by(sender.key):
            self.record(*ends)

    # --- write ---

    def _flush(self) -> None:
        self._scheduled = False
        if self.stopped:
            return
        senders = list(self._writing)
        self._writing.clear()
        try:
            self._write(senders)
        except SpoolDead as error:
            self._stop(str(error))
            return
        self._after_write()

    def _write(self, senders: list[Sender]) -> None:
        if self.accepting and self._work.at_limit:
            self._refuse(f"{OPEN_MAX} operations and sessions are open")
        if not self.accepting:
            self._append_closing(senders)
            return
        try:
            for sender in senders:
                self._append(sender, list(sender.pending), closing=False)
        except SpoolFull as error:
            self._refuse(str(error))
            self._append_closing(senders)

    def _append_closing(self, senders: list[Sender]) -> None:
        """Write, within each sender's order, what ends things; beginnings wait for space."""
        for sender in senders:
            try:
                while sender.pending and not sender.pending[0].begins:
                    self._append(sender, [sender.pending[0]], closing=True)
            except SpoolFull:
                logger.debug("records of %s wait for space", sender.role)
            if sender.pending:
                self._writing[sender] = None

    def _append(self, sender: Sender, frames: list[Frame], *, closing: bool) -> None:
        seq = self._spool.next_seq
        records: list[bytes] = []
        ends: list[int] = []
        try:
            for frame in frames:
                records += self._serialize(frame, seq + len(records), sender.role)
                ends.append(seq + len(records) - 1)
        except ValueError as error:
            sender.pending.clear()  # none of it was answered
            sender.violated(str(error))
            return
        self._spool.append(records, closing=closing)
        process = 0
        for frame, end in zip(frames, ends, strict=True):
            sender.pending.popleft()
            for event in frame.events:
                self._work.follow(event, sender.key)
            if frame.to_disk:
                sender.awaiting_disk.append((end, frame.durable))
                self._waiting[sender] = None
            else:
                process = max(process, frame.durable)
        if process:
            sender.answer(process)

    def _serialize(self, frame: Frame, seq: int, role: str) -> list[bytes]:
        return [
            serialize_record(
                event,
                seq=number,
                boot_id=self._boot_id,
                unix_ms=frame.unix_ms,
                monotonic_ns=frame.monotonic_ns,
                role=role,
            )
            for number, event in enumerate(frame.events, seq)
        ]

    def _after_write(self) -> None:
        if self._waiting:
            self._start_sync()
        elif self._spool.dirty and self._idle_sync is None:
            self._idle_sync = self._event_loop.call_later(IDLE_SYNC_S, self._sync_when_idle)

    def _sync_when_idle(self) -> None:
        self._idle_sync = None
        if self._spool.dirty:
            self._start_sync()

    # --- flush ---

    def _start_sync(self) -> None:
        if self._syncing is None and not self.stopped:
            self._syncing = self._event_loop.create_task(self._sync())

    async def _sync(self) -> None:
        while self._spool.dirty and not self.stopped:
            try:
                ticket = self._spool.begin_sync()
                await self._offload.run(ticket.run)
                self._spool.finish_sync(ticket)
            except OSError as error:
                self._stop(str(self._spool.died(error)))
                break
            except SpoolDead as error:
                self._stop(str(error))
                break
            self._answer_disk()
            if not self._waiting:
                break
        self._syncing = None
        if not self.stopped:
            self._after_write()

    def _answer_disk(self) -> None:
        synced = self._spool.synced_seq
        for sender in list(self._waiting):
            number = 0
            while sender.awaiting_disk and sender.awaiting_disk[0][0] <= synced:
                number = max(number, sender.awaiting_disk.popleft()[1])
            if not sender.awaiting_disk:
                del self._waiting[sender]
            if number:
                sender.answer(number)
        self._on_durable()

    async def settle(self) -> None:
        """Write and flush everything that can be."""
        self._flush()
        self._start_sync()
        while self._syncing is not None:
            await asyncio.shield(self._syncing)

    # --- state ---

    def _refuse(self, detail: str) -> None:
        """Tell all, and record the refusal from what is kept back for it."""
        if not self.accepting:
            return
        self.accepting, self.detail = False, detail
        logger.error("new operations are refused: %s", detail)
        self._own.pending.appendleft(
            Frame(
                (Alarmed(Alarm.SPOOL_FULL, detail, None),),
                1,
                True,
                clock.unix_ms(),
                clock.monotonic_ns(),
            )
        )
        try:
            self._append(self._own, [self._own.pending[0]], closing=True)
        except SpoolFull:
            self._writing[self._own] = None  # it is recorded when there is space
        self._on_state(False, detail)

    def regain(self) -> None:
        """Look whether there is space again; then what waits is written and all are told."""
        if self.accepting or self.stopped or self._work.at_limit or not self._spool.regain():
            return
        self.accepting, self.detail = True, ""
        self._flush()
        if self.accepting:
            self._on_state(True, "")

    def _stop(self, detail: str) -> None:
        """Nothing is answered any more; the process must end."""
        if not self.stopped:
            self.accepting, self.stopped, self.detail = False, True, detail
            logger.critical("%s", detail)
            self._on_state(False, detail)
