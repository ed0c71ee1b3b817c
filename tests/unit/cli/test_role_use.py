"""What `status` says of the roles is what the process table says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.role_use import DAEMON, RoleUse, role_uses
from agent.cli.status import use_lines

ROLE = "import sys; print('up', flush=True); sys.stdin.read()"
# A daemon of three children: two roles and one that is none. It prints the first one's pid.
PARENT = f"""
import subprocess, sys
child = {ROLE!r}
def start(*words):
    process = subprocess.Popen([sys.executable, "-c", child, *words], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    process.stdout.readline()
    return process
started = [start("--config", "x", "--name", "broker"), start("--name", "proxy@0"), start("other")]
print(started[0].pid, flush=True)
sys.stdin.read()
for each in started:
    each.stdin.close()
    each.wait()
"""


def test_the_daemon_and_its_roles_are_found_from_the_broker() -> None:
    """By name, with pid, memory and time; a child that is no role is left out."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        broker = int(parent.stdout.readline())
        before = _resident_bytes(broker)
        uses = role_uses(broker)
        after = _resident_bytes(broker)  # it may still have been on its way to wait
        parent.stdin.close()
    assert [use.name for use in uses] == ["broker", DAEMON, "proxy@0"]
    assert (uses[0].pid, uses[1].pid) == (broker, parent.pid)
    assert min(before, after) <= uses[0].memory_bytes <= max(before, after)
    assert all(use.cpu_s >= 0 and use.started_ms > 0 for use in uses)
    assert role_uses(broker) == []  # all have ended


def _resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("pid", [0, -1])
def test_a_broker_in_another_pid_namespace_is_nobody(pid: int) -> None:
    """The kernel says 0 then: no process of ours is taken for the daemon."""
    assert role_uses(pid) == []


def test_a_role_is_a_line() -> None:
    """The word stands once."""
    uses = [RoleUse("broker", 12, 50 << 20, 3.21, 1), RoleUse("proxy@0", 345, 1 << 30, 99.0, 1)]
    assert use_lines(uses) == [
        "roles     broker    pid 12         50 MiB       3.2 s of CPU time",
        "          proxy@0   pid 345      1024 MiB      99.0 s of CPU time",
    ]
    assert use_lines([]) == []
