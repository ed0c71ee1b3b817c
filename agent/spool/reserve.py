"""Space kept back, so that a full disk can still be recorded."""

import os
from pathlib import Path

NAME = "reserve"


def make(directory: Path, size_bytes: int) -> bool:
    """Allocate the reserve; return False when the disk has not that much left."""
    path = directory / NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError:
        release(directory)
        return False
    return True


def release(directory: Path) -> None:
    """Give the space back to the file system."""
    (directory / NAME).unlink(missing_ok=True)
