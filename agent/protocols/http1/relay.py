"""The HTTP/1.1 relay: one request in flight, answered in order; nothing upstream unrecorded.

The way of a request: head complete and valid → host binding → Judge → lease (once) → upstream →
RecordIntent → Recorded → head and body upstream → answer scrubbed downstream → RecordOutcome.
Anything else ends in an answer of ours and a RecordDenied, with nothing upstream.
"""

from collections.abc import Sequence
from typing import assert_never

from agent.model.audit import Outcome
from agent.model.ids import OperationId
from agent.model.lease import Lease
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.model.verdict import Allow, Deny, Verdict
from agent.protocols.http1.answers import Refusal
from agent.protocols.http1.binding import Binding
from agent.protocols.http1.ending import DOWN, NAME, NS_PER_S, UP, Ending, Phase
from agent.protocols.http1.exchange import SAFE_METHODS, Exchange
from agent.protocols.http1.limits import (
    DRAIN_S,
    HEAD_S,
    HELD_BYTES_HARD,
    HELD_BYTES_MAX,
    IDLE_S,
    SIGNED_BODY_BYTES_MAX,
    STALL_S,
    WATCH_S,
    WATCH_TIMER,
)
from agent.protocols.http1.malformed import Malformed
from agent.protocols.http1.payload import TOO_LONG, Payload, aws_attributes
from agent.protocols.http1.request import RequestHead
from agent.wire.commands import (
    Command,
    Judge,
    OpenUpstream,
    Pause,
    RecordIntent,
    RequestLease,
    Resume,
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
    SaidApart,
    Started,
    StopAnswered,
    StopAsked,
    TextClassified,
    TimedOut,
    TlsStarted,
    UpstreamFailed,
    UpstreamOpened,
)
from agent.wire.side import Side


class HttpRelay(Ending):
    """One downstream connection, to one target."""

    def handle(self, event: Event, now_ns: int) -> Sequence[Command]:
        """Take one event at this monotonic time and say what to do."""
        if self._phase is Phase.FINISHED:
            return ()
        out: list[Command] = []
        self._out = out
        self._now = now_ns
        # isinstance, in order of frequency: half the cost of a match of classes
        if isinstance(event, Data):
            if event.side is UP:
                self._upstream_data(event.data)
            else:
                self._downstream_data(event.data)
        elif isinstance(event, Judged):
            self._judged(event.operation_id, event.verdict)
        elif isinstance(event, Recorded):
            self._intent_recorded(event.operation_id)
        else:
            self._rare(event)
        return out

    def _rare(
        self,
        event: Started | Eof | RecordFailed | Leased | LeaseRefused | UpstreamOpened
        | UpstreamFailed | TlsStarted | TextClassified | SaidApart | StopAsked | StopAnswered
        | TimedOut | Cut,
    ) -> None:  # fmt: skip
        match event:
            case Started(tls_name):
                self._binding = Binding(self._target, tls_name)
                self._touched_ns = self._now
                self._out.append(SetTimer(WATCH_TIMER, WATCH_S))
            case Eof(side):
                self._ended(side)
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
            case TlsStarted() | TextClassified() | SaidApart() | StopAsked() | StopAnswered():
                raise AssertionError("HTTP asks for none of them")
            case _:
                assert_never(event)

    def _ended(self, side: Side) -> None:
        if side is UP:
            self._upstream_ended(clean=True)
        else:
            self._downstream_ended()

    # downstream: heads and bodies of requests

    def _downstream_data(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.body.done:
            if self._phase is Phase.DRAINING:
                self._drain(exchange, data)
                return
            self._touched_ns = self._now
            data = self._request_body(exchange, data)
            if self._phase is Phase.FINISHED:
                return
        if data:
            if self._phase is Phase.IDLE and not self._intake.held:
                self._touched_ns = self._now  # a head's time counts from its first byte
            self._intake.add(data)
        if self._phase is Phase.IDLE:
            self._next_request()
        self._hold()

    def _hold(self) -> None:
        """Stop reading the loop while more waits than may be held, and go on when it is less."""
        if self._phase is Phase.FINISHED:
            return
        exchange = self._exchange
        held = len(self._intake.held)
        if exchange is not None and not self._gathers(exchange):
            held += exchange.pending_bytes
        if held > HELD_BYTES_HARD:
            self._cut(Reason.OVERLOADED)
        elif held > HELD_BYTES_MAX and not self._paused and self._phase is not Phase.IDLE:
            self._paused = True
            self._out.append(Pause(DOWN))
        elif self._paused and held <= HELD_BYTES_MAX:
            self._paused = False
            self._out.append(Resume(DOWN))

    def _gathers(self, exchange: Exchange) -> bool:
        """Whether the body is taken whole, or was: that has a bound of its own."""
        return exchange.gathers and (self._phase is Phase.GATHERING or exchange.body.done)

    def _go_on(self) -> None:
        if self._phase is Phase.IDLE and (self._intake.held or self._down_eof):
            self._next_request()
        if self._paused:
            self._hold()

    def _next_request(self) -> None:
        """Start the next request that is held complete. Answers of ours need no recursion."""
        if self._starting:
            return
        self._starting = True
        while self._phase is Phase.IDLE and self._intake.held:
            head = self._intake.next_head()
            if head is None:
                break
            if isinstance(head, Malformed):
                self._refuse_malformed(head)
            else:
                self._begin(head)
        self._starting = False
        if self._phase is Phase.IDLE and self._down_eof:
            self._finish(Reason.DOWNSTREAM_CLOSED, reusable=True)

    def _begin(self, head: RequestHead) -> None:
        plan = self._outbound.plan(head)
        attributes = head.attributes if plan is None else head.attributes + aws_attributes(head)
        operation = Operation(
            self._context.new_operation_id(), NAME, head.verb, head.resource, attributes
        )
        payload = plan if isinstance(plan, Payload) else None
        exchange = self._exchange = Exchange(head, operation, self._now, payload)
        exchange.scrub_with(self._outbound.scrubber)
        self._intended = self._recorded = self._retried = False
        if not exchange.body.done and self._intake.held:
            self._intake.add(exchange.take_body(self._intake.take()))
            if exchange.body.error:
                exchange.closing = True
                self._refuse(Refusal(400, Reason.PROTOCOL_ERROR, exchange.body.error))
                return
        refusal = self._built_in_refusal(head)
        if refusal is None and isinstance(plan, Refusal):
            refusal = plan
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
            data = exchange.pending()
            if exchange.payload is not None and not self._may_go_on(exchange):
                exchange.closing = True
                self._fail(_broken(exchange))
                return b""
            self._send(UP, data)
        elif self._phase is Phase.GATHERING:
            self._gather(exchange)
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
        outbound, shape = self._outbound, self._target.shape
        if not outbound.may_go_by_policy:
            self._refuse(_CLEARTEXT)
        elif shape is not None and outbound.lacks_lease:
            self._phase = Phase.LEASING
            self._out.append(RequestLease((shape,)))
        elif exchange.gathers and not exchange.body.done:
            self._begin_gathering(exchange)
        elif self._upstream is None:
            self._phase = Phase.OPENING
            self._out.append(OpenUpstream())
        elif not self._recorded:
            self._phase = Phase.RECORDING
            self._intended = True
            exchange.note_form()
            self._out.append(RecordIntent(exchange.operation, exchange.rule, outbound.lease_id))
        else:
            self._forward(exchange)

    def _may_go_on(self, exchange: Exchange) -> bool:
        """Whether a body that is signed is one, and not too much is held for it."""
        return not exchange.fault and self._may_hold(exchange)

    def _begin_gathering(self, exchange: Exchange) -> None:
        """Take the whole body before anything goes: a signature of ours is over its hash."""
        self._phase = Phase.GATHERING
        self._touched_ns = self._now
        if exchange.head.expects_continue:
            exchange.head = exchange.head._replace(expects_continue=False)
            self._send(DOWN, _CONTINUE)
        self._gather(exchange)
        if self._paused:
            self._hold()

    def _gather(self, exchange: Exchange) -> None:
        if exchange.pending_bytes > SIGNED_BODY_BYTES_MAX:
            self._refuse(TOO_LONG)
        elif not self._may_hold(exchange):
            self._refuse(_TOO_MANY)
        elif exchange.body.done:
            self._prepare(exchange)

    def _leased(self, lease: Lease) -> None:
        exchange = self._exchange
        if self._phase is not Phase.LEASING or exchange is None:
            return
        if self._outbound.adopt(lease):
            exchange.scrub_with(self._outbound.scrubber)
            self._prepare(exchange)
        else:
            self._refuse(_MISFIT)

    def _upstream_opened(self, event: UpstreamOpened) -> None:
        exchange = self._exchange
        self._upstream, self._upstream_reused = event.address, event.reused
        if self._phase is not Phase.OPENING or exchange is None:
            self._drop_upstream()  # it came too late to be of use
        elif self._outbound.may_go(encrypted=event.encrypted):
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
        data = self._outbound.begin(exchange, self._binding.host_field, self._context.unix_ms)
        if exchange.payload is not None and not self._may_go_on(exchange):
            self._fail(_broken(exchange))
            return
        self._send(UP, data)
        if self._paused:
            self._hold()

    # upstream: the answer

    def _upstream_data(self, data: bytes) -> None:
        exchange = self._exchange
        if self._phase is not Phase.FORWARDING or exchange is None:
            self._drop_upstream()  # nobody asked: what it belongs to is not known
            return
        self._touched_ns = self._now
        self._send(DOWN, exchange.take_response(data))
        if exchange.failure is not None:
            failure = exchange.failure
            self._fail(Refusal(502, failure.reason, failure.detail))
        elif exchange.answered:
            self._answered(exchange)

    def _answered(self, exchange: Exchange, *, ended: bool = False) -> None:
        """Go on behind a complete answer. ended: the upstream's end is what completed it."""
        response = exchange.response
        assert response is not None  # answered is set after it
        self._record_outcome(exchange, Outcome.ANSWERED, Reason.DONE, str(response.status))
        spent = ended or exchange.leftover or not response.keep_alive
        if spent or not exchange.body.done:
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
            self._answered(exchange, ended=True)
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
            exchange.payload,
        )  # fmt: skip
        again.scrub_with(self._outbound.scrubber)
        self._exchange = again
        self._recorded, self._retried = False, True
        self._phase = Phase.JUDGING
        self._out.append(Judge(again.operation))

    def _look_at_deadlines(self) -> None:
        waited_s = (self._now - self._touched_ns) / NS_PER_S
        self._out.append(SetTimer(WATCH_TIMER, WATCH_S))
        match self._phase:
            case Phase.IDLE if self._intake.held and waited_s >= HEAD_S:
                self._refuse_malformed(
                    Malformed(408, Reason.TIMED_OUT, "the request head did not come in time")
                )
            case Phase.IDLE if waited_s >= IDLE_S:
                self._finish(Reason.TIMED_OUT, reusable=True)
            case Phase.DRAINING if waited_s >= DRAIN_S:
                self._finish(self._close_reason)
            case Phase.FORWARDING if waited_s >= STALL_S:
                self._fail(Refusal(504, Reason.TIMED_OUT, "The upstream did not answer in time."))
            case Phase.GATHERING if waited_s >= STALL_S and self._exchange is not None:
                self._exchange.closing = True
                self._refuse(Refusal(408, Reason.TIMED_OUT, "The body did not come in time."))
            case Phase.IDLE | Phase.DRAINING | Phase.FORWARDING | Phase.FINISHED:
                pass
            case _ if waited_s >= STALL_S and self._exchange is not None:
                self._exchange.closing = True  # an answer may still come, and would be nobody's
                self._refuse(Refusal(504, Reason.TIMED_OUT, "The decision did not come in time."))


def _broken(exchange: Exchange) -> Refusal:
    """Return why a body can't go on: it is not one, or too much is held."""
    fault = exchange.fault
    return Refusal(400, Reason.PROTOCOL_ERROR, fault) if fault else _TOO_MANY


_TOO_MANY = Refusal(
    503, Reason.OVERLOADED, "The run has too many bodies under way whose hash is needed first."
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLEARTEXT = Refusal(
    502, Reason.CLEARTEXT_REFUSED, "A credential is not sent to an upstream without TLS."
)
_MISFIT = Refusal(503, Reason.CREDENTIAL_MISFIT, "The lease's credential does not fit the target.")
