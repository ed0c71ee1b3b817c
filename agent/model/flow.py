"""Flows and what the kernel knows of them."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.ids import CgroupId, RunId, SessionId, Tag


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port. The address is canonical text; v4-mapped IPv6 is written as IPv4."""

    address: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


class Tier(StrEnum):
    """How a run is confined; README.md, Limits, has what each is."""

    REGISTERED = "T0"  # an existing cgroup
    LAUNCHED = "T1"  # by `loopwarden run`, host network
    SEALED = "T2"  # own network namespace; nothing makes one yet


class Evidence(StrEnum):
    """Which of the two kernel facts held when the flow was made. Injection needs both."""

    TAG_AND_CGROUP = "tag+cgroup"
    TAG_ONLY = "tag"
    CGROUP_ONLY = "cgroup"


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the kernel recorded it: (pid, start_ns) never aliases.

    start_ns is boot time. argv is what exec saw, redacted by the one who fills it in; empty
    exe and argv mean that the process was never seen to exec (attribution says best effort).
    """

    pid: int
    start_ns: int
    uid: int
    comm: str
    exe: str
    argv: tuple[str, ...]
    argv_truncated: bool


@dataclass(frozen=True, slots=True)
class Attribution:
    """Flow → run, with evidence. `ancestors` starts with the parent and goes up."""

    session_id: SessionId
    run_id: RunId
    tag: Tag
    cgroup_id: CgroupId
    evidence: Evidence
    tier: Tier
    destination: Endpoint
    socket_cookie: int
    netns_cookie: int
    connect_ns: int
    process: Process
    ancestors: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class Unattributed:
    """A result, not an exception: nobody's flow. It is denied and recorded."""

    session_id: SessionId
    detail: str
