"""Everything a relay may learn. Time is an argument of `Relay.handle`, not an event field."""

from dataclasses import dataclass, field

from agent.model.ids import OperationId
from agent.model.lease import Lease
from agent.model.reason import Reason
from agent.model.sql import Classified
from agent.model.verdict import Verdict
from agent.wire.side import Side


@dataclass(frozen=True, slots=True)
class Started:
    """First event, once. tls_name is the SNI of downstream TLS, None for clear text."""

    tls_name: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes arrived (never empty, at most the driver's read size). The repr leaves them out."""

    side: Side
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Eof:
    """That side will send no more."""

    side: Side


@dataclass(frozen=True, slots=True)
class Judged:
    """Answer to Judge."""

    operation_id: OperationId
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Recorded:
    """Answer to RecordIntent: the intent is durable as the target asks."""

    operation_id: OperationId


@dataclass(frozen=True, slots=True)
class RecordFailed:
    """Answer to RecordIntent: the record could not be made; nothing may go upstream."""

    operation_id: OperationId


@dataclass(frozen=True, slots=True)
class Leased:
    """Answer to RequestLease."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseRefused:
    """Answer to RequestLease: the provider or the broker said no. detail is safe to show."""

    detail: str


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """Answer to OpenUpstream: connected, and verified as the target asks. encrypted: under TLS.

    reused: a kept connection that may have been closed by the server meanwhile.
    """

    address: str
    encrypted: bool
    reused: bool = False


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """Answer to OpenUpstream. detail is fixed text for the reason, safe to show."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class TlsStarted:
    """Answer to StartTls. server_end_point: RFC 5929 binding of an upstream's certificate."""

    side: Side
    server_end_point: bytes | None = None


@dataclass(frozen=True, slots=True)
class TextClassified:
    """Answer to Classify. A text that could not be classified is UNKNOWN, with the reason."""

    text: str
    classified: Classified


@dataclass(frozen=True, slots=True)
class SaidApart:
    """Answer to SendApart: it was said and the server ended the connection, or could not be."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Another session of this run wants what this one holds to be given up → StopTaken, or not."""


@dataclass(frozen=True, slots=True)
class StopAnswered:
    """Answer to AskStop. taken: something was held and will never go upstream."""

    taken: bool


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A timer that the relay set ran out."""

    name: str


@dataclass(frozen=True, slots=True)
class Cut:
    """The session is to end now with this true cause; the relay may still say a last word."""

    reason: Reason


Event = (
    Started
    | Data
    | Eof
    | Judged
    | Recorded
    | RecordFailed
    | Leased
    | LeaseRefused
    | UpstreamOpened
    | UpstreamFailed
    | TlsStarted
    | TextClassified
    | SaidApart
    | StopAsked
    | StopAnswered
    | TimedOut
    | Cut
)
