"""A process in a session of its own on a pseudo-terminal, as a shell's foreground job."""

import asyncio
import os
import pty
from pathlib import Path

SOON_S = 100.0  # a guard against hanging; nothing here takes so long


class Terminal:
    """Use: terminal = Terminal(line, cwd); await terminal.until(b"…"); await terminal.ended()."""

    def __init__(self, line: list[str], cwd: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execv(line[0], line)
        os.set_blocking(self.fd, False)
        self.text = b""

    def type(self, keys: bytes) -> None:
        """Send what a person types."""
        os.write(self.fd, keys)

    async def until(self, words: bytes) -> None:
        """Read until the terminal has shown something; forget what was before it."""
        try:
            async with asyncio.timeout(SOON_S):
                while words not in self.text:
                    await _readable(self.fd)
                    self.text += os.read(self.fd, 4096)
        except TimeoutError:
            raise AssertionError(f"no {words!r} in {self.text!r}") from None
        self.text = self.text.partition(words)[2]

    async def ended(self) -> int:
        """Return the exit code (negative: the signal) and hang up."""
        pidfd = os.pidfd_open(self.pid)
        try:
            async with asyncio.timeout(SOON_S):
                await _readable(pidfd)
        finally:
            os.close(pidfd)
        os.close(self.fd)
        return reap(self.pid)


def reap(pid: int) -> int:
    """Return the exit code of a child that ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


async def _readable(fd: int) -> None:
    event_loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = event_loop.create_future()
    event_loop.add_reader(fd, _set, ready)
    try:
        await ready
    finally:
        event_loop.remove_reader(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
