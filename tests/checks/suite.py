"""The whole suite, in three parts at once: `python -m tests.checks.suite [PYTEST WORDS]`.

Tests of single parts compute; tests of the whole, of the kernel, of ways out and of leases mostly
wait. Side by side they take half of the time on two cores. What one part says is shown as it
comes, the others' when they are over. With words for pytest there is one part: whatever they
choose.
"""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from tests.checks.machine import kernel_objects, left_behind

TESTS = Path(__file__).parents[1]
COMPUTING = ("unit", "protocols", "conformance", "checks", "fuzz")
SYSTEM = "system"
LEASES = ("unit/broker",)  # at real servers, with every fault
WITH_BACKENDS = ("test_postgres", "test_vault", "test_leases", "test_oidc", "test_programs")


def main() -> int:
    """Run all parts; return the first exit code that is not 0, or 1 for what is left behind."""
    words = sys.argv[1:]
    before = kernel_objects()
    codes = [_start(words, None).wait()] if words else _all()
    left = left_behind(before)
    for name in left:
        sys.stderr.write(f"LEFT BEHIND: {name}\n")
    return next((code for code in codes if code), 1 if left else 0)


def parts() -> tuple[list[str], list[str], list[str]]:
    """Return what to give to pytest: all of the tests, each once."""
    folders = _folders(TESTS)
    unit = [f"unit/{name}" for name in _folders(TESTS / "unit")]
    system = sorted(path.name for path in (TESTS / SYSTEM).glob("test_*.py"))
    return (
        [f"tests/{name}" for name in folders if name in COMPUTING and name != "unit"]
        + [f"tests/{name}" for name in unit if name not in LEASES],
        [f"tests/{SYSTEM}/{name}" for name in system if name.startswith(WITH_BACKENDS)]
        + [f"tests/{name}" for name in LEASES],
        [f"tests/{name}" for name in folders if name not in (*COMPUTING, SYSTEM)]
        + [f"tests/{SYSTEM}/{name}" for name in system if not name.startswith(WITH_BACKENDS)],
    )


def _folders(parent: Path) -> list[str]:
    return sorted(
        folder.name
        for folder in parent.iterdir()
        if folder.is_dir() and any(folder.rglob("test_*"))
    )


def _all() -> list[int]:
    *others, shown = parts()
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in others]
        aside = [_start(words, output) for words, output in zip(others, said, strict=True)]
        try:
            codes = [_start(shown, None).wait()]
        except BaseException:
            for process in aside:
                process.terminate()
            raise
        finally:
            codes_aside = [process.wait() for process in aside]
        for output in said:
            output.seek(0)
            sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return [*codes, *codes_aside]


def _start(words: list[str], output: IO[bytes] | None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *words],
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
    )


if __name__ == "__main__":
    sys.exit(main())
