"""A session between both sides' first ReadyForQuery and its end: each statement in its turn.

The way of a query: message complete and valid → Classify → pinned settings → Judge →
RecordIntent → Recorded → upstream, in order → answer scrubbed downstream → RecordOutcome.
The parts, each a layer on the one before: `state` (what there is, how it ends), `answering` (the
server's bytes), `releasing` (what goes upstream), `deciding`, `receiving` (the loop's bytes).
"""

from collections.abc import Sequence

from agent.protocols.postgres.receiving import Receiving
from agent.wire.commands import Command
from agent.wire.events import (
    Cut,
    Data,
    Eof,
    Event,
    Judged,
    Recorded,
    RecordFailed,
    SaidApart,
    StopAsked,
    TextClassified,
    UpstreamFailed,
)
from agent.wire.side import Side

_DOWN = Side.DOWNSTREAM


class Steady(Receiving):
    """One session, ready on both sides. Its first event may be any; leftovers are taken then."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        if self._finished:
            return ()
        out: list[Command] = []
        self._out = out
        self._now = now_ns
        if isinstance(event, Data):
            if event.side is _DOWN:
                self._downstream_data(event.data)
            else:
                self._upstream_data(event.data)
                self._go_on()
        elif isinstance(event, Judged):
            self._judged(event.operation_id, event.verdict)
        elif isinstance(event, Recorded):
            self._recorded(event.operation_id)
        else:
            self._rare(event)
        if not self._finished:
            if self._stalled or self._paused:
                self._retry_stalled()
                self._flush_if_waiting()
                self._hold()
            if self._up and not self._finished:  # what waited may have been the end
                self._push()
        return out

    def begin(self, now_ns: int) -> Sequence[Command]:
        """Take what came behind what opened the session, the server's first."""
        found: list[Command] = []
        above, below = self._opened.leftover_upstream, self._opened.leftover_downstream
        if above:
            found += self.handle(Data(Side.UPSTREAM, above), now_ns)
        if below:
            found += self.handle(Data(_DOWN, below), now_ns)
        return found

    def _rare(self, event: Event) -> None:
        match event:
            case TextClassified(_, classified):
                self._text_classified(classified)
            case RecordFailed(operation_id):
                self._record_failed(operation_id)
            case Eof(side):
                if side is _DOWN:
                    self._downstream_ended()
                else:
                    self._upstream_ended()
            case UpstreamFailed():
                self._upstream_ended()
            case Cut(reason):
                self._cut(reason)
            case SaidApart():
                self._said_apart()
            case StopAsked():
                self._stop_asked(reading=self._below.size > 0)
            case _:
                return  # timers and answers of the opening: nothing waits for them any more
        self._go_on()

    def _go_on(self) -> None:
        """After answers: what waited for them may be decided and sent."""
        if self._finished:
            return
        if self._new or self._decided or self._asking is not None:
            self._advance()
