"""The filter refuses what a role never does, and lets it work."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.runtime import seccomp

PROGRAM = """
import os, socket, sys, tempfile, threading
from agent.runtime import confine, seccomp
confine.harden()
seccomp.confine_calls(read_only={read_only})
def outcome(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
socket.create_server(("127.0.0.1", 0)).close()
memory = os.memfd_create("x"); os.write(memory, b"x"); open(f"/proc/self/fd/{{memory}}").read()
open("/etc/hostname").read()
print(outcome(lambda: os.execv("/bin/true", ["true"])),
      outcome(lambda: os.unshare(0)) if hasattr(os, "unshare") else "Operation not permitted",
      outcome(lambda: open("{path}", "w").close()),
      outcome(lambda: os.unlink("{path}")), sep="|")
"""
REFUSED = "Operation not permitted"


@pytest.mark.parametrize(("read_only", "writing"), [(False, "done"), (True, REFUSED)])
def test_denied_calls_are_refused(tmp_path: Path, read_only: bool, writing: str) -> None:
    """exec and unshare get EPERM, writing files only under read_only; the rest works."""
    path = tmp_path / "file"
    path.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(read_only=read_only, path=path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip().split("|") == [REFUSED, REFUSED, writing, writing]


def test_numbers_match_this_kernel() -> None:
    """Each denied number is a call this kernel knows by another error than ENOSYS (x86_64)."""
    if os.uname().machine != "x86_64":
        assert seccomp.program("aarch64", read_only=True)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("pidfd_getfd", "openat2", "move_mount"):
        number = seccomp.DENIED[name][0]
        assert libc.syscall(number, -1, 0, 0, 0) == -1
        assert ctypes.get_errno() != 38, name


def test_an_unknown_machine_is_an_error() -> None:
    """No filter is better said than silently missing."""
    with pytest.raises(OSError, match="no seccomp filter"):
        seccomp.program("vax", read_only=True)
