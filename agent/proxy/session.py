"""The life of a session, as data, and the accounts that its last record gives."""

from dataclasses import dataclass, field
from enum import StrEnum

from agent.model.audit import SessionClosed
from agent.model.flow import Attribution
from agent.model.grant import Grant
from agent.model.ids import LeaseId, LoopName, RunId, SessionId
from agent.model.reason import Reason


class State(StrEnum):
    """Where a session stands; `allowed` is the transition table."""

    ACCEPTED = "accepted"  # a connection, of nobody yet
    ATTRIBUTED = "attributed"  # the kernel says whose
    AUTHORIZED = "authorized"  # the broker says what for
    LEASED = "leased"  # the broker gave the credential
    CLOSED = "closed"


allowed: dict[State, frozenset[State]] = {
    State.ACCEPTED: frozenset({State.ATTRIBUTED, State.CLOSED}),
    State.ATTRIBUTED: frozenset({State.AUTHORIZED, State.CLOSED}),
    State.AUTHORIZED: frozenset({State.LEASED, State.CLOSED}),
    State.LEASED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class IllegalTransition(Exception):
    """A session was asked to do what its state does not allow; nothing changed."""


@dataclass(slots=True)
class Session:
    """One attributed connection from accept to close."""

    attribution: Attribution
    loop: LoopName
    grant: Grant | None
    opened_ns: int
    state: State = State.ATTRIBUTED
    operations: int = 0
    operations_open: int = 0  # intended and not finished
    downstream_bytes: int = 0
    upstream_bytes: int = 0
    closed: SessionClosed | None = field(default=None)
    lease_id: LeaseId | None = None  # the lease whose credential it has

    @property
    def session_id(self) -> SessionId:
        """The name that kernel, broker and records share."""
        return self.attribution.session_id

    @property
    def run_id(self) -> RunId:
        """Whose."""
        return self.attribution.run_id

    def become(self, state: State) -> None:
        """Move on.

        Raises:
            IllegalTransition: the table has no such move.
        """
        if state not in allowed[self.state]:
            raise IllegalTransition(f"{self.state} to {state}")
        self.state = state

    def close(self, reason: Reason, now_ns: int) -> SessionClosed | None:
        """Return the last record, once; None when the session was closed before."""
        if self.state is State.CLOSED:
            return None
        self.become(State.CLOSED)
        self.closed = SessionClosed(
            self.session_id,
            reason,
            self.operations,
            self.downstream_bytes,
            self.upstream_bytes,
            now_ns - self.opened_ns,
        )
        return self.closed
