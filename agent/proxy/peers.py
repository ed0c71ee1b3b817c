"""The worker's ends to other roles; a broker that restarts gets a new one."""

from collections import OrderedDict

from agent.ipc.endpoint import Endpoint, PeerGone
from agent.model.ids import LeaseId
from agent.proxy.kept import KeptLeases

LOOK_INTERVAL_NS = 5_000_000  # how long a busy worker leaves orders unread
CUT_LEASES_MAX = 4_096  # remembered: a lease may be on its way to a session when it is cut


class Peers:
    """What may be away is None meanwhile."""

    __slots__ = ("_cut_leases", "_looked_ns", "broker", "kept", "kernel")

    def __init__(self, kernel: Endpoint) -> None:
        self.kernel = kernel
        self.broker: Endpoint | None = None
        self.kept = KeptLeases()
        self._cut_leases: OrderedDict[LeaseId, None] = OrderedDict()
        self._looked_ns = 0

    def look(self, now_ns: int) -> None:
        """Take the orders that have come, if nobody did lately.

        With many busy connections a turn of the event loop is long: a cut does not wait for its
        end. To be called between two events of sessions, never within one.
        """
        if now_ns - self._looked_ns < LOOK_INTERVAL_NS:
            return
        self._looked_ns = now_ns
        self.kernel.look()
        if self.broker is not None:
            self.broker.look()

    def cut_lease(self, lease_id: LeaseId) -> None:
        """Remember that the broker took a lease away."""
        self.kept.drop_lease(lease_id)
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
