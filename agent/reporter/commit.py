"""Group commit: nothing is answered before it is as durable as was asked.

What arrives in one turn of the event loop is one write; what came while a flush ran is covered by
the next one. While the disk is quick, a flush runs on the event loop: it takes less time than the
way to a thread and back takes CPU time. After a slow one it runs in a thread, until one is quick
again: then what needs no disk is answered meanwhile. A disk that hangs in a quick moment holds up
the event loop, and no pulse comes: after 20 s the supervisor ends the process, fail closed.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.model.audit import Alarm, Alarmed, AuditEvent, OperationIntended
from agent.model.grant import Durability
from agent.reporter.encoding import Stamp, serialize_records
from agent.reporter.work import OPEN_MAX, OpenWork
from agent.runtime import clock
from agent.runtime.offload import Offload
from agent.spool.errors import SpoolDead, SpoolFull
from agent.spool.writer import Spool

PENDING_FRAMES_MAX = 65_536  # of one sender, while there is no space; past it the sender is ended
PENDING_BYTES_MAX = 33_554_432  # the same in bytes: twice what a worker keeps unacknowledged
GROUP_BYTES_MAX = 1_048_576  # of records in one write, before the frame that passes it
SLOW_FLUSH_NS = 2_000_000  # a flush that took as long: the next one does not hold up the event loop
IDLE_SYNC_S = 0.2  # records that asked for no flush are on the disk, and uploaded, after this
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Frame:
    """What one sender sent at once."""

    events: Sequence[AuditEvent]
    durable: int  # 0: no answer wanted
    to_disk: bool
    stamp: Stamp

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
    pending_bytes: int = 0  # of what came while there was no space
    awaiting_disk: deque[tuple[int, int]] = field(default_factory=deque)  # (seq, number)


class _Group:
    """Frames of all senders that become one write."""

    __slots__ = ("frames", "records", "seq", "size_bytes")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.records: list[bytes] = []
        self.frames: list[tuple[Sender, Frame, int]] = []  # with the number of its last record
        self.size_bytes = 0

    def add(self, sender: Sender, frame: Frame) -> None:
        """Serialise a frame.

        Raises:
            ValueError: it can't be; nothing was added.
        """
        made = serialize_records(frame.events, self.seq, frame.stamp, sender.role)
        self.records += made
        self.seq += len(made)
        self.size_bytes += sum(map(len, made))
        self.frames.append((sender, frame, self.seq - 1))


def _timed(flush: Callable[[], object]) -> int:
    """Flush; return the nanoseconds it took, without the way to a thread and back."""
    began_ns = clock.monotonic_ns()
    flush()
    return clock.monotonic_ns() - began_ns


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
        self._stamp: Stamp | None = None  # of this turn of the event loop
        self._syncing: asyncio.Task[None] | None = None
        self._quick = True  # the last flush was
        self._idle_sync: asyncio.TimerHandle | None = None
        self._own = Sender("reporter", "reporter", lambda _number: None, lambda _why: None)
        self.accepting = True
        self.stopped = False  # for ever: the process must end
        self.detail = ""

    # --- in ---

    def submit(
        self,
        sender: Sender,
        events: Sequence[AuditEvent],
        durable: int,
        level: str,
        size_bytes: int = 0,
    ) -> None:
        """Queue a frame of that size; it is written at the end of this turn of the event loop."""
        if self.stopped:
            return
        to_disk = durable > 0 and level != Durability.PROCESS
        frame = Frame(events, durable, to_disk, self._now())
        if not self.accepting and not self._room_for(sender, size_bytes):
            return
        sender.pending.append(frame)
        self._writing[sender] = None
        if not self._scheduled:
            self._scheduled = True
            self._event_loop.call_soon(self._flush)

    def _room_for(self, sender: Sender, size_bytes: int) -> bool:
        """Whether one more frame may wait for space; a sender that floods is ended."""
        sender.pending_bytes = size_bytes + (sender.pending_bytes if sender.pending else 0)
        if (
            len(sender.pending) < PENDING_FRAMES_MAX and sender.pending_bytes <= PENDING_BYTES_MAX
        ) or sender is self._own:
            return True
        sender.pending.clear()
        sender.violated("too many records while there is no space")
        return False

    def _now(self) -> Stamp:
        if self._stamp is None:
            self._stamp = Stamp(self._boot_id, clock.unix_ms(), clock.monotonic_ns())
        return self._stamp

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
        if ends := self._work.abandoned_by(sender.key, sender.role):
            self.record(*ends)

    # --- write ---

    def _flush(self) -> None:
        self._scheduled, self._stamp = False, None
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
            self._append([(one, frame) for one in senders for frame in one.pending])
        except SpoolFull as error:
            self._refuse(str(error))
            self._append_closing(senders)

    def _append_closing(self, senders: list[Sender]) -> None:
        """Write, within each sender's order, what ends things; beginnings wait for space."""
        for sender in senders:
            try:
                while sender.pending and not sender.pending[0].begins:
                    self._append([(sender, sender.pending[0])], closing=True)
            except SpoolFull:
                logger.debug("records of %s wait for space", sender.role)
            if sender.pending:
                self._writing[sender] = None

    def _append(self, frames: list[tuple[Sender, Frame]], *, closing: bool = False) -> None:
        """Write frames, each the first one pending of its sender, in groups of one write each."""
        group = _Group(self._spool.next_seq)
        violators: dict[Sender, str] = {}
        for sender, frame in frames:
            if sender in violators:
                continue
            try:
                if sender is not self._own:
                    self._work.check(frame.events, sender.role)
                group.add(sender, frame)
            except ValueError as error:
                violators[sender] = str(error)
            if group.size_bytes >= GROUP_BYTES_MAX:
                self._append_group(group, closing=closing)
                group = _Group(self._spool.next_seq)
        if group.records:
            self._append_group(group, closing=closing)
        for sender, why in violators.items():
            sender.pending.clear()  # none of it was answered
            sender.violated(why)

    def _append_group(self, group: "_Group", *, closing: bool) -> None:
        self._spool.append(group.records, closing=closing)
        process: dict[Sender, int] = {}
        for sender, frame, end in group.frames:
            sender.pending.popleft()
            for event in frame.events:
                self._work.follow(event, sender.key)
            if frame.to_disk:
                sender.awaiting_disk.append((end, frame.durable))
                self._waiting[sender] = None
            elif frame.durable > 0:
                process[sender] = max(process.get(sender, 0), frame.durable)
        for sender, number in process.items():
            sender.answer(number)

    def _after_write(self) -> None:
        if self._waiting:
            if self._quick and self._syncing is None:
                self._sync_now()
            else:
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

    def _sync_now(self) -> None:
        try:
            took_ns = _timed(self._spool.sync)
        except SpoolDead as error:
            self._stop(str(error))
            return
        self._quick = took_ns < SLOW_FLUSH_NS
        self._answer_disk()

    async def _sync(self) -> None:
        while self._spool.dirty and not self.stopped:
            try:
                ticket = self._spool.begin_sync()
                took_ns = await self._offload.run(_timed, ticket.run)
                self._spool.finish_sync(ticket)
            except OSError as error:
                self._stop(str(self._spool.died(error)))
                break
            except SpoolDead as error:
                self._stop(str(error))
                break
            self._quick = took_ns < SLOW_FLUSH_NS
            self._answer_disk()
            if self._quick or not self._waiting:
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
            Frame((Alarmed(Alarm.SPOOL_FULL, detail, None),), 1, True, self._now())
        )
        try:
            self._append([(self._own, self._own.pending[0])], closing=True)
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
