"""Files that the broker trusts: opened once, judged by their descriptor, bounded."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager


class Untrusted(ValueError):
    """The file may not be used; the message says why and what to do."""


@contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def read_public(path: str, size_max: int) -> bytes:
    """Return a file that only root or we can write: policies, CA files.

    Raises:
        Untrusted: another owner, writable by group or others, no regular file, too large.
        OSError: it can't be opened or read.
    """
    with _opened(path, 0) as fd:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted(f"{path} is not a regular file")
        check_writers(path, status)
        return _read(path, fd, size_max)


def read_secret(path: str, size_max: int) -> bytes:
    """Return a secret file: mode 0600 or 0400, owned by root or us, no link.

    Raises:
        Untrusted: any of this does not hold, or it is too large.
        OSError: it can't be opened or read.
    """
    try:
        with _opened(path, os.O_NOFOLLOW) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise Untrusted(f"{path} is not a regular file")
            _check_owner(path, status)
            if status.st_mode & 0o177:
                mode = stat.S_IMODE(status.st_mode)
                raise Untrusted(f"{path} has mode {mode:04o}: run `chmod 0600 {path}`")
            return _read(path, fd, size_max)
    except OSError as error:
        if error.errno == 40:  # ELOOP: O_NOFOLLOW met a link
            raise Untrusted(f"{path} is a symbolic link: name the file itself") from error
        raise


def check_writers(path: str, status: os.stat_result) -> None:
    """Check that only root or we can write it.

    Raises:
        Untrusted: somebody else can.
    """
    _check_owner(path, status)
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        raise Untrusted(f"{path} has mode {mode:04o}: run `chmod go-w {path}`")


def _check_owner(path: str, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise Untrusted(f"{path} belongs to uid {status.st_uid}: run `chown root {path}`")


def _read(path: str, fd: int, size_max: int) -> bytes:
    data = bytearray()
    while len(data) <= size_max:
        piece = os.read(fd, size_max + 1 - len(data))
        if not piece:
            return bytes(data)
        data += piece
    raise Untrusted(f"{path} has more than {size_max} bytes")
