"""A steady session's state, and the ways in which it and its operations end.

Each operation ends with exactly one RecordDenied or RecordOutcome, each session with one Finish.
"""

from collections import deque

from agent.model.audit import OperationFinished, Outcome
from agent.model.ids import OperationId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.postgres.answers import (
    BUILT_IN,
    NAME,
    Refusal,
    of_cut,
    of_malformed,
    serialize_refusal,
)
from agent.protocols.postgres.copying import Copying
from agent.protocols.postgres.downflow import Downflow
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.messages import SSL_REQUEST, cancel_request
from agent.protocols.postgres.names import Names, Portal, Prepared
from agent.protocols.postgres.opened import Opened
from agent.protocols.postgres.refusing import serialize_error
from agent.protocols.postgres.step import END, SYNC, TERMINATE, Exchange, Stage, Step
from agent.protocols.postgres.transitions import server_version
from agent.protocols.postgres.unrun import Unrun, went_up
from agent.wire.commands import (
    Command,
    Finish,
    RecordDenied,
    RecordIntent,
    RecordOutcome,
    Send,
    SendApart,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side

UP, DOWN = Side.UPSTREAM, Side.DOWNSTREAM
TAG_CHARS_MAX = 256  # of the recorded command tags of one operation
SETTLING_MAX = 256  # answered operations that wait for ReadyForQuery to be recorded
SKIPPED = "skipped after an error before it"
NEVER_RAN = "prepared, and never executed"
STOPS = frozenset({SYNC, TERMINATE, END})  # what a server that skips messages does not skip


class State:
    """Steps wait in three places, in order: not decided, decided, sent and not answered."""

    def __init__(self, context: RelayContext, opened: Opened) -> None:
        options = context.target.postgres
        self._context = context
        self._session = context.session_id
        self._opened = opened
        self._server_version = server_version(opened.parameters)
        self._read_only = options is not None and options.read_only
        self._out: list[Command] = []
        self._up: list[bytes] = []  # what goes upstream at the end of this turn
        self._preparing = 0  # how many of them are Parse, Bind, Describe or Close
        self._now = 0
        self._new: deque[Step] = deque()
        self._decided: deque[Step] = deque()
        self._flight: deque[Step] = deque()
        self._asking: Step | None = None  # the one that is being classified or judged
        self._classes: deque[Step] = deque()  # who waits for TextClassified
        self._unrun = Unrun()
        self._recordings: dict[OperationId, Step] = {}
        self._statements: Names[Prepared] = Names()
        self._portals: Names[Portal] = Names()
        self._wild = 0  # steps under way that may change names nobody knows yet
        self._segment = 0
        self._discarding = False  # what the loop sends is thrown away up to its Sync
        self._stalled = b""  # copied data, and what is behind it: it is not clear where it goes
        self._waits = False  # the next step waits for an answer to an earlier one
        self._status = b"I"  # of the last ReadyForQuery
        self._flushed = True  # the server gives the answers to all that was sent
        self._segment_sent = False  # something of a segment that has no Sync yet was sent
        self._segment_pure = True  # and nothing of it changed anything
        self._segment_local = False  # it was refused by us before anything of it was sent
        self._fences = 0  # sent steps that others have to wait behind, and stops
        self._stops = 0  # words to the server that may still stop whatever it is at
        self._sync_fenced = False  # Sync too
        self._copy: Copying | None = None
        self._hides_columns = False  # some are denied: errors may not quote rows
        self._settling: list[Exchange] = []  # answered, their transaction's end is not known
        self._down = Downflow(opened.scrubber)
        self._down_ended = False
        self._finished = False

    # words

    def _tell(self, data: bytes) -> None:
        """Say something of ours to the loop."""
        if data:
            self._out.append(Send(DOWN, self._down.clean(data)))

    def _push(self) -> None:
        """Let go upstream what this turn has for it.

        What only prepares a step that is being decided over or recorded goes with it: a Bind alone
        would wake the server once more, and cost a TLS record. The answer comes in any case.
        """
        up, decided = self._up, self._decided
        if len(up) == self._preparing:
            recording = decided and decided[0].stage is Stage.RECORDING
            if recording or (self._asking is not None and not decided and not self._waits):
                return
        self._preparing = 0
        if up:
            self._out.append(Send(UP, up[0] if len(up) == 1 else b"".join(up)))
            up.clear()

    # operations

    def _deny(self, step: Step, refusal: Refusal, operation: Operation) -> None:
        """Record a refusal; the loop is told when it is the step's turn."""
        self._out.append(
            RecordDenied(
                operation, refusal.rule, refusal.reason, refusal.explanation, refusal.status
            )
        )
        step.exchange = None
        step.said = serialize_error(refusal, self._session)
        step.stage = Stage.DENIED

    def _conclude(
        self, exchange: Exchange, outcome: Outcome, reason: Reason, notes: str = ""
    ) -> None:
        """Record how an operation that was intended ended, once."""
        if not exchange.intended:
            return
        exchange.intended = False
        attributes = exchange.notes
        tag = "; ".join(exchange.tags)
        if tag:  # the server's words, which may repeat what it was told
            tag = self._down.clean(tag.encode()).decode(errors="replace")
            attributes.append(("command_tag", tag[:TAG_CHARS_MAX]))
        attributes.append(("transaction_state", self._status.decode()))
        if notes:
            attributes.append(("note", notes))
        self._out.append(
            RecordOutcome(
                OperationFinished(
                    self._session,
                    exchange.operation.operation_id,
                    outcome,
                    reason,
                    exchange.status if outcome is Outcome.ANSWERED else "",
                    exchange.request_bytes,
                    exchange.response_bytes,
                    (exchange.ended_ns or self._now) - exchange.since_ns,
                    self._opened.upstream,
                    rows=exchange.rows,
                    attributes=tuple(attributes),
                )
            )
        )

    def _record_unrun(self, step: Step) -> None:
        """Record a Parse of a statement that never ran, if the server got it."""
        exchange = step.unrun
        if exchange is None or not went_up(step):
            return
        exchange.intended = True
        rule = exchange.rule or BUILT_IN
        self._out.append(RecordIntent(exchange.operation, rule, self._opened.lease_id))
        self._conclude(exchange, Outcome.ANSWERED, Reason.DONE, NEVER_RAN)

    def _answered(self, step: Step) -> None:
        """Note that an operation's answer is complete: recorded once the transaction's state is."""
        exchange = step.exchange
        if exchange is None:
            return
        step.exchange = None
        exchange.ended_ns = self._now
        self._settling.append(exchange)
        if len(self._settling) > SETTLING_MAX:
            self._conclude(self._settling.pop(0), Outcome.ANSWERED, Reason.DONE)

    def _settle_all(self, notes: str = "") -> None:
        """Record the operations that were answered, now that ReadyForQuery came."""
        for exchange in self._settling:
            self._conclude(exchange, Outcome.ANSWERED, Reason.DONE, notes)
        self._settling.clear()

    # steps that are given up

    def _drop_segment(self, status: str) -> None:
        """Give up what a server that failed skips: all up to the next Sync, sent or not."""
        flight = self._flight
        while flight and flight[0].kind != SYNC:
            self._drop(flight.popleft(), status, sent=True)
        if not flight:
            self._drop_waiting(status)

    def _drop_waiting(self, status: str) -> None:
        """Give up all that was not sent, up to the next Sync, which may not have come yet."""
        decided = self._decided
        while decided and decided[0].kind not in STOPS:
            self._drop(decided.popleft(), status, sent=False)
        if decided:
            return
        asking = self._asking
        if asking is not None:
            self._asking = None
            self._drop(asking, status, sent=False)
        new = self._new
        while new and new[0].kind not in STOPS:
            self._drop(new.popleft(), status, sent=False)
        self._discarding = not new

    def _drop(self, step: Step, status: str, *, sent: bool) -> None:
        """Give up one step that the server did not come to."""
        self._release_names(step, done=False, tried=False)
        asked = step.stage is Stage.JUDGING
        step.stage = Stage.DROPPED
        exchange = step.exchange
        if exchange is None:
            return
        step.exchange = None
        self._recordings.pop(exchange.operation.operation_id, None)
        if exchange.intended:
            exchange.status = status
            outcome = Outcome.ANSWERED if sent else Outcome.DENIED
            self._conclude(exchange, outcome, Reason.DONE, SKIPPED)
        elif asked:
            text = "a statement before it in the pipeline failed"
            self._deny(step, Refusal(Reason.DONE, text), exchange.operation)
            step.stage = Stage.DROPPED

    def _release_names(self, step: Step, *, done: bool, tried: bool = True) -> None:
        change = step.change
        if change is not None:
            step.change = None
            if done:
                change.settle()
            else:
                change.drop(tried=tried)
        if step.wild:
            step.wild = False
            self._wild -= 1
        if step.fence:
            step.fence = False
            self._fences -= 1
            self._sync_fenced = False

    # endings

    def _end_operations(self, reason: Reason) -> None:
        """Give an outcome to all that is under way."""
        for step in self._unrun.take_all():
            self._record_unrun(step)
        self._settle_all()
        for step in self._flight:
            if step.exchange is not None:
                self._conclude(step.exchange, Outcome.ABORTED, reason)
        waiting = list(self._decided)
        if self._asking is not None:
            waiting.append(self._asking)
        for step in waiting:
            exchange = step.exchange
            if exchange is None:
                continue
            if exchange.intended:
                self._conclude(exchange, Outcome.DENIED, reason)
            elif step.stage is Stage.JUDGING:
                refusal = Refusal(reason, "the session was ended before the operation")
                self._deny(step, refusal, exchange.operation)

    def _finish(self, reason: Reason) -> None:
        """End the session."""
        if self._finished:
            return
        self._end_operations(reason)
        self._push()
        self._finished = True
        for steps in (self._new, self._decided, self._flight):
            steps.clear()
        self._out.append(Finish(reason))

    def _fail(self, refusal: Refusal) -> None:
        """End the session with a last word, where one can be understood."""
        if self._finished:
            return
        self._up.clear()  # nothing goes upstream any more: its operations get an outcome below
        if refusal.reason is not Reason.UPSTREAM_CLOSED:
            self._stop_statement()
        if self._down.whole:
            self._tell(serialize_refusal(refusal, self._session))
        self._finish(refusal.reason)

    def _stop_statement(self, *, last: bool = True) -> bool:
        """Have the server stop what it is at: it does not look at its connection while it works.

        False: it is at nothing, or did not say how.
        """
        if not self._flight or self._opened.backend is None:
            return False
        pid, key = self._opened.backend
        self._out.append(SendApart(SSL_REQUEST, b"S", cancel_request(pid, key), last))
        return True

    def _cut(self, reason: Reason) -> None:
        self._fail(of_cut(reason))

    def _malformed(self, error: Malformed) -> None:
        """The loop sent what has no meaning: recorded with what is known, nothing."""
        if self._finished:
            return
        refusal = of_malformed(error)
        operation = Operation(self._context.new_operation_id(), NAME, "", "", ())
        self._out.append(
            RecordDenied(operation, BUILT_IN, refusal.reason, refusal.explanation, refusal.status)
        )
        self._fail(refusal)

    def _server_broke(self, error: Malformed) -> None:
        """The server sent what may not come."""
        self._fail(of_malformed(error, upstream=True))
