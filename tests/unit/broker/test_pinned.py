"""A process that is looked at is the one that connected, or nothing is believed."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.broker.peer import peer_of
from agent.broker.pinned import SO_PEERPIDFD, Pinned, parse_stat, read_stat, uid_of

NO_SUCH_OPTION = 9_999  # what SO_PEERPIDFD is to a kernel before 6.5
CODE = """
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
sys.stdin.read()
"""


@contextmanager
def _connected(base: Path) -> Iterator[tuple[socket.socket, "subprocess.Popen[bytes]"]]:
    """A child that has connected to us, and waits."""
    path = str(base / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-c", CODE, path]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE) as child,
            listener.accept()[0] as sock,
        ):
            yield sock, child


@pytest.mark.parametrize("option", [SO_PEERPIDFD, NO_SUCH_OPTION])
def test_a_live_peer_is_described_on_any_kernel(tmp_path: Path, option: int) -> None:
    """By the socket's own descriptor, or by number, start time and uid: the same words."""
    with _connected(tmp_path) as (sock, child):
        initiator = peer_of(sock, option).initiator
        assert initiator.pid == child.pid
        assert initiator.exe == os.path.realpath(sys.executable)
        first = initiator.parents[0]
        assert (first.pid, first.uid) == (os.getpid(), os.getuid())
        assert first.exe == os.path.realpath(sys.executable)[:96]
        assert len(initiator.parents) <= 6


@pytest.mark.parametrize("option", [SO_PEERPIDFD, NO_SUCH_OPTION])
def test_a_peer_that_ends_between_is_not_believed(tmp_path: Path, option: int) -> None:
    """Asked after the reading, the answer is no."""
    with _connected(tmp_path) as (sock, child), Pinned(sock, child.pid, 0, option) as same:
        assert same()
        child.kill()
        child.wait()
        assert not same()


def test_another_process_of_the_number_is_not_believed(tmp_path: Path) -> None:
    """Another start time, or another uid than the socket's, is another process."""
    with _connected(tmp_path) as (sock, child):
        with Pinned(sock, child.pid, 4_242, NO_SUCH_OPTION) as same:
            assert not same()
        with Pinned(sock, child.pid, os.getuid(), NO_SUCH_OPTION) as same:
            assert same()
            same._start += 1
            assert not same()
        with Pinned(sock, 0, os.getuid(), NO_SUCH_OPTION) as same:
            assert not same()


def test_the_kernels_own_descriptor_is_used_here(tmp_path: Path) -> None:
    """This machine's kernel names the peer itself: the number alone is never trusted."""
    with _connected(tmp_path) as (sock, child):
        fd = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4))[0]
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        os.close(fd)
        assert f"Pid:\t{child.pid}" in info
        with Pinned(sock, 1, 0) as same:  # whatever number it is given
            assert same()


def test_stat_is_read_behind_the_last_bracket() -> None:
    """A process names itself as it likes."""
    stat = parse_stat("7 (a) R 1 1) S 42 7 7 34816 " + "0 " * 14 + "99 0")
    assert (stat.comm, stat.parent, stat.tty, stat.start_ticks) == ("a) R 1 1", 42, 34816, 99)
    assert read_stat(0) is None
    assert uid_of(0) == -1
    assert uid_of(os.getpid()) == os.getuid()
