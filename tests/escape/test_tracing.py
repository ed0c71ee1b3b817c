"""Of the same user is not of the same run: no socket, memory or root directory crosses."""

import subprocess
import textwrap

import pytest

from tests.escape.conftest import loop
from tests.system.host import Host

# Run as a bystander of the run's own user: reach into the process that is named.
REACH = textwrap.dedent(
    """
    import ctypes, os, sys
    pid = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    taken = []
    pidfd = os.pidfd_open(pid)
    for fd in range(64):
        if libc.syscall(438, pidfd, fd, 0) >= 0:
            taken.append(f"fd {fd}")
    for name in ("environ", "mem", "maps", "root/etc", "cwd/etc", "fd/0"):
        try:
            path = f"/proc/{pid}/{name}"
            os.stat(path) if "/" in name else os.close(os.open(path, os.O_RDONLY))
            taken.append(name)
        except OSError:
            continue
    if libc.ptrace(0x4206, pid, 0, 0) == 0:  # PTRACE_SEIZE
        taken.append("ptrace")
    print(" ".join(taken))
    """
)


def reached(host: Host, pid: int) -> str:
    """Return what a bystander of user nobody could take of a process."""
    done = host.bystander(["/usr/bin/python3", "-c", REACH, str(pid)])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_a_bystander_of_the_same_user_takes_nothing(host: Host, user: str) -> None:
    """pidfd_getfd, ptrace, /proc/PID/{mem,environ,maps,root,cwd,fd}: all refused."""
    with loop(host, user) as inside:
        assert reached(host, int(inside.try_("import os; print(os.getppid())"))) == ""


def test_the_control_is_taken(host: Host) -> None:
    """The same reach takes all of it from a process of the same user that is no run's."""
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    with subprocess.Popen(
        [*drop, "/bin/sh", "-c", "echo up; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as open_process:
        assert open_process.stdout is not None
        open_process.stdout.readline()
        taken = reached(host, open_process.pid)
        assert open_process.stdin is not None
        open_process.stdin.close()
    assert {"environ", "mem", "root/etc", "fd/0", "ptrace"} <= set(taken.split())


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_a_run_reaches_no_process_outside(host: Host, user: str) -> None:
    """A run, root's too, that becomes a bystander's user can't enter its root or take of it."""
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    with (
        subprocess.Popen(
            [*drop, "/bin/sh", "-c", "echo up; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as outside,
        loop(host, user) as inside,
    ):
        assert outside.stdout is not None
        outside.stdout.readline()
        become = "import os, sys\nif os.getuid() == 0:\n    os.setresuid(65534, 65534, 65534)\n"
        code = f"{become}sys.argv = ['x', '{outside.pid}']\n{REACH}"
        assert inside.try_(code).strip() == ""
        assert outside.stdin is not None
        outside.stdin.close()
