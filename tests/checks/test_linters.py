"""A green suite is a clean tree: the linters are tests."""

import subprocess
import sys
from pathlib import Path

import pytest

LINTERS = {
    "ruff": ["-m", "ruff", "check", "--quiet"],
    "format": ["-m", "ruff", "format", "--check"],
    "mypy": ["-m", "mypy", "--no-error-summary"],
    "imports": ["-c", "from importlinter.cli import lint_imports_command as run; run()"],
}


@pytest.mark.parametrize("linter", LINTERS)
@pytest.mark.timeout(1200)  # mypy without its cache, on a busy machine
def test_linter_is_content(linter: str, repository: Path) -> None:
    """The whole tree passes this linter."""
    done = subprocess.run(
        [sys.executable, *LINTERS[linter]],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
