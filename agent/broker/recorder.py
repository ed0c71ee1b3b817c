"""The broker's records on their way to the reporter: kept until confirmed, never dropped silently.

Every event is sent to be durable on disk, but the openings of sessions: they are to be in the
spool before the session begins, and no connection waits for a flush. What a dead reporter did not
confirm is sent again to its successor, so an event may be recorded twice, never lost by us while
we live.
"""

import asyncio
import collections
import itertools
import logging

import msgspec

from agent.ipc.endpoint import Endpoint, PeerGone
from agent.ipc.messages import Durable, Record, SpoolState
from agent.ipc.records import pack_event
from agent.model.audit import Alarm, Alarmed, AuditEvent, SessionOpened
from agent.model.grant import Durability
from agent.model.ids import RunId

UNCONFIRMED_MAX = 4_096  # at it, new runs are refused; at twice it, the oldest are given up
DURABLE_TIMEOUT_S = 10.0
OPENINGS_MAX = 1_024  # of them unconfirmed at once; one past it is refused, and not recorded
OPEN_TIMEOUT_S = 5.0  # with time for a reporter to come back; a worker waits for 10 s
REPEATED_ALARMS_MAX = 1_024  # distinct alarms remembered, so that a repeated one is only counted
DETAIL_CHARACTERS_MAX = 2_048

logger = logging.getLogger(__name__)
_Packed = tuple[str, msgspec.Raw]


class Unrecorded(Exception):
    """The event is not known to be durable; the message says why. kept: it is still sent."""

    def __init__(self, why: str, *, kept: bool = True) -> None:
        super().__init__(why)
        self.kept = kept


class Recorder:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._reporter: Endpoint | None = None
        self._unconfirmed: collections.OrderedDict[int, _Packed] = collections.OrderedDict()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._openings: set[int] = set()  # of the unconfirmed: these ask for no flush
        self._next = 1
        self._spool = SpoolState(accepting=True, detail="")
        self._seen: collections.OrderedDict[tuple[str, str, str], None] = collections.OrderedDict()
        self.counters: collections.Counter[str] = collections.Counter()

    @property
    def refusal(self) -> str:
        """Why nothing new may begin; "" when records can be made."""
        if self._reporter is None:
            return "the reporter is not running, so nothing can be recorded"
        if not self._spool.accepting:
            return f"records cannot be made: {self._spool.detail}"
        if len(self._unconfirmed) >= UNCONFIRMED_MAX:
            return f"{UNCONFIRMED_MAX} records wait for the reporter"
        return ""

    def wired(self, reporter: Endpoint) -> None:
        """Speak to this (new) reporter, and send again what its predecessor did not confirm."""
        self._reporter = reporter
        self._spool = SpoolState(accepting=True, detail="")
        for number, packed in tuple(self._unconfirmed.items()):
            self._send(number, packed)

    def unwired(self) -> None:
        """The reporter is gone: who waits is told so, but openings wait on; the events stay."""
        self._reporter = None
        for number in self._waiting.keys() - self._openings:
            self._fail(number, "the reporter is gone")

    def spool_state(self, state: SpoolState) -> None:
        """The reporter says whether records can be made."""
        self._spool = state

    def durable(self, message: Durable) -> None:
        """Everything up to this number is as durable as the frame of this number asked."""
        flushed = message.durable not in self._openings
        for number in list(
            itertools.takewhile(lambda one: one <= message.durable, self._unconfirmed)
        ):
            if not flushed and number not in self._openings:
                continue  # it waits for the disk
            del self._unconfirmed[number]
            self._openings.discard(number)
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def note(self, event: AuditEvent) -> int:
        """Record without waiting; return the event's number."""
        number = self._next
        self._next += 1
        packed = pack_event(event)
        self._unconfirmed[number] = packed
        if len(self._unconfirmed) > 2 * UNCONFIRMED_MAX:
            lost, _ = self._unconfirmed.popitem(last=False)
            self._openings.discard(lost)
            self.counters["unrecorded"] += 1
            logger.error("no reporter for too long: a record is lost")
        self._send(number, packed)
        return number

    async def record(self, event: AuditEvent) -> None:
        """Record, and return when it is durable.

        Raises:
            Unrecorded: it is not known to be durable.
        """
        refusal = self.refusal
        if refusal:
            raise Unrecorded(refusal, kept=False)
        await self._confirmed(event, DURABLE_TIMEOUT_S)

    async def open(self, event: SessionOpened) -> None:
        """Record, and return when it is in the spool: what is sent later comes behind it there.

        It is taken while the spool refuses new operations, so that those get their reason.

        Raises:
            Unrecorded: it is not known to be there.
        """
        if len(self._openings) >= OPENINGS_MAX or len(self._unconfirmed) >= UNCONFIRMED_MAX:
            raise Unrecorded("too many records wait for the reporter", kept=False)
        self._openings.add(self._next)
        await self._confirmed(event, OPEN_TIMEOUT_S)

    async def _confirmed(self, event: AuditEvent, within_s: float) -> None:
        number = self._next
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self.note(event)
        try:
            async with asyncio.timeout(within_s):
                await future
        except TimeoutError:
            raise Unrecorded(f"not durable within {within_s:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    def alarm(self, alarm: Alarm, detail: str, run_id: RunId | None = None) -> None:
        """Record an alarm and count it; the same one of the same run is recorded once."""
        self.counters[f"alarm.{alarm}"] += 1
        key = (alarm.value, run_id or "", detail)
        if key in self._seen:
            return
        self._seen[key] = None
        if len(self._seen) > REPEATED_ALARMS_MAX:
            self._seen.popitem(last=False)
        logger.warning("alarm %s: %s", alarm.value, detail)
        self.note(Alarmed(alarm, detail[:DETAIL_CHARACTERS_MAX], run_id))

    def _send(self, number: int, packed: _Packed) -> None:
        if self._reporter is None:
            return
        try:
            level = Durability.PROCESS if number in self._openings else Durability.DISK
            self._reporter.notify(Record((packed,), number, level.value))
        except PeerGone:
            self.unwired()

    def _fail(self, number: int, why: str) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_exception(Unrecorded(why))
