"""The filter on a run's processes: families that no hook sees, io_uring, the caller's terminal."""

import ctypes
import errno
import fcntl
import os
import platform
import pty
import socket
import struct
from collections.abc import Callable

import pytest

from agent.cli.calls import FAMILIES, TIOCSTI, confine_calls, program
from agent.runtime import confine

AF_MAX = 46  # of Linux 6


def confined(call: Callable[[], object]) -> int:
    """Return the errno of a call in a child that has the filter, 0 when it succeeds."""
    child = os.fork()
    if child == 0:
        code = 250
        try:
            confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
            confine_calls()
            call()
            code = 0
        except OSError as error:
            code = error.errno or 251
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def syscall(number: int, *arguments: int) -> int:
    """Make a raw system call. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "system call")
    return result


@pytest.mark.parametrize("family", range(1, AF_MAX))
def test_only_these_families(family: int) -> None:
    """UNIX, IPv4, IPv6 and netlink can be made; all else is EAFNOSUPPORT, as on a host without."""
    kind = socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM
    code = confined(lambda: socket.socket(family, kind))
    assert code == (0 if family in FAMILIES else errno.EAFNOSUPPORT)


def test_high_bits_of_the_family_change_nothing() -> None:
    """The kernel takes an int: bits above are no other family."""
    number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    vsock = socket.AF_VSOCK | 1 << 32
    assert confined(lambda: syscall(number, vsock, 1, 0)) == errno.EAFNOSUPPORT


@pytest.mark.parametrize("family", range(1, AF_MAX))
def test_pairs_of_no_other_family(family: int) -> None:
    """TIPC makes pairs too, that can then send to anybody; those of UNIX go as ever."""
    code = confined(lambda: socket.socketpair(family, socket.SOCK_STREAM))
    known = {errno.EOPNOTSUPP, errno.ESOCKTNOSUPPORT} if family in FAMILIES else set()
    assert code in ({0} if family == socket.AF_UNIX else known or {errno.EAFNOSUPPORT})


def test_no_program_of_the_host_looks_up_a_key() -> None:
    """request_key(2) of the kind dns_resolver has the kernel start one outside of the run."""
    number = {"x86_64": 249, "aarch64": 218}[platform.machine()]
    assert confined(lambda: syscall(number, 0, 0, 0, 0)) == errno.EPERM


@pytest.mark.parametrize("number", [425, 426, 427])
def test_io_uring_is_refused(number: int) -> None:
    """It makes sockets of any family without the system call."""
    assert confined(lambda: syscall(number, 0, 0, 0, 0, 0, 0)) == errno.EPERM


def test_x32_calls_are_refused() -> None:
    """socket(AF_VSOCK) by its x32 number is no way around; other machines have no such number."""
    assert struct.pack("=HBBI", 0x35, 0, 1, 0x40000000) in program("x86_64")
    assert confined(lambda: syscall(0x40000000 | 41, socket.AF_VSOCK, 1, 0)) == errno.ENOSYS


@pytest.mark.parametrize("request_", [TIOCSTI, 0x541C, TIOCSTI | 1 << 32])
def test_the_callers_terminal_is_not_typed_into(request_: int) -> None:
    """What would run in the caller's shell after we end (TIOCSTI, TIOCLINUX) is EPERM."""
    _, terminal = pty.openpty()
    number = {"x86_64": 16, "aarch64": 29}[platform.machine()]
    buffer = ctypes.create_string_buffer(b"x")
    assert confined(lambda: syscall(number, terminal, request_, ctypes.addressof(buffer))) == 1
    size = struct.pack("4H", 0, 0, 0, 0)
    assert confined(lambda: fcntl.ioctl(terminal, 0x5413, size)) == 0  # TIOCGWINSZ


def test_an_unknown_machine_is_refused() -> None:
    """No filter is no confinement: the command does not start."""
    with pytest.raises(OSError, match="no seccomp filter for vax"):
        program("vax")
