"""A seccomp filter for the run's processes: only the socket families that our hooks see.

The cgroup hooks see IPv4 and IPv6. What goes past them is closed here: every other family (vsock
reaches the hypervisor, packet sockets the wire), io_uring (it makes sockets without the system
call), the calls of foreign architectures that do the same, a key that a program of the host looks
up (request_key(2): it asks name servers, outside of the run), and typing into the caller's terminal
(TIOCSTI). It is inherited by all descendants and can't be taken off. Source: seccomp(2).
"""

import ctypes
import errno
import platform
import socket
import struct
from dataclasses import dataclass

from agent.runtime.confine import prctl

FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # asm-generic/ioctls.h

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24  # struct seccomp_data, little endian
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32_BIT = 0x40000000
_IO_URING = (425, 426, 427)  # the same everywhere


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The calls of one architecture; socketcall (i386) hides its arguments behind a pointer."""

    arch: int
    socket: int
    ioctl: int
    request_key: int
    socketpair: int
    socketcall: int | None = None
    x32: bool = False


_MACHINES = {
    "x86_64": (
        _Numbers(0xC000003E, 41, 16, 249, 53, x32=True),
        _Numbers(0x40000003, 359, 54, 287, 360, socketcall=102),
    ),
    "aarch64": (_Numbers(0xC00000B7, 198, 29, 218, 199), _Numbers(0x40000028, 281, 54, 310, 288)),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _step(code: int, operand: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, true, false, operand)


def _refuse(number: int) -> bytes:
    return _step(_RETURN, _ERRNO | number)


def _of_architecture(numbers: _Numbers) -> list[bytes]:
    steps = [_step(_LOAD, _NR)]
    if numbers.x32:
        steps += [_step(_AT_LEAST, _X32_BIT, 0, 1), _refuse(errno.ENOSYS)]
    for call in (*_IO_URING, numbers.request_key):
        steps += [_step(_EQUAL, call, 0, 1), _refuse(errno.EPERM)]
    if numbers.socketcall is not None:
        steps += [_step(_EQUAL, numbers.socketcall, 0, 1), _refuse(errno.ENOSYS)]
    families = [
        _step(_EQUAL, family, len(FAMILIES) - index)  # to the last step, which allows
        for index, family in enumerate(FAMILIES)
    ]
    families = [_step(_LOAD, _ARGUMENT_0), *families, _refuse(errno.EAFNOSUPPORT)]
    for call in (numbers.socket, numbers.socketpair):
        steps += [_step(_EQUAL, call, 0, len(families) + 1), *families, _step(_RETURN, _ALLOW)]
    steps += [_step(_EQUAL, numbers.ioctl, 0, 4), _step(_LOAD, _ARGUMENT_1)]
    steps += [_step(_EQUAL, TIOCSTI, 1, 0), _step(_EQUAL, TIOCLINUX, 0, 1), _refuse(errno.EPERM)]
    return [*steps, _step(_RETURN, _ALLOW)]


def program(machine: str) -> bytes:
    """Return the filter.

    Raises:
        OSError: no numbers are known for this machine.
    """
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine}")
    steps = [_step(_LOAD, _ARCH)]
    for numbers in _MACHINES[machine]:
        part = _of_architecture(numbers)
        steps += [_step(_EQUAL, numbers.arch, 0, len(part)), *part]
    return b"".join([*steps, _step(_RETURN, _KILL)])


def confine_calls() -> None:
    """Install the filter on this thread and all that it starts; needs no_new_privs.

    Raises:
        OSError: the kernel refused, or the machine is unknown.
    """
    code = program(platform.machine())
    head = _Program(len(code) // 8, code)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(head))
