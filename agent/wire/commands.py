"""Everything a relay may ask of its driver. The driver performs them in order.

Judge, RecordIntent, RequestLease, OpenUpstream, SendApart, StartTls, Classify and AskStop are
answered by exactly one event each; the driver goes on performing the commands behind them without
waiting, so a relay asks for nothing that depends on the answer before the answer came.
"""

from dataclasses import dataclass, field

from agent.model.audit import OperationFinished
from agent.model.credential import Shape
from agent.model.ids import LeaseId, RuleId
from agent.model.operation import Operation
from agent.model.reason import Reason
from agent.wire.side import Side


@dataclass(frozen=True, slots=True)
class Send:
    """Write bytes to a side. The driver pauses reading the other side when its buffer is high.

    What goes upstream holds credentials: the repr leaves the bytes out.
    """

    side: Side
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Judge:
    """Decide this operation by the grant → Judged."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class RecordIntent:
    """Make the intent durable → Recorded | RecordFailed. The driver adds session, loop, target."""

    operation: Operation
    rule: RuleId
    lease_id: LeaseId | None


@dataclass(frozen=True, slots=True)
class RecordDenied:
    """Record a refusal (no answer): nothing of this operation goes upstream."""

    operation: Operation
    rule: RuleId
    reason: Reason
    explanation: str
    status: str


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """Record how an operation ended (no answer)."""

    finished: OperationFinished


@dataclass(frozen=True, slots=True)
class RequestLease:
    """Ask for the target's credential → Leased | LeaseRefused."""

    accepts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class OpenUpstream:
    """Connect to the policy's address and verify it → UpstreamOpened | UpstreamFailed.

    The lease's client certificate, if it is one, is shown where the server asks for it.
    clear: connect only; the relay asks for TLS in the protocol's words and then by StartTls.
    """

    clear: bool = False


@dataclass(frozen=True, slots=True)
class SendApart:
    """Say something on a connection of its own to the target, and wait for its end → SaidApart.

    Best effort: a server is asked to stop what it is at, also when Finish follows at once. Where
    the target asks for TLS, `request` goes first, in clear; the server's answer must be `consent`
    and nothing else, and TLS is verified before `data` goes. last: the session ends with it, which
    must not wait for those of sessions that go on.
    """

    request: bytes
    consent: bytes
    data: bytes = field(repr=False)
    last: bool = True


@dataclass(frozen=True, slots=True)
class AnswerTo:
    """From now on this session answers to a name that its run learns: see AskStop."""

    name: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskStop:
    """Ask the session of this run and target that answers to this name to stop → StopAnswered.

    It gets StopAsked. Only sessions of the same worker are found.
    """

    name: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StopTaken:
    """Said to StopAsked, at once: something that had not gone upstream never will."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin TLS on a side that is in clear text → TlsStarted | UpstreamFailed.

    What was sent before it goes out in clear. Downstream: we are the server, with a leaf for the
    target's host; a failure ends the session. Upstream: verified as the target asks, with the
    lease's client certificate if it is one.
    """

    side: Side


@dataclass(frozen=True, slots=True)
class Classify:
    """Say what a query text does → TextClassified, in order. text: at most the dialect's cap."""

    dialect: str
    text: str


@dataclass(frozen=True, slots=True)
class CloseUpstream:
    """Give the upstream connection back: reusable for this (run, lease, target), or not."""

    reusable: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop reading a side (the relay's own bound is reached)."""

    side: Side


@dataclass(frozen=True, slots=True)
class Resume:
    """Read a side again."""

    side: Side


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Start or restart a named timer; delay_s None stops it → TimedOut."""

    name: str
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class Finish:
    """Last command: flush downstream, close both sides. Exactly one per session."""

    reason: Reason


Command = (
    Send
    | Judge
    | RecordIntent
    | RecordDenied
    | RecordOutcome
    | RequestLease
    | OpenUpstream
    | SendApart
    | AnswerTo
    | AskStop
    | StopTaken
    | StartTls
    | Classify
    | CloseUpstream
    | Pause
    | Resume
    | SetTimer
    | Finish
)
