"""What the kernel tells us unasked: typed events from the ring buffers."""

import ctypes
from dataclasses import dataclass
from typing import assert_never

from agent.kernel import abi
from agent.kernel.libbpf import RingReader
from agent.kernel.maps import Maps
from agent.kernel.runs import RunTable
from agent.model.ids import RunId, Tag

EVENTS_A_READ_MAX = 1024
DENIALS_A_READ_MAX = 256  # of 4,681 that the ring holds: a run makes as many as it likes


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
    """The kernel refused something. Best effort: verdicts never wait for this.

    run_id None: an outsider addressed the proxy's port, or the run is not known any more.
    """

    run_id: RunId | None
    pid: int
    cause: str  # agent.kernel.abi.Cause in lower case
    at_ns: int


KernelEvent = Emptied | TagWithoutCgroup | CgroupWithoutTag | Denied


def parse_event(sample: bytes, runs: RunTable) -> KernelEvent | None:
    """Return the event of one sample; None when it is about a run that was removed.

    Raises:
        ValueError: too short, or of an unknown type.
    """
    if len(sample) < ctypes.sizeof(abi.Event):
        raise ValueError(f"an event of {len(sample)} bytes")
    raw = abi.Event.from_buffer_copy(sample)
    run = runs.by_tag(Tag(raw.tag))
    kind = abi.EventType(raw.type)
    if kind is abi.EventType.DENIED:
        cause = abi.Cause(raw.cause).name.lower()
        return Denied(run.run_id if run else None, raw.tgid, cause, raw.at_ns)
    if run is None:
        return None
    match kind:
        case abi.EventType.EMPTIED:
            return Emptied(run.run_id, raw.at_ns)
        case abi.EventType.TAG_WITHOUT_CGROUP:
            return TagWithoutCgroup(run.run_id, raw.tgid, raw.at_ns)
        case abi.EventType.CGROUP_WITHOUT_TAG:
            return CgroupWithoutTag(run.run_id, raw.tgid, raw.at_ns)
        case _:
            assert_never(kind)


class EventReader:
    """Both rings. fd is readable when there is an event; denials wake nobody, and come along."""

    def __init__(self, maps: Maps, runs: RunTable) -> None:
        self._events = RingReader(maps.events_fd, EVENTS_A_READ_MAX)
        self._denials = RingReader(maps.denials_fd, DENIALS_A_READ_MAX)
        self._runs = runs
        self.fd = self._events.fd

    def read(self) -> tuple[KernelEvent, ...]:
        """Return what there is, without blocking. Raises ValueError (an ABI mismatch)."""
        samples = (*self._events.read(), *self._denials.read())
        parsed = (parse_event(sample, self._runs) for sample in samples)
        return tuple(event for event in parsed if event is not None)

    def close(self) -> None:
        """Unmap the rings."""
        self._events.close()
        self._denials.close()
