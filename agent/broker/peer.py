"""Who is at the other end of the control socket, as the kernel says (never as a message says)."""

import contextlib
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agent.broker.origin import Inside, Origin, read_invocation, read_origin
from agent.broker.pinned import SO_PEERPIDFD, Pinned, Stat, read_stat, uid_of
from agent.model.loop import Initiator, Parent

# Linux uapi asm-generic/socket.h
SO_PEERGROUPS = 59
GROUPS_MAX = 65_536
_UCRED = struct.Struct("3i")
_PTS_MAJORS = range(136, 144)  # Linux devices.txt: Unix98 PTY slaves
_TTY_MAJOR = 4
PARENTS_MAX = 6
PATH_CHARACTERS_MAX = 512  # of the caller's executable, and of its cgroup
EXE_CHARACTERS_MAX, COMM_CHARACTERS_MAX = 96, 16  # of each parent


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, when it connected. groups holds every group it had.

    container: as its cgroup says, None when it is in none, or not certainly.
    """

    uid: int
    gid: int
    groups: frozenset[int]
    initiator: Initiator
    container: Inside | None = None

    @property
    def is_root(self) -> bool:
        """Root may do everything here: it could do everything anyway."""
        return self.uid == 0


def peer_of(sock: socket.socket, pidfd_option: int = SO_PEERPIDFD) -> Peer:
    """Return the peer of a connected AF_UNIX socket.

    Raises:
        OSError: the kernel does not say.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    groups = frozenset({gid, *_groups(sock)})
    initiator, origin = _initiator(sock, pid, uid, pidfd_option)
    return Peer(uid, gid, groups, initiator, origin.container)


def user_name(uid: int) -> str:
    """Return the name of a uid, or the number as text."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups(sock: socket.socket) -> tuple[int, ...]:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * GROUPS_MAX)
    except OSError:
        return ()  # a kernel before 4.13: the primary group alone counts
    return struct.unpack(f"{len(raw) // 4}I", raw)


def _initiator(sock: socket.socket, pid: int, uid: int, option: int) -> tuple[Initiator, Origin]:
    """Describe the process; a pid whose process is gone by now describes nothing."""
    exe, tty, origin, invocation = "", "", Origin(), ""
    parents: tuple[Parent, ...] = ()
    with Pinned(sock, pid, uid, option) as same:
        stat = read_stat(pid)
        if stat is not None:
            tty = tty_name(stat.tty)
            parents = _parents(stat)
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace")
            origin = read_origin(text)
        if origin.unit:
            invocation = read_invocation(origin.unit)
        with contextlib.suppress(OSError):
            exe = os.readlink(f"/proc/{pid}/exe")
        if not same():  # what was read may be another process's
            exe, tty, origin, invocation, parents = "", "", Origin(), "", ()
    initiator = Initiator(
        uid=uid,
        user=user_name(uid),
        pid=pid,
        exe=_text(exe)[:PATH_CHARACTERS_MAX],
        tty=tty,
        unit=origin.path[:PATH_CHARACTERS_MAX],
        service=origin.unit,
        invocation=invocation,
        container=str(origin.container or ""),
        parents=parents,
    )
    return initiator, origin


def _parents(stat: Stat) -> tuple[Parent, ...]:
    """Return the processes above, as long as each is older than what is below it."""
    found: list[Parent] = []
    below = stat
    while below.parent > 0 and len(found) < PARENTS_MAX:
        above = read_stat(below.parent)
        if above is None or above.start_ticks > below.start_ticks:
            break  # it is gone, and its number another's
        exe = ""
        with contextlib.suppress(OSError):
            exe = os.readlink(f"/proc/{below.parent}/exe")
        uid = uid_of(below.parent)
        if uid < 0:
            break
        comm = above.comm[:COMM_CHARACTERS_MAX]
        found.append(Parent(below.parent, uid, comm, _text(exe)[:EXE_CHARACTERS_MAX]))
        below = above
    return tuple(found)


def _text(path: str) -> str:
    """Return a path whose bytes are no UTF-8 as text that can be recorded."""
    return os.fsencode(path).decode("utf-8", "replace")


def tty_name(device: int) -> str:
    """Return the usual name of a terminal's device number, "" for none."""
    if device == 0:
        return ""
    major, minor = os.major(device), os.minor(device)
    if major in _PTS_MAJORS:
        return f"pts/{(major - _PTS_MAJORS.start) * 256 + minor}"
    return f"tty{minor}" if major == _TTY_MAJOR else f"{major}:{minor}"
