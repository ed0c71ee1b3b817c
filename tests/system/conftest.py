"""A collector, a real API on a host of its own, and worker hosts."""

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.certificates import Authority
from tests.servers.collector import Collector, running_collector
from tests.servers.netns import FarHost, far_host
from tests.servers.nginx import Api, nginx_api
from tests.system.host import Host, running

NUMBERS = itertools.count(1)
TOKEN = "canary-7f3a9c21e5d84b60"  # searched for in everything that must not hold it
COLLECTED_WITHIN_S = 60.0  # as each question starts a process
API_NAME = "api.test.internal"

POLICY = """
targets:
  api:
    protocol: http
    address: https://{name}
    ca: {ca}
    dial: "{address}:{port}"
    durability: {durability}
    credential: {{provider: static, file: {secret}, shape: bearer}}
loops:
  job:
    who: [{{user: nobody}}]
    rules:
      - target: api
        allow:
          method: [GET, HEAD, POST, PUT]
          path: [/v1/**, /files/**, /echo-headers, /slow/**]
      - {{target: api, deny: {{path: /v1/secret/**}}}}
  other:
    who: [{{user: nobody}}]
    rules:
      - {{target: api, allow: {{method: GET, path: /v1/other}}}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The far host, the API on it, and the files that a policy for it needs."""

    far: FarHost
    api: Api
    folder: Path

    def policy(self, durability: str = "process") -> str:
        """Return the policy of these tests."""
        return POLICY.format(
            name=self.api.name,
            ca=self.folder / "ca.pem",
            address=self.far.address4,
            port=self.api.tls_port,
            secret=self.folder / "token",
            durability=durability,
        )


@contextmanager
def site(folder: Path, files: dict[str, bytes] | None = None) -> Iterator[Site]:
    """Run the API on a far host."""
    folder.chmod(0o755)
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    secret = folder / "token"
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o600)
    os.chown(secret, 64201, 64201)
    served = folder / "api"
    served.mkdir()
    with (
        far_host() as far,
        nginx_api(
            served,
            authority,
            name=API_NAME,
            token=TOKEN,
            address=far.address4,
            ports=(443, 80),
            inside=far.inside,
            files=files,
        ) as api,
    ):
        served.chmod(0o700)  # its configuration and log hold the token: they are the far host's own
        yield Site(far, api, folder)


@pytest.fixture(scope="module")
def api_site() -> Iterator[Site]:
    """The API that this module's loops call."""
    with tempfile.TemporaryDirectory(prefix="lwt-site-") as folder, site(Path(folder)) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Reporting:
    """A worker host with its collector."""

    host: Host
    collector: Collector

    def operations(self, at_least: int = 0, **wanted: object) -> list[dict[str, Any]]:
        """Return the collector's operations of the wanted values, once there are so many."""
        return self.rows(
            lambda row: all(row.get(key) == wanted[key] for key in wanted), max(at_least, 1)
        )

    def rows(
        self, fits: Callable[[dict[str, Any]], object], at_least: int = 1
    ) -> list[dict[str, Any]]:
        """Return the collector's operations that fit, once there are so many."""
        deadline = time.monotonic() + COLLECTED_WITHIN_S
        while True:
            rows = self.collector.ask("sessions", "tail", "--lines", "10000", "--limit", "10000")
            found = [row for row in rows if fits(row)]
            if len(found) >= at_least or time.monotonic() > deadline:
                return found
            time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Stage(Reporting):
    """With the API that its loops call."""

    site: Site


@contextmanager
def stage(made: Site, folder: Path, durability: str = "process") -> Iterator[Stage]:
    """Run a collector and an enrolled worker host."""
    number = next(NUMBERS)
    with running_collector(folder) as collector:
        identity = collector.enroll("worker")
        for file in (identity, *identity.iterdir()):
            os.chown(file, 64203, 64203)
        with running(
            f"lwsys{os.getpid() % 10_000}x{number}",
            made.policy(durability),
            collector_address=collector.address,
            identity_dir=str(identity),
        ) as host:
            yield Stage(host, collector, made)


@pytest.fixture(scope="module")
def whole(api_site: Site) -> Iterator[Stage]:
    """Everything together, for a module's tests."""
    with tempfile.TemporaryDirectory(prefix="lwt-collector-") as folder:
        Path(folder).chmod(0o755)
        with stage(api_site, Path(folder)) as made:
            yield made
