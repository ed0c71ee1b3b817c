"""How requests and sessions end: the records, the answers of ours, and what comes after them.

Each operation ends with exactly one RecordDenied or RecordOutcome, each session with one Finish.
"""

from enum import Enum, auto

from agent.model.audit import OperationFinished, Outcome
from agent.model.ids import RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.http1.answers import (
    BUILT_IN,
    Refusal,
    next_step_of,
    serialize_answer,
    serialize_with,
)
from agent.protocols.http1.aws_answers import serialize_aws_body
from agent.protocols.http1.binding import Binding
from agent.protocols.http1.exchange import Exchange
from agent.protocols.http1.held import HELD
from agent.protocols.http1.intake import Intake
from agent.protocols.http1.limits import DRAIN_BYTES_MAX
from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.outbound import Outbound
from agent.wire.commands import CloseUpstream, Command, Finish, RecordDenied, RecordOutcome, Send
from agent.wire.relay import RelayContext
from agent.wire.side import Side

UP, DOWN = Side.UPSTREAM, Side.DOWNSTREAM
NAME = "http"
NS_PER_S = 1_000_000_000


class Phase(Enum):
    """Where the one request in flight is."""

    IDLE = auto()  # no request: a head is awaited
    JUDGING = auto()
    LEASING = auto()
    GATHERING = auto()  # the body is held until it is whole, for its hash
    OPENING = auto()
    RECORDING = auto()
    FORWARDING = auto()  # from the first byte upstream to the last downstream
    DRAINING = auto()  # answered by us: the rest of the request's body is thrown away
    FINISHED = auto()


class Ending:
    """A session's state, and the ways in which what is under way ends."""

    def __init__(self, context: RelayContext) -> None:
        self._context = context
        self._target = context.target
        self._binding = Binding(context.target, None)
        self._phase = Phase.IDLE
        self._out: list[Command] = []
        self._now = 0
        self._touched_ns = 0  # last byte either way, or begin of the phase that waits for one
        self._intake = Intake()
        self._down_eof = False
        self._starting = False  # requests are being started: no second loop inside
        self._paused = False
        self._exchange: Exchange | None = None
        self._intended = False  # RecordIntent was asked for and not refused
        self._recorded = False
        self._retried = False
        self._drained = 0
        self._close_reason = Reason.DONE
        self._upstream: str | None = None
        self._upstream_reused = False
        self._outbound = Outbound(context.target)
        self._held_bytes = 0  # of a body, for its signature, as HELD counts it

    def _go_on(self) -> None:
        """Start what waits behind a request that ended; the relay says how."""
        raise NotImplementedError

    def _may_hold(self, exchange: Exchange) -> bool:
        """Count what the exchange holds now; False when its run holds too much already."""
        size_bytes = exchange.held_bytes
        more = size_bytes - self._held_bytes
        if more and not HELD.change(self._context.run_key, more):
            return False
        self._held_bytes = size_bytes
        return True

    def _hold_nothing(self) -> None:
        if self._held_bytes:
            HELD.change(self._context.run_key, -self._held_bytes)
            self._held_bytes = 0

    def _refuse_malformed(self, malformed: Malformed) -> None:
        """Refuse bytes that are no request: recorded with what is known, nothing."""
        operation = Operation(self._context.new_operation_id(), NAME, "", "", ())
        self._exchange = None
        self._record_denied(
            operation,
            BUILT_IN,
            Refusal(malformed.status, malformed.reason, malformed.detail),
        )
        self._answer(Refusal(malformed.status, malformed.reason, malformed.detail), close=True)
        self._finish(malformed.reason)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer a request of which nothing went upstream."""
        exchange = self._exchange
        assert exchange is not None  # refusals of no request are _refuse_malformed
        if self._intended:
            self._record_outcome(exchange, Outcome.DENIED, refusal.reason, str(refusal.status))
        else:
            self._record_denied(exchange.operation, exchange.rule or BUILT_IN, refusal)
        head, length = exchange.head, exchange.head.length or 0
        unfinished = not exchange.body.done
        if not head.minor or (unfinished and (head.expects_continue or length > DRAIN_BYTES_MAX)):
            exchange.closing = True
        self._answer(refusal, close=exchange.closing)
        self._after_answer(exchange, refusal.reason)

    def _fail(self, refusal: Refusal) -> None:
        """End an operation that began upstream: answer if nothing was answered yet, and close."""
        exchange = self._exchange
        assert exchange is not None  # called while forwarding
        begun = exchange.response
        status = refusal.status if begun is None else begun.status
        self._record_outcome(exchange, Outcome.ABORTED, refusal.reason, str(status))
        self._drop_upstream()
        exchange.closing = True
        if begun is None:
            self._answer(refusal, close=True)
        if begun is None and not exchange.fault:
            self._after_answer(exchange, refusal.reason)
        else:
            self._finish(refusal.reason)

    def _after_answer(self, exchange: Exchange, reason: Reason) -> None:
        """Go on with the next request, or with the rest of this one's body, or end."""
        self._hold_nothing()
        waits = exchange.head.expects_continue and exchange.request_bytes == 0
        self._close_reason = reason
        if not exchange.body.done and not exchange.fault and not waits and not self._down_eof:
            exchange.pending()
            self._phase = Phase.DRAINING
            self._drained, self._touched_ns = 0, self._now
            self._go_on()
        elif exchange.closing or not exchange.body.done:
            # what is still open upstream then is clean, and of use to the run's next connection
            self._finish(reason, reusable=exchange.answered and exchange.body.done)
        else:
            self._exchange = None
            self._phase = Phase.IDLE
            self._touched_ns = self._now
            self._go_on()

    def _drain(self, exchange: Exchange, data: bytes) -> None:
        _, rest = exchange.body.feed(data)
        self._drained += len(data) - len(rest)
        if exchange.body.error or self._drained > DRAIN_BYTES_MAX:
            self._finish(self._close_reason)
        elif exchange.body.done:
            self._intake.add(rest)
            self._after_answer(exchange, self._close_reason)

    def _downstream_ended(self) -> None:
        self._down_eof = True
        exchange = self._exchange
        if self._phase is Phase.IDLE:
            self._finish(Reason.DOWNSTREAM_CLOSED, reusable=True)
        elif exchange is not None and not exchange.body.done:
            if self._phase is not Phase.DRAINING:
                self._record_end(exchange, Reason.DOWNSTREAM_CLOSED)
            self._finish(Reason.DOWNSTREAM_CLOSED)

    def _cut(self, reason: Reason) -> None:
        exchange = self._exchange
        if exchange is not None and self._phase is not Phase.DRAINING:
            self._record_end(exchange, reason)
            if exchange.response is None:
                text = "The session was ended before the answer."
                self._answer(Refusal(503, reason, text, exchange.rule or BUILT_IN), close=True)
        self._finish(reason)

    def _record_end(self, exchange: Exchange, reason: Reason) -> None:
        """Record an operation that is ended from outside, with what is true of it."""
        if self._phase is Phase.FORWARDING:
            begun = exchange.response
            status = "" if begun is None else str(begun.status)
            self._record_outcome(exchange, Outcome.ABORTED, reason, status)
        elif self._intended:
            self._record_outcome(exchange, Outcome.DENIED, reason, "")
        else:
            refusal = Refusal(503, reason, "The session was ended before the operation.")
            self._record_denied(exchange.operation, exchange.rule or BUILT_IN, refusal)

    def _send(self, side: Side, data: bytes) -> None:
        if data:
            self._out.append(Send(side, data))

    def _answer(self, refusal: Refusal, *, close: bool) -> None:
        head = self._exchange.head if self._exchange is not None else None
        bodyless = head is not None and head.method == b"HEAD"
        session = self._context.session_id
        aws = self._target.aws
        if aws is None:
            answer = serialize_answer(refusal, session, close=close, bodyless=bodyless)
        else:
            step = next_step_of(refusal)
            kind, code, body = serialize_aws_body(refusal, step, session, aws, head)
            answer = serialize_with(refusal, body, kind, code, close=close, bodyless=bodyless)
        self._out.append(Send(DOWN, answer))

    def _record_denied(self, operation: Operation, rule: RuleId, refusal: Refusal) -> None:
        self._out.append(
            RecordDenied(operation, rule, refusal.reason, refusal.explanation, str(refusal.status))
        )

    def _record_outcome(
        self, exchange: Exchange, outcome: Outcome, reason: Reason, status: str
    ) -> None:
        finished = OperationFinished(
            self._context.session_id,
            exchange.operation.operation_id,
            outcome,
            reason,
            status,
            exchange.request_bytes,
            exchange.response_bytes,
            self._now - exchange.since_ns,
            self._upstream or "",
        )
        self._intended = False
        self._out.append(RecordOutcome(finished))

    def _drop_upstream(self, *, reusable: bool = False) -> None:
        if self._upstream is not None:
            self._upstream = None
            self._out.append(CloseUpstream(reusable))

    def _finish(self, reason: Reason, *, reusable: bool = False) -> None:
        self._drop_upstream(reusable=reusable)
        self._hold_nothing()
        self._phase = Phase.FINISHED
        self._exchange = None
        self._intake.take()
        self._out.append(Finish(reason))
