"""The kernel plane: one object that the root daemon drives. Synchronous, no threads."""

from dataclasses import dataclass

from agent.ipc.messages import Layers
from agent.kernel.config import PlaneConfig
from agent.kernel.events import KernelEvent
from agent.model.flow import Attribution, Endpoint, Process, Unattributed
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator, Run


@dataclass(frozen=True, slots=True)
class Repair:
    """Something of ours was gone and was put back (or could not be: repaired is False)."""

    part: str  # "nft" | "routes" | "sysctl" | "link <name>" | "slice"
    repaired: bool
    detail: str


class Plane:
    """Every request of agent.ipc.messages to the kernel role is one method here.

    Use: plane = Plane.open(config); event_loop.add_reader(plane.events_fd, on_events) where
    on_events calls plane.read_events(); every second plane.verify(). close() leaves all
    enforcement pinned in the kernel; agent.kernel.clean removes it.
    """

    @classmethod
    def open(cls, config: PlaneConfig) -> "Plane":
        """Load, attach and pin, or take over what is pinned without a gap.

        Raises:
            PlaneError: a piece is missing; nothing new is left attached.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close descriptors. Enforcement stays."""
        raise NotImplementedError

    @property
    def events_fd(self) -> int:
        """Return a descriptor that is readable when read_events has something."""
        raise NotImplementedError

    def read_events(self) -> tuple[KernelEvent, ...]:
        """Return what has happened since, without blocking."""
        raise NotImplementedError

    def attribute(self, mark: int, destination: Endpoint) -> Attribution | Unattributed:
        """Take the record of the accepted socket with this SO_MARK out of the kernel, once."""
        raise NotImplementedError

    def create_run(
        self,
        run_id: RunId,
        loop: LoopName,
        initiator: Initiator,
        argv: tuple[str, ...],
        started_ms: int,
    ) -> Run:
        """Make cgroup, tag and map entries. Raises RunRefused."""
        raise NotImplementedError

    def register_cgroup(
        self,
        run_id: RunId,
        loop: LoopName,
        initiator: Initiator,
        path: str,
        adopt_joiners: bool,
        started_ms: int,
    ) -> Run:
        """Make an existing cgroup a run. path: below the cgroup v2 mount, or below /sys/fs/cgroup.

        Raises RunRefused.
        """
        raise NotImplementedError

    def admit(self, run_id: RunId, pidfd: int) -> None:
        """Tag that process and move it into the run's cgroup. Raises RunRefused."""
        raise NotImplementedError

    def revoke(self, run_id: RunId, kill: bool) -> None:
        """Stop the run's flows, destroy its sockets. Idempotent. Raises RunRefused."""
        raise NotImplementedError

    def remove(self, run_id: RunId) -> None:
        """Forget a run; a launched one must be empty. Raises RunRefused."""
        raise NotImplementedError

    def runs(self) -> tuple[Run, ...]:
        """Return the runs that the kernel maps hold."""
        raise NotImplementedError

    def tree(self, run_id: RunId) -> tuple[tuple[Process, ...], tuple[int, ...]]:
        """Return the live processes of a run and the parent pid of each. Raises RunRefused."""
        raise NotImplementedError

    def populated(self, run_id: RunId) -> bool:
        """Return what cgroup.events says: the cross-check of Emptied. Raises RunRefused."""
        raise NotImplementedError

    def verify(self) -> tuple[Repair, ...]:
        """Look whether all of ours is still there, repair what is not. For a 1 s watchdog."""
        raise NotImplementedError

    def status(self) -> Layers:
        """Return layers as attached now, without packets, and counters."""
        raise NotImplementedError

    def probe(self) -> Layers:
        """Probe each layer with real packets in a throw-away run; takes up to 5 s (blocking)."""
        raise NotImplementedError
