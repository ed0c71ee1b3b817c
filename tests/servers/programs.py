"""Programs of an operator, where only root can change them, and a user that runs them."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.runtime import programs
from agent.runtime.confine import Account
from agent.runtime.programs import Programs

# of this process of tests alone: a user's processes are counted over the whole machine
_NUMBER = 50_000 + os.getpid() % 10_000
USER = Account(_NUMBER, _NUMBER)


class Folder:
    """A folder below /var/lib that is root's, with a scratch folder for the programs' user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scratch = path / "scratch"
        self.scratch.mkdir()
        self.scratch.chmod(0o777)

    def program(self, name: str, text: str) -> str:
        """Write a shell script; return its path."""
        path = self.path / name
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        return str(path)


@contextlib.contextmanager
def folder() -> Iterator[Folder]:
    """Make one, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="loopwarden-tests-", dir="/var/lib"))
    path.chmod(0o755)
    try:
        yield Folder(path)
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def keeper() -> Iterator[Programs]:
    """Run a keeper until the test is done."""
    found = programs.start(USER)
    try:
        yield found
    finally:
        found.close()
