"""The parts of the demonstration: the collector, and what an earlier, killed one left behind."""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.host import BIN

READY_WITHIN_S = 120.0
COLLECTOR = str(BIN / "loopwarden-collector")
_PORTS = re.compile(r"ingest on port (\d+), enrolment on port (\d+)")
_NAMESPACE = re.compile(r"lwt-[a-z]+-(\d+)-\d+")


@dataclass(frozen=True, slots=True)
class Collector:
    """A running collector on its SQLite default."""

    state_dir: Path
    port: int
    enroll_port: int

    @property
    def address(self) -> str:
        """Where agents report to."""
        return f"127.0.0.1:{self.port}"

    def enroll(self, host: str, out: Path) -> None:
        """Make a host's identity with a join token, as an administrator does."""
        token = self.text("token", "create", "--host", host).strip()
        _run(
            *(COLLECTOR, "enroll", "--collector", f"127.0.0.1:{self.enroll_port}"),
            *("--token", "-", "--out", str(out)),
            given=token,
        )

    def text(self, *words: str) -> str:
        """Return what a question's answer looks like to a person."""
        return _run(COLLECTOR, *words, "--state-dir", str(self.state_dir))

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Return a question's answer."""
        return [json.loads(line) for line in self.text(*words, "--json").splitlines()]


@contextlib.contextmanager
def collector(folder: Path) -> Iterator[Collector]:
    """Run a collector on ports that the kernel gives it, and stop it."""
    state_dir = folder / "collector"
    notify_path = folder / "collector.notify"
    argv = [COLLECTOR, "serve", "--state-dir", str(state_dir)]
    argv += ["--listen", "127.0.0.1:0", "--enroll-listen", "127.0.0.1:0"]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications,
        (folder / "collector.log").open("wb") as log,
    ):
        notifications.bind(os.fspath(notify_path))
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "NOTIFY_SOCKET": str(notify_path)},
        )
        try:
            ports = _ready(notifications, process)
            if ports is None:
                said = (folder / "collector.log").read_text(errors="replace")
                raise RuntimeError(f"the collector did not start:\n{said[-2000:]}")
            yield Collector(state_dir, *ports)
        finally:
            process.terminate()
            try:
                process.wait(READY_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(
    notifications: socket.socket, process: subprocess.Popen[bytes]
) -> tuple[int, int] | None:
    """Return the ports that it says it has, None if it ended or took too long."""
    pidfd = os.pidfd_open(process.pid)
    try:
        while True:
            sources = [notifications.fileno(), pidfd]
            readable, _, _ = select.select(sources, [], [], READY_WITHIN_S)
            if notifications.fileno() not in readable:
                return None
            if match := _PORTS.search(notifications.recv(4096).decode()):
                return int(match[1]), int(match[2])
    finally:
        os.close(pidfd)


def sweep(instance: str) -> None:
    """Remove what a demonstration that was killed left: its processes, namespaces and pins.

    Raises:
        RuntimeError: its daemon lives, or another demonstration runs: nothing is removed.
    """
    _run(sys.executable, "-m", "agent.kernel.clean", "--instance", instance)
    for entry in Path("/run/netns").glob("lwt-*"):
        match = _NAMESPACE.fullmatch(entry.name)
        if match and not Path("/proc", match[1]).exists():
            for pid in _run("ip", "netns", "pids", entry.name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _run("ip", "netns", "delete", entry.name)
    for folder in Path(tempfile.gettempdir()).glob(f"{instance}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _run(*argv: str, given: str | None = None) -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} {argv[1]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
