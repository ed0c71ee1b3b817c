"""Standard streams that are closed, full, or left by their reader."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import streams

ROOT = Path(__file__).parents[3]
POLICY = "loops:\n  job: {rules: []}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy, and a collector's store."""
    (tmp_path / "p.yaml").write_text(POLICY)
    made = _command("collector", "init", "--state-dir", str(tmp_path / "store"))
    assert subprocess.run(made, check=False, cwd=ROOT, capture_output=True).returncode == 0
    return tmp_path


def _command(name: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"agent.cli.{name}", *words]


def _commands(folder: Path) -> list[tuple[list[str], int]]:
    """Return commands that print something, and their status for trouble."""
    store = ("--state-dir", str(folder / "store"))
    policy = ("policy", "check", str(folder / "p.yaml"))
    return [
        (_command("loopwarden", *policy), 125),
        (_command("loopwarden", "--help"), 125),
        (_command("collector", "token", "create", "--host", "h", *store), 3),
    ]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_line_and_no_success(folder: Path, unbuffered: str) -> None:
    """Neither a traceback nor 0, whether output is buffered or not."""
    variables = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    for line, trouble in _commands(folder):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                line, stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT, env=variables
            )
        assert done.returncode == trouble, line
        assert done.stderr.count(b"\n") == 1, done.stderr
        assert b": No space left on device" in done.stderr


def test_a_reader_that_left_ends_it_quietly(folder: Path) -> None:
    """As SIGPIPE ends other programs: `| head` shows what it shows, and no error."""
    variables = os.environ | {"PYTHONUNBUFFERED": ""}
    for line, _ in _commands(folder):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            line, stdout=writer, stderr=subprocess.PIPE, check=False, cwd=ROOT, env=variables
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b""), line


def test_closed_streams_are_as_if_nobody_listened(folder: Path) -> None:
    """The exit status is what it would be; nothing is written into a file of ours by mistake."""
    for line, _ in _commands(folder):
        usual = subprocess.run(line, check=False, cwd=ROOT, capture_output=True).returncode
        shell = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *line]
        assert subprocess.run(shell, check=False, cwd=ROOT).returncode == usual, line
    wrong = [
        "/bin/sh",
        "-c",
        'exec "$@" 2>&-',
        "sh",
        *_command("loopwarden", "policy", "check", "/"),
    ]
    assert subprocess.run(wrong, check=False, cwd=ROOT).returncode == 1


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """130, as shells say it."""

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert streams.guarded("x", interrupted, 3) == 130
    assert capsys.readouterr().err == ""


def test_an_error_of_the_system_names_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Not the number that Python puts before it; an error without any text has its kind."""

    def missing() -> int:
        open("/nonexistent/x").close()
        return 0

    assert streams.guarded("x", missing, 3) == 3
    assert capsys.readouterr().err == "x: /nonexistent/x: No such file or directory\n"
    assert streams.said(OSError("AF_UNIX path too long")) == "AF_UNIX path too long"
    assert streams.said(TimeoutError()) == "TimeoutError"


def test_what_an_encoding_lacks_is_escaped() -> None:
    """A terminal of another encoding loses no answer over one letter."""
    code = (
        "import sys; from agent.cli import streams; "
        "sys.exit(streams.guarded('x', lambda: print('a→b\\udcff') or 0, 3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=False,
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout) == (0, b"a\\u2192b\\udcff\n"), done.stderr


def test_words_that_are_no_text_are_wrong_use(folder: Path) -> None:
    """Not a traceback, and not what a codec says; a command's own words may be any bytes."""
    word = b"\xff\xfe"
    store = ("--state-dir", str(folder / "store"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / "sock"))
        listening.listen(8)
        asks = ("--socket", str(folder / "sock"))
        lines: list[list[str | bytes]] = [
            [*_command("loopwarden", *asks, "revoke"), word],
            [*_command("loopwarden", *asks, "run", "--loop"), word, "--", "true"],
            [*_command("collector", "kill", *store), word],
            [*_command("collector", "sessions", "list", *store, "--loop"), word],
        ]
        for line in lines:
            done = subprocess.run(line, check=False, cwd=ROOT, capture_output=True)
            assert done.returncode == 2, line
            assert done.stderr.count(b"\n") == 1
            assert b"is not UTF-8" in done.stderr
