"""One writer a spool: recovery rewrites files, which must not happen under a living writer."""

import fcntl
import os
from pathlib import Path

NAME = "lock"


class SpoolBusy(Exception):
    """Another process has this spool."""


def lock(directory: Path) -> int:
    """Take the spool for this process, before `recover`; return the descriptor that holds it.

    Raises:
        SpoolBusy: another process has it.
        OSError: the directory can't be used.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise SpoolBusy(f"another process writes {directory}") from error
    return fd
