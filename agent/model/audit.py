"""What is recorded. A closed union; every field is public unless it says redacted or bounded."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.flow import Attribution, Unattributed
from agent.model.grant import Durability
from agent.model.ids import (
    LeaseId,
    LoopName,
    OperationId,
    RuleId,
    RunId,
    SessionId,
    TargetName,
)
from agent.model.lease import LeaseState
from agent.model.loop import Run
from agent.model.operation import Operation
from agent.model.reason import Reason


class Outcome(StrEnum):
    """How an operation ended."""

    ANSWERED = "answered"  # the upstream's complete answer went downstream
    DENIED = "denied"  # by policy, protocol or missing part; nothing went upstream
    ABORTED = "aborted"  # began upstream and was cut; what the upstream did is not known
    UNKNOWN = "unknown"  # written by recovery: an intent without outcome


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run exists; written before its first process is admitted."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The last process is gone, or the run was unregistered."""

    run_id: RunId
    reason: Reason


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """An attributed connection, with its target when one was named ("" when none).

    The broker writes it, from what kernel said, before the worker may begin.
    """

    attribution: Attribution
    loop: LoopName
    target: TargetName | None
    worker: str = ""  # who serves it, e.g. "proxy@0"; it ends with that one at the latest


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """A connection that never became a session: nobody's, or of an unknown run."""

    flow: Unattributed
    reason: Reason


@dataclass(frozen=True, slots=True)
class OperationIntended:
    """Written before the operation's first byte goes upstream."""

    session_id: SessionId
    run_id: RunId
    loop: LoopName
    target: TargetName | None
    operation: Operation
    rule: RuleId
    lease_id: LeaseId | None
    durability: Durability


@dataclass(frozen=True, slots=True)
class OperationFinished:
    """The outcome. A denied operation has this record too, and its intent says what was asked.

    status is the protocol's own ("200"); sizes count body bytes; times are nanoseconds of the
    driver's monotonic clock between request complete head and last byte.
    """

    session_id: SessionId
    operation_id: OperationId
    outcome: Outcome
    reason: Reason
    status: str
    request_bytes: int
    response_bytes: int
    duration_ns: int
    upstream: str  # address dialled, "" when none
    rows: int = 0  # that went downstream
    attributes: tuple[tuple[str, str], ...] = ()  # protocol specific, bounded: a command's tag


@dataclass(frozen=True, slots=True)
class OperationDenied:
    """Intent and outcome in one: nothing went upstream."""

    session_id: SessionId
    run_id: RunId
    loop: LoopName
    target: TargetName | None
    operation: Operation
    rule: RuleId
    reason: Reason
    explanation: str
    status: str


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """Exactly one for every SessionOpened."""

    session_id: SessionId
    reason: Reason
    operations: int
    downstream_bytes: int
    upstream_bytes: int
    duration_ns: int


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """A transition of a lease."""

    lease_id: LeaseId
    run_id: RunId
    target: TargetName
    provider: str
    state: LeaseState


class Alarm(StrEnum):
    """Things that must not happen; each is counted, shown by `status`, and recorded."""

    LOCK_MISSING = "lock-missing"  # an enforcement layer was removed and repaired
    TAG_WITHOUT_CGROUP = "tag-without-cgroup"
    CGROUP_WITHOUT_TAG = "cgroup-without-tag"
    PEER_VIOLATION = "peer-violation"  # an IPC peer sent what it may not
    ROLE_DIED = "role-died"
    SPOOL_FULL = "spool-full"
    SPOOL_QUARANTINED = "spool-quarantined"
    UNRECORDED = "unrecorded"
    UPLOAD_REFUSED = "upload-refused"  # the collector's history and ours do not agree
    TOKEN_REFUSED = "token-refused"  # noqa: S105 - a kind of alarm: an identity token is not good
    POLICY_REJECTED = "policy-rejected"
    LEASE_QUARANTINED = "lease-quarantined"  # a credential that cannot be revoked
    LEASE_LOST = "lease-lost"  # a credential of ours that no lease was known of; it was ended
    USED_ELSEWHERE = "used-elsewhere"  # a secret that was for us alone was used by another
    JOURNAL_FAILED = "journal-failed"  # the lease journal's disk: no lease can be given


@dataclass(frozen=True, slots=True)
class Alarmed:
    """An alarm with what a person needs to act."""

    alarm: Alarm
    detail: str
    run_id: RunId | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Written at an interval even when idle, so that truncation of the tail is seen."""

    uptime_s: int


AuditEvent = (
    RunStarted
    | RunEnded
    | SessionOpened
    | SessionRefused
    | OperationIntended
    | OperationFinished
    | OperationDenied
    | SessionClosed
    | LeaseChanged
    | Alarmed
    | Heartbeat
)
