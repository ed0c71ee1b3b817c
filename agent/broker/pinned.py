"""A process that is looked at, and whether it still was that one afterwards.

The socket itself names its peer where the kernel can (SO_PEERPIDFD, Linux 6.5). Elsewhere it is a
number, which may be another's by now: then a descriptor, the start time and the uid are taken
before anything is read, and compared after.
"""

import contextlib
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SO_PEERPIDFD = 77  # Linux uapi asm-generic/socket.h


@dataclass(frozen=True, slots=True)
class Stat:
    """Of proc_pid_stat(5): fields 2, 4, 7 and 22."""

    comm: str
    parent: int
    tty: int
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Return it; None when there is no such process."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace"))
    except (OSError, ValueError, IndexError):
        return None


def parse_stat(text: str) -> Stat:
    """Return the fields. Raises ValueError, IndexError; the second field may hold anything."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(head.partition("(")[2], int(fields[1]), int(fields[4]), int(fields[19]))


def uid_of(pid: int) -> int:
    """Return the real uid, -1 when there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), -1)


class Pinned:
    """Use: with Pinned(...) as same: read what /proc has; then ask same()."""

    def __init__(self, sock: socket.socket, pid: int, uid: int, option: int = SO_PEERPIDFD) -> None:
        """Pin the peer of this socket, whose pid and uid the kernel told (SO_PEERCRED)."""
        self._fd = -1
        self._pid = pid
        self._uid = uid
        self._by_socket = True
        self._start = 0
        try:
            self._fd = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, option, 4))[0]
        except OSError:
            self._by_socket = False
            self._pin_number()

    def _pin_number(self) -> None:
        with contextlib.suppress(OSError):
            self._fd = os.pidfd_open(self._pid)
        stat = read_stat(self._pid)
        self._start = stat.start_ticks if stat is not None else 0

    def __enter__(self) -> Self:
        return self

    def __call__(self) -> bool:
        """Return whether the process lives still, and what was read is therefore its own."""
        if self._fd < 0:
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if poll.poll(0):
            return False
        if self._by_socket:
            return True
        stat = read_stat(self._pid)
        same = stat is not None and stat.start_ticks == self._start != 0
        return same and uid_of(self._pid) == self._uid

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
