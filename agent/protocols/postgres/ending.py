"""How an opening ends badly: one record of what was under way, one answer, one Finish."""

from dataclasses import replace
from enum import Enum, auto

from agent.masking.scrubber import Scrubber
from agent.model.audit import OperationFinished, Outcome
from agent.model.grant import PostgresOptions
from agent.model.ids import LeaseId, RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.protocols.postgres.answers import BUILT_IN, NAME, Refusal, of_cut, serialize_refusal
from agent.protocols.postgres.downflow import broken_frame
from agent.wire.commands import (
    CloseUpstream,
    Command,
    Finish,
    RecordDenied,
    RecordOutcome,
    Send,
)
from agent.wire.relay import RelayContext
from agent.wire.side import Side

UP, DOWN = Side.UPSTREAM, Side.DOWNSTREAM
DONE_STATUS = "00000"  # successful_completion


class Phase(Enum):
    """What the opening waits for."""

    PACKETS = auto()  # the loop: its next startup packet
    DOWNSTREAM_TLS = auto()
    JUDGING = auto()  # a replication session is an operation of its own
    LEASING = auto()
    REACHING = auto()  # the connection and the intent's record, side by side
    ASKING_TLS = auto()  # the server's one byte
    UPSTREAM_TLS = auto()
    LOGIN = auto()
    STOPPING = auto()  # a session of ours may hold what is to be cancelled
    CANCELLING = auto()  # the server's end of a connection that asked to cancel
    OPENED = auto()
    FINISHED = auto()


class Ending:
    """A session's state while it opens, and the ways in which that ends early."""

    def __init__(self, context: RelayContext) -> None:
        self._context = context
        self._target = context.target
        self._options = context.target.postgres or PostgresOptions()
        self._phase = Phase.PACKETS
        self._out: list[Command] = []
        self._now = 0
        self._operation: Operation | None = None
        self._rule: RuleId = BUILT_IN
        self._since_ns = 0
        self._intended = False  # RecordIntent was asked for and not refused
        self._recorded = False
        self._sent_bytes = 0  # upstream, of this operation
        self._told_bytes = 0  # what the server answered
        self._upstream: str | None = None
        self._lease_id: LeaseId | None = None
        self._scrubber: Scrubber | None = None
        self._mute = False  # who asks to cancel is told nothing

    def _operate(self, verb: str, resource: str, attributes: tuple[tuple[str, str], ...]) -> None:
        """Begin the session's one operation."""
        operation_id = self._context.new_operation_id()
        self._operation = Operation(operation_id, NAME, verb, resource, attributes)
        self._since_ns = self._now

    def _send_up(self, data: bytes) -> None:
        self._sent_bytes += len(data)
        self._out.append(Send(UP, data))

    def _refuse(self, refusal: Refusal) -> None:
        """End the session with this answer."""
        if self._operation is None:
            self._operate("", "", ())
        operation = self._operation
        assert operation is not None
        if self._intended:
            outcome = Outcome.ABORTED if self._sent_bytes else Outcome.DENIED
            self._record_outcome(outcome, refusal.reason, refusal.status)
        else:
            rule = self._rule if refusal.rule == BUILT_IN else refusal.rule
            self._out.append(
                RecordDenied(operation, rule, refusal.reason, refusal.explanation, refusal.status)
            )
        if not self._mute:
            self._tell_refusal(refusal)
        self._finish(refusal.reason)

    def _cut(self, reason: Reason) -> None:
        """End for a cause from outside; a session without a packet was no operation yet."""
        if self._operation is None:
            self._tell_refusal(of_cut(reason))
            self._finish(reason)
        else:
            self._refuse(of_cut(reason))

    def _leave(self, reason: Reason) -> None:
        """End without a word: nobody listens."""
        self._mute = True
        if self._operation is None:
            self._finish(reason)
        else:
            self._refuse(Refusal(reason, "The client ended the connection."))

    def _tell_refusal(self, refusal: Refusal) -> None:
        session = self._context.session_id
        own = replace(refusal, verbatim=b"")  # where the server's words can't be told
        said = self._clean(serialize_refusal(refusal, session))
        said = said or self._clean(serialize_refusal(own, session))
        if said:
            self._out.append(Send(DOWN, said))

    def _clean(self, data: bytes) -> bytes:
        """Return complete messages without the lease's secret.

        b"" when a server made the secret of a message's length and what follows it: without the
        secret these would be other messages.
        """
        if self._scrubber is None:
            return data
        clean = self._scrubber.scrub(data)
        return b"" if clean is not data and broken_frame(data, clean) >= 0 else clean

    def _record_outcome(self, outcome: Outcome, reason: Reason, status: str) -> None:
        operation = self._operation
        assert operation is not None  # there was an intent
        self._intended = False
        self._out.append(
            RecordOutcome(
                OperationFinished(
                    self._context.session_id,
                    operation.operation_id,
                    outcome,
                    reason,
                    status,
                    self._sent_bytes,
                    self._told_bytes,
                    self._now - self._since_ns,
                    self._upstream or "",
                )
            )
        )

    def _finish(self, reason: Reason) -> None:
        if self._upstream is not None:
            self._upstream = None
            self._out.append(CloseUpstream(reusable=False))
        self._phase = Phase.FINISHED
        self._out.append(Finish(reason))
