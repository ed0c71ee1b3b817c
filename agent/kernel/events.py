"""What the kernel tells us unasked: typed events from the ring buffer."""

from dataclasses import dataclass

from agent.model.ids import RunId


@dataclass(frozen=True, slots=True)
class Emptied:
    """The last process of the run's cgroup is gone. May arrive twice; at_ns is boot time."""

    run_id: RunId
    at_ns: int


@dataclass(frozen=True, slots=True)
class TagWithoutCgroup:
    """A process of the run was moved out of its cgroup. It stays governed, without credential."""

    run_id: RunId
    pid: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class CgroupWithoutTag:
    """A process that is not the run's was moved into its cgroup: governed, without credential."""

    run_id: RunId
    pid: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Denied:
    """The kernel refused something of a run. Best effort: verdicts never wait for this."""

    run_id: RunId | None
    pid: int
    cause: str  # agent.kernel.abi.Cause in lower case
    at_ns: int


KernelEvent = Emptied | TagWithoutCgroup | CgroupWithoutTag | Denied
