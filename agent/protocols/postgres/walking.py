"""The server's bytes: cut into messages in place, rows counted, passed down in large slices."""

from collections.abc import Callable
from struct import Struct

from agent.protocols.postgres.counting import run
from agent.protocols.postgres.downflow import (
    ACROSS,
    HEAD_BYTES,
    WHOLE_BYTES_MAX,
    broken_frame,
)
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.gathering import Gathering
from agent.protocols.postgres.limits import BACKEND
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.refusing import of_rows, serialize_error
from agent.protocols.postgres.state import DOWN, State
from agent.protocols.postgres.step import EXECUTE, QUERY, Exchange, Step
from agent.wire.commands import Send
from agent.wire.relay import RelayContext

_DATA_ROW, _COPY_DATA = b"Dd"
UNASKED = "an answer that nobody asked for"
_length = Struct("!i").unpack_from


class Walking(State):
    """Takes the server's bytes."""

    def __init__(self, context: RelayContext, opened: Opened) -> None:
        super().__init__(context, opened)
        self._above = Gathering()
        self._skip = 0  # bytes of a row that nobody gets, to come
        self._chunk = b""
        self._start = self._at = self._end = 0  # what was not sent down yet; this message
        self._takes: dict[int, Callable[[], None]] = {}  # what each type of message means

    def _upstream_data(self, data: bytes) -> None:
        """Take the server's bytes, as far as they are whole messages."""
        if self._down.left:
            piece = data[: self._down.left]
            self._send_down(self._down.go_on(piece))
            data = data[len(piece) :]
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if data and (data := self._above.add(data)):
            try:
                self._walk(data)
            except Malformed as error:
                self._end = self._at
                self._server_broke(self._before(error))
            self._chunk, self._start, self._at, self._end = b"", 0, 0, 0

    def _walk(self, data: bytes) -> None:
        size = len(data)
        at = 0
        self._chunk = data
        takes, caps = self._takes, BACKEND
        while at + 5 <= size:
            kind = data[at]
            if kind == _DATA_ROW or kind == _COPY_DATA:  # noqa: PLR1714, SIM109 - once a row
                self._at = self._end = at
                following = self._bulk(kind)
                if following == at:
                    break
                at = following
            else:
                take = takes.get(kind)
                if take is None:
                    raise Malformed("a message of a type that may not come")
                length: int = _length(data, at + 1)[0]
                if not 4 <= length <= caps[kind] + 4:
                    raise Malformed("a message whose length may not be")
                end = at + 1 + length
                if end > size:
                    self._above.keep(data[at:], 1 + length)
                    break
                self._at, self._end = at, end
                take()
                at = end
            if self._finished:
                return
        else:
            self._above.keep(data[at:], 5)
        self._emit(min(at, size))

    def _payload(self) -> bytes:
        return self._chunk[self._at + 5 : self._end]

    # down

    def _send_down(self, data: bytes) -> None:
        if data:
            self._out.append(Send(DOWN, data))

    def _emit(self, upto: int) -> None:
        """Send down what came before this place and was not sent yet."""
        start = self._start
        if upto > start:
            chunk = self._chunk
            whole = chunk if not start and upto == len(chunk) else chunk[start:upto]
            self._start = upto
            clean = self._down.clean(whole)
            if clean is not whole and (good := broken_frame(whole, clean)) >= 0:
                self._send_down(clean[:good])
                raise Malformed(ACROSS)
            self._out.append(Send(DOWN, clean))

    def _before(self, error: Malformed) -> Malformed:
        """Send down what came before a bad message; return what to tell: it may be bad as well."""
        try:
            self._emit(self._end)
        except Malformed as earlier:
            return earlier
        return error

    def _tell(self, data: bytes) -> None:
        """Say something of ours behind the message that is being looked at."""
        self._emit(self._end)
        super()._tell(data)

    def _drop_message(self) -> None:
        """Let the message that is being looked at not go down."""
        self._emit(self._at)
        self._start = self._end

    # rows and copied data

    def _bulk(self, kind: int) -> int:
        """Take a run of rows or copied data; return where it ends, its begin if it is not here."""
        data, at = self._chunk, self._at
        step = self._flight[0] if self._flight else None
        exchange = step.exchange if step is not None else None
        if step is None or exchange is None or not self._may_stream(kind, step):
            raise Malformed(UNASKED)
        room = -1
        if exchange.max_rows and not step.exceeded:
            room = max(0, exchange.max_rows - self._counted(step))
        end, count = run(data, at, kind, room)
        self._end = end
        if step.exceeded:
            self._drop_message()
        else:
            self._count(step, exchange, count, end - at)
            if count == room and end < len(data) and data[end] == kind:
                self._at = self._end = end
                self._exceed(step, exchange)
                return end
        if end == at:
            return self._partial(step, exchange)
        return end

    def _may_stream(self, kind: int, step: Step) -> bool:
        if kind == _COPY_DATA:
            copy = self._copy
            return copy is not None and (copy.outward or copy.both)
        if step.failed or self._copy is not None:
            return False
        return step.kind == EXECUTE or (step.kind == QUERY and step.in_rows)

    def _count(self, step: Step, exchange: Exchange, count: int, size: int) -> None:
        """Count rows; a COPY sends one message a row, and is limited as other results are."""
        exchange.response_bytes += size
        exchange.rows += count
        step.result_rows += count
        if step.portal is not None:
            step.portal.rows += count

    def _counted(self, step: Step) -> int:
        return step.result_rows if step.portal is None else step.portal.rows

    def _partial(self, step: Step, exchange: Exchange) -> int:
        """Take the beginning of a row that is not all here: wait, or pass it in pieces."""
        data, at = self._chunk, self._at
        whole: int = 1 + _length(data, at + 1)[0]
        if whole <= WHOLE_BYTES_MAX:
            self._above.keep(data[at:], whole)
            return at
        left = whole - (len(data) - at)
        if step.exceeded:
            self._end = len(data)
            self._drop_message()
            self._skip = left
        else:
            self._count(step, exchange, 1, whole)
            self._emit(at)
            self._start = len(data)
            begun = self._down.begin(data[at:], left)
            if begun[:HEAD_BYTES] != data[at : at + HEAD_BYTES]:
                raise Malformed(ACROSS)
            self._send_down(begun)
        return len(data)

    # a result that is longer than the rule allows

    def _exceed(self, step: Step, exchange: Exchange) -> None:
        """Tell the loop, and let what follows of the result go nowhere."""
        prepared = step.prepared
        single = prepared is not None and len(prepared.classified.statements) == 1
        undone = step.kind == EXECUTE or self._status == b"T"
        pure = prepared is not None and prepared.pure
        refusal = of_rows(str(exchange.rule), exchange.max_rows)
        exchange.status = refusal.status
        if not step.fence or not single or not (undone or pure):
            # what it changed, or what stands behind it, can't be undone any more: say so
            self._fail(refusal)
            return
        step.exceeded = True
        self._tell(serialize_error(refusal, self._session))
        if not step.asked_rows and self._stop_statement(last=False):
            # else it would run to its end for nobody; nothing goes up before that word is over
            self._stops += 1
            self._fences += 1
            exchange.notes.append(("upstream", "told to stop"))
