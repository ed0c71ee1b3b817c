"""What goes upstream, in order: decided, recorded, and not behind something that has to end first.

A refused message is answered in its turn. When the server is in a transaction, or has begun with
this segment, something that fails goes upstream in its place, so that both sides agree: what the
loop believes undone is undone.
"""

from agent.model.audit import Outcome
from agent.model.reason import Reason
from agent.protocols.postgres.answering import Answering
from agent.protocols.postgres.messages import FLUSH as FLUSH_WIRE
from agent.protocols.postgres.messages import TERMINATE as TERMINATE_WIRE
from agent.protocols.postgres.messages import message, ready_for_query
from agent.protocols.postgres.refusing import (
    COPY_FAIL_WIRE,
    FAILING_PARSE_WIRE,
    FAILING_QUERY_WIRE,
)
from agent.protocols.postgres.step import (
    CALL,
    END,
    EXECUTE,
    FAILING_PARSE,
    FAILING_QUERY,
    FLUSH,
    LOCAL,
    QUERY,
    SYNC,
    TERMINATE,
    Exchange,
    Stage,
    Step,
)

_INT32_MAX = 2**31 - 1
_LAST = frozenset({TERMINATE, END})


class Releasing(Answering):
    """Sends steps upstream."""

    def _release(self) -> None:
        """Send what may go."""
        decided = self._decided
        while decided and not self._finished:
            step = decided[0]
            if step.stage is Stage.RECORDING or self._has_to_wait(step.kind):
                break
            decided.popleft()
            copy = self._copy
            if copy is not None and copy.inward and step.kind not in _LAST:
                self._in_copy(step)
            elif step.stage is Stage.DENIED:
                self._refuse(step)
            else:
                self._send_step(step)

    def _has_to_wait(self, kind: int) -> bool:
        copy = self._copy
        if copy is not None and copy.inward:
            return False
        if kind in _LAST:
            return bool(self._flight)
        if not self._fences:
            return False
        return self._sync_fenced or self._stops > 0 or kind not in {SYNC, FLUSH}

    def _flush_if_waiting(self) -> None:
        """Ask the server for answers that something of ours waits for."""
        if self._flushed or self._finished or not self._flight:
            return
        decided = self._decided
        if self._waits or self._stalled or (decided and decided[0].stage is not Stage.RECORDING):
            self._up.append(FLUSH_WIRE)
            self._flushed = True

    def _send_step(self, step: Step) -> None:
        kind = step.kind
        if kind == SYNC:
            self._send_sync(step)
        elif kind == FLUSH:
            if not self._segment_local:
                self._up.append(step.wire)
                self._flushed = True
        elif kind == TERMINATE:
            self._up.append(TERMINATE_WIRE)
            self._finish(Reason.DONE)
        elif kind == END:
            self._finish(Reason.DOWNSTREAM_CLOSED)
        else:
            self._send_work(step)

    def _send_work(self, step: Step) -> None:
        exchange = step.exchange
        if step.kind in {QUERY, CALL}:
            self._fence_query(step)
            self._segment_sent, self._segment_pure, self._flushed = False, True, True
        else:
            if step.kind != EXECUTE:
                self._preparing += 1
            elif exchange is not None:
                self._fence_execute(step, exchange)
            self._segment_sent, self._flushed = True, False
        self._up.append(step.wire)
        self._flight.append(step)
        step.wire = b""

    def _send_sync(self, step: Step) -> None:
        if self._segment_local:
            self._segment_local = False
            self._say(ready_for_query(self._status))
            return
        self._up.append(step.wire)
        self._flight.append(step)
        self._segment_sent, self._segment_pure, self._flushed = False, True, True

    def _say(self, data: bytes) -> None:
        """Say something of ours when all before it is answered."""
        self._flight.append(Step(LOCAL, b"", said=data))
        self._say_local()

    # fences

    def _fence_query(self, step: Step) -> None:
        prepared, exchange = step.prepared, step.exchange
        limited = exchange is not None and exchange.max_rows > 0
        if limited or prepared is None or prepared.may_copy:
            self._fence(step, sync_waits=limited)

    def _fence_execute(self, step: Step, exchange: Exchange) -> None:
        prepared, portal = step.prepared, step.portal
        pure = prepared is not None and prepared.pure
        if exchange.max_rows and (prepared is None or prepared.returns_rows):
            left = exchange.max_rows - (0 if portal is None else portal.rows)
            asked = max(0, left) + 1
            if (not step.most or step.most >= asked) and asked <= _INT32_MAX:
                # one row more than may pass tells that there are more, and the server rests
                step.asked_rows = asked
                step.wire = message(b"E", step.name + b"\0" + asked.to_bytes(4, "big"))
                alone = self._status == b"I" and self._segment_pure and not self._ends_in_flight()
                self._fence(step, sync_waits=not (pure and alone))
        if prepared is None or prepared.may_copy:
            self._fence(step, sync_waits=self._sync_fenced or exchange.max_rows > 0)
        self._segment_pure = self._segment_pure and pure

    def _ends_in_flight(self) -> bool:
        return any(step.kind in {SYNC, QUERY, CALL, FAILING_QUERY} for step in self._flight)

    def _fence(self, step: Step, *, sync_waits: bool) -> None:
        if not step.fence:
            step.fence = True
            self._fences += 1
        self._sync_fenced = sync_waits

    # refusals

    def _refuse(self, step: Step) -> None:
        """Answer a refused message in its turn."""
        untouched = not self._flight and not self._segment_sent and self._status != b"T"
        if step.kind in {QUERY, CALL}:
            if untouched:
                self._say(step.said + ready_for_query(self._status))
                return
            self._up.append(FAILING_QUERY_WIRE)
            step.kind = FAILING_QUERY
            self._segment_sent, self._segment_pure = False, True
        elif untouched:
            self._segment_local = True
            self._say(step.said)
            return
        else:
            self._up.append(FAILING_PARSE_WIRE)
            step.kind = FAILING_PARSE
            self._segment_sent = True
        self._flushed = True
        self._flight.append(step)

    def _in_copy(self, step: Step) -> None:
        """A message that is no part of the COPY that began: it is taken by it, and ends it."""
        if step.kind in {SYNC, FLUSH}:
            return
        copy = self._copy
        assert copy is not None  # asked by the caller
        copy.inward = False
        self._up.append(COPY_FAIL_WIRE)
        self._release_names(step, done=False, tried=False)
        if step.exchange is not None:
            self._recordings.pop(step.exchange.operation.operation_id, None)
            self._conclude(step.exchange, Outcome.DENIED, Reason.PROTOCOL_ERROR, "sent during COPY")
            step.exchange = None
