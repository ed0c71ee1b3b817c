"""The loop's bytes: cut into messages, checked, counted; copied data goes on without waiting."""

from collections.abc import Callable
from struct import Struct

from agent.model.reason import Reason
from agent.protocols.postgres import requests
from agent.protocols.postgres.answers import Refusal
from agent.protocols.postgres.deciding import FLIGHT_MAX
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.gathering import Gathering
from agent.protocols.postgres.limits import FRONTEND
from agent.protocols.postgres.messages import FLUSH as FLUSH_WIRE
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.state import DOWN
from agent.protocols.postgres.step import (
    BIND,
    CALL,
    CLOSE,
    COPY_DATA,
    COPY_DONE,
    COPY_FAIL,
    DESCRIBE,
    END,
    EXECUTE,
    FLUSH,
    PARSE,
    QUERY,
    SYNC,
    TERMINATE,
    Step,
)
from agent.protocols.postgres.stopping import Stopping
from agent.wire.commands import Pause, Resume
from agent.wire.relay import RelayContext

STEPS_MAX = 1024  # messages that wait to be decided, recorded or sent → Pause
WAITING_BYTES_MAX = 1024 * 1024  # of the same → Pause
HELD_BYTES_HARD = 192 * 1024 * 1024  # more in spite of Pause: the driver is broken → end
_COPYING = frozenset({COPY_DATA, COPY_DONE, COPY_FAIL})
_IGNORED_IN_COPY = frozenset({SYNC, FLUSH})
_length = Struct("!i").unpack_from


class Receiving(Stopping):
    """Takes the loop's bytes."""

    def __init__(self, context: RelayContext, opened: Opened) -> None:
        super().__init__(context, opened)
        self._below = Gathering()
        self._copy_left = 0  # bytes of a CopyData that passes in pieces, to come
        self._copy_goes = False  # upstream, or nowhere
        self._paused = False
        self._reads: dict[int, Callable[[Step, bytes], None]] = {
            QUERY: _read_query,
            PARSE: _read_parse,
            BIND: _read_bind,
            DESCRIBE: _read_named,
            CLOSE: _read_named,
            EXECUTE: _read_execute,
            CALL: _read_call,
            SYNC: _read_empty,
            FLUSH: _read_empty,
            TERMINATE: _read_empty,
        }

    def _downstream_data(self, data: bytes) -> None:
        """Take the loop's bytes, as far as they are whole messages."""
        if self._down_ended:
            return
        if self._stalled:
            self._stalled += data
        else:
            self._split(data)
        self._hold(came=True)

    def _downstream_ended(self) -> None:
        """The loop will send no more: the session ends when all is answered."""
        self._down_ended = True
        if self._copy is not None or self._copy_left or self._stalled:
            self._finish(Reason.DOWNSTREAM_CLOSED)
            return
        self._new.append(Step(END, b""))
        self._advance()

    def _retry_stalled(self) -> None:
        """Go on with copied data, if it is clear now where it goes."""
        if self._stalled and not self._is_unclear():
            data, self._stalled = self._stalled, b""
            self._split(data)

    def _split(self, data: bytes) -> None:
        if self._copy_left:
            data = self._pass_copy(data)
        if not data or not (data := self._below.add(data)):
            return
        try:
            self._take_messages(data)
        except Malformed as error:
            self._advance()
            self._malformed(error)
            return
        if self._new:
            self._advance()
            if self._stops_next:
                self._stop_what_came()

    def _take_messages(self, data: bytes) -> None:
        size = len(data)
        at = 0
        caps, reads, now = FRONTEND, self._reads, self._now
        while at + 5 <= size:
            kind = data[at]
            length: int = _length(data, at + 1)[0]
            if not 4 <= length <= caps.get(kind, -1) + 4:
                raise _bad_header(kind, length)
            end = at + 1 + length
            if kind in _COPYING:
                end = self._take_copying(kind, data, at, end)
                if end < 0:
                    return
            elif end > size:
                self._below.keep(data[at:], 1 + length)
                return
            else:
                read = reads.get(kind)
                if read is None:
                    raise _bad_header(kind, length)
                step = Step(kind, data[at:end], now)
                read(step, data[at + 5 : end])
                copy = self._copy
                if copy is None or not copy.inward or kind not in _IGNORED_IN_COPY:
                    self._new.append(step)
            at = end
        if at < size:
            if data[at] not in caps:
                raise _bad_header(data[at], 4)
            self._below.keep(data[at:], 5)

    # COPY

    def _is_unclear(self) -> bool:
        """Whether something before copied data decides over where it goes."""
        if self._new or self._decided or self._asking is not None:
            return True
        return self._copy is None and self._fences > 0

    def _take_copying(self, kind: int, data: bytes, at: int, end: int) -> int:
        """Take one message of a COPY; return where what follows begins, -1 when that waits."""
        if self._new:
            self._advance()
        if self._is_unclear():
            self._stalled = data[at:]
            return -1
        copy = self._copy
        goes = copy is not None and copy.inward
        size = len(data)
        if kind != COPY_DATA:
            if end > size:
                self._below.keep(data[at:], end - at)
                return -1
            read = requests.parse_copy_fail if kind == COPY_FAIL else requests.parse_empty
            read(data[at + 5 : end])
            if copy is not None and goes:
                copy.inward = False
        elif copy is not None and goes:
            copy.took(data[at + 5 : end])
        if goes:
            self._up.append(data[at : min(end, size)])
        if end > size:
            self._copy_left, self._copy_goes = end - size, goes
            return size
        return end

    def _pass_copy(self, data: bytes) -> bytes:
        """Pass the next piece of a CopyData; return what is behind it."""
        piece = data[: self._copy_left]
        self._copy_left -= len(piece)
        if self._copy_goes:
            if self._copy is not None:
                self._copy.took(piece)
            self._up.append(piece)
        return data[len(piece) :]

    # bounds

    def _hold(self, *, came: bool = False) -> None:
        """Stop reading the loop while too much of it waits, and go on when it is less."""
        if self._finished:
            return
        waiting = len(self._new) + len(self._decided) + (self._asking is not None)
        flight = len(self._flight)
        if self._paused and not came and (waiting * 2 > STEPS_MAX or flight * 2 > FLIGHT_MAX):
            return  # nothing changes: not to be added up for each event of many that wait
        held = self._below.size + len(self._stalled)
        if waiting:
            held += sum(step.size for step in self._new) + sum(step.size for step in self._decided)
        if held > HELD_BYTES_HARD:
            self._fail(Refusal(Reason.OVERLOADED, "more is held than may be"))
            return
        too_much = held - self._below.size > WAITING_BYTES_MAX
        if not self._paused and (waiting > STEPS_MAX or flight > FLIGHT_MAX or too_much):
            self._paused = True
            if not self._flushed:
                self._up.append(FLUSH_WIRE)
                self._flushed = True
            self._out.append(Pause(DOWN))
        elif (
            self._paused and not too_much and waiting * 2 <= STEPS_MAX and flight * 2 <= FLIGHT_MAX
        ):
            self._paused = False
            self._out.append(Resume(DOWN))


def _bad_header(kind: int, length: int) -> Malformed:
    cap = FRONTEND.get(kind, -1)
    if cap < 0 or kind == ord("p"):
        return Malformed("a message of a type that may not come")
    if length < 4:
        return Malformed("a message's length is less than the length itself")
    return Malformed("a message is longer than may be", Reason.LIMIT_EXCEEDED)


def _read_query(step: Step, payload: bytes) -> None:
    step.text = requests.parse_query(payload)


def _read_parse(step: Step, payload: bytes) -> None:
    parsed = requests.parse_parse(payload)
    step.name, step.text = parsed.name, parsed.text


def _read_bind(step: Step, payload: bytes) -> None:
    step.bind = requests.parse_bind(payload)


def _read_named(step: Step, payload: bytes) -> None:
    named = requests.parse_named(payload)
    step.statement, step.name = named.what == b"S", named.name


def _read_execute(step: Step, payload: bytes) -> None:
    execute = requests.parse_execute(payload)
    step.name, step.most = execute.portal, execute.most


def _read_call(step: Step, payload: bytes) -> None:
    step.most = requests.parse_function_call(payload).function


def _read_empty(_: Step, payload: bytes) -> None:
    requests.parse_empty(payload)
