"""The HTTP/1.1 relay: one request in flight, answered in order; nothing upstream unrecorded.

The way of a request: head complete and valid → host binding → Judge → lease (once) → upstream →
RecordIntent → Recorded → head and body upstream → answer scrubbed downstream → RecordOutcome.
Anything else ends in an answer of ours and a RecordDenied, with nothing upstream.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import assert_never

from agent.masking.scrubber import Scrubber
from agent.model.audit import OperationFinished, Outcome
from agent.model.credential import Shape, secrets_of, type_of
from agent.model.grant import UpstreamTls
from agent.model.ids import LeaseId, OperationId, RuleId
from agent.model.lease import Lease
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.http1.answers import BUILT_IN, Refusal, serialize_answer
from agent.protocols.http1.binding import Binding
from agent.protocols.http1.exchange import SAFE_METHODS, Exchange, serialize_request_head
from agent.protocols.http1.injection import Injection
from agent.protocols.http1.limits import (
    DRAIN_BYTES_MAX,
    DRAIN_S,
    HEAD_BYTES_MAX,
    HEAD_S,
    HELD_BYTES_HARD,
    HELD_BYTES_MAX,
    IDLE_S,
    STALL_S,
    WATCH_S,
    WATCH_TIMER,
)
from agent.protocols.http1.malformed import Malformed, bad
from agent.protocols.http1.request import RequestHead, check_request_line, parse_request_head
from agent.wire.commands import (
    CloseUpstream,
    Command,
    Finish,
    Judge,
    OpenUpstream,
    Pause,
    RecordDenied,
    RecordIntent,
    RecordOutcome,
    RequestLease,
    Resume,
    Send,
    SetTimer,
)
from agent.wire.events import (
    Cut,
    Data,
    Eof,
    Event,
    Judged,
    Leased,
    LeaseRefused,
    Recorded,
    RecordFailed,
    Started,
    TimedOut,
    UpstreamFailed,
    UpstreamOpened,
)
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
    OPENING = auto()
    RECORDING = auto()
    FORWARDING = auto()  # from the first byte upstream to the last downstream
    DRAINING = auto()  # answered by us: the rest of the request's body is thrown away
    FINISHED = auto()


class HttpRelay:
    """One downstream connection, to one target."""

    def __init__(self, context: RelayContext) -> None:
        self._context = context
        self._target = context.target
        self._binding = Binding(context.target, None)
        self._phase = Phase.IDLE
        self._out: list[Command] = []
        self._now = 0
        self._touched_ns = 0  # last byte either way, or begin of the phase that waits for one
        self._down = b""  # bytes that wait for the request before them
        self._scanned = 0  # of them, how many hold no end of a head
        self._down_eof = False
        self._paused = False
        self._exchange: Exchange | None = None
        self._intended = False  # RecordIntent was asked for and not refused
        self._recorded = False
        self._retried = False
        self._drained = 0
        self._close_reason = Reason.DONE
        self._upstream: str | None = None
        self._upstream_reused = False
        self._lease_id: LeaseId | None = None
        self._injection: Injection | None = None
        self._scrubber: Scrubber | None = None
        self._head_of: RequestHead | None = None  # the head that _head_bytes was made from
        self._head_bytes = b""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        if self._phase is Phase.FINISHED:
            return ()
        out: list[Command] = []
        self._out = out
        self._now = now_ns
        match event:
            case Data():
                self._touched_ns = now_ns
                if event.side is UP:
                    self._upstream_data(event.data)
                else:
                    self._downstream_data(event.data)
            case Judged():
                self._judged(event.operation_id, event.verdict)
            case Recorded():
                self._intent_recorded(event.operation_id)
            case _:
                self._rare(event)
        return out

    def _rare(
        self,
        event: Started | Eof | RecordFailed | Leased | LeaseRefused | UpstreamOpened
        | UpstreamFailed | TimedOut | Cut,
    ) -> None:  # fmt: skip
        match event:
            case Started(tls_name):
                self._binding = Binding(self._target, tls_name)
                self._touched_ns = self._now
                self._out.append(SetTimer(WATCH_TIMER, WATCH_S))
            case Eof(side):
                if side is UP:
                    self._upstream_ended(clean=True)
                else:
                    self._downstream_ended()
            case RecordFailed(operation_id):
                self._intent_failed(operation_id)
            case Leased(lease):
                self._leased(lease)
            case LeaseRefused(detail):
                if self._phase is Phase.LEASING:
                    self._refuse(Refusal(503, Reason.LEASE_REFUSED, detail))
            case UpstreamOpened():
                self._upstream_opened(event)
            case UpstreamFailed(reason, detail):
                self._upstream_failed(reason, detail)
            case TimedOut():
                self._look_at_deadlines()
            case Cut(reason):
                self._cut(reason)
            case _:
                assert_never(event)

    # downstream: heads and bodies of requests

    def _downstream_data(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.body.done:
            if self._phase is Phase.DRAINING:
                self._drain(exchange, data)
                return
            data = self._request_body(exchange, data)
            if self._phase is Phase.FINISHED:
                return
        if data:
            self._down = self._down + data if self._down else data
        if self._phase is Phase.IDLE:
            self._next_request()
        self._hold()

    def _hold(self) -> None:
        """Stop reading the loop while more waits than may be held, and go on when it is less."""
        if self._phase is Phase.FINISHED:
            return
        exchange = self._exchange
        held = len(self._down) + (exchange.pending_bytes if exchange is not None else 0)
        if held > HELD_BYTES_HARD:
            self._cut(Reason.OVERLOADED)
        elif held > HELD_BYTES_MAX and not self._paused and self._phase is not Phase.IDLE:
            self._paused = True
            self._out.append(Pause(DOWN))
        elif self._paused and held <= HELD_BYTES_MAX:
            self._paused = False
            self._out.append(Resume(DOWN))

    def _next_request(self) -> None:
        """Start the next request that is held complete. Answers of ours need no recursion."""
        while self._phase is Phase.IDLE and self._down:
            if self._down.startswith(b"\r\n"):  # RFC 9112 section 2.2: one empty line before
                self._down = self._down[2:] if not self._down.startswith(b"\r\n\r\n") else b"\n"
                continue
            end = self._down.find(b"\r\n\r\n", max(0, self._scanned - 3))
            if end < 0 or end + 4 > HEAD_BYTES_MAX:
                self._incomplete_head()
                break
            block, self._down, self._scanned = self._down[: end + 4], self._down[end + 4 :], 0
            head = parse_request_head(block)
            if isinstance(head, Malformed):
                self._refuse_malformed(head)
            else:
                self._begin(head)
        if self._phase is Phase.IDLE and self._down_eof:
            self._finish(Reason.DOWNSTREAM_CLOSED, reusable=True)

    def _incomplete_head(self) -> None:
        if not self._scanned:
            self._touched_ns = self._now  # the head's time counts from its first byte
        self._scanned = len(self._down)
        line, newline, _ = self._down.partition(b"\n")
        if newline:
            checked = check_request_line(line.removesuffix(b"\r") if line[-1:] == b"\r" else b"")
        elif len(line) > HEAD_BYTES_MAX // 4 + 1:
            checked = check_request_line(line)
        else:
            return
        if isinstance(checked, Malformed):
            self._refuse_malformed(checked)
        elif len(self._down) >= HEAD_BYTES_MAX:
            self._refuse_malformed(bad("the request head is too long", 431))

    def _begin(self, head: RequestHead) -> None:
        operation = Operation(
            self._context.new_operation_id(), NAME, head.verb, head.resource, head.attributes
        )
        exchange = self._exchange = Exchange(head, operation, self._now)
        exchange.scrub_with(self._scrubber)
        self._intended = self._recorded = self._retried = False
        if not exchange.body.done and self._down:
            data, self._down = self._down, b""
            self._down = exchange.take_body(data)
            if exchange.body.error:
                exchange.closing = True
                self._refuse(Refusal(400, Reason.PROTOCOL_ERROR, exchange.body.error))
                return
        refusal = self._built_in_refusal(head)
        if refusal is not None:
            exchange.closing = exchange.closing or refusal.status == 421
            self._refuse(refusal)
            return
        self._phase = Phase.JUDGING
        self._out.append(Judge(operation))

    def _built_in_refusal(self, head: RequestHead) -> Refusal | None:
        if head.method in (b"CONNECT", b"TRACE"):
            return Refusal(405, Reason.METHOD_REFUSED, "This method is never forwarded.")
        if not self._binding.fits(head.host):
            text = "The connection's TLS name or the request's Host is not this target."
            return Refusal(421, Reason.DESTINATION_MISMATCH, text)
        if head.upgrade is not None:
            return Refusal(501, Reason.UPGRADE_REFUSED, "A change of protocol is not forwarded.")
        return None

    def _request_body(self, exchange: Exchange, data: bytes) -> bytes:
        rest = exchange.take_body(data)
        if exchange.body.error:
            exchange.closing = True
            if self._phase is Phase.FORWARDING:
                self._fail(Refusal(400, Reason.PROTOCOL_ERROR, exchange.body.error))
            else:
                self._refuse(Refusal(400, Reason.PROTOCOL_ERROR, exchange.body.error))
            return b""
        if self._phase is Phase.FORWARDING:
            self._send(UP, exchange.pending())
        return rest

    # the decision and what has to be there before the first byte upstream

    def _judged(self, operation_id: OperationId, verdict: Verdict) -> None:
        exchange = self._exchange
        if self._phase is not Phase.JUDGING or exchange is None:
            return
        if exchange.operation.operation_id != operation_id:
            return
        match verdict:
            case Allow(rule):
                exchange.rule = rule
                self._prepare(exchange)
            case Deny(rule, reason, explanation, next_step):
                exchange.rule = rule
                self._refuse(Refusal(403, reason, explanation, rule, next_step))
            case _:
                assert_never(verdict)

    def _prepare(self, exchange: Exchange) -> None:
        """Ask for the next thing that is missing; forward when nothing is."""
        target = self._target
        if target.shape is not None and self._injection is None:
            if target.tls is UpstreamTls.NONE and not target.allow_cleartext:
                self._refuse(_CLEARTEXT)
                return
            self._phase = Phase.LEASING
            self._out.append(RequestLease((target.shape,)))
        elif self._upstream is None:
            self._phase = Phase.OPENING
            self._out.append(OpenUpstream())
        elif not self._recorded:
            self._phase = Phase.RECORDING
            self._intended = True
            self._out.append(RecordIntent(exchange.operation, exchange.rule, self._lease_id))
        else:
            self._forward(exchange)

    def _leased(self, lease: Lease) -> None:
        exchange = self._exchange
        if self._phase is not Phase.LEASING or exchange is None:
            return
        shape = self._target.shape
        fits = lease.target == self._target.name and shape is not None
        if not fits or not isinstance(lease.credential, type_of[shape or Shape.BEARER]):
            self._refuse(_MISFIT)
            return
        try:
            injection = Injection(lease.credential)
            scrubber = Scrubber(secrets_of(lease.credential))
        except ValueError:
            self._refuse(_MISFIT)
            return
        self._injection, self._scrubber, self._lease_id = injection, scrubber, lease.lease_id
        exchange.scrub_with(scrubber)
        self._prepare(exchange)

    def _upstream_opened(self, event: UpstreamOpened) -> None:
        exchange = self._exchange
        if self._phase is not Phase.OPENING or exchange is None:
            return
        self._upstream, self._upstream_reused = event.address, event.reused
        if self._injection is None or event.encrypted or self._target.allow_cleartext:
            self._prepare(exchange)
        else:
            self._drop_upstream()
            self._refuse(_CLEARTEXT)

    def _intent_recorded(self, operation_id: OperationId) -> None:
        exchange = self._exchange
        if self._phase is not Phase.RECORDING or exchange is None:
            return
        if exchange.operation.operation_id == operation_id:
            self._recorded = True
            self._prepare(exchange)

    def _intent_failed(self, operation_id: OperationId) -> None:
        exchange = self._exchange
        if self._phase is not Phase.RECORDING or exchange is None:
            return
        if exchange.operation.operation_id == operation_id:
            self._intended = False
            text = "The operation could not be recorded, so it was not made."
            self._refuse(Refusal(503, Reason.RECORD_FAILED, text))

    def _forward(self, exchange: Exchange) -> None:
        self._phase = Phase.FORWARDING
        self._touched_ns = self._now
        if self._head_of is not exchange.head:
            self._head_bytes = serialize_request_head(
                exchange.head, self._binding.host_field, self._injection
            )
            self._head_of = exchange.head
        body = exchange.pending()
        self._send(UP, self._head_bytes + body if body else self._head_bytes)
        if self._paused:
            self._hold()

    # upstream: the answer

    def _upstream_data(self, data: bytes) -> None:
        exchange = self._exchange
        if self._phase is not Phase.FORWARDING or exchange is None:
            self._drop_upstream()  # nobody asked: what it belongs to is not known
            return
        self._send(DOWN, exchange.take_response(data))
        if exchange.failure is not None:
            failure = exchange.failure
            self._fail(Refusal(502, failure.reason, failure.detail))
        elif exchange.answered:
            self._answered(exchange)

    def _answered(self, exchange: Exchange) -> None:
        response = exchange.response
        assert response is not None  # answered is set after it
        self._record_outcome(exchange, Outcome.ANSWERED, Reason.DONE, str(response.status))
        if not response.keep_alive or exchange.leftover or not exchange.body.done:
            self._drop_upstream()
        else:
            self._upstream_reused = True
        self._after_answer(exchange, Reason.DONE)

    def _upstream_ended(self, *, clean: bool) -> None:
        exchange = self._exchange
        if self._phase is not Phase.FORWARDING or exchange is None:
            self._drop_upstream()
            return
        if clean:
            self._send(DOWN, exchange.end_response())
        if exchange.answered:
            self._answered(exchange)
        elif self._may_retry(exchange):
            self._retry(exchange)
        else:
            text = "The upstream closed the connection before its answer was complete."
            self._fail(Refusal(502, Reason.UPSTREAM_CLOSED, text))

    def _upstream_failed(self, reason: Reason, detail: str) -> None:
        if self._phase is Phase.OPENING:
            status = 504 if reason is Reason.TIMED_OUT else 502
            self._refuse(Refusal(status, reason, detail))
        else:
            self._upstream_ended(clean=False)

    def _may_retry(self, exchange: Exchange) -> bool:
        """A kept connection that the server closed as we sent: RFC 9110 section 9.2.2, once."""
        head = exchange.head
        fresh = exchange.touched or self._retried or not self._upstream_reused
        return not fresh and head.method in SAFE_METHODS and not head.has_body

    def _retry(self, exchange: Exchange) -> None:
        """Make it a new operation with its own records, so that none is made twice unseen."""
        before = exchange.operation
        self._record_outcome(exchange, Outcome.ABORTED, Reason.UPSTREAM_CLOSED, "")
        self._drop_upstream()
        again = Exchange(
            exchange.head,
            Operation(
                self._context.new_operation_id(), NAME, before.verb, before.resource,
                (*before.attributes, ("retry-of", before.operation_id)),
            ),
            self._now,
        )  # fmt: skip
        again.scrub_with(self._scrubber)
        self._exchange = again
        self._recorded, self._retried = False, True
        self._phase = Phase.JUDGING
        self._out.append(Judge(again.operation))

    # endings

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
        length = exchange.head.length or 0
        if not exchange.body.done and (exchange.head.expects_continue or length > DRAIN_BYTES_MAX):
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
        if begun is not None or exchange.body.error:
            if begun is None:
                self._answer(refusal, close=True)
            self._finish(refusal.reason)
            return
        self._answer(refusal, close=True)
        self._after_answer(exchange, refusal.reason)

    def _after_answer(self, exchange: Exchange, reason: Reason) -> None:
        """Go on with the next request, or with the rest of this one's body, or end."""
        waits = exchange.head.expects_continue and exchange.request_bytes == 0
        self._close_reason = reason
        if not exchange.body.done and not exchange.body.error and not waits and not self._down_eof:
            exchange.pending()
            self._phase = Phase.DRAINING
            self._drained, self._touched_ns = 0, self._now
            self._hold()
        elif exchange.closing or not exchange.body.done:
            self._finish(reason)
        else:
            self._exchange = None
            self._phase = Phase.IDLE
            self._touched_ns = self._now
            if self._down or self._down_eof:
                self._next_request()
            if self._paused:
                self._hold()

    def _drain(self, exchange: Exchange, data: bytes) -> None:
        payload, rest = exchange.body.feed(data)
        self._drained += len(payload)
        if exchange.body.error or self._drained > DRAIN_BYTES_MAX:
            self._finish(self._close_reason)
        elif exchange.body.done:
            self._down = rest
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

    def _look_at_deadlines(self) -> None:
        waited_s = (self._now - self._touched_ns) / NS_PER_S
        self._out.append(SetTimer(WATCH_TIMER, WATCH_S))
        match self._phase:
            case Phase.IDLE if self._down and waited_s >= HEAD_S:
                self._refuse_malformed(
                    Malformed(408, Reason.TIMED_OUT, "the request head did not come in time")
                )
            case Phase.IDLE if waited_s >= IDLE_S:
                self._finish(Reason.TIMED_OUT, reusable=True)
            case Phase.DRAINING if waited_s >= DRAIN_S:
                self._finish(self._close_reason)
            case Phase.FORWARDING if waited_s >= STALL_S:
                self._fail(Refusal(504, Reason.TIMED_OUT, "The upstream did not answer in time."))
            case Phase.IDLE | Phase.DRAINING | Phase.FORWARDING | Phase.FINISHED:
                pass
            case _ if waited_s >= STALL_S:
                self._refuse(Refusal(504, Reason.TIMED_OUT, "The decision did not come in time."))

    # commands

    def _send(self, side: Side, data: bytes) -> None:
        if data:
            self._out.append(Send(side, data))

    def _answer(self, refusal: Refusal, *, close: bool) -> None:
        head = self._exchange.head if self._exchange is not None else None
        bodyless = head is not None and head.method == b"HEAD"
        session = self._context.session_id
        answer = serialize_answer(refusal, session, close=close, bodyless=bodyless)
        self._out.append(Send(DOWN, answer))

    def _record_denied(self, operation: Operation, rule: RuleId, refusal: Refusal) -> None:
        self._out.append(
            RecordDenied(
                operation, rule, refusal.reason, refusal.explanation, str(refusal.status)
            )
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
        self._phase = Phase.FINISHED
        self._exchange = None
        self._down = b""
        self._out.append(Finish(reason))


_CLEARTEXT = Refusal(
    502, Reason.CLEARTEXT_REFUSED, "A credential is not sent to an upstream without TLS."
)
_MISFIT = Refusal(503, Reason.CREDENTIAL_MISFIT, "The lease's credential does not fit the target.")
