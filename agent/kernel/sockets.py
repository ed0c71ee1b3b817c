"""Sockets by sock_diag: whose they are (cgroup id), and destroying them. This namespace only."""

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.kernel.netlink import (
    NETLINK_SOCK_DIAG,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    exchange,
    request,
)

_BY_FAMILY = 20
_DESTROY = 21
_REQUEST = struct.Struct("=BBBxI")
_MESSAGE_BYTES = 72
_INODE_OFFSET = 68
_ID = slice(4, 52)
_ATTR_CGROUP_ID = 21
_LISTEN = 10
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h, Linux 5.14
_ALL_STATES = 0xFFFFFFFF
_KINDS = (
    (socket.AF_INET, socket.IPPROTO_TCP),
    (socket.AF_INET6, socket.IPPROTO_TCP),
    (socket.AF_INET, socket.IPPROTO_UDP),
    (socket.AF_INET6, socket.IPPROTO_UDP),
    (socket.AF_INET, 255),  # raw
    (socket.AF_INET6, 255),
)


@dataclass(frozen=True, slots=True)
class InetSocket:
    """One bound or connected socket; identity is what SOCK_DESTROY takes."""

    family: int
    protocol: int
    state: int
    inode: int
    cgroup_id: int
    identity: bytes

    @property
    def listening(self) -> bool:
        """Return whether it is a TCP listener."""
        return self.protocol == socket.IPPROTO_TCP and self.state == _LISTEN


def _cgroup_id(payload: bytes) -> int:
    offset = _MESSAGE_BYTES
    while offset + 4 <= len(payload):
        size, kind = struct.unpack_from("=HH", payload, offset)
        if size < 4:
            break
        if kind == _ATTR_CGROUP_ID:
            return int(struct.unpack_from("=Q", payload, offset + 4)[0])
        offset += (size + 3) & ~3
    return 0


def netns_cookie() -> int:
    """Return the cookie of our network namespace. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, sys.byteorder)


def all_sockets() -> Iterator[InetSocket]:
    """Yield every hashed inet socket of this network namespace. Raises OSError."""
    for family, protocol in _KINDS:
        body = _REQUEST.pack(family, protocol, 0, _ALL_STATES) + bytes(48)
        try:
            answers = exchange(
                NETLINK_SOCK_DIAG, request(_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, body), 1
            )
        except OSError as error:
            if error.errno == errno.ENOENT:
                continue  # this kernel has no such diagnosis module (raw)
            raise
        for answer in answers:
            payload = answer.payload
            inode = struct.unpack_from("=I", payload, _INODE_OFFSET)[0]
            yield InetSocket(family, protocol, payload[1], inode, _cgroup_id(payload), payload[_ID])


def held_inodes(pids: Collection[int]) -> set[int]:
    """Return the inodes of all sockets that these processes hold. One that has gone holds none."""
    inodes: set[int] = set()
    for pid in pids:
        directory = Path(f"/proc/{pid}/fd")
        try:
            names = os.listdir(directory)
        except (FileNotFoundError, ProcessLookupError):
            continue
        for name in names:
            try:
                target = os.readlink(directory / name)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if target.startswith("socket:["):
                inodes.add(int(target[8:-1]))
    return inodes


def foreign_sockets(pids: Collection[int], own_cgroups: Collection[int]) -> list[InetSocket]:
    """Return the inet sockets these processes hold that were made outside these cgroups."""
    held = held_inodes(pids)
    if not held:
        return []
    return [s for s in all_sockets() if s.inode in held and s.cgroup_id not in own_cgroups]


def destroy(victims: Collection[InetSocket]) -> int:
    """Destroy these sockets (tcp: reset, udp: error); return how many. Raises OSError.

    EOPNOTSUPP means that the kernel lacks CONFIG_INET_DIAG_DESTROY.
    """
    count = 0
    for victim in victims:
        body = _REQUEST.pack(victim.family, victim.protocol, 0, 1 << victim.state)
        frame = request(_DESTROY, NLM_F_REQUEST | NLM_F_ACK, body + victim.identity)
        try:
            exchange(NETLINK_SOCK_DIAG, frame, 1)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            count += 1
    return count
