"""Leases: a credential for one run at one target."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.credential import Credential
from agent.model.ids import LeaseId, RunId, TargetName


class LeaseState(StrEnum):
    """A lease's life (access.md section 2.4, as far as `static` needs it)."""

    INTENT = "intent"
    ISSUED = "issued"
    ACTIVE = "active"
    REVOKING = "revoking"
    REVOKED = "revoked"


allowed: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.INTENT: frozenset({LeaseState.ISSUED, LeaseState.REVOKING, LeaseState.REVOKED}),
    LeaseState.ISSUED: frozenset({LeaseState.ACTIVE, LeaseState.REVOKING}),
    LeaseState.ACTIVE: frozenset({LeaseState.REVOKING}),
    LeaseState.REVOKING: frozenset({LeaseState.REVOKED}),
    LeaseState.REVOKED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Lease:
    """What the broker hands to the proxy, once, over one socket."""

    lease_id: LeaseId
    run_id: RunId
    target: TargetName
    credential: Credential
    expires_ms: int  # Unix milliseconds; 0: with the run
    revocable: bool
