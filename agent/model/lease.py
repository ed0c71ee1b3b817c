"""Leases: a credential for one run at one target, and the table of its life."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.credential import Credential
from agent.model.ids import LeaseId, RunId, TargetName


class LeaseState(StrEnum):
    """Where a lease stands; `allowed` is the transition table."""

    INTENT = "intent"  # the provider is about to be asked; it may have made something
    ISSUED = "issued"  # it exists, and nobody has it yet
    ACTIVE = "active"
    RENEWING = "renewing"  # active, and the provider is asked to let it last
    DRAINING = "draining"  # given to nobody any more; its sessions, or it, end by themselves
    REVOKING = "revoking"  # the provider is told to end it
    REVOKE_RETRY = "revoke-retry"  # the provider could not; it is told again at a known time
    QUARANTINED = "quarantined"  # it could not for too long: a person is told, once a day again
    REVOKED = "revoked"  # the provider ended it, and confirmed if it can be asked
    EXPIRED = "expired"  # its time was over, and the provider says that it is gone
    FORGOTTEN = "forgotten"  # no provider can end it: its use through us is over, it may live on


_S = LeaseState
allowed: dict[LeaseState, frozenset[LeaseState]] = {
    _S.INTENT: frozenset({_S.ISSUED, _S.REVOKING, _S.REVOKED, _S.FORGOTTEN}),
    _S.ISSUED: frozenset({_S.ACTIVE, _S.DRAINING}),
    _S.ACTIVE: frozenset({_S.RENEWING, _S.DRAINING}),
    _S.RENEWING: frozenset({_S.ACTIVE, _S.DRAINING}),
    _S.DRAINING: frozenset({_S.REVOKING, _S.EXPIRED, _S.FORGOTTEN}),
    _S.REVOKING: frozenset(
        {_S.REVOKED, _S.EXPIRED, _S.FORGOTTEN, _S.REVOKE_RETRY, _S.QUARANTINED, _S.DRAINING}
    ),
    _S.REVOKE_RETRY: frozenset({_S.REVOKING}),
    _S.QUARANTINED: frozenset({_S.REVOKING}),
    _S.REVOKED: frozenset(),
    _S.EXPIRED: frozenset(),
    _S.FORGOTTEN: frozenset(),
}
OVER = frozenset({_S.REVOKED, _S.EXPIRED, _S.FORGOTTEN})
# an outside call, or the secret's way to a worker, follows: stable storage has these first
ANNOUNCING = frozenset({_S.INTENT, _S.ISSUED, _S.ACTIVE, _S.RENEWING, _S.REVOKING})


@dataclass(frozen=True, slots=True)
class Lease:
    """What the broker hands to the proxy, once, over one socket."""

    lease_id: LeaseId
    run_id: RunId
    target: TargetName
    credential: Credential
    expires_ms: int  # Unix milliseconds; 0: with the run
    revocable: bool
