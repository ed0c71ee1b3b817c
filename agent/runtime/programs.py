"""Programs of the operator, run without power on behalf of a process that may start none.

The caller forks a *keeper* while it is root and holds no secret. The keeper becomes a user of its
own, for ever: no capability, no new privileges, no core dumps, nothing of the caller's but a
socket. For each request it forks a *runner*, which starts one program and ends whatever the
program left. All of them end with the caller. A caller that was taken over can have a program
started that root installed, as that user, and no more.

A program is a file that only root can change, in folders that only root can change. It gets an
empty standard input, a fixed environment, and no descriptor; its standard error goes nowhere.
"""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import stat
import subprocess
from dataclasses import dataclass

from agent.runtime import clock
from agent.runtime.confine import PR_SET_PDEATHSIG, Account, become, prctl

PR_SET_CHILD_SUBREAPER = 36
REQUEST_BYTES_MAX = 64 << 10
OUTPUT_BYTES_MAX = 16 << 10  # one byte more, and the program is ended
WITHIN_S_MAX = 15.0
CLEAN_S = 2.0  # for what a program left to be gone
MEMORY_BYTES_MAX = 2 << 30  # of data, for each process
PROCESSES_MAX, FILES_MAX, FILE_BYTES_MAX = 128, 256, 16 << 20  # the first of the user, all told
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}
DONE, FAILED = b"\0", b"\1"  # the answer begins with one; after DONE comes what was printed


class NotStarted(Exception):
    """The program may not be run, or did not end well. The text has nothing that it printed."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The caller's end."""

    sock: socket.socket
    keeper_pid: int

    def ask(self, argv: list[str], environment: dict[str, str], within_s: float) -> socket.socket:
        """Have a program started; the answer, then the end, comes over the socket returned.

        Closing it ends the program.

        Raises:
            ValueError: more than REQUEST_BYTES_MAX.
            OSError: the keeper is gone.
        """
        request = json.dumps([argv, environment, within_s]).encode()
        if len(request) > REQUEST_BYTES_MAX:
            raise ValueError(f"a request of more than {REQUEST_BYTES_MAX} bytes")
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.sock, [request], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        """End the keeper and all that it runs."""
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.keeper_pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.keeper_pid, 0)


def start(user: Account) -> Programs:
    """Fork the keeper. Call it in a process of one thread, before there is anything to hide.

    Raises:
        OSError: no process or socket.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            _alone(theirs, user)
            _keep(theirs)
        finally:
            os._exit(70)  # never back into the caller's code
    theirs.close()
    return Programs(ours, pid)


def _alone(sock: socket.socket, user: Account) -> None:
    keep = sock.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the caller
    os.environ.clear()
    os.umask(0o077)
    os.chdir("/")
    for which, most in (
        (resource.RLIMIT_DATA, MEMORY_BYTES_MAX),
        (resource.RLIMIT_NPROC, PROCESSES_MAX),
        (resource.RLIMIT_NOFILE, FILES_MAX),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        _, hard = resource.getrlimit(which)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (value, value))
    become(user)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # becoming another user cleared it


def _keep(sock: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # runners are reaped by the kernel
    while True:
        packet, descriptors, _, _ = socket.recv_fds(sock, REQUEST_BYTES_MAX + 1, 1)
        if not packet:
            os._exit(0)
        with contextlib.suppress(OSError):  # no process to be had: the caller sees an end
            if descriptors and os.fork() == 0:
                try:
                    sock.close()
                    _serve(socket.socket(fileno=descriptors[0]), packet)
                    os._exit(0)
                finally:
                    os._exit(70)
        for descriptor in descriptors:
            os.close(descriptor)


def _serve(out: socket.socket, packet: bytes) -> None:
    """Run one program, end what it left, then answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    argv, environment, within_s = json.loads(packet)
    try:
        path = checked(argv[0])
        answer = DONE
        if within_s:  # else it was to be checked only
            answer += _output([path, *argv[1:]], ENVIRONMENT | environment, within_s, out)
    except NotStarted as error:
        answer = FAILED + str(error).encode()
    except (OSError, subprocess.SubprocessError) as error:
        answer = FAILED + f"{argv[0]}: {getattr(error, 'strerror', '') or 'not started'}".encode()
    _end_the_rest()
    out.sendall(answer)


def checked(path: str) -> str:
    """Return the real path of a program that only root can change.

    Raises:
        NotStarted: it is none.
    """
    if not path.startswith("/"):
        raise NotStarted(f"{path}: write the absolute path")
    try:
        real = os.path.realpath(path, strict=True)
        for each in (path, real):
            _check_parts(each)
        mode = os.stat(real).st_mode
    except OSError as error:
        raise NotStarted(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode) or not os.access(real, os.X_OK):
        raise NotStarted(f"{path} is no program that uid {os.geteuid()} may run")
    return real


def _check_parts(path: str) -> None:
    """Check the path and all folders above it: root's, and writable by nobody else."""
    parts = path.rstrip("/").split("/")
    for end in range(1, len(parts) + 1):
        part = "/".join(parts[:end]) or "/"
        status = os.lstat(part)
        writable = status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
        if status.st_uid != 0 or writable:
            raise NotStarted(
                f"{part} can be changed by others than root: run `chown root {part}` and "
                f"`chmod go-w {part}`"
            )


def _output(
    argv: list[str], environment: dict[str, str], within_s: float, out: socket.socket
) -> bytes:
    """Return what the program printed, if it ended well, in time."""
    until_ns = clock.boot_ns() + int(min(within_s, WITHIN_S_MAX) * 1e9)
    process = subprocess.Popen(  # checked to be root's alone
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=_die_with_the_runner,  # noqa: PLW1509 - a runner has one thread
    )
    assert process.stdout is not None
    reading, printed = process.stdout.fileno(), bytearray()
    try:
        while True:
            left_s = (until_ns - clock.boot_ns()) / 1e9
            if left_s <= 0:
                raise NotStarted(f"{argv[0]} did not end within {within_s:g} s")
            ready, _, _ = select.select([reading, out.fileno()], [], [], left_s)
            if out.fileno() in ready:
                raise NotStarted("nobody waits for it any more")
            if ready:
                piece = os.read(reading, OUTPUT_BYTES_MAX + 1)
                if not piece:
                    break
                printed += piece
                if len(printed) > OUTPUT_BYTES_MAX:
                    raise NotStarted(f"{argv[0]} prints more than {OUTPUT_BYTES_MAX} bytes")
        status = process.wait(max(0.01, (until_ns - clock.boot_ns()) / 1e9))
    except subprocess.TimeoutExpired:
        raise NotStarted(f"{argv[0]} did not end within {within_s:g} s") from None
    finally:
        process.kill()
    if status:
        raise NotStarted(f"{argv[0]} ended with {_status(status)}")
    return bytes(printed)


def _status(status: int) -> str:
    return f"status {status}" if status > 0 else f"signal {-status}"


def _die_with_the_runner() -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_the_rest() -> None:
    """Kill what the program left; orphans of its tree are ours (PR_SET_CHILD_SUBREAPER)."""
    until_ns = clock.boot_ns() + int(CLEAN_S * 1e9)
    children = f"/proc/self/task/{os.getpid()}/children"
    while clock.boot_ns() < until_ns:
        with contextlib.suppress(OSError), open(children, encoding="ascii") as file:
            for pid in file.read().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
