"""Signals of `loopwarden run`: what a terminal sends, the command gets itself; the rest we pass on.

All are blocked and taken one by one with sigwaitinfo(2). A signal that a process sent (si_code of
SI_USER, SI_QUEUE, SI_TKILL) is passed on; one that the terminal driver sent reached the command,
which is in the same process group. A stopped command stops us, so that the shell's job control
sees one job.
"""

import os
import resource
import signal

# sigaction(2): what a process sent; the terminal's signals have SI_KERNEL (0x80)
_SENT_BY_PROCESS = frozenset({0, -1, -6})
_OURS = frozenset({signal.SIGCHLD})
_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP,
     signal.SIGSYS, signal.SIGKILL, signal.SIGSTOP}
)  # fmt: skip


def block() -> None:
    """Block every signal that we take."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _taken())


def wait(pid: int) -> int:
    """Pass signals on until the child ends; return its exit code, or die of its signal."""
    taken = _taken()
    while True:
        code = _reap(pid)
        if code is not None:
            return _imitate(code)
        info = signal.sigwaitinfo(taken)
        by_other = info.si_code in _SENT_BY_PROCESS and info.si_pid != pid
        if info.si_signo not in _OURS and by_other:
            os.kill(pid, info.si_signo)  # not reaped yet: the pid is still the child's


def _reap(pid: int) -> int | None:
    """Return the child's exit code (negative: a signal), None while it lives."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if found == 0:
            return None
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        # stop with the command; who continues us by the group continues the command as well
        os.kill(os.getpid(), signal.SIGSTOP)


def _imitate(code: int) -> int:
    if code >= 0:
        return code
    number = -code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command dumped its own core
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # a signal that does not end us


def _taken() -> set[int]:
    return {int(each) for each in signal.valid_signals()} - {int(each) for each in _FAULTS}
