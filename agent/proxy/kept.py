"""Leases that a worker was given a moment ago: the next session's is the same object.

What is computed from a credential (the keys of a SCRAM login, a TLS context with its certificate)
is kept with it, so that a run that connects again and again has it computed once. It goes when the
lease or its run is cut, when the broker is away, and KEPT_S after the last session began with it.
"""

import asyncio
import dataclasses
import hmac
from collections import OrderedDict

from agent.model.credential import Credential
from agent.model.ids import LeaseId, RunId
from agent.model.lease import Lease
from agent.model.secret import Secret

KEPT_S = 60.0
KEPT_MAX = 1_024  # the one whose last session is the oldest goes first


class KeptLeases:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[LeaseId, tuple[Lease, asyncio.TimerHandle]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def same(self, lease: Lease) -> Lease:
        """Return the lease, with the credential object of before if it is the same credential."""
        before = self._kept.pop(lease.lease_id, None)
        if before is not None:
            before[1].cancel()
            if _equal(before[0].credential, lease.credential):
                lease = dataclasses.replace(lease, credential=before[0].credential)
        event_loop = asyncio.get_running_loop()
        timer = event_loop.call_later(KEPT_S, self.drop_lease, lease.lease_id)
        self._kept[lease.lease_id] = (lease, timer)
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)[1][1].cancel()
        return lease

    def drop_lease(self, lease_id: LeaseId) -> None:
        """Forget one."""
        kept = self._kept.pop(lease_id, None)
        if kept is not None:
            kept[1].cancel()

    def drop_run(self, run_id: RunId) -> None:
        """Forget a run's."""
        for lease_id in [key for key, (lease, _) in self._kept.items() if lease.run_id == run_id]:
            self.drop_lease(lease_id)

    def clear(self) -> None:
        """Forget all."""
        for lease_id in tuple(self._kept):
            self.drop_lease(lease_id)


def _equal(one: Credential, other: Credential) -> bool:
    if type(one) is not type(other):
        return False
    return all(
        _same(getattr(one, each.name), getattr(other, each.name))
        for each in dataclasses.fields(one)
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, Secret) and isinstance(other, Secret):
        return hmac.compare_digest(one.reveal(), other.reveal())
    return one == other
