"""Closing what strangers sent: a close that hangs holds up nobody else.

close(2) may wait for the one who sent the descriptor: a TCP socket with SO_LINGER and bytes that
nobody reads (tcp(7), socket(7)), a file whose file system is the sender's own program (FUSE).
"""

import contextlib
import os
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable

THREADS_MAX = 64  # closing at once; with all of them held up, what comes next waits, unclosed
_NO_LINGER = struct.pack("ii", 0, 0)


def is_pidfd(descriptor: int) -> bool:
    """Return whether it is a pidfd (or a /proc/PID directory): its close waits for nobody."""
    try:
        signal.pidfd_send_signal(descriptor, 0)
    except (ProcessLookupError, PermissionError):
        return True  # of a process that has gone, or is another's
    except OSError:
        return False
    return True


def close_strangers(descriptor: int) -> None:
    """Close it; a socket without lingering, if its sender does not set that again meanwhile."""
    with contextlib.suppress(OSError):  # no socket
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            sock.detach()
    with contextlib.suppress(OSError):
        os.close(descriptor)


class Closer:
    """Threads that are made as they are needed, and end with the process."""

    def __init__(
        self, close: Callable[[int], None] = close_strangers, threads_max: int = THREADS_MAX
    ) -> None:
        self._close = close
        self._threads_max = threads_max
        self._threads = 0
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def close(self, descriptor: int) -> None:
        """Own the descriptor and close it soon; never waits. Called by one thread."""
        self._todo.put(descriptor)
        if self._idle.acquire(blocking=False) or self._threads >= self._threads_max:
            return
        self._threads += 1
        threading.Thread(target=self._work, name="closer", daemon=True).start()

    def _work(self) -> None:
        while True:
            self._close(self._todo.get())
            self._idle.release()
