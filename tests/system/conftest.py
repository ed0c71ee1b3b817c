"""A collector, a real API on a host of its own, and worker hosts."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.certificates import Authority
from tests.servers.netns import FarHost, far_host
from tests.servers.nginx import Api, nginx_api

NUMBERS = itertools.count(1)
TOKEN = "canary-7f3a9c21e5d84b60"  # searched for in everything that must not hold it
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
      - {{target: api, allow: {{method: [GET, HEAD, POST, PUT], path: [/v1/**, /files/**, /echo-headers, /slow/**]}}}}
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
        yield Site(far, api, folder)


@pytest.fixture(scope="module")
def api_site() -> Iterator[Site]:
    """The API that this module's loops call."""
    with tempfile.TemporaryDirectory(prefix="lwt-site-") as folder, site(Path(folder)) as made:
        yield made
