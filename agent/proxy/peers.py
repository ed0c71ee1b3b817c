"""The worker's ends to other roles; a broker that restarts gets a new one."""

from collections import OrderedDict

from agent.ipc.endpoint import Endpoint, PeerGone
from agent.model.ids import LeaseId

CUT_LEASES_MAX = 4_096  # remembered: a lease may be on its way to a session when it is cut


class Peers:
    """What may be away is None meanwhile."""

    __slots__ = ("_cut_leases", "broker", "kernel")

    def __init__(self, kernel: Endpoint) -> None:
        self.kernel = kernel
        self.broker: Endpoint | None = None
        self._cut_leases: OrderedDict[LeaseId, None] = OrderedDict()

    def cut_lease(self, lease_id: LeaseId) -> None:
        """Remember that the broker took a lease away."""
        self._cut_leases[lease_id] = None
        if len(self._cut_leases) > CUT_LEASES_MAX:
            self._cut_leases.popitem(last=False)

    def was_cut(self, lease_id: LeaseId) -> bool:
        """Whether the broker took the lease away after it was sent."""
        return lease_id in self._cut_leases

    def require_broker(self) -> Endpoint:
        """Return the broker's end.

        Raises:
            PeerGone: it is away.
        """
        if self.broker is None:
            raise PeerGone("the broker is away")
        return self.broker
