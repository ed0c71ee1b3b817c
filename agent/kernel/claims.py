"""Who shares host settings: local routes and a sysctl.

They are set by the first instance of a network namespace and put back by the last. Each
instance leaves its name in /run until it is cleaned. Who sets and who puts back take turns: else
the last one could take away what the next first one has just found to be there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATE_DIR = Path("/run/loopwarden-host")  # a tmpfs: gone at reboot, as the settings are


def state_dir() -> Path:
    """Return the directory of this network namespace, made if needed. Raises OSError."""
    directory = STATE_DIR / str(os.stat("/proc/self/ns/net").st_ino)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


@contextmanager
def turn() -> Iterator[None]:
    """Be the only one that sets or puts back; others wait, for some netlink calls. Raises OSError.

    The lock is flock(2)'s, on the directory: the kernel lets go of it when the process ends.
    """
    descriptor = os.open(state_dir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def path(instance: str) -> Path:
    """Return the file that is this instance's claim; its daemon locks it. Raises OSError."""
    return state_dir() / f"instance-{instance}"


def claim(instance: str) -> None:
    """Say that this instance needs the settings. Raises OSError."""
    path(instance).touch(mode=0o600)


def release(instance: str) -> bool:
    """Take the claim back; return whether no other is left. Raises OSError."""
    path(instance).unlink(missing_ok=True)
    return not claimed()


def claimed() -> set[str]:
    """Return the instances that have a claim. Raises OSError."""
    return {each.name.removeprefix("instance-") for each in state_dir().glob("instance-*")}
