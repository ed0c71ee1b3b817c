"""The caller as the kernel names it."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agent.broker.peer import peer_of, tty_name, user_name
from agent.broker.pinned import parse_stat


def test_the_peer_is_who_connected() -> None:
    """Uid, groups, pid, executable and cgroup of this process."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        peer = peer_of(left)
    assert peer.uid == os.getuid()
    assert peer.is_root == (os.getuid() == 0)
    assert peer.groups == frozenset({os.getgid(), *os.getgroups()})
    assert peer.initiator.pid == os.getpid()
    assert peer.initiator.exe == os.path.realpath(sys.executable)
    assert f"0::{peer.initiator.unit}" in Path("/proc/self/cgroup").read_text()


def test_a_peer_that_is_gone_describes_nothing_else() -> None:
    """Its pid may be another process's by now: exe, tty and unit stay empty."""
    with tempfile.TemporaryDirectory() as base:
        path = f"{base}/s"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            code = (
                "import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
                "s.connect(sys.argv[1])"
            )
            subprocess.run([sys.executable, "-c", code, path], check=True)
            with listener.accept()[0] as sock:
                initiator = peer_of(sock).initiator
    assert (initiator.exe, initiator.tty, initiator.unit) == ("", "", "")


@pytest.mark.parametrize(
    ("device", "tty"),
    [(0, ""), (os.makedev(136, 3), "pts/3"), (os.makedev(137, 0), "pts/256"),
     (os.makedev(4, 1), "tty1"), (os.makedev(5, 1), "5:1")],
)  # fmt: skip
def test_terminals_have_their_usual_names(device: int, tty: str) -> None:
    """From proc_pid_stat, whose second field may hold anything."""
    assert tty_name(parse_stat(f"1 (a) b) S 1 1 1 {device} -1 0" + " 0" * 15).tty) == tty


def test_a_uid_without_name_is_its_number() -> None:
    """No failure."""
    assert user_name(4_000_000_000) == "4000000000"
