"""One process, one run: nobody takes another identity, or outlives a run in the next one."""

import os
import subprocess

import pytest

from agent.kernel import admission
from agent.kernel.admission import Tagger
from agent.kernel.errors import RunRefused
from agent.model.ids import LoopName, RunId, Tag
from agent.model.loop import Initiator, Run
from agent.model.reason import Reason
from agent.runtime.clock import fresh_ulid, unix_ms
from tests.kernel.bench import WAIT_S, Bench

WAITS = "sys.stdin.readline(); s = socket.socket(); print(s.connect_ex((sys.argv[1], 443)))"


def admit(bench: Bench, run: Run, pid: int) -> None:
    """Ask for it as the broker does."""
    pidfd = os.pidfd_open(pid)
    try:
        bench.plane.admit(run.run_id, pidfd)
    finally:
        os.close(pidfd)


def create(bench: Bench, pid: int) -> Run:
    """Make a run as asked for by this process."""
    who = Initiator(0, "root", pid, "", "", "")
    run_id = RunId(fresh_ulid())
    return bench.plane.create_run(run_id, LoopName("other"), who, (), unix_ms())


@pytest.mark.parametrize("moved", [False, True], ids=["inside", "moved out"])
def test_a_runs_process_enters_and_starts_no_other_run(bench: Bench, moved: bool) -> None:
    """Refused by its tag, also when root moved it out; its child too; it stays what it was."""
    one, other = bench.run(), bench.run()
    child = bench.python(one, WAITS, "198.18.3.4")
    if moved:
        bench.plane.tree.move(bench.outside, child.pid)
    with pytest.raises(RunRefused, match=str(one.run_id)) as refused:
        admit(bench, other, child.pid)
    assert refused.value.reason is Reason.POLICY_DENIED
    with pytest.raises(RunRefused, match=str(one.run_id)):
        create(bench, child.pid)
    assert Tagger(bench.plane.maps).get(child.pid) == one.tag
    go(child)
    assert bench.arrive().attributed().run_id == one.run_id


def test_who_was_moved_into_a_run_enters_no_other(bench: Bench) -> None:
    """Without a tag the cgroup tells it."""
    one, other = bench.run(), bench.run()
    child = bench.python(one.cgroup_path, WAITS, "198.18.3.4")
    with pytest.raises(RunRefused, match=str(one.run_id)):
        admit(bench, other, child.pid)


def test_who_survived_a_run_enters_no_other(bench: Bench) -> None:
    """A process that root moved out before its run ended keeps the tag: refused for ever."""
    one, other = bench.run(), bench.run()
    child = bench.python(one, WAITS, "198.18.3.4")
    bench.plane.tree.move(bench.outside, child.pid)
    bench.plane.revoke(one.run_id, kill=True)
    bench.plane.remove(one.run_id)
    with pytest.raises(RunRefused, match="a run that is over"):
        admit(bench, other, child.pid)
    _, err = child.communicate(b"go\n", timeout=WAIT_S)
    assert b"PermissionError" in err  # no socket at all


def test_tags_are_read_and_cleared_where_pidfds_are_of_processes_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 6.9 the kernel answers EINVAL to PIDFD_THREAD, as to any flag that it doesn't know."""
    monkeypatch.setattr(admission, "PIDFD_THREAD", 1 << 20)
    tagger = Tagger(bench.plane.maps)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert tagger.get(child.pid) == 0
        assert tagger.set(child.pid, Tag(7))
        assert tagger.get(child.pid) == 7
        tagger.clear(child.pid)
        assert tagger.get(child.pid) == 0
        child.kill()


def go(child: subprocess.Popen[bytes]) -> None:
    """Let the child go on."""
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
