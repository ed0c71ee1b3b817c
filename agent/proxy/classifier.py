"""What a query's text does: from memory, or asked of a process that may crash over it.

The same text has the same class, whoever sends it, so what was classified is kept. A text over
which the process died, or that is past a bound, is UNKNOWN: the most dangerous class.
"""

import asyncio
import collections
import logging
from collections.abc import Callable, Mapping

import msgspec

from agent.model.sql import Classified, unknown
from agent.runtime import expendable

KEPT_MAX = 8_192  # texts; the least recently used goes
KEPT_CHARACTERS_MAX = 16 << 20  # of all kept texts together
KEPT_TEXT_CHARACTERS_MAX = 256 << 10  # a longer text is classified each time
WAITING_MAX = 1_024  # texts that wait for the process; one more is UNKNOWN
NORMALIZED_CHARACTERS_MAX = 32 << 10  # a longer one is cut, and says so
CRASHED = "the parser gave up on this text (too deep, too slow or too large)"
TOO_MUCH = "it has more statements and names than can be decided at once"
BUSY = "too many texts wait to be classified; try again"

logger = logging.getLogger(__name__)
Ask = tuple[str, str]  # dialect, text
_decode = msgspec.msgpack.Decoder(Classified).decode


class ClassifierGone(Exception):
    """The keeper process ended, which it never should."""


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
            classified = Classified(classified.statements, cut)
        answer = encoder.encode(classified)
        if len(answer) > expendable.ANSWER_BYTES_MAX:
            answer = encoder.encode(unknown(TOO_MUCH))
        return answer

    return expendable.start(work, "lw-classifier")


class Classifier:
    """One worker's, used on its event loop alone."""

    def __init__(self, process: expendable.Expendable, on_gone: Callable[[], None]) -> None:
        """on_gone is called when the keeper ends: nothing can be classified any more."""
        self._process = process
        self._on_gone = on_gone
        self._kept: collections.OrderedDict[Ask, Classified] = collections.OrderedDict()
        self._kept_characters = 0
        self._waiting: collections.OrderedDict[Ask, list[Callable[[Classified], None]]] = (
            collections.OrderedDict()
        )
        self._asked: Ask | None = None
        self._gone = False
        asyncio.get_running_loop().add_reader(process.sock.fileno(), self._answered)

    def known(self, dialect: str, text: str) -> Classified | None:
        """Return what is remembered of a text."""
        ask = (dialect, text)
        found = self._kept.get(ask)
        if found is not None:
            self._kept.move_to_end(ask)
        return found

    def classify(self, dialect: str, text: str, then: Callable[[Classified], None]) -> None:
        """Ask, and call back once: on a later turn of the event loop, or at once when refused."""
        ask = (dialect, text)
        waiters = self._waiting.get(ask)
        if waiters is not None:
            waiters.append(then)
        elif self._gone or len(text) > expendable.REQUEST_BYTES_MAX // 4:
            then(unknown(CRASHED))
        elif len(self._waiting) >= WAITING_MAX:
            then(unknown(BUSY))
        else:
            self._waiting[ask] = [then]
            self._next()

    def close(self) -> None:
        """End the process."""
        if not self._gone:
            self._gone = True
            asyncio.get_running_loop().remove_reader(self._process.sock.fileno())
        self._process.close()

    def _next(self) -> None:
        if self._asked is not None or not self._waiting:
            return
        self._asked = next(iter(self._waiting))
        dialect, text = self._asked
        try:
            self._process.ask(b"%b\0%b" % (dialect.encode(), text.encode()))
        except OSError:
            self._lost()

    def _answered(self) -> None:
        try:
            answer = self._process.answer()
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        if self._asked is None:
            logger.warning("a classifier process died with nothing to do; there is a new one")
            return
        ask, self._asked = self._asked, None
        if answer is None:
            logger.warning("a classifier process died over a text of %d characters", len(ask[1]))
            classified = unknown(CRASHED)
        else:
            classified = _decode(answer)
        waiters = self._waiting.pop(ask)
        self._keep(ask, classified)
        self._next()
        for then in waiters:
            then(classified)

    def _keep(self, ask: Ask, classified: Classified) -> None:
        size = len(ask[1])
        if size > KEPT_TEXT_CHARACTERS_MAX:
            return
        self._kept[ask] = classified
        self._kept_characters += size
        while len(self._kept) > KEPT_MAX or self._kept_characters > KEPT_CHARACTERS_MAX:
            (_, text), _ = self._kept.popitem(last=False)
            self._kept_characters -= len(text)

    def _lost(self) -> None:
        """The keeper is gone: whoever waits hears the worst, and the worker ends."""
        self._gone = True
        asyncio.get_running_loop().remove_reader(self._process.sock.fileno())
        waiting, self._waiting = self._waiting, collections.OrderedDict()
        self._asked = None
        for waiters in waiting.values():
            for then in waiters:
                then(unknown(CRASHED))
        self._on_gone()
