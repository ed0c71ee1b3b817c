"""Descriptors of strangers: whose close hangs, hangs alone."""

import os
import queue
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.runtime.closing import THREADS_MAX, Closer, close_strangers, is_pidfd

WAIT_S = 60.0


@contextmanager
def lingering(seconds: int) -> Iterator[int]:
    """A socket whose close(2) waits so long: its peer reads nothing of what it has sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        with peer:
            sock.setblocking(False)
            try:
                while True:
                    sock.send(bytes(65536))
            except BlockingIOError:
                pass
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
            yield sock.detach()


def test_the_control_lingers() -> None:
    """close(2) of that socket waits, non-blocking or not."""
    with lingering(1) as descriptor:
        started = time.monotonic()
        os.close(descriptor)
        assert time.monotonic() - started > 0.5


def test_a_lingering_socket_is_closed_at_once() -> None:
    """The option is taken off before."""
    with lingering(60) as descriptor:
        started = time.monotonic()
        close_strangers(descriptor)
        assert time.monotonic() - started < 50  # it would linger for 60
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_is_no_socket_or_not_open_is_fine() -> None:
    """A file is closed; a number that is no descriptor makes no noise."""
    descriptor = os.open("/dev/null", os.O_RDONLY)
    close_strangers(descriptor)
    close_strangers(descriptor)


def test_one_close_that_hangs_holds_up_no_other() -> None:
    """As many as there are threads but one: the last thread closes the rest; one more waits."""
    release, closed = threading.Event(), queue.SimpleQueue[int]()
    stuck = threading.Semaphore(0)

    def close(descriptor: int) -> None:
        if descriptor < 0:
            stuck.release()
            release.wait()
        closed.put(descriptor)

    closer = Closer(close, threads_max=3)
    for number in (-1, -2):
        closer.close(number)
        assert stuck.acquire(timeout=WAIT_S)
    for number in range(100):
        closer.close(number)
        assert closed.get(timeout=WAIT_S) == number
    closer.close(-3)
    assert stuck.acquire(timeout=WAIT_S)
    closer.close(5)  # one past the last thread: it waits, we don't
    assert closed.empty()  # nothing is released before the next line
    release.set()
    assert {closed.get(timeout=WAIT_S) for _ in range(4)} == {-1, -2, -3, 5}
    assert THREADS_MAX == 64


def test_what_is_a_pidfd() -> None:
    """Of a live process, of another user's, of one that has gone; nothing else."""
    with subprocess.Popen(["sleep", "60"]) as child:
        pidfd = os.pidfd_open(child.pid)
        assert is_pidfd(pidfd)
        child.kill()
    assert is_pidfd(pidfd)
    os.close(pidfd)
    for descriptor in (os.open("/dev/null", os.O_RDONLY), os.memfd_create("x"), *os.pipe()):
        assert not is_pidfd(descriptor)
        os.close(descriptor)
    assert not is_pidfd(descriptor)
