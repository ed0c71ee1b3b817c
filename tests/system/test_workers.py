"""Several proxy workers share the listeners and the loops' flows."""

import os
from collections.abc import Iterator

import pytest

from tests.system.conftest import API_NAME, Site
from tests.system.host import Host, running

CALLS = 24
PARALLEL = (
    f"for n in $(seq {CALLS}); do "
    "curl -sS -o /dev/null -w '%{http_code} ' --max-time 60 "
    "--retry 60 --retry-delay 1 --retry-all-errors "
    f"https://{API_NAME}/v1/worker-$n & done; wait"
)


@pytest.fixture
def two_workers(api_site: Site) -> Iterator[Host]:
    """A host with two workers, without a collector."""
    with running(f"lwwork{os.getpid() % 10_000}", api_site.policy(), proxy_workers=2) as host:
        yield host


def test_two_workers_serve_one_loop(two_workers: Host) -> None:
    """All calls are answered, and again after either worker was killed."""
    assert two_workers.role_pid("proxy@0") != two_workers.role_pid("proxy@1")
    for victim in ("", "proxy@0", "proxy@1"):
        if victim:
            two_workers.kill_role(victim)
        done = two_workers.run("job", ["/bin/sh", "-c", PARALLEL])
        assert done.stdout.split() == ["200"] * CALLS, (victim, done.stderr)
