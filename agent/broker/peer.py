"""Who is at the other end of the control socket, as the kernel says (never as a message says)."""

import contextlib
import os
import pwd
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from agent.model.loop import Initiator

# Linux uapi asm-generic/socket.h
SO_PEERGROUPS = 59
SO_PEERPIDFD = 77  # since Linux 6.5
GROUPS_MAX = 65_536
_UCRED = struct.Struct("3i")
_PTS_MAJORS = range(136, 144)  # Linux devices.txt: Unix98 PTY slaves
_TTY_MAJOR = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, when it connected. groups holds every group it had."""

    uid: int
    gid: int
    groups: frozenset[int]
    initiator: Initiator

    @property
    def is_root(self) -> bool:
        """Root may do everything here: it could do everything anyway."""
        return self.uid == 0


def peer_of(sock: socket.socket) -> Peer:
    """Return the peer of a connected AF_UNIX socket.

    Raises:
        OSError: the kernel does not say.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    groups = frozenset({gid, *_groups(sock)})
    return Peer(uid, gid, groups, _initiator(sock, pid, uid))


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


def _initiator(sock: socket.socket, pid: int, uid: int) -> Initiator:
    """Describe the process; a pid whose process is gone by now describes nothing."""
    exe = tty = unit = ""
    with _Pinned(sock, pid) as alive:
        with contextlib.suppress(OSError):
            tty = _tty(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace"))
        with contextlib.suppress(OSError):
            unit = _cgroup(Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace"))
        with contextlib.suppress(OSError):
            exe = os.readlink(f"/proc/{pid}/exe")
        if not alive():
            exe = tty = unit = ""  # what was read may be another process's
    return Initiator(uid, user_name(uid), pid, exe[:4096], tty, unit[:4096])


class _Pinned:
    """Pins the peer's pid: by the socket (Linux 6.5), else by its number."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._fd = -1
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
            self._fd = struct.unpack("i", raw)[0]
        except OSError:
            with contextlib.suppress(OSError):
                self._fd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __call__(self) -> bool:
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _tty(stat: str) -> str:
    """Return the terminal of proc_pid_stat(5) field 7."""
    fields = stat.rpartition(")")[2].split()
    device = int(fields[4]) if len(fields) > 4 else 0
    if device == 0:
        return ""
    major, minor = os.major(device), os.minor(device)
    if major in _PTS_MAJORS:
        return f"pts/{(major - _PTS_MAJORS.start) * 256 + minor}"
    return f"tty{minor}" if major == _TTY_MAJOR else f"{major}:{minor}"


def _cgroup(text: str) -> str:
    """Return the cgroup v2 path of proc_pid_cgroup."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""
