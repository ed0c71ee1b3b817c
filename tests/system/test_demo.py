"""`make demo` keeps its promises: it shows true facts, fails when one is false, leaves nothing."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel import sole
from agent.kernel.config import PlaneConfig
from tests.checks.machine import kernel_objects
from tests.system.demo import INSTANCE, UNTIMED
from tests.system.demo_parts import sweep

pytestmark = [pytest.mark.system, pytest.mark.kernel, pytest.mark.servers, pytest.mark.slow,
              pytest.mark.timeout(900)]  # fmt: skip
FACTS = 11
DONE_WITHIN_S = 600.0  # past this it hangs


@pytest.fixture(autouse=True)
def folder() -> Iterator[Path]:
    """Where a demonstration makes its files; readable, as its servers run as other users."""
    made = Path(tempfile.mkdtemp(prefix="lwt-demo-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def demonstration(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start the demonstration, its output in a pipe; end it if the test did not."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.demo", UNTIMED],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "TMPDIR": str(folder)},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=DONE_WITHIN_S)


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Return the output up to the line that has this in it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"{pattern!r} was never printed:\n{said}")


def left_by(process: "subprocess.Popen[str]", folder: Path) -> set[str]:
    """Return what the kernel and the file system hold of a demonstration, and who still runs."""
    files = {str(path) for path in folder.iterdir()}
    marks = (INSTANCE, f"-{process.pid}-")
    kernel = {name for name in kernel_objects() if any(mark in name for mark in marks)}
    return files | kernel | set(processes_of(folder))


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that name a file of the demonstration's: its servers' and roles'."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [words] if str(folder) in words else []
    return found


def test_all_facts_hold_and_nothing_is_left(folder: Path) -> None:
    """It exits 0 after eleven facts, without colours in a pipe; how long each took is shown."""
    with demonstration(folder) as process:
        said, _ = process.communicate(timeout=DONE_WITHIN_S)
    assert process.returncode == 0, said
    assert f"All {FACTS} facts hold" in said
    assert "✗" not in said
    assert "\x1b" not in said
    assert "curl[" in said.partition("sessions list")[2]
    assert "process tree" in said
    gone = re.search(r"PostgreSQL no such user; since the run was let end: +(\d+) ms", said)
    assert gone is not None
    assert re.search(r"ledger \(vault\)  revoked", said)
    assert not left_by(process, folder)


@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, "^  2  "),
        (signal.SIGTERM, "^  2  "),
        (signal.SIGINT, "PostgreSQL on the same host"),  # then OpenBao is starting
        (signal.SIGINT, "OpenBao lists one lease"),  # then a run holds a login
    ],
)
def test_an_interrupt_leaves_nothing(number: signal.Signals, when: str, folder: Path) -> None:
    """Ctrl-C, or a kill, in a start, in a fact, while a run waits: exit code 1, nothing left."""
    with demonstration(folder) as process:
        read_until(process, when)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: its servers get it too
        else:
            process.send_signal(number)
        rest, _ = process.communicate(timeout=DONE_WITHIN_S)
    assert process.returncode == 1, rest
    assert "interrupted" in rest
    assert not left_by(process, folder)


def test_a_killed_part_is_a_failure_that_leaves_nothing(folder: Path) -> None:
    """SIGKILL of the daemon: the facts that need it don't hold, the exit code is 1, all is gone."""
    with demonstration(folder) as process:
        read_until(process, "^  1  ")
        os.kill(_daemon_of(process.pid), signal.SIGKILL)
        rest, _ = process.communicate(timeout=DONE_WITHIN_S)
    assert process.returncode == 1, rest
    assert "did not hold" in rest
    assert not left_by(process, folder)


def test_another_that_runs_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed one left is removed; under a living daemon nothing is, and it is said."""
    instance = f"lwt-demo{os.getpid()}"
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    theirs = folder / f"{instance}-files"
    theirs.mkdir()
    locks = sole.hold(PlaneConfig(instance=instance))
    with pytest.raises(RuntimeError, match="stop it"):
        sweep(instance)
    assert theirs.is_dir()
    for lock in locks:
        os.close(lock)
    sweep(instance)
    assert not theirs.exists()


def _daemon_of(parent: int) -> int:
    """Return the pid of the daemon that the demonstration started."""
    for text in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"loopwardend" in Path(f"/proc/{text}/cmdline").read_bytes():
            return int(text)
    raise LookupError("no daemon")
