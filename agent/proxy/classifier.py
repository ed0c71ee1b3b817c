"""What a query's text does: from memory, or asked of a process that may crash over it.

The same text has the same class, whoever sends it, so what was classified is kept; where a
dialect says so, once for all texts that differ in values only. A text over which the process
died, or that is past a bound, is UNKNOWN: the most dangerous class. One that the machine had no
time for is neither: it is refused, not kept, and may be tried again.

Runs take turns, one text each, so that a run which sends many holds up no other by more than one;
and a run's queue is bounded: a text past that is refused, whatever the policy says of UNKNOWN.
"""

import asyncio
import collections
import dataclasses
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from agent.model.ids import RunId
from agent.model.sql import Classified, unknown
from agent.runtime import expendable
from agent.wire.relay import Kinship

KEPT_MAX = 8_192  # texts; the least recently used goes
KEPT_BYTES_MAX = 64 << 20  # of all kept texts and classes together, about
CLASS_BYTES_PER_BYTE = 5  # of an answer: what its objects take (measured: 5.1 for many columns)
KEPT_TEXT_CHARACTERS_MAX = 256 << 10  # a longer text is classified each time
SHORT_TEXT_CHARACTERS_MAX = 16 << 10  # a longer text waits behind other long ones only
WAITING_MAX = 1_024  # texts that wait for the processes; then only runs with few may have more
WAITING_A_RUN_MAX = 256  # of them one run's; one more is refused
WAITING_A_RUN_MIN = 4  # what a run may have waiting however many others wait
NORMALIZED_CHARACTERS_MAX = 32 << 10  # a longer one is cut, and says so
CRASHED = "the parser gave up on this text (too deep, too slow or too large)"
TOO_MUCH = "it has more statements and names than can be decided at once"
BUSY = Classified((), "", busy=True)  # too many wait, or it did for too long: nobody knows

NO_KINSHIPS: Mapping[str, Kinship] = MappingProxyType({})
logger = logging.getLogger(__name__)
Ask = tuple[str, str]  # dialect, text
_decode = msgspec.msgpack.Decoder(Classified).decode


def start(dialects: Mapping[str, Callable[[str], Classified]]) -> expendable.Expendable:
    """Fork the process that classifies. Call it before the event loop runs.

    Raises:
        OSError: no process or socket.
    """
    encoder = msgspec.msgpack.Encoder()

    def work(request: bytes) -> bytes:
        dialect, _, text = request.partition(b"\0")
        classified = dialects[dialect.decode()](text.decode())
        normalized = classified.normalized
        if len(normalized) > NORMALIZED_CHARACTERS_MAX:
            cut = f"{normalized[:NORMALIZED_CHARACTERS_MAX]}…"
            classified = dataclasses.replace(classified, normalized=cut)
        answer = encoder.encode(classified)
        if len(answer) > expendable.ANSWER_BYTES_MAX:
            answer = encoder.encode(unknown(TOO_MUCH))
        return answer

    return expendable.start(work, "lw-classifier")


class _Lane:
    """One process, and the texts that wait for it: one is asked at a time."""

    def __init__(
        self,
        process: expendable.Expendable,
        on_answer: Callable[[Ask, Classified, int], None],
        on_gone: Callable[[], None],
        is_wanted: Callable[[Ask], bool],
    ) -> None:
        self._process = process
        self._is_wanted = is_wanted
        self._on_answer = on_answer
        self._on_gone = on_gone
        self._waiting: collections.OrderedDict[RunId, collections.deque[Ask]]
        self._waiting = collections.OrderedDict()  # the run whose turn it is comes first
        self._asked: Ask | None = None
        self._gone = False
        asyncio.get_running_loop().add_reader(process.sock.fileno(), self._answered)

    @property
    def gone(self) -> bool:
        """Whether the keeper ended."""
        return self._gone

    def add(self, run_id: RunId, ask: Ask) -> None:
        """Have one more classified, when it is the run's turn."""
        self._waiting.setdefault(run_id, collections.deque()).append(ask)
        self._next()

    def close(self) -> None:
        """End the process."""
        self._leave()
        self._process.close()

    def _next(self, answered: Ask | None = None) -> None:
        """Ask for the next; answered: whoever waits for it in another run hears of it now."""
        while self._asked is None and self._waiting:
            run_id, asks = self._waiting.popitem(last=False)
            ask = asks.popleft()
            if asks:
                self._waiting[run_id] = asks  # at the end: the others come first
            # else it was answered in another run's turn
            if ask != answered and self._is_wanted(ask):
                self._ask(ask)

    def _ask(self, ask: Ask) -> None:
        self._asked = ask
        dialect, text = ask
        try:
            self._process.ask(b"%b\0%b" % (dialect.encode(), text.encode()))
        except OSError:
            self._lost()

    def _answered(self) -> None:
        without = unknown(CRASHED)
        try:
            answer = self._process.answer()
        except BlockingIOError:
            return
        except TimeoutError:
            answer, without = None, BUSY  # the text may be as harmless as any
        except OSError:
            self._lost()
            return
        ask, self._asked = self._asked, None
        if ask is None:
            logger.warning("a classifier process died with nothing to do; there is a new one")
            return
        if answer is None:
            logger.warning("a classifier process died over a text of %d characters", len(ask[1]))
        self._next(ask)
        if answer is None:
            self._on_answer(ask, without, 0)
        else:
            self._on_answer(ask, _decode(answer), len(answer))

    def _lost(self) -> None:
        """The keeper is gone: whoever waits hears the worst, and the worker ends."""
        asks = [] if self._asked is None else [self._asked]
        asks += [ask for waiting in self._waiting.values() for ask in waiting]
        self._asked = None
        self._waiting.clear()
        self._leave()
        for ask in dict.fromkeys(asks):
            if self._is_wanted(ask):
                self._on_answer(ask, unknown(CRASHED), 0)
        self._on_gone()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            asyncio.get_running_loop().remove_reader(self._process.sock.fileno())


class Classifier:
    """One worker's, used on its event loop alone. Long texts have a process of their own."""

    def __init__(
        self,
        short: expendable.Expendable,
        long: expendable.Expendable,
        on_gone: Callable[[], None],
        kinships: Mapping[str, Kinship] = NO_KINSHIPS,
    ) -> None:
        """on_gone is called when a keeper ends: nothing can be classified any more.

        kinships: of dialects that have one.
        """
        self._kinships = kinships
        self._short = _Lane(short, self._answered, on_gone, self._is_wanted)
        self._long = _Lane(long, self._answered, on_gone, self._is_wanted)
        self._kept: collections.OrderedDict[Ask, tuple[Classified, int]] = collections.OrderedDict()
        self._kept_bytes = 0
        self._waiting: dict[Ask, dict[RunId, list[Callable[[Classified], None]]]] = {}
        self._count: collections.Counter[RunId] = collections.Counter()  # texts of each run

    def known(self, dialect: str, text: str) -> Classified | None:
        """Return what is remembered of a text."""
        ask = (dialect, text)
        found = self._kept.get(ask)
        if found is None:
            kinship = self._kinships.get(dialect)
            key = None if kinship is None else kinship.kin(text)
            if key is None:
                return None
            ask = (dialect, key)
            found = self._kept.get(ask)
        if found is None:
            return None
        self._kept.move_to_end(ask)
        return found[0]

    def classify(
        self, dialect: str, text: str, run_id: RunId, then: Callable[[Classified], None]
    ) -> None:
        """Ask, and call back once: on a later turn of the event loop, or at once when refused."""
        ask = (dialect, text)
        lane = self._short if len(text) <= SHORT_TEXT_CHARACTERS_MAX else self._long
        runs = self._waiting.get(ask, {})
        if run_id in runs:
            runs[run_id].append(then)
        elif lane.gone or len(text) > expendable.REQUEST_BYTES_MAX // 4:
            then(unknown(CRASHED))
        elif not self._has_room(run_id):
            then(BUSY)
        else:
            # also where another run waits for the same: that one's turn may be far away
            self._waiting.setdefault(ask, runs)[run_id] = [then]
            self._count[run_id] += 1
            lane.add(run_id, ask)

    def _has_room(self, run_id: RunId) -> bool:
        mine = self._count[run_id]
        if len(self._waiting) >= WAITING_MAX:
            return mine < WAITING_A_RUN_MIN
        return mine < WAITING_A_RUN_MAX

    def _is_wanted(self, ask: Ask) -> bool:
        return ask in self._waiting

    def close(self) -> None:
        """End the processes."""
        self._short.close()
        self._long.close()

    def _answered(self, ask: Ask, classified: Classified, answer_bytes: int) -> None:
        runs = self._waiting.pop(ask)
        for run_id in runs:
            self._count[run_id] -= 1
            if not self._count[run_id]:
                del self._count[run_id]
        if not classified.busy:
            self._keep(ask, classified, answer_bytes)
        for waiters in runs.values():
            for then in waiters:
                then(classified)

    def _keep(self, ask: Ask, classified: Classified, answer_bytes: int) -> None:
        kinship = self._kinships.get(ask[0])
        if kinship is not None and kinship.is_shared(classified):
            ask = (ask[0], kinship.kin(ask[1]) or ask[1])
        if len(ask[1]) > KEPT_TEXT_CHARACTERS_MAX or ask in self._kept:
            return
        size = len(ask[1]) + CLASS_BYTES_PER_BYTE * answer_bytes
        self._kept[ask] = classified, size
        self._kept_bytes += size
        while len(self._kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            _, (_, size) = self._kept.popitem(last=False)
            self._kept_bytes -= size
