"""How soon a process that has something to do gets a processor.

A run's end has to be seen, told and acted on within milliseconds, also on a host whose processors
are all busy. Who does that sleeps nearly always: its waking at once costs nobody else much.
"""

import contextlib
import ctypes
import os
import platform
import struct

SLICE_NS = 100_000  # asked for at a time: the shortest that the kernel takes (6.12; sched(7))
_NUMBERS = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2)
_RESET_ON_FORK = 1
# struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime, deadline, period
_ATTR = struct.Struct("=IIQiIQQQ")


def prompt(nice: int, *, children: bool = False) -> bool:
    """Be run soon after each wake-up: by a nice value, and by a short slice (Linux 6.12 and later).

    A nice value below ours needs CAP_SYS_NICE, or a service manager that gave it (Nice=): without,
    ours stays and the slice alone is asked for. With children, what this process forks begins with
    both; else with neither.

    Returns:
        Whether the process has that nice value now.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    current = os.getpriority(os.PRIO_PROCESS, 0)
    _set(current, 0 if children else _RESET_ON_FORK, SLICE_NS)
    return current == nice


def ordinary() -> None:
    """Be as any other process, whatever the parent was."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    _set(0, 0, 0)


def _set(nice: int, flags: int, slice_ns: int) -> None:
    """Call sched_setattr(2). A kernel that takes no notice of it, or refuses, does no harm."""
    number = _NUMBERS.get(platform.machine())
    if number is not None:
        attributes = _ATTR.pack(_ATTR.size, 0, flags, nice, 0, slice_ns, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(ctypes.c_long(number), ctypes.c_long(0), attributes, ctypes.c_long(0))
