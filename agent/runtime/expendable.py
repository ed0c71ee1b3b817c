"""A process for work that may crash or hang: forked early, holding nothing, replaced at once.

The caller forks a *keeper* before it holds any secret. The keeper forks a *hand*, which answers
requests one at a time by a pure function. A hand that dies (a parser's stack, a timer, the memory
limit) costs that one answer: the keeper says so and forks the next. Both die with the caller.

Requests and answers are whole packets, so that no death leaves half of one behind. A long request
travels in a memory file.
"""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

from agent.runtime.confine import PR_SET_PDEATHSIG, prctl

INLINE_BYTES_MAX = 64 << 10  # a longer request goes in a memory file
REQUEST_BYTES_MAX = 4 << 20  # one byte more is the caller's error
ANSWER_BYTES_MAX = 128 << 10  # a longer answer counts as none
WORK_SECONDS_MAX = 5.0  # of CPU time for one request, then the hand is killed
WAIT_SECONDS_MAX = 120.0  # and of wall clock: then the machine had no time for it
MEMORY_BYTES_MAX = 1 << 30  # of address space, beside what it has of the caller's
STACK_BYTES_MAX = 64 << 20  # where the hard limit allows it
GARBAGE_THRESHOLD = 200_000  # objects made and not freed before the collector looks
_INLINE, _FILE = b"\0", b"\1"
_ANSWER, _NONE, _LATE = b"\0", b"\1", b"\2"


@dataclass(frozen=True, slots=True)
class Expendable:
    """The caller's end."""

    sock: socket.socket  # non-blocking; readable when an answer is there
    keeper_pid: int

    def ask(self, request: bytes) -> None:
        """Send a request; the caller has one outstanding at a time.

        Raises:
            ValueError: more than REQUEST_BYTES_MAX.
            OSError: the keeper is gone.
        """
        if len(request) > REQUEST_BYTES_MAX:
            raise ValueError(f"more than {REQUEST_BYTES_MAX} bytes")
        if len(request) <= INLINE_BYTES_MAX:
            self.sock.send(_INLINE + request)
            return
        descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            view = memoryview(request)
            while view:
                view = view[os.write(descriptor, view) :]
            socket.send_fds(self.sock, [_FILE], [descriptor])
        finally:
            os.close(descriptor)

    def answer(self) -> bytes | None:
        """Return the answer that is there, None when the hand died over the request.

        Raises:
            OSError: the keeper is gone, or (BlockingIOError) there is no answer yet, or
                (TimeoutError) the hand was at it for WAIT_SECONDS_MAX, and got less than
                WORK_SECONDS_MAX of a processor.
        """
        packet = self.sock.recv(ANSWER_BYTES_MAX + 1)
        if not packet:
            raise ConnectionResetError("the keeper is gone")
        if packet[:1] == _LATE:
            raise TimeoutError(f"no result within {WAIT_SECONDS_MAX:.0f} s")
        return packet[1:] if packet[:1] == _ANSWER else None

    def close(self) -> None:
        """End both processes and reap the keeper."""
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.keeper_pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.keeper_pid, 0)


def start(work: Callable[[bytes], bytes], name: str) -> Expendable:
    """Fork the keeper. Call it in a process of one thread, before there is anything to hide.

    Raises:
        OSError: no process or socket.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            _alone(theirs, name)
            _keep(theirs, work)
        finally:
            os._exit(70)  # never back into the caller's code
    theirs.close()
    ours.setblocking(False)
    return Expendable(ours, pid)


def _alone(sock: socket.socket, name: str) -> None:
    """Keep the socket and nothing else of the caller's."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _name(name)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the caller
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _address_space_bytes() + MEMORY_BYTES_MAX)
    _limit(resource.RLIMIT_STACK, STACK_BYTES_MAX)
    _limit(resource.RLIMIT_FSIZE, 0)
    gc.freeze()  # the caller's objects live on; and a large text makes many at once
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _address_space_bytes() -> int:
    """Return what is mapped (proc_pid_statm(5)); the stacks of a caller's threads stay it too."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (value, value))


def _name(name: str) -> None:
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    prctl(15, ctypes.addressof(buffer))  # PR_SET_NAME


def _keep(sock: socket.socket, work: Callable[[bytes], bytes]) -> None:
    """Have a hand at work until the caller is gone."""
    while True:
        pid = os.fork()
        if pid == 0:
            try:
                prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                _serve(sock, work)
            finally:
                os._exit(70)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            os._exit(0)  # it saw the caller's end
        late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        sock.send(_LATE if late else _NONE)


def _serve(sock: socket.socket, work: Callable[[bytes], bytes]) -> None:
    """Answer until the caller is gone. Each answer has its time."""
    while True:
        request = _receive(sock)
        if request is None:
            os._exit(0)
        signal.setitimer(signal.ITIMER_PROF, WORK_SECONDS_MAX)  # SIGPROF ends a hand
        signal.setitimer(signal.ITIMER_REAL, WAIT_SECONDS_MAX)  # SIGALRM too
        answer = work(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if len(answer) > ANSWER_BYTES_MAX:
            os._exit(71)
        sock.send(_ANSWER + answer)


def _receive(sock: socket.socket) -> bytes | None:
    packet, descriptors, _, _ = socket.recv_fds(sock, INLINE_BYTES_MAX + 1, 1)
    if not packet:
        return None
    if packet[:1] == _INLINE:
        return packet[1:]
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        return file.read(REQUEST_BYTES_MAX)
