"""A loop that doesn't read what a server sends it holds up itself, not the worker's memory."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.postgres_site import Stage, postgres_site, postgres_stage

pytestmark = [pytest.mark.system, pytest.mark.kernel, pytest.mark.servers]
ROWS, ROW_BYTES = 200_000, 1_001  # 200 MB
KEPT_BYTES_MAX = 32 << 20
ASLEEP_S = 2.0
QUERY = f"COPY (SELECT repeat('x', {ROW_BYTES - 1}) FROM generate_series(1, {ROWS})) TO STDOUT"


@pytest.fixture(scope="module")
def whole() -> Iterator[Stage]:
    """A worker host with one worker."""
    with postgres_site() as site, postgres_stage(site) as stage:
        yield stage


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory (proc(5), statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * 4096


def test_a_reader_that_sleeps_holds_the_server(whole: Stage) -> None:
    """200 MB of COPY to a reader that sleeps: the worker keeps little of it, and none is lost."""
    worker = whole.host.role_pid("proxy@0")
    command = ["psql", "-X", "-d", "postgresql://app.test.internal/orders", "-c", QUERY]
    before = resident_bytes(worker)
    with subprocess.Popen(
        whole.host.run_command("everything", command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=whole.host.loop_environment(),
        cwd="/",
    ) as process:
        assert process.stdout is not None
        count = len(process.stdout.read(ROW_BYTES))
        time.sleep(ASLEEP_S)  # what would come meanwhile, if nothing held it
        assert resident_bytes(worker) - before < KEPT_BYTES_MAX
        while piece := process.stdout.read(1 << 20):
            count += len(piece)
    assert process.returncode == 0
    assert count == ROWS * ROW_BYTES
