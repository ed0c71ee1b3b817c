"""Records of a worker on their way to the reporter: batched, none dropped.

An intent is answered when the reporter says that it is as durable as its target asks. The intents
of one turn of the event loop share a frame, and so do those that come while the frame before is
not durable yet: the busier the worker or the slower the disk, the larger the frames. When many
wait for the disk, a frame waits for as many as the one before had, GATHER_S at most: each flush
that it saves costs about as much CPU time as two requests. Outcomes,
refusals and session events are sent without waiting, a little later than intents so that they
share a frame with the next one. Every frame is kept until the reporter acknowledged it, and sent
again to a reporter that replaced a dead one: an event may then be recorded twice, never lost by us.
"""

import asyncio
import collections
import dataclasses
import logging
from collections.abc import Callable

import msgspec

from agent.ipc.endpoint import Endpoint, PeerGone
from agent.ipc.messages import FRAME_BYTES_MAX, Durable, Record, SpoolState
from agent.ipc.records import pack_event
from agent.model.audit import AuditEvent, OperationDenied, OperationIntended, SessionOpened
from agent.model.fitting import fitted
from agent.model.flow import Process
from agent.model.grant import Durability

INTENTS_WAITING_MAX = 4_096  # one past it is answered "failed" at once
UNACKNOWLEDGED_BYTES_MAX = 16 << 20  # at it, intents fail and no new connection is accepted
INTENT_TIMEOUT_S = 10.0  # an intent that is not durable by then has failed
OUTCOME_DELAY_S = 0.005  # how long an event that nobody waits for may wait for company
GATHER_S = 0.003  # how long intents for the disk wait to be as many as the frame before had ...
GATHER_INTENTS_MIN = 4  # ... if those were so many
FRAME_OVERHEAD_BYTES = 64
EVENT_OVERHEAD_BYTES = 32
EVENT_BYTES_MAX = 48 << 10  # a larger event is recorded without argv, or by model/fitting.py

logger = logging.getLogger(__name__)
Answer = Callable[[bool], None]


@dataclasses.dataclass(slots=True)
class _Frame:
    """Events that cross together, and who waits for them."""

    level: Durability
    number: int = 0
    size_bytes: int = FRAME_OVERHEAD_BYTES
    events: list[tuple[str, msgspec.Raw]] = dataclasses.field(default_factory=list)
    waiting: list[Answer] = dataclasses.field(default_factory=list)
    since_s: float = 0.0  # when its first intent came


class Recorder:
    """The worker's one way to record. All methods run on the event loop."""

    def __init__(self, on_accepting: Callable[[bool], None]) -> None:
        """on_accepting is told when `accepting_connections` changes."""
        self._event_loop = asyncio.get_running_loop()
        self._reporter: Endpoint | None = None
        self._spool_accepts = True
        self._spool_detail = ""
        self._open: _Frame | None = None
        self._unacknowledged: collections.deque[_Frame] = collections.deque()
        self._unacknowledged_bytes = 0
        self._acknowledged = asyncio.Event()
        self._intents_waiting = 0
        self._awaited: dict[Durability, int] = {}  # level → the frame in flight that is waited for
        self._gathered = 0  # intents of the frame that was sent last
        self._gathering = False  # _soon waits for company
        self._next_number = 1
        self._soon: asyncio.Handle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._on_accepting = on_accepting
        self._full = False

    @property
    def accepting_connections(self) -> bool:
        """False at UNACKNOWLEDGED_BYTES_MAX, until half of it is acknowledged."""
        return not self._full

    async def settle(self) -> None:
        """Send what is gathered and wait until all is acknowledged."""
        self.flush()
        while self._unacknowledged:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def wired(self, reporter: Endpoint) -> None:
        """Speak to this (new) reporter, first of what its predecessor did not confirm."""
        self._reporter = reporter
        self._spool_accepts = True
        self._join_unacknowledged()
        for frame in tuple(self._unacknowledged):
            self._transmit(frame)

    def _join_unacknowledged(self) -> None:
        """Make few frames of many small ones: a peer's queue counts frames, not bytes.

        Those that are waited for keep their numbers, and frames of one level stay of one level.
        """
        joined: collections.deque[_Frame] = collections.deque()
        for frame in self._unacknowledged:
            last = joined[-1] if joined else None
            if last is None or not _may_join(last, frame):
                joined.append(frame)
                continue
            last.events += frame.events
            last.number = frame.number
            last.size_bytes += frame.size_bytes
        self._unacknowledged = joined

    def unwired(self) -> None:
        """The reporter is gone: every intent that waits has failed."""
        self._reporter = None
        self._awaited.clear()
        self._fail_all()

    def spool_state(self, state: SpoolState) -> None:
        """The reporter says whether records can be made; when not, what waits has failed."""
        if state.accepting != self._spool_accepts:
            verb = "accepts" if state.accepting else "refuses"
            logger.warning("the spool %s new operations: %s", verb, state.detail)
        self._spool_accepts = state.accepting
        if not state.accepting:
            self._fail_all()

    def _fail_all(self) -> None:
        if self._open is not None:
            self._fail(self._open)
        for frame in self._unacknowledged:
            self._fail(frame)

    def record(self, event: AuditEvent) -> None:
        """Record without waiting."""
        self._append(event, self._open.level if self._open is not None else Durability.PROCESS)
        if self._late is None:
            # never cancelled: it may find nothing left, which is cheaper than a timer an event
            self._late = self._event_loop.call_later(OUTCOME_DELAY_S, self._flush_late)

    def intend(self, event: AuditEvent, level: Durability, answer: Answer) -> None:
        """Record, and call answer(True) when it is durable, answer(False) when it will not be.

        The answer never comes from within this call.
        """
        if (
            self._reporter is None
            or not self._spool_accepts
            or self._full
            or self._intents_waiting >= INTENTS_WAITING_MAX
        ):
            # the event itself is not kept: what is refused is recorded as one denied operation,
            # and an intent would hold up the reporter's queue of a full spool
            self._event_loop.call_soon(answer, False)
            return
        frame = self._append(event, level)
        if not frame.waiting:
            frame.since_s = self._event_loop.time()
        frame.waiting.append(answer)
        self._intents_waiting += 1
        if level not in self._awaited and (self._soon is None or self._gathering):
            self._flush_soon(frame)

    def durable(self, message: Durable) -> None:
        """The reporter acknowledges frames up to a number.

        The level of the frame that is named is what was reached: frames that ask for the disk
        are not taken as done by an acknowledgement of one that asked for less.
        """
        number = message.durable
        kept: list[_Frame] = []
        level: Durability | None = None
        for frame in reversed(self._unacknowledged):
            if frame.number == number:
                level = frame.level
                break
        if level is None:
            return  # of a frame that was acknowledged before
        while self._unacknowledged and self._unacknowledged[0].number <= number:
            frame = self._unacknowledged.popleft()
            if frame.level is Durability.DISK and level is not Durability.DISK:
                kept.append(frame)
                continue
            self._unacknowledged_bytes -= frame.size_bytes
            self._intents_waiting -= len(frame.waiting)
            for answer in frame.waiting:
                answer(True)
            frame.waiting.clear()
        self._unacknowledged.extendleft(reversed(kept))
        self._acknowledged.set()
        self._judge_fullness()
        self._release(level, number)

    def _release(self, level: Durability, number: int) -> None:
        """Let the frame go that waited for this one, with what comes in the rest of the turn."""
        if self._awaited.get(level, number + 1) > number:
            return
        del self._awaited[level]
        if self._soon is None and self._open is not None and self._open.waiting:
            self._flush_soon(self._open)

    def _flush_soon(self, frame: _Frame) -> None:
        """Send the open frame at the end of the turn, or when it has gathered what it may."""
        few = len(frame.waiting) < self._gathered >= GATHER_INTENTS_MIN
        if frame.level is Durability.DISK and few:
            if self._soon is None:
                self._gathering = True
                self._soon = self._event_loop.call_later(GATHER_S, self.flush)
            return
        if self._soon is not None:
            self._soon.cancel()
        self._gathering = False
        self._soon = self._event_loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what is gathered."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
            self._gathering = False
        frame, self._open = self._open, None
        if frame is not None:
            self._seal(frame)

    def _flush_late(self) -> None:
        self._late = None
        frame = self._open
        if frame is not None and not (frame.waiting and frame.level in self._awaited):
            self.flush()

    def _append(self, event: AuditEvent, level: Durability) -> _Frame:
        kind, body = pack_event(event)
        if len(body) > EVENT_BYTES_MAX:
            kind, body = pack_event(_cut(event))
        size = len(body) + EVENT_OVERHEAD_BYTES
        frame = self._open
        if frame is not None and (
            frame.size_bytes + size > FRAME_BYTES_MAX
            or (frame.level is not level and frame.waiting)
        ):
            self._open = None
            self._seal(frame)
            frame = None
        if frame is None:
            frame = self._open = _Frame(level)
        frame.level = level
        frame.events.append((kind, body))
        frame.size_bytes += size
        return frame

    def _seal(self, frame: _Frame) -> None:
        frame.number = self._next_number
        self._next_number += 1
        self._unacknowledged.append(frame)
        self._unacknowledged_bytes += frame.size_bytes
        self._judge_fullness()
        if frame.waiting:
            self._awaited[frame.level] = frame.number
            self._gathered = len(frame.waiting)
        self._transmit(frame)

    def _transmit(self, frame: _Frame) -> None:
        if self._reporter is None:
            return  # it is sent when there is a reporter again
        try:
            self._reporter.notify(Record(tuple(frame.events), frame.number, frame.level))
        except PeerGone:
            self.unwired()
            return
        if self._expiry is None:
            self._expiry = self._event_loop.call_later(INTENT_TIMEOUT_S, self._expire)

    def _expire(self) -> None:
        """Fail the intents that wait for too long; look again when the next one would be due."""
        self._expiry = None
        now_s = self._event_loop.time()
        waiting = (*self._unacknowledged, *((self._open,) if self._open is not None else ()))
        for frame in waiting:
            if not frame.waiting:
                continue
            left_s = frame.since_s + INTENT_TIMEOUT_S - now_s
            if left_s > 0:
                self._expiry = self._event_loop.call_later(left_s, self._expire)
                return
            self._fail(frame)

    def _fail(self, frame: _Frame) -> None:
        answers, frame.waiting = frame.waiting, []
        if self._awaited.get(frame.level) == frame.number:
            del self._awaited[frame.level]
        self._intents_waiting -= len(answers)
        for answer in answers:
            self._event_loop.call_soon(answer, False)

    def _judge_fullness(self) -> None:
        if not self._full and self._unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX:
            self._full = True
        elif self._full and self._unacknowledged_bytes <= UNACKNOWLEDGED_BYTES_MAX // 2:
            self._full = False
        else:
            return
        self._on_accepting(not self._full)


def _may_join(last: _Frame, frame: _Frame) -> bool:
    return (
        not last.waiting
        and not frame.waiting
        and last.level is frame.level
        and last.size_bytes + frame.size_bytes <= FRAME_BYTES_MAX
    )


def _cut(event: AuditEvent) -> AuditEvent:
    """Return an event cut to what fits a frame: a session's or an operation's may be larger."""
    if isinstance(event, OperationIntended | OperationDenied):
        return dataclasses.replace(event, operation=fitted(event.operation))
    if not isinstance(event, SessionOpened):
        raise TypeError(f"a {type(event).__name__} over {EVENT_BYTES_MAX} bytes")
    bare = dataclasses.replace(
        event.attribution,
        process=_bare(event.attribution.process),
        ancestors=tuple(map(_bare, event.attribution.ancestors)),
    )
    return dataclasses.replace(event, attribution=bare)


def _bare(process: Process) -> Process:
    return dataclasses.replace(process, argv=process.argv[:1], argv_truncated=True)
