"""What each role of the daemon uses, as the host's process table says.

It is asked here, not by the daemon: to look through a full process table takes longer than a
connection may wait.
"""

import itertools
from dataclasses import dataclass

import psutil

DAEMON = "kernel"  # the role of the daemon's own process


@dataclass(frozen=True, slots=True)
class RoleUse:
    """memory_bytes: resident, with the pages that roles share; cpu_s: user and system time."""

    name: str
    pid: int
    memory_bytes: int
    cpu_s: float
    started_ms: int


def role_uses(broker_pid: int) -> list[RoleUse]:
    """Return what the daemon and the roles it started use; nothing that can't be seen from here.

    broker_pid: who listens on the control socket, 0 in another PID namespace.
    """
    if broker_pid <= 0:
        return []
    try:
        daemon = psutil.Process(broker_pid).parent()
        children = [] if daemon is None else daemon.children()
    except psutil.Error:
        return []  # it has just ended, or /proc is closed to us
    if daemon is None:
        return []
    named = [(DAEMON, daemon), *((_name(child), child) for child in children)]
    found = [_use(name, process) for name, process in named if name]
    return sorted((use for use in found if use is not None), key=lambda use: use.name)


def _name(process: psutil.Process) -> str:
    """Return a role's name from its arguments (agent.kernel.supervisor); "" when it is none."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return ""
    return next((name for option, name in itertools.pairwise(words) if option == "--name"), "")


def _use(name: str, process: psutil.Process) -> RoleUse | None:
    try:
        with process.oneshot():
            spent = process.cpu_times()
            return RoleUse(
                name,
                process.pid,
                process.memory_info().rss,
                round(spent.user + spent.system, 2),
                round(process.create_time() * 1000),
            )
    except psutil.Error:
        return None  # it has just ended
