"""A near namespace for all tests of the worker, and the API that they call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.certificates import Authority
from tests.servers.netns import Namespace, near_host
from tests.servers.nginx import LARGE_BYTES, Api, nginx_api
from tests.unit.proxy.harness import PROXY_PORT

TOKEN = "the-token-of-the-lease"


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Whoever signs: the API's certificate and, as the broker's stand-in, leaves."""
    return Authority()


@pytest.fixture(scope="session")
def near() -> Iterator[Namespace]:
    """Where the loops of these tests are."""
    with near_host(PROXY_PORT) as inside:
        yield inside


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Api]:
    """The API, at 127.0.0.1."""
    folder: Path = tmp_path_factory.mktemp("nginx")
    files = {"large.bin": b"\xa5" * LARGE_BYTES, "small.json": b'{"a":"' + b"x" * 1015 + b'"}'}
    with nginx_api(folder, authority, name="api.example.com", token=TOKEN, files=files) as running:
        yield running
