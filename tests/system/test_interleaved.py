"""Two runs, one host, two leases: 10,000 calls over pooled connections, and none with the other's.

A real OpenBao makes a user for each run; a real nginx on another host writes down which user came
with which run's call, over which connection, and answers each call with its own path.
"""

import json
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.servers.certificates import Authority
from tests.servers.netns import FarHost
from tests.servers.nginx import wait_listening
from tests.system.host import Host, running
from tests.system.vault_site import VaultSite, vault_site

pytestmark = [pytest.mark.system, pytest.mark.servers, pytest.mark.timeout(1800)]
NAME, PORT, READY_S = "shared.test.internal", 443, 120.0
MARKERS = ("first", "second")
CALLS = 5_000  # of each run
CONNECTIONS, CALLS_A_CONNECTION = 6, 40
SWITCHES_MIN = 500  # how often the next call at the server is of the other run; half of all, idle
CALLER = Path(__file__).with_name("interleaved_calls.py")
CONFIG = """
daemon off;
user root;  # the folder is the test's own
worker_processes 1;
error_log {folder}/error.log warn;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  log_format oracle '$request_uri|$status|$http_authorization|$connection';
  access_log {folder}/access.log oracle;
  keepalive_requests 1000000;
  map $http_authorization $granted {{ default 0; "~^Basic " 1; }}
  server {{
    listen {address}:{port} ssl backlog=4096;
    ssl_certificate {folder}/chain.pem;
    ssl_certificate_key {folder}/key.pem;
    if ($granted = 0) {{ return 401 "a user is required"; }}
    location / {{ return 200 $uri; }}
  }}
}}
"""
POLICY = """
targets:
  shared:
    protocol: http
    address: https://{name}
    ca: {folder}/far-ca.pem
    dial: "{address}:{port}"
    durability: process
    credential:
      provider: vault
      shape: basic
      address: {url}
      ca: {folder}/bao-ca.pem
      auth: approle
      role_id: {role_id}
      file: {folder}/secret-id
      token_role: loopwarden
      policies: [read]
      path: database/creds/orders
loops:
  job:
    who: [{{user: nobody}}]
    rules: [{{target: shared, allow: {{method: GET, path: "/**"}}}}]
"""


@dataclass(frozen=True, slots=True)
class Served:
    """One call as the far host saw it."""

    marker: str
    status: str
    user: str  # the Authorization field
    connection: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A worker host, and where the far host writes."""

    host: Host
    vault: VaultSite
    log: Path

    def served(self, at_least: int) -> list[Served]:
        """Return what was served, in order, once nginx wrote so many down: after it answered."""
        deadline = time.monotonic() + READY_S
        while (text := self.log.read_text()).count("\n") < at_least:
            assert time.monotonic() < deadline, text.count("\n")
            time.sleep(0.05)
        found = []
        for line in text.splitlines():
            path, status, user, connection = line.split("|")
            found.append(Served(path.split("/")[1], status, user, connection))
        return found


@contextmanager
def far_server(far: FarHost, authority: Authority, folder: Path) -> Iterator[Path]:
    """Run nginx on the far host; yield its log."""
    folder.mkdir(mode=0o700)
    identity = authority.identity(NAME)
    (folder / "chain.pem").write_bytes(identity.chain_pem)
    (folder / "key.pem").write_bytes(identity.key_pem)
    text = CONFIG.format(folder=folder, address=far.address4, port=PORT)
    (folder / "nginx.conf").write_text(text)
    argv = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", "nginx.conf"]
    process = subprocess.Popen(far.inside.argv(*argv), stderr=subprocess.PIPE, text=True)
    try:
        far.inside.call(lambda: wait_listening(far.address4, PORT, process))
        yield folder / "access.log"
    finally:
        process.terminate()
        process.communicate(timeout=READY_S)


@pytest.fixture
def stage() -> Iterator[Stage]:
    """All of it; without a collector."""
    authority = Authority()
    with vault_site() as vault:
        folder, far = vault.site.folder, vault.site.far
        (folder / "far-ca.pem").write_text(authority.pem)
        policy = POLICY.format(
            name=NAME, folder=folder, address=far.address4, port=PORT, url=vault.bao.url,
            role_id=vault.vault.role_id,
        )  # fmt: skip
        with (
            far_server(far, authority, folder / "far") as log,
            running(f"lwmix{os.getpid() % 10_000}", policy) as host,
        ):
            yield Stage(host, vault, log)


class Run:
    """A run that makes one call, and all others when it is told to."""

    def __init__(self, host: Host, marker: str) -> None:
        counts = map(str, (CALLS, CONNECTIONS, CALLS_A_CONNECTION))
        argv = ["/usr/bin/python3", "-c", CALLER.read_text(), f"https://{NAME}", marker, *counts]
        self._process = subprocess.Popen(
            host.run_command("job", argv),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=host.loop_environment(), cwd="/",
        )  # fmt: skip

    def ready(self) -> None:
        """Return when its first call is answered."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise AssertionError(self._process.communicate()[1])

    def begin(self) -> None:
        """Let it make the others."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> tuple[int, int, list[str]]:
        """Return answers, connections and what was wrong, once it is done."""
        out, errors = self._process.communicate(timeout=900)
        assert self._process.returncode == 0, errors
        answered, connections, wrong = json.loads(out)
        return answered, connections, wrong

    def kill(self) -> None:
        """End it if it has not."""
        self._process.kill()
        self._process.communicate()


def test_ten_thousand_calls_of_two_runs_over_pooled_connections(stage: Stage) -> None:
    """Each call has its own run's user, on connections of its own run; all are answered."""
    runs = [Run(stage.host, marker) for marker in MARKERS]
    try:
        for run in runs:
            run.ready()
        assert len(stage.vault.vault.leases()) == len(MARKERS)
        for run in runs:
            run.begin()
        results = [run.result() for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert [(answered, wrong) for answered, _, wrong in results] == [(CALLS, [])] * len(MARKERS)
    served = stage.served(CALLS * len(MARKERS))
    assert len(served) == CALLS * len(MARKERS)
    assert {each.status for each in served} == {"200"}
    _no_cross_use(served)
    switches = sum(a.marker != b.marker for a, b in pairwise(served))
    assert switches >= SWITCHES_MIN, "the runs' calls did not come interleaved"
    downstream = sum(connections for _, connections, _ in results)
    upstream = {each.connection for each in served}
    print(f"{downstream} connections of the runs, {len(upstream)} to the server, {switches=}")
    assert len(upstream) * 2 < downstream, "connections to the server are not used again"


def _no_cross_use(served: list[Served]) -> None:
    """One user for each run, another for the other; a connection has calls of one run."""
    users: dict[str, set[str]] = defaultdict(set)
    runs_of: dict[str, set[str]] = defaultdict(set)
    for each in served:
        users[each.marker].add(each.user)
        runs_of[each.connection].add(each.marker)
    assert sorted(users) == sorted(MARKERS)
    assert all(len(found) == 1 for found in users.values()), "a run's calls had several users"
    assert len(set.union(*users.values())) == len(MARKERS), "both runs had the same user"
    assert all(len(found) == 1 for found in runs_of.values()), "a connection served both runs"
