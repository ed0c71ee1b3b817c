"""Runs the real `loopwarden` against the real broker with its tests' small kernel."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.broker.harness import Host, host

ROOT = Path(__file__).parents[3]
SOON_S = 100.0  # a guard against hanging; no command here takes so long
POLICY = """
targets:
  api: {protocol: http, address: https://api.example.com}
loops:
  job:
    who: [{user: nobody}]
    rules: [{target: api, allow: {method: GET, path: /**}}]
  roots:
    rules: []
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def command(made: Host, *words: str) -> list[str]:
    """Return the command line of the CLI."""
    socket = str(made.config.control_socket)
    return [sys.executable, "-m", "agent.cli.loopwarden", "--socket", socket, *words]


def run_words(*words: str, loop: str = "job") -> list[str]:
    """Return the words of `run` for a command."""
    return ["run", "--loop", loop, "--", *words]


async def start(line: Sequence[str], **options: Any) -> asyncio.subprocess.Process:
    """Start a command in the checkout, with pipes."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT}
    return await asyncio.create_subprocess_exec(*line, **(pipes | options))


async def finish(process: asyncio.subprocess.Process, given: bytes | None = None) -> Ended:
    """Wait for the end."""
    async with asyncio.timeout(SOON_S):
        out, err = await process.communicate(given)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def cli(made: Host, *words: str, **options: Any) -> Ended:
    """Run the CLI to its end."""
    return await finish(await start(command(made, *words), **options))


@contextlib.asynccontextmanager
async def daemon(policy: str = POLICY) -> AsyncIterator[Host]:
    """Yield a host whose directory other users can reach."""
    with tempfile.TemporaryDirectory(prefix="lw-cli-") as path:
        os.chmod(path, 0o755)
        async with host(Path(path), policy) as made:
            yield made
