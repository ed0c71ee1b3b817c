"""A seccomp filter for the roles: no new programs, no tracing, no kernel surface they never use.

The filter denies by list (EPERM), not by allowlist: the interpreter, OpenSSL and gRPC change the
calls they make between versions, and an allowlist that breaks in the field gets switched off.
Foreign architectures and x32 calls end the process. Source: seccomp(2), kernel 5.15 and later.
"""

import ctypes
import os
import platform
import struct

from agent.runtime.confine import prctl

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
_RET_ALLOW = 0x7FFF0000
_RET_KILL_PROCESS = 0x80000000
_RET_EPERM = 0x00050000 | 1
_X32_BIT = 0x40000000

# struct seccomp_data: int nr; u32 arch; u64 ip; u64 args[6]
_NR, _ARCH, _ARGUMENT_0 = 0, 4, 16
_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# name → (x86_64, aarch64); None where the architecture has no such call
DENIED: dict[str, tuple[int, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "umount2": (166, 39),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "openat2": (437, 437),
    "open_by_handle_at": (304, 265),
    "acct": (163, 89),
    "quotactl": (179, 60),
}
# opens whose flags say whether they write: (x86_64, aarch64, index of the flags argument)
_OPENS: tuple[tuple[int, int | None, int], ...] = ((257, 56, 2), (2, None, 1))
_WRITERS: dict[str, tuple[int, int | None]] = {
    "creat": (85, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "truncate": (76, 45),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchownat": (260, 54),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _instruction(code: int, operand: int, true: int = 0, false: int = 0) -> bytes:
    return struct.pack("HBBI", code, true, false, operand)


def program(machine: str, *, read_only: bool) -> bytes:
    """Return the filter; read_only also refuses to open, make or remove files for writing.

    Raises:
        OSError: no numbers are known for this machine.
    """
    if machine not in _ARCHITECTURES:
        raise OSError(f"no seccomp filter for {machine}")
    column, architecture = _ARCHITECTURES[machine]
    steps = [
        _instruction(_LD_ABS, _ARCH),
        _instruction(_JEQ, architecture, 1, 0),
        _instruction(_RET, _RET_KILL_PROCESS),
        _instruction(_LD_ABS, _NR),
    ]
    if machine == "x86_64":
        steps += [_instruction(_JGE, _X32_BIT, 0, 1), _instruction(_RET, _RET_KILL_PROCESS)]
    calls = list(DENIED.values()) + (list(_WRITERS.values()) if read_only else [])
    for numbers in calls:
        number = numbers[column]
        if number is not None:
            steps += [_instruction(_JEQ, number, 0, 1), _instruction(_RET, _RET_EPERM)]
    for *opens, index in _OPENS if read_only else ():
        number = opens[column]
        if number is not None:
            steps += [
                _instruction(_JEQ, number, 0, 4),
                _instruction(_LD_ABS, _ARGUMENT_0 + 8 * index),
                _instruction(_JSET, _WRITING, 0, 1),
                _instruction(_RET, _RET_EPERM),
                _instruction(_RET, _RET_ALLOW),
            ]
    return b"".join([*steps, _instruction(_RET, _RET_ALLOW)])


def confine_calls(*, read_only: bool) -> None:
    """Install the filter on this thread and all it starts; needs no_new_privs.

    Raises:
        OSError: the kernel refused, or the machine is unknown.
    """
    code = program(platform.machine(), read_only=read_only)
    head = _Program(len(code) // 8, code)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(head))
