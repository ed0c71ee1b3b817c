"""The installed commands from their first moment on: what an interrupt does while they begin."""

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = {"loopwarden": "loopwarden", "loopwarden-collector": "collector"}
INTERRUPTED = """
import os, signal, sys
wanted, function = sys.argv.pop(1), sys.argv.pop(1)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from agent.cli import entry
sys.exit(getattr(entry, function)())
"""
AT_WORK = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
from agent.cli import streams
sys.exit(streams.guarded("x", lambda: os.kill(os.getpid(), signal.SIGINT) or 0, 3))
"""


def _python(code: str, *words: str, ignored: bool = False) -> subprocess.CompletedProcess[bytes]:
    start = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"] if ignored else []
    line = [*start, sys.executable, "-c", code, *words]
    return subprocess.run(line, check=False, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize(
    ("function", "ignored"), [("loopwarden", False), ("loopwarden", True), ("collector", False)]
)
def test_an_interrupt_while_modules_are_read(function: str, ignored: bool) -> None:
    """Dead of SIGINT, as any program, and not a word; who ignores interrupts is not interrupted."""
    words = (f"agent.cli.{function}", function, "--version")
    done = _python(INTERRUPTED, *words, ignored=ignored)
    assert done.stderr == b""
    assert done.returncode == (0 if ignored else -signal.SIGINT)
    assert done.stdout.startswith(b"loopwarden ") is ignored


def test_a_command_at_work_ends_in_its_own_way() -> None:
    """130 and not a word: KeyboardInterrupt is awaited from there on."""
    done = _python(AT_WORK)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_what_is_installed_begins_there() -> None:
    """By pip, and by `make install`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command, function in COMMANDS.items():
        assert project["scripts"][command] == f"agent.cli.entry:{function}"
        assert f"{command}:agent.cli.entry:{function}" in makefile
