"""`make demo` keeps its promises: it shows true facts, fails when one is false, leaves nothing."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.checks.machine import kernel_objects
from tests.system.demo import INSTANCE

pytestmark = [pytest.mark.system, pytest.mark.kernel, pytest.mark.servers, pytest.mark.slow]
FACTS = 9
DURATION_S_MAX = 60.0


@contextmanager
def demonstration() -> Iterator["subprocess.Popen[str]"]:
    """Start the demonstration, its output in a pipe; end it if the test did not."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=DURATION_S_MAX)


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Return the output up to the line that has this in it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"{pattern!r} was never printed:\n{said}")


def left_by(process: "subprocess.Popen[str]") -> set[str]:
    """Return what the kernel and the file system hold of a demonstration."""
    folders = {str(path) for path in Path(tempfile.gettempdir()).glob(f"{INSTANCE}-*")}
    marks = (INSTANCE, f"-{process.pid}-")
    return {name for name in kernel_objects() if any(mark in name for mark in marks)} | folders


def test_all_facts_hold_and_nothing_is_left() -> None:
    """It exits 0 after nine facts, in less than a minute, without colours in a pipe."""
    with demonstration() as process:
        said, _ = process.communicate(timeout=DURATION_S_MAX)
    assert process.returncode == 0, said
    assert f"All {FACTS} facts hold" in said
    assert "✗" not in said
    assert "\x1b" not in said
    assert "curl[" in said.partition("sessions list")[2]
    assert "process tree" in said
    assert not left_by(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(number: signal.Signals) -> None:
    """Ctrl-C, or a kill, in the middle of a fact: it exits 1, and all is removed."""
    with demonstration() as process:
        read_until(process, "^  2  ")
        process.send_signal(number)
        rest, _ = process.communicate(timeout=DURATION_S_MAX)
    assert process.returncode == 1, rest
    assert "interrupted" in rest
    assert not left_by(process)


def test_a_killed_part_is_a_failure_that_leaves_nothing() -> None:
    """SIGKILL of the daemon: the facts that need it don't hold, the exit code is 1, all is gone."""
    with demonstration() as process:
        read_until(process, "^  1  ")
        os.kill(_daemon_of(process.pid), signal.SIGKILL)
        rest, _ = process.communicate(timeout=DURATION_S_MAX * 2)
    assert process.returncode == 1, rest
    assert "did not hold" in rest
    assert not left_by(process)


def _daemon_of(parent: int) -> int:
    """Return the pid of the daemon that the demonstration started."""
    for text in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"loopwardend" in Path(f"/proc/{text}/cmdline").read_bytes():
            return int(text)
    raise LookupError("no daemon")
