"""One daemon an instance: two would take pins, table and runs of that name from each other.

What is locked is what they would share: a directory beside the pins (so for all that have this BPF
file system), and the claim in /run (so for all in this network namespace, where the table is).
The locks are flock(2)'s: the kernel lets go of them when the process ends, however it does, and no
child has them, as their descriptors are closed by exec(2).
"""

import fcntl
import os
from pathlib import Path

from agent.kernel import claims, objects
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError

LOCK_DIR = "daemon"  # bpffs has directories and pins, no plain files


def lock_dir(pin_dir: Path) -> Path:
    """Return the directory beside the pins that a daemon locks."""
    return pin_dir / LOCK_DIR


def hold(config: PlaneConfig) -> tuple[int, ...]:
    """Become the daemon of this instance; return the descriptors to keep open while being it.

    Raises:
        PlaneError: another process is; nothing of its was changed. Or there is no bpffs.
        OSError: a directory can't be made.
    """
    objects.ensure_bpffs(config.bpffs)
    directory = lock_dir(config.pin_dir)
    for path in (config.pin_dir, directory):
        path.mkdir(mode=0o700, exist_ok=True)
    held: list[int] = []
    try:
        held.append(_locked(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), config.instance))
        claim = claims.path(config.instance)
        held.append(_locked(os.open(claim, os.O_RDONLY | os.O_CREAT, 0o600), config.instance))
    except PlaneError:
        for descriptor in held:
            os.close(descriptor)
        raise
    return tuple(held)


def _locked(descriptor: int, instance: str) -> int:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise PlaneError(
            f"another loopwardend is the instance {instance!r} of this host: stop it, or give this "
            "one another instance, mark_prefix, proxy_port and dns_port"
        ) from None
    return descriptor
