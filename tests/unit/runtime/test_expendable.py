"""A process for work that may crash."""

import ctypes
import mmap
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.runtime import expendable
from agent.runtime.expendable import (
    ANSWER_BYTES_MAX,
    INLINE_BYTES_MAX,
    MEMORY_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Expendable,
)

ANSWER_S = 200  # a second of CPU time may take long


def work(request: bytes) -> bytes:
    """Do what the request says."""
    match request[:5]:
        case b"crash":
            ctypes.string_at(0)
        case b"raise":
            raise ValueError("no")
        case b"spin!":
            while True:
                pass
        case b"pause":
            signal.pause()
        case b"alarm":
            signal.raise_signal(signal.SIGALRM)
        case b"needs":
            with mmap.mmap(-1, int(request[5:])) as room:
                return b"%d" % len(room)
        case b"large":
            return bytes(int(request[5:]))
        case b"files":
            return " ".join(sorted(map(os.readlink, _open_files()))).encode()
        case b"pid??":
            return b"%d %d" % (os.getpid(), os.getppid())
        case _:
            pass
    return b"%d " % len(request) + request[-8:]


@pytest.fixture
def process() -> Iterator[Expendable]:
    """Yield one that is ended after the test."""
    one = expendable.start(work, "lw-test-work")
    yield one
    one.close()


def ask(process: Expendable, request: bytes) -> bytes | None:
    """Ask and wait."""
    process.ask(request)
    readable, _, _ = select.select([process.sock], [], [], ANSWER_S)
    assert readable
    return process.answer()


@pytest.mark.parametrize(
    "size", [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 1 << 20, REQUEST_BYTES_MAX]
)
def test_requests_of_any_size_arrive_whole(process: Expendable, size: int) -> None:
    """Up to the bound, inline or in a memory file, a request arrives as it was sent."""
    request = (b"x" * size)[:-8] + b"the tail"[-size:] if size else b""
    assert ask(process, request) == b"%d " % size + request[-8:]


def test_a_request_past_the_bound_is_the_callers_error(process: Expendable) -> None:
    """One byte more raises, and the process goes on."""
    with pytest.raises(ValueError, match=str(REQUEST_BYTES_MAX)):
        process.ask(bytes(REQUEST_BYTES_MAX + 1))
    assert ask(process, b"hello") == b"5 hello"


@pytest.mark.parametrize("how", [b"crash", b"raise"])
def test_a_death_costs_one_answer(process: Expendable, how: bytes) -> None:
    """A hand that dies leaves None as its answer, again and again, and the next one works."""
    for _ in range(3):
        assert ask(process, how) is None
        assert ask(process, b"hello") == b"5 hello"


def test_work_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past WORK_SECONDS_MAX of CPU time the hand is killed, however long that takes."""
    monkeypatch.setattr(expendable, "WORK_SECONDS_MAX", 1.0)
    monkeypatch.setattr(expendable, "WAIT_SECONDS_MAX", 600.0)
    process = expendable.start(work, "lw-test-work")
    try:
        began = time.monotonic()
        assert ask(process, b"spin!") is None
        assert time.monotonic() - began >= expendable.WORK_SECONDS_MAX - 0.5
        assert ask(process, b"hello") == b"5 hello"
    finally:
        process.close()


def test_work_that_gets_no_time_is_late(
    process: Expendable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past WAIT_SECONDS_MAX without its CPU time: a TimeoutError, and the next hand works."""
    with pytest.raises(TimeoutError):
        ask(process, b"alarm")
    assert ask(process, b"hello") == b"5 hello"
    monkeypatch.setattr(expendable, "WAIT_SECONDS_MAX", 0.2)
    starved = expendable.start(work, "lw-test-work")
    try:
        with pytest.raises(TimeoutError):
            ask(starved, b"pause")
    finally:
        starved.close()


def test_an_answer_has_a_bound(process: Expendable) -> None:
    """At the bound it arrives, one byte past it is none."""
    assert ask(process, b"large%d" % ANSWER_BYTES_MAX) == bytes(ANSWER_BYTES_MAX)
    assert ask(process, b"large%d" % (ANSWER_BYTES_MAX + 1)) is None


@pytest.mark.parametrize("reserved", [0, 3 << 30])
def test_memory_has_a_bound_however_much_the_caller_has(reserved: int) -> None:
    """A tenth more than MEMORY_BYTES_MAX is too much, a tenth less is not: beside the caller's."""
    with mmap.mmap(-1, max(reserved, 1), flags=mmap.MAP_PRIVATE | 0x4000):  # MAP_NORESERVE
        process = expendable.start(work, "lw-test-work")
    tenth = MEMORY_BYTES_MAX // 10
    try:
        assert ask(process, b"needs%d" % (9 * tenth)) == b"%d" % (9 * tenth)
        assert ask(process, b"needs%d" % (11 * tenth)) is None
        assert ask(process, b"and again") == b"9 nd again"
    finally:
        process.close()


def test_it_holds_nothing_of_the_callers(tmp_path: Path) -> None:
    """Of the caller's open files it has the standard three and its socket."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    ours, theirs = socket.socketpair()
    with secret.open() as kept, ours, theirs:
        os.set_inheritable(kept.fileno(), True)
        before = " ".join(map(os.readlink, _open_files()))
        process = expendable.start(work, "lw-test-work")
        try:
            files = ask(process, b"files")
        finally:
            process.close()
    assert files is not None
    assert str(secret) in before
    assert str(secret).encode() not in files
    assert files.count(b"socket:") == 1


def test_it_ends_with_its_caller() -> None:
    """Both processes are gone when the caller's process is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        process = expendable.start(work, "lw-test-work")
        os.write(writing, ask(process, b"pid??") or b"")
        signal.pause()
    pids = [int(part) for part in os.read(reading, 100).split()]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process outlived its caller"
        time.sleep(0.01)
    os.close(reading)
    os.close(writing)


def test_a_killed_keeper_is_an_error(process: Expendable) -> None:
    """Without its keeper the caller hears so, and not silence."""
    os.kill(process.keeper_pid, signal.SIGKILL)
    readable, _, _ = select.select([process.sock], [], [], ANSWER_S)
    assert readable
    with pytest.raises(OSError, match=r"gone|reset"):
        process.answer()


def _open_files() -> list[str]:
    return [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd") if _is_open(int(name))]


def _is_open(number: int) -> bool:
    """Whether it is, apart from the listing's own."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return number > 2


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
