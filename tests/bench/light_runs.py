"""Runs started over the control socket from here, without a CLI's process for each of them."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.broker.control import Accepted, AdmitRun, RunOpened, StartRun
from agent.cli.client import Client
from tests.system.host import UNPRIVILEGED, Host

WAITING = 'read _ && exec "$@"'  # until it is admitted
DROP = ["setpriv", f"--reuid={UNPRIVILEGED.pw_uid}", f"--regid={UNPRIVILEGED.pw_gid}",
        "--clear-groups"]  # fmt: skip


@dataclass(frozen=True, slots=True)
class LightRun:
    """A run, and its first process."""

    run_id: str
    process: "subprocess.Popen[bytes]"

    def failure(self) -> str:
        """Return what a run that ended by itself said, "" for one that goes on."""
        if self.process.poll() is None or self.process.stderr is None:
            return ""
        return f"run {self.run_id} ended with {self.process.returncode}: " + (
            self.process.stderr.read().decode("utf-8", "replace").strip()
        )


def start_run(host: Host, loop: str, command: list[str]) -> LightRun:
    """Start a run as `loopwarden run` does, but for the files that it is to trust."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", WAITING, "sh", *DROP, *command],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=host.loop_environment(), cwd="/",
    )  # fmt: skip
    assert process.stdin is not None
    with process.stdin, Client(host.base / "run" / "control.sock") as client:
        opened = client.ask(StartRun(loop, tuple(command), UNPRIVILEGED.pw_name), RunOpened)
        pidfd = os.pidfd_open(process.pid)
        try:
            client.ask(AdmitRun(opened.run_id), Accepted, fds=(pidfd,))
        finally:
            os.close(pidfd)
        process.stdin.write(b"\n")
    process.stdin = None  # closed
    return LightRun(opened.run_id, process)


@dataclass(slots=True)
class JournalTail:
    """The broker's journal as it grows: Unix ms of each lease's states, by the broker's clock."""

    path: Path
    leases: dict[str, str] = field(default_factory=dict)  # run → the backend's name of its lease
    rows: dict[str, dict[str, int]] = field(default_factory=dict)  # run → state → ms
    handles: set[str] = field(default_factory=set)
    _fd: int = -1
    _rest: bytes = b""

    def read(self) -> None:
        """Read what was written since; a journal that was put in its place too."""
        while True:
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            while piece := os.read(self._fd, 1 << 20):
                *lines, self._rest = (self._rest + piece).split(b"\n")
                for row in self._parsed(lines):
                    self._add(row)
            if os.stat(self.path).st_ino == os.fstat(self._fd).st_ino:
                return
            os.close(self._fd)
            self._fd, self._rest = -1, b""

    def state(self, run_id: str, state: str) -> int:
        """Return when a run's lease came to a state, 0 when it has not."""
        return self.rows.get(run_id, {}).get(state, 0)

    def of(self, state: str) -> int:
        """Return how many came to a state."""
        return sum(state in states for states in self.rows.values())

    def _add(self, row: dict[str, object]) -> None:
        states = self.rows.setdefault(str(row["run_id"]), {})
        states.setdefault(str(row["state"]), int(str(row["at_ms"])))
        self.leases[str(row["run_id"])] = str(row["provider_id"])
        if row["handle"]:
            self.handles.add(json.loads(str(row["handle"]))["accessor"])

    @staticmethod
    def _parsed(lines: list[bytes]) -> Iterator[dict[str, object]]:
        for line in lines:
            _, _, body = line.partition(b" ")
            if body.startswith(b"{"):
                yield json.loads(body)
