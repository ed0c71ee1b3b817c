"""Loops and runs."""

from dataclasses import dataclass
from enum import StrEnum

from agent.model.flow import Tier
from agent.model.ids import CgroupId, LoopName, RunId, Tag


class RunState(StrEnum):
    """A run's life, in order; `allowed` is the transition table."""

    CREATED = "created"  # cgroup and tag exist, no process yet
    LIVE = "live"
    REVOKED = "revoked"  # flows stopped in the kernel, processes may live
    ENDED = "ended"  # last process gone


allowed: dict[RunState, frozenset[RunState]] = {
    RunState.CREATED: frozenset({RunState.LIVE, RunState.REVOKED, RunState.ENDED}),
    RunState.LIVE: frozenset({RunState.REVOKED, RunState.ENDED}),
    RunState.REVOKED: frozenset({RunState.ENDED}),
    RunState.ENDED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """What a verified identity token says of its bearer: never the token itself."""

    issuer: str
    subject: str
    claims: tuple[tuple[str, str], ...]  # those that the policy names; bounded, texts as they are


@dataclass(frozen=True, slots=True)
class Parent:
    """A process above the caller, when it asked."""

    pid: int
    uid: int
    comm: str
    exe: str  # "" when it is not known


@dataclass(frozen=True, slots=True)
class Initiator:
    """Who triggered a run: the peer of the control socket, as the kernel named it.

    What is of a systemd unit or container is "" when the caller is in none, or it is not certain.
    """

    uid: int
    user: str
    pid: int
    exe: str
    tty: str  # "" when there is none
    unit: str  # the cgroup path of the caller, as /proc says
    service: str = ""  # the system's unit in it, "backup.service"
    invocation: str = ""  # systemd's id of that unit's present life
    container: str = ""  # "docker/3f2a…"
    parents: tuple[Parent, ...] = ()  # parent first
    token: TokenIdentity | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a loop: a process tree bounded by one cgroup, with a tag."""

    run_id: RunId
    loop: LoopName
    tag: Tag
    cgroup_id: CgroupId
    cgroup_path: str  # below the cgroup v2 mount, "/loopwarden.slice/run-…"
    tier: Tier
    adopt_joiners: bool  # registered foreign cgroups: later joiners get the tag
    initiator: Initiator
    argv: tuple[str, ...]  # the command, redacted; empty for registered cgroups
    started_ms: int  # Unix milliseconds
