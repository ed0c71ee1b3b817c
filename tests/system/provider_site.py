"""A worker host whose loops reach APIs on a far host with tokens that servers there make."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.servers.netns import FarHost
from tests.system.conftest import Site, Stage, stage
from tests.system.vault_site import private
from tests.system.written import files

GONE_WITHIN_S = 60.0  # what hangs otherwise
LOOP = (
    "while read -r url; do curl -sS --max-time 60 -A loop -w '\\n%{http_code}\\n' \"$url\";"
    " echo end; done"
)
SHOWN = "; env; cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline 2>&1"


@dataclass(frozen=True, slots=True)
class Servers:
    """A far host, the files of its servers, and the policy for them."""

    far: FarHost
    folder: Path
    text: str

    def policy(self, durability: str = "process") -> str:
        """Return the policy."""
        return self.text.replace("DURABILITY", durability)

    def secret(self, name: str, text: str) -> Path:
        """Write a file that the broker alone reads."""
        private(self.folder / name, text)
        return self.folder / name


@contextmanager
def folder(purpose: str) -> Iterator[Path]:
    """Make a folder that the roles may pass through."""
    with tempfile.TemporaryDirectory(prefix=f"lwt-{purpose}-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def worker(servers: Servers) -> Iterator[Stage]:
    """Run a collector and a worker host with this policy."""
    with folder("collector") as place, stage(cast("Site", servers), place) as running:
        yield running


class Job:
    """A run of the loop that calls a URL when it is told to, with an unmodified curl."""

    def __init__(self, whole: Stage, loop: str, token_file: Path | None = None) -> None:
        self.host = whole.host
        line = self.host.run_command(loop, ["/bin/sh", "-c", LOOP + SHOWN])
        if token_file is not None:
            at = line.index("run") + 1
            line[at:at] = ["--oidc-token-file", str(token_file)]
        self._before = {each["lease_id"] for each in self.leases("--all")}
        self._running = subprocess.Popen(
            line,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.host.loop_environment(),
            cwd="/",
        )
        self.seen = ""

    def call(self, url: str) -> tuple[str, str]:
        """Return the answer's status and body; both are kept in what the loop has seen."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.write(url + "\n")
        self._running.stdin.flush()
        lines = ""
        while (line := self._running.stdout.readline()) != "end\n":
            assert line, f"the run ended: {lines}"
            lines += line
        self.seen += lines
        body, _, status = lines.strip().rpartition("\n")
        return status, body

    def leases(self, *words: str) -> list[dict[str, Any]]:
        """Return what `loopwarden leases` says."""
        return cast("list[dict[str, Any]]", self.host.json("leases", *words))

    def end(self) -> str:
        """Let it show all that it has, and end by itself; return all that the loop saw."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._running.stdin.close()
        try:
            self.seen += self._running.stdout.read()
            self._running.wait(GONE_WITHIN_S)
        finally:
            self._running.kill()
            self._running.wait()
            self._running.stdout.close()
        return self.seen

    def over(self) -> list[dict[str, Any]]:
        """Return its leases, once none is open any more."""
        wait_for(lambda: not self.leases(), "a lease is left")
        return [each for each in self.leases("--all") if each["lease_id"] not in self._before]


def wait_for(holds: Callable[[], object], what: str, within_s: float = GONE_WITHIN_S) -> None:
    """Wait until something outside this process holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def nobody_was_told(whole: Stage, *secrets: str) -> None:
    """Check the daemon's log, its state, and what the collector has of sessions and runs."""
    texts = [data for _, data in files(whole.host.log, whole.host.state_dir)]
    rows = [whole.collector.ask("runs"), whole.operations(at_least=1)]
    texts.append(json.dumps(rows).encode())
    for secret in secrets:
        assert not [text for text in texts if secret.encode() in text]


def readable(path: Path, text: str) -> Path:
    """Write a file of the caller's own."""
    path.touch(0o600)
    path.write_text(text + "\n")
    os.chmod(path, 0o600)
    return path
