"""Durable file operations: what is named here is on stable storage when the call returns."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make creations, renames and removals in the directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of the data at the file's position; short writes are continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def place(path: Path, data: bytes) -> None:
    """Put a whole file in place, durably: it has the old content or the new, never a part.

    Raises:
        OSError: not done (a left-over temporary file is overwritten by the next attempt).
    """
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_directory(path.parent)
