"""What was begun and has no end in the record yet, and what to write when its end can't come."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from agent.model.audit import (
    AuditEvent,
    OperationDenied,
    OperationFinished,
    OperationIntended,
    Outcome,
    SessionClosed,
    SessionOpened,
)
from agent.model.ids import OperationId, SessionId
from agent.model.reason import Reason
from agent.pb import audit_pb2 as pb

OPEN_MAX = 32_768  # operations and sessions together; at it new operations are refused
OPENER = "broker"  # opens every session, from what kernel said, and may close any
CLOSED_KEPT_MAX = 4_096  # sessions that were closed last: what was sent again may be of them


class Note(msgspec.Struct, frozen=True):
    """Carried from segment to segment, since segments before may be gone at the next start."""

    life: str  # of the supervisor: the same life means that proxies may have survived us
    operations: dict[str, tuple[str, str]]  # operation → (session, sender)
    sessions: dict[str, str]  # session → the worker's role
    runs: dict[str, str] = {}  # session → run
    closed: dict[str, str] = {}  # session → the worker's role, oldest first


@dataclass(slots=True)
class OpenWork:
    """Open operations, and sessions as the broker opened them. Bounded by its user at OPEN_MAX."""

    life: str
    operations: dict[str, tuple[str, str]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    lost: bool = False  # records were quarantined at this start: an unknown session may be real

    @property
    def at_limit(self) -> bool:
        """Whether nothing more may be begun."""
        return len(self.operations) + len(self.sessions) >= OPEN_MAX

    def note(self) -> bytes:
        """Serialise for the next segment's header (at most 4 MiB at OPEN_MAX)."""
        return msgspec.msgpack.encode(
            Note(self.life, self.operations, self.sessions, self.runs, self.closed)
        )

    def check(self, events: Iterable[AuditEvent], role: str) -> None:
        """Refuse what a role says of another role's work, or of work that the broker did not open.

        Raises:
            ValueError: a session or operation is open, and was begun by another role; or an
                operation begins whose session is not the role's, or is of another run.
        """
        for event in events:
            if isinstance(event, OperationFinished):
                operation = self.operations.get(event.operation_id)
                if operation is not None and (
                    operation[0] != event.session_id or not is_of(operation[1], role)
                ):
                    raise ValueError(f"the end of an operation that is not of {role}")
            by = self.sessions.get(session_of(event))
            if by is not None and not is_of(by, role) and role != OPENER:
                raise ValueError(f"a {type(event).__name__} of a session that is not of {role}")
            if isinstance(event, OperationIntended | OperationDenied):
                self._check_begun(event, by or self.closed.get(event.session_id), role)

    def _check_begun(
        self, event: OperationIntended | OperationDenied, by: str | None, role: str
    ) -> None:
        """An operation names session and run: both must be what the broker said."""
        if by is None and not self.lost:
            raise ValueError(f"an operation of a session that was not opened for {role}")
        if by is not None and not is_of(by, role):
            raise ValueError(f"an operation of a session that is not of {role}")
        if self.runs.get(event.session_id, event.run_id) != event.run_id:
            raise ValueError("an operation of another run than its session's")

    def follow(self, event: AuditEvent, sender: str) -> None:
        """Take note of an event that was appended."""
        if isinstance(event, OperationIntended):
            self.operations[event.operation.operation_id] = (event.session_id, sender)
        elif isinstance(event, OperationFinished):
            self.operations.pop(event.operation_id, None)
        elif isinstance(event, OperationDenied):  # an intent that was refused when it came late
            self.operations.pop(event.operation.operation_id, None)
        elif isinstance(event, SessionOpened):
            one = event.attribution
            self.opened(one.session_id, event.worker or sender, one.run_id)
        elif isinstance(event, SessionClosed):
            self.ended(event.session_id)

    def opened(self, session_id: str, worker: str, run_id: str) -> None:
        """Take note of a session, which ends with its worker at the latest."""
        self.sessions[session_id] = worker
        self.runs[session_id] = run_id
        self.closed.pop(session_id, None)

    def ended(self, session_id: str) -> None:
        """Take note of its end; it is remembered for a while."""
        worker = self.sessions.pop(session_id, None)
        self.runs.pop(session_id, None)
        if worker is None:
            return
        self.closed[session_id] = worker
        if len(self.closed) > CLOSED_KEPT_MAX:
            del self.closed[next(iter(self.closed))]

    def abandoned_by(self, sender: str, role: str) -> list[AuditEvent]:
        """Return the ends to write when this sender is gone.

        What our own earlier life knew is known by the role only: its process is this one.
        """
        return [
            *(
                _unknown(op, session)
                for op, (session, by) in self.operations.items()
                if by in (sender, role)
            ),
            *(_closed(session) for session, by in self.sessions.items() if by in (sender, role)),
        ]


def is_of(sender: str, role: str) -> bool:
    """Whether a sender's key is of the role ("proxy@0/7", or "proxy@0" of an earlier life)."""
    return sender.startswith(role) and sender[len(role) : len(role) + 1] in ("", "/")


_OF_SESSION = (OperationIntended, OperationFinished, OperationDenied, SessionClosed)


def session_of(event: AuditEvent) -> str:
    """Return the session that an event is of, "" for none."""
    if isinstance(event, _OF_SESSION):
        return event.session_id
    return event.attribution.session_id if isinstance(event, SessionOpened) else ""


def resume(note: bytes, records: Iterable[bytes], life: str) -> tuple[OpenWork, list[AuditEvent]]:
    """Return what is still open, and the ends to write for what an earlier life began.

    It reads the note of the last segment, then that segment. Sessions are closed only when the
    supervisor's life is another too: if only we died, the proxies live and will close them. An
    operation's real outcome may follow `unknown` then.

    Raises:
        ValueError: the note is not one of ours.
    """
    try:
        last = msgspec.msgpack.decode(note, type=Note) if note else Note(life, {}, {})
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the note of the last segment can't be read: {error}") from error
    work = OpenWork(
        life, dict(last.operations), dict(last.sessions), dict(last.runs), dict(last.closed)
    )
    for payload in records:
        _follow_stored(work, pb.Record.FromString(payload))
    ends: list[AuditEvent] = [_unknown(op, by[0]) for op, by in work.operations.items()]
    if last.life != life:
        ends += [_closed(session) for session in work.sessions]
    return work, ends


def _follow_stored(work: OpenWork, record: pb.Record) -> None:
    match record.WhichOneof("event"):
        case "operation_intended":
            intended = record.operation_intended
            work.operations[intended.operation.operation_id] = (intended.session_id, record.role)
        case "operation_denied":
            work.operations.pop(record.operation_denied.operation.operation_id, None)
        case "operation_finished":
            work.operations.pop(record.operation_finished.operation_id, None)
        case "session_opened":
            opened = record.session_opened
            one = opened.attribution
            work.opened(one.session_id, opened.worker or record.role, one.run_id)
        case "session_closed":
            work.ended(record.session_closed.session_id)


def _unknown(operation_id: str, session_id: str) -> OperationFinished:
    return OperationFinished(
        SessionId(session_id),
        OperationId(operation_id),
        Outcome.UNKNOWN,
        Reason.INTERNAL,
        status="",
        request_bytes=0,
        response_bytes=0,
        duration_ns=0,
        upstream="",
    )


def _closed(session_id: str) -> SessionClosed:
    return SessionClosed(
        SessionId(session_id),
        Reason.INTERNAL,
        operations=0,
        downstream_bytes=0,
        upstream_bytes=0,
        duration_ns=0,
    )
