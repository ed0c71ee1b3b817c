"""The spool when the power fails: a disk is copied in mid-write, and the copy is what is left.

The disk is a file with ext4, loop-mounted: what the spool's process has not flushed is in the
page cache of the mount and not in the file. That models a disk without a volatile cache: it finds
a missing flush, not a missing barrier. What was acknowledged is noted outside of it.

Every other cut comes at any moment, the ones between just after an acknowledgement. What is copied
must have been there at one moment: a flush goes on while the writer is stopped, so the disk is read
until nothing has changed. Each copy is a file of its own: what other tests started meanwhile may
have its mount still, and would share it.
"""

import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.spool.cursor import read_cursor
from agent.spool.recovery import payloads, recover
from tests.system.spool_writer import content

CUTS = 50
CONTROL_CUTS_MAX = 20  # a control must lose by then
DISK_BYTES = 24 << 20


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "--detach-loop", point], check=True)


@dataclass(slots=True)
class Writer:
    """The process that writes, and what it said."""

    process: subprocess.Popen[bytes]
    acked: int = 0
    cursor: int = 0
    pending: bytes = b""

    def listen(self, within_s: float) -> None:
        """Take what it says, for at most so long."""
        assert self.process.stdout is not None
        until_s = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while (left_s := until_s - time.monotonic()) >= 0 and selector.select(left_s):
                data = os.read(self.process.stdout.fileno(), 65_536)
                assert data, "the writer died"
                *lines, self.pending = (self.pending + data).split(b"\n")
                for line in lines:
                    word, _, number = line.partition(b" ")
                    if word == b"acked":
                        self.acked = int(number)
                    elif word == b"cursor":
                        self.cursor = int(number)

    def stop(self, *, acknowledged: bool) -> None:
        """Stop it at once (in a call it is, behind that), or when it has acknowledged more."""
        self.process.send_signal(signal.SIGUSR1 if acknowledged else signal.SIGSTOP)
        pid, asked = self.process.pid, os.WSTOPPED | os.WNOHANG
        while acknowledged and os.waitid(os.P_PID, pid, asked) is None:
            self.listen(0.001)
        self.listen(0.0)


@contextmanager
def writing(mode: str, directory: Path) -> Iterator[Writer]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.system.spool_writer", mode, str(directory)],
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


def losses_after_cuts(mode: str, folder: Path, cuts: int, *, stop_at_loss: bool) -> list[str]:
    """Cut the power so many times during one run; return what each cut lost."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    choose = random.Random(7)
    losses = []
    with mounted(image, folder / "disk") as disk, writing(mode, disk / "spool") as writer:
        for cut in range(cuts):
            before = writer.acked
            while writer.acked == before:
                writer.listen(0.05)
            writer.listen(choose.uniform(0.002, 0.04))
            writer.stop(acknowledged=cut % 2 == 0)
            copy = folder / f"copy-{cut}.img"
            copy.write_bytes(of_a_moment(image))
            writer.process.send_signal(signal.SIGCONT)
            lost = lost_in(copy, folder / "copy", writer)
            copy.unlink()
            if lost:
                losses.append(f"cut {cut}: {lost}")
                if stop_at_loss:
                    break
    return losses


def of_a_moment(image: Path) -> bytes:
    """Return what a disk holds: read again until it is the same, it was so between the readings."""
    data = image.read_bytes()
    while (again := image.read_bytes()) != data:
        data = again
    return data


def lost_in(copy: Path, point: Path, writer: Writer) -> str:
    """Return what was acknowledged and is not on the disk that is left."""
    with mounted(copy, point):
        cursor = read_cursor(point / "spool").seq
        recovered = recover(point / "spool")
        there = {
            seq: body
            for segment in recovered.segments
            for seq, body in enumerate(payloads(segment), segment.first_seq)
        }
    if cursor > writer.cursor:
        return f"the cursor is at {cursor}, nobody moved it beyond {writer.cursor}"
    wrong = [seq for seq, body in there.items() if body != content(seq)]
    missing = [seq for seq in range(cursor + 1, writer.acked + 1) if seq not in there]
    if wrong or missing or recovered.next_seq <= writer.acked:
        return f"wrong {wrong[:5]}, missing {missing[:5]}, next is {recovered.next_seq}"
    return ", ".join(recovered.problems)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory on a real file system, whatever /tmp is."""
    with tempfile.TemporaryDirectory(prefix="lwt-powercut-", dir="/var/tmp") as made:
        yield Path(made)


def test_fifty_cuts_lose_nothing(folder: Path) -> None:
    """50 cuts in mid-write: 0 acknowledged records are lost, none is wrong, and no alarm."""
    assert losses_after_cuts("sound", folder, CUTS, stop_at_loss=False) == []


@pytest.mark.parametrize("mode", ["no-sync", "roll-without-sync"])
def test_a_writer_that_is_wrong_is_found(folder: Path, mode: str) -> None:
    """The same cuts lose records when the flush is left out: the test can tell."""
    assert losses_after_cuts(mode, folder, CONTROL_CUTS_MAX, stop_at_loss=True)
