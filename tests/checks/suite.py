"""The whole suite, in two halves at once: `python -m tests.checks.suite [PYTEST WORDS]`.

Tests of single parts compute; tests of the whole, of the kernel and of ways out mostly wait. Side
by side they take two thirds of the time on two cores. What one half says is shown as it comes,
the other's when it is over. With words for pytest there is one half: whatever they choose.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from tests.checks.machine import kernel_objects

TESTS = Path(__file__).parents[1]
COMPUTING = ("unit", "protocols", "conformance", "checks", "fuzz")


def main() -> int:
    """Run both halves; return the first exit code that is not 0, or 1 for what is left behind."""
    words = sys.argv[1:]
    before = kernel_objects()
    codes = [_start(words, None).wait()] if words else _both()
    left = sorted(kernel_objects() - before)
    for name in left:
        sys.stderr.write(f"LEFT BEHIND: {name}\n")
    return next((code for code in codes if code), 1 if left else 0)


def halves() -> tuple[list[str], list[str]]:
    """Return the folders of tests that compute, and all others."""
    folders = sorted(
        folder.name for folder in TESTS.iterdir() if folder.is_dir() and any(folder.rglob("test_*"))
    )
    computing = [f"tests/{name}" for name in folders if name in COMPUTING]
    return computing, [f"tests/{name}" for name in folders if name not in COMPUTING]


def _both() -> list[int]:
    computing, waiting = halves()
    with tempfile.TemporaryFile() as said:
        aside = _start(computing, said)
        try:
            codes = [_start(waiting, None).wait()]
        except BaseException:
            aside.terminate()
            raise
        finally:
            codes_aside = aside.wait()
        said.seek(0)
        sys.stdout.buffer.write(said.read())
        sys.stdout.flush()
    return [*codes, codes_aside]


def _start(words: list[str], output: IO[bytes] | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *words],
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())
