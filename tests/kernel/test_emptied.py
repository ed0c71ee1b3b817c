"""The end of a run is seen even when the kernel's word for it was lost."""

import os

from agent.kernel.plane import Plane
from tests.kernel.bench import WAIT_S, Bench


def test_a_run_whose_event_was_lost_is_seen(bench: Bench) -> None:
    """With the event thrown away, cgroup.events says it, again and again until it is removed."""
    run = bench.run()
    child = bench.python(run, "sys.stdin.readline()")
    assert bench.plane.emptied() == ()
    child.communicate(b"end\n", timeout=WAIT_S)
    bench.until_empty(run)
    bench.plane.read_events()  # and nobody told
    assert bench.plane.emptied() == (run.run_id,)
    assert bench.plane.emptied() == (run.run_id,)
    bench.plane.remove(run.run_id)
    assert bench.plane.emptied() == ()


def test_flows_are_stopped_once(bench: Bench) -> None:
    """freeze says whether it was the one that stopped them: who was cut before is not cut again."""
    run, other = bench.run(), bench.run()
    assert bench.plane.freeze(run.run_id)
    assert not bench.plane.freeze(run.run_id)
    bench.plane.revoke(other.run_id, kill=False)
    assert not bench.plane.freeze(other.run_id)


def test_a_run_that_waits_for_its_first_process_is_not_over(bench: Bench) -> None:
    """Between making a run and admitting its process it is empty, and lives."""
    bench.run()
    assert bench.plane.emptied() == ()


def test_a_run_that_empties_while_no_daemon_looks_is_seen(bench: Bench) -> None:
    """A new daemon knows which runs had processes when it came."""
    run = bench.run()
    child = bench.python(run, "sys.stdin.readline()")
    with_process = Plane.open(bench.plane.config)
    try:
        child.communicate(b"end\n", timeout=WAIT_S)
        bench.until_empty(run)
        assert with_process.emptied() == (run.run_id,)
    finally:
        with_process.close()


def test_a_nested_cgroup_keeps_its_run_alive(bench: Bench) -> None:
    """A process that is deep below the run's cgroup is the run's."""
    run = bench.run()
    child = bench.python(run, "sys.stdin.readline()")
    deep = run.cgroup_path
    for _ in range(20):
        deep += "/x"
        bench.plane.tree.create(deep)
    bench.plane.tree.move(deep, child.pid)
    assert bench.plane.emptied() == ()
    assert os.path.exists(f"/proc/{child.pid}")
    child.communicate(b"end\n", timeout=WAIT_S)
    bench.until_empty(run)
    assert bench.plane.emptied() == (run.run_id,)
