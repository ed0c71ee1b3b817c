"""A real collector process on loopback, with a state directory of its own, and enrolled hosts."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.nginx import free_port

READY_WITHIN_S = 150.0  # a guard against hanging; it takes a second or two
_PORTS = re.compile(r"ingest on port (\d+), enrolment on port (\d+)")


@dataclass(slots=True)
class Collector:
    """The process and its directory; `ask` is the command line that people use."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    enroll_port: int = 0

    @property
    def state_dir(self) -> Path:
        """Where store and CA are."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """What it logged."""
        return self.folder / "log"

    @property
    def address(self) -> str:
        """Where agents connect."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start; the second time on the same ports."""
        name = f"\0loopwarden-test-{os.getpid()}-{id(self)}"
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
            self.log.open("ab") as log,
        ):
            notified.bind(name)
            notified.settimeout(READY_WITHIN_S)
            self.process = subprocess.Popen(
                [
                    *_command("serve", "--state-dir", str(self.state_dir)),
                    *("--listen", f"127.0.0.1:{self.port}"),
                    *("--enroll-listen", f"127.0.0.1:{self.enroll_port}"),
                ],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": "@" + name[1:]},
            )
            try:
                match = _PORTS.search(notified.recv(4096).decode())
            except TimeoutError:
                match = None
        if match is None:
            self.kill()
            raise AssertionError(f"the collector did not start:\n{self.log.read_text()}")
        self.port, self.enroll_port = int(match[1]), int(match[2])

    def stop(self) -> None:
        """End it by SIGTERM."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(READY_WITHIN_S)
            self.process = None

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(READY_WITHIN_S)
            self.process = None

    def ask(self, *words: str) -> list[dict[str, Any]]:
        """Return the rows of a query, as `--json` prints them."""
        done = self.command(*words, "--state-dir", str(self.state_dir), "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return subprocess.run(
            _command(*words), capture_output=True, text=True, timeout=150, check=False
        )

    def token(self, name: str, *words: str) -> str:
        """Return a join token."""
        (row,) = self.ask("token", "create", "--host", name, *words)
        return str(row["token"])

    def enroll(self, name: str) -> Path:
        """Enroll a host; return the directory of its identity."""
        folder = self.folder / f"identity-{name}"
        done = self.command(
            *("enroll", "--collector", f"127.0.0.1:{self.enroll_port}"),
            *("--token", self.token(name), "--out", str(folder)),
        )
        assert done.returncode == 0, done.stderr
        return folder


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "agent.cli.collector", *words]


@contextmanager
def running_collector(folder: Path) -> Iterator[Collector]:
    """Run a collector with a fresh state directory below the folder."""
    folder.mkdir(exist_ok=True)
    # not the kernel's choice: while it is stopped, a port of that range may become somebody's
    collector = Collector(folder, None, free_port("127.0.0.1"), free_port("127.0.0.1"))
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()
