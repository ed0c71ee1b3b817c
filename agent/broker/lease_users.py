"""Which sessions hold which lease: a lease is revoked outside when its sockets are closed."""

from collections.abc import Callable

from agent.model.ids import LeaseId, SessionId


class LeaseUsers:
    """All methods run on the event loop."""

    def __init__(self) -> None:
        self._leases: dict[tuple[str, SessionId], set[LeaseId]] = {}
        self._sessions: dict[LeaseId, set[tuple[str, SessionId]]] = {}
        self.on_free: Callable[[LeaseId], None] = lambda _: None

    def took(self, lease_id: LeaseId, worker: str, session_id: SessionId) -> None:
        """A worker's session got the lease."""
        key = (worker, session_id)
        self._leases.setdefault(key, set()).add(lease_id)
        self._sessions.setdefault(lease_id, set()).add(key)

    def ended(self, worker: str, session_id: SessionId) -> None:
        """The worker closed its session."""
        key = (worker, session_id)
        for lease_id in self._leases.pop(key, ()):
            same = self._sessions[lease_id]
            same.discard(key)
            if not same:
                del self._sessions[lease_id]
                self.on_free(lease_id)

    def worker_gone(self, worker: str) -> None:
        """All sessions of a dead worker ended with it."""
        for key in [key for key in self._leases if key[0] == worker]:
            self.ended(*key)

    def of(self, lease_id: LeaseId) -> int:
        """Return how many sessions hold it."""
        return len(self._sessions.get(lease_id, ()))

    def forget(self, lease_id: LeaseId) -> None:
        """The lease is over: a worker that never told of its sessions is not waited for."""
        for key in self._sessions.pop(lease_id, ()):
            held = self._leases.get(key)
            if held is not None:
                held.discard(lease_id)
                if not held:
                    del self._leases[key]
