"""Who has to act at once is run at once, and nobody else is."""

import os
from pathlib import Path

import pytest

from tests.system.host import running

pytestmark = pytest.mark.system
NICE = {"kernel": -10, "broker": -10, "proxy@0": -5, "reporter": 0}


def test_daemon_broker_and_workers_are_prompt() -> None:
    """Each role has its nice value, and what a role forks has none."""
    with running(f"lwprio{os.getpid() % 10_000}", "targets: {}\nloops: {}\n") as host:
        pids = {name: host.role_pid(name) for name in NICE}
        assert {name: os.getpriority(os.PRIO_PROCESS, pid) for name, pid in pids.items()} == NICE
        for name in ("broker", "proxy@0"):
            forked = Path(f"/proc/{pids[name]}/task/{pids[name]}/children").read_text().split()
            assert forked
            assert {os.getpriority(os.PRIO_PROCESS, int(pid)) for pid in forked} == {0}
