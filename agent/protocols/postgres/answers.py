"""What the loop is told when we answer: in PostgreSQL's words, for a person and for an agent.

Texts are fixed or come from the policy; a server's words come in only where DETAIL says so.
"""

from dataclasses import dataclass

from agent.model.ids import RuleId, SessionId
from agent.model.reason import Reason
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.messages import error_response

NAME = "postgres"
BUILT_IN = RuleId("built-in")  # a refusal that no policy can lift
OWN_SESSION = RuleId("own-session")  # what belongs to a session that the policy's grant allows
_INTERNAL = "58000"

# PostgreSQL documentation, appendix "PostgreSQL Error Codes"
_SQLSTATES = {
    Reason.DESTINATION_MISMATCH: "08004",
    Reason.PROTOCOL_ERROR: "08P01",
    Reason.LIMIT_EXCEEDED: "54000",
    Reason.POLICY_DENIED: "42501",
    Reason.LEASE_REFUSED: "28000",
    Reason.CREDENTIAL_MISFIT: "28000",
    Reason.RECORD_FAILED: "58030",
    Reason.UPSTREAM_CLOSED: "08006",
    Reason.UPSTREAM_UNREACHABLE: "08001",
    Reason.UPSTREAM_UNTRUSTED: "28000",
    Reason.UPSTREAM_PROTOCOL_ERROR: "08P01",
    Reason.CLEARTEXT_REFUSED: "28000",
    Reason.TLS_FAILED: "08001",
    Reason.TIMED_OUT: "08006",
    Reason.OVERLOADED: "53000",
    Reason.RUN_ENDED: "57P01",
    Reason.RUN_REVOKED: "57P01",
    Reason.POLICY_CHANGED: "57P01",
    Reason.DRAINING: "57P01",
}
_NEXT_STEPS = {
    Reason.DESTINATION_MISMATCH: "Connect by the host name that the policy gives this target.",
    Reason.PROTOCOL_ERROR: "Correct the client: its messages have to have exactly one meaning.",
    Reason.LIMIT_EXCEEDED: "Make the message smaller.",
    Reason.POLICY_DENIED: "Ask for a rule in the policy that allows it.",
    Reason.LEASE_REFUSED: "Ask the operator: `loopwarden status` shows the provider's state.",
    Reason.CREDENTIAL_MISFIT: "Ask the operator to check the target's credential.",
    Reason.RECORD_FAILED: "Try again later; the operator finds the cause in `loopwarden status`.",
    Reason.UPSTREAM_UNREACHABLE: "Try again later; check the target's address in the policy.",
    Reason.UPSTREAM_UNTRUSTED: "Ask the operator to check the target's certificate, CA and login.",
    Reason.CLEARTEXT_REFUSED: "Ask the operator for TLS upstream, or for allow_cleartext.",
    Reason.RUN_ENDED: "The run is over: nothing of it may connect any more.",
    Reason.RUN_REVOKED: "Ask the operator why the run was revoked.",
    Reason.POLICY_CHANGED: "Connect again: a new session is opened under the new policy.",
}
_TRY_LATER = "Try again later."
_CUTS = {
    Reason.RUN_ENDED: "The run has ended.",
    Reason.RUN_REVOKED: "The run was revoked.",
    Reason.POLICY_CHANGED: "The policy has changed.",
    Reason.DRAINING: "The host's service is being stopped or replaced.",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of ours instead of the upstream's. sqlstate "": the one of the reason.

    verbatim: the upstream's own ErrorResponse, told as it is.
    """

    reason: Reason
    explanation: str
    rule: RuleId = BUILT_IN
    detail: str = ""
    next_step: str = ""
    sqlstate: str = ""
    verbatim: bytes = b""

    @property
    def status(self) -> str:
        """The SQLSTATE that the loop gets, and the record."""
        return self.sqlstate or _SQLSTATES.get(self.reason, _INTERNAL)


class Refused(Exception):
    """What is under way can't go on; carries the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.explanation)
        self.refusal = refusal


def of_malformed(error: Malformed, *, upstream: bool = False) -> Refusal:
    """Return the refusal of bytes that have no meaning here."""
    if upstream:
        return Refusal(Reason.UPSTREAM_PROTOCOL_ERROR, f"The server sent {error.detail}.")
    text = f"The client sent {error.detail}."
    return Refusal(error.reason, text, sqlstate="08P01")


def of_cut(reason: Reason) -> Refusal:
    """Return the last word of a session that is ended from outside, with the true cause."""
    said = _CUTS.get(reason, "The session was ended.")
    return Refusal(reason, said, sqlstate="57P01")


def serialize_refusal(refusal: Refusal, session: SessionId, severity: str = "FATAL") -> bytes:
    """Return the ErrorResponse. severity: "FATAL" ends the session, "ERROR" does not."""
    if refusal.verbatim:
        return refusal.verbatim
    where = f"Refused by rule {refusal.rule} ({refusal.reason.value}), session {session}."
    return error_response(
        severity,
        refusal.status,
        f"loopwarden: {refusal.explanation}",
        f"{refusal.detail} {where}" if refusal.detail else where,
        refusal.next_step or _NEXT_STEPS.get(refusal.reason, _TRY_LATER),
    )
