"""The worker's ends to other roles; a broker that restarts gets a new one."""

from agent.ipc.endpoint import Endpoint, PeerGone


class Peers:
    """What may be away is None meanwhile."""

    __slots__ = ("broker", "kernel")

    def __init__(self, kernel: Endpoint) -> None:
        self.kernel = kernel
        self.broker: Endpoint | None = None

    def require_broker(self) -> Endpoint:
        """Return the broker's end.

        Raises:
            PeerGone: it is away.
        """
        if self.broker is None:
            raise PeerGone("the broker is away")
        return self.broker
