"""Numbers that no other process of tests has: ports, mark prefixes, networks.

A claim is a record lock on one byte of a file: the kernel gives it to one process at a time, and
takes it back when that process ends. Within a process a number is given once.
"""

import contextlib
import fcntl
import functools
import os
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

FILE = Path(tempfile.gettempdir(), f"loopwarden-tests-claims-{os.geteuid()}")
# Below the ephemeral ports (32768 and on), and those of tests.servers (20000 and on).
PORTS = range(10_001, 15_000, 2)
PREFIXES = range(0x100, 0xF00)
NETWORKS = range(256)
_PREFIXES_AT, _NETWORKS_AT = 100_000, 200_000  # where in the file; ports are their own places
_DEMO = 0x5DE  # the demo has it, which is no test
_taken: set[int] = set()


def port_pair() -> int:
    """Return the first of two ports on loopback that nobody has, for TCP and UDP."""
    return _claimed(PORTS, 0, lambda port: _free(port) and _free(port + 1))


def mark_prefix() -> int:
    """Return a mark prefix of our own."""
    return _claimed(PREFIXES, _PREFIXES_AT, lambda number: number != _DEMO)


def network() -> int:
    """Return a byte that makes an address our own."""
    return _claimed(NETWORKS, _NETWORKS_AT, lambda _: True)


@functools.cache
def _file() -> int:
    return os.open(FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # never closed


def _claimed(numbers: range, at: int, fits: Callable[[int], bool]) -> int:
    for number in random.sample(numbers, len(numbers)):
        place = at + number
        if place in _taken:
            continue
        with contextlib.suppress(BlockingIOError):  # another process has it
            fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            _taken.add(place)
            if fits(number):
                return number
    raise RuntimeError(f"all of {numbers} are taken")


def _free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(family, kind) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
                try:
                    sock.bind((address, port))
                except OSError:
                    return False
    return True
