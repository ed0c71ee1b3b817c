"""Programs without power: what they have, what they can't do, and that nothing of them stays."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.runtime import programs as module
from agent.runtime.programs import (
    DONE,
    FAILED,
    OUTPUT_BYTES_MAX,
    REQUEST_BYTES_MAX,
    NotStarted,
    Programs,
    checked,
)
from tests.servers.programs import USER, Folder, folder, keeper

WITHIN_S = 60.0
AGES = f"400.{os.getpid()}"  # seconds, which say whose they are


@pytest.fixture(name="place")
def _place() -> Iterator[Folder]:
    with folder() as place:
        yield place


@pytest.fixture(name="programs")
def _programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """A keeper, which is more patient than ours: the machine may be busy."""
    monkeypatch.setattr(module, "WITHIN_S_MAX", WITHIN_S)
    monkeypatch.setattr(module, "CLEAN_S", WITHIN_S)
    with keeper() as programs:
        yield programs


def answer(programs: Programs, *argv: str, within_s: float = WITHIN_S, **more: str) -> bytes:
    """Return the whole answer."""
    with programs.ask(list(argv), more, within_s) as sock:
        return everything(sock)


def everything(sock: socket.socket) -> bytes:
    """Read to the end."""
    sock.setblocking(True)
    sock.settimeout(WITHIN_S)
    found = b""
    while piece := sock.recv(65_536):
        found += piece
    return found


def test_it_has_no_power(programs: Programs, place: Folder) -> None:
    """Another user, no capability, no new privileges, no descriptor, a fixed environment."""
    os.environ["LW_SECRET"] = "c4n4ry"
    try:
        path = place.program(
            "who", 'id -u; id -G; cat /proc/self/status; ls /proc/self/fd; env; "$@"'
        )
        found = answer(programs, path, "cat", MORE="x").decode()
    finally:
        del os.environ["LW_SECRET"]
    assert found.startswith(f"\0{USER.uid}\n{USER.gid}\n")
    for line in ("NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        assert line in found
    assert "MORE=x" in found
    assert "c4n4ry" not in found
    assert "HOME=/nonexistent" in found
    descriptors = found.partition("VmSwap")[2]
    assert not {"5", "6", "7", "8", "9"} & set(descriptors.split("PATH=")[0].split("\n"))


def test_output_is_bounded(programs: Programs, place: Folder) -> None:
    """At the limit it is an answer; one byte more, and the program is ended."""
    path = place.program("print", 'head -c "$1" /dev/zero')
    assert answer(programs, path, str(OUTPUT_BYTES_MAX)) == DONE + bytes(OUTPUT_BYTES_MAX)
    assert b"more than" in answer(programs, path, str(OUTPUT_BYTES_MAX + 1))
    assert b"more than" in answer(programs, "/usr/bin/yes")


def test_time_is_bounded_and_nothing_stays(programs: Programs, place: Folder) -> None:
    """The program, its children and those that left its session are gone with the answer."""
    path = place.program("sleep", f"setsid sleep {AGES} & sleep {AGES} & sleep {AGES}")
    began = time.monotonic()
    assert b"did not end within 0.3 s" in answer(programs, path, within_s=0.3)
    assert time.monotonic() - began < 5 * WITHIN_S  # they would sleep for AGES
    assert not _sleepers()
    daemon = place.program("daemon", f"setsid sleep {AGES} >/dev/null & echo ok")
    assert answer(programs, daemon) == DONE + b"ok\n"
    assert not _sleepers()


def test_who_waits_no_more_ends_it(programs: Programs, place: Folder) -> None:
    """Closing the socket ends the program; so does the end of the keeper."""
    path = place.program("sleep", f"echo $$ > {place.scratch}/pid; exec sleep {AGES}")
    sock = programs.ask([path], {}, WITHIN_S)
    process = psutil.Process(_pid(place.scratch / "pid"))
    sock.close()
    process.wait(WITHIN_S)
    (place.scratch / "pid").unlink()
    with programs.ask([path], {}, WITHIN_S):
        process = psutil.Process(_pid(place.scratch / "pid"))
        os.kill(programs.keeper_pid, signal.SIGKILL)
        process.wait(WITHIN_S)


def test_failures_are_told_without_what_was_printed(programs: Programs, place: Folder) -> None:
    """Exit status or signal; standard error goes nowhere."""
    path = place.program("fail", "echo c4n4ry; echo c4n4ry >&2; exit 3")
    assert answer(programs, path) == FAILED + f"{path} ended with status 3".encode()
    path = place.program("die", "kill -9 $$")
    assert answer(programs, path) == FAILED + f"{path} ended with signal 9".encode()
    assert answer(programs, "/nonexistent/x").startswith(FAILED)


def test_only_roots_programs_are_run(programs: Programs, place: Folder, tmp_path: Path) -> None:
    """Not one that another can change, nor one in a folder that another can change."""
    good = place.program("good", "echo ok")
    assert answer(programs, good, within_s=0) == DONE  # checked, not run
    assert answer(programs, good) == DONE + b"ok\n"
    for name, mode, uid in (("group", 0o775, 0), ("others", 0o757, 0), ("owner", 0o755, USER.uid)):
        path = place.program(name, "echo ok")
        os.chmod(path, mode)
        os.chown(path, uid, 0)
        assert b"chown root" in answer(programs, path)
    inside = place.scratch / "x"
    inside.write_text("#!/bin/sh\n")
    inside.chmod(0o755)
    assert b"scratch can be changed" in answer(programs, str(inside))
    link = place.path / "link"
    link.symlink_to(inside)
    assert b"scratch can be changed" in answer(programs, str(link))
    for path in ("relative", "good"):
        with pytest.raises(NotStarted, match="absolute"):
            checked(path)
    plain = place.program("plain", "")
    os.chmod(plain, 0o644)
    assert b"is no program" in answer(programs, plain)
    assert b"is no program" in answer(programs, str(place.path))


def test_a_request_is_bounded(programs: Programs) -> None:
    """One that is too long is not sent; nonsense ends its runner alone."""
    with pytest.raises(ValueError, match=str(REQUEST_BYTES_MAX)):
        programs.ask(["/bin/echo", "x" * REQUEST_BYTES_MAX], {}, 1)
    ours, theirs = socket.socketpair()
    socket.send_fds(programs.sock, [b"no json"], [theirs.fileno()])
    theirs.close()
    with ours:
        assert everything(ours) == b""
    assert answer(programs, "/bin/echo", "ok") == DONE + b"ok\n"


def test_many_at_once(programs: Programs) -> None:
    """Each has its own answer."""
    socks = [programs.ask(["/bin/echo", str(number)], {}, WITHIN_S) for number in range(20)]
    found = [everything(sock) for sock in socks]
    for sock in socks:
        sock.close()
    assert found == [DONE + f"{number}\n".encode() for number in range(20)]


def _sleepers() -> list[int]:
    """Return those of this process: other tests' programs have the same user."""
    return [
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if AGES in (each.info["cmdline"] or ())  # none of one that is going
    ]


def _pid(path: Path) -> int:
    """Return a pid that a program wrote."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if path.exists() and (text := path.read_text()).endswith("\n"):
            return int(text)
        time.sleep(0.01)  # the program is another process: its file is all that tells
    raise AssertionError("the program did not start")
