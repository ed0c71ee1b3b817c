"""Registering a cgroup that somebody else runs (tier T0)."""

import os
import socket

import pytest

from agent.kernel import abi, objects
from agent.kernel.errors import RunRefused
from agent.kernel.plane import Plane
from agent.model.flow import Evidence, Tier
from agent.model.ids import LoopName, RunId
from agent.model.loop import Initiator, Run
from agent.model.reason import Reason
from agent.runtime.clock import fresh_ulid, unix_ms
from tests.kernel.bench import WAIT_S, Bench
from tests.kernel.farside import FAR4, FAR6, FarSide
from tests.kernel.test_failclosed import DIAL

INITIATOR = Initiator(0, "root", 1, "", "", "")
WAIT_THEN_DIAL = """
sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.readline()
s = socket.socket(); s.settimeout(60); s.connect(('198.18.7.7', 80)); print(s.recv(9).decode())
"""


def _register(bench: Bench, path: str, *, adopt: bool = False) -> Run:
    run_id = RunId(fresh_ulid())
    return bench.plane.register_cgroup(run_id, LoopName("unit"), INITIATOR, path, adopt, unix_ms())


def _service(bench: Bench, name: str = "service") -> str:
    path = f"{bench.plane.config.attach_cgroup}/{name}"
    bench.plane.tree.create(path)
    return path


def test_registered_processes_are_governed_with_both_facts(bench: Bench) -> None:
    """A process that was there already is tagged, threads too; its flows have both facts."""
    path = _service(bench)
    child = bench.python(path, WAIT_THEN_DIAL)
    assert child.stdout is not None
    assert child.stdin is not None
    child.stdout.readline()
    run = _register(bench, path)
    assert run.tier is Tier.REGISTERED
    child.stdin.write(b"go\n")
    child.stdin.flush()
    whose = bench.arrive().attributed()
    assert (whose.run_id, whose.evidence) == (run.run_id, Evidence.TAG_AND_CGROUP)


@pytest.mark.parametrize(
    ("adopt", "evidence"), [(True, Evidence.TAG_AND_CGROUP), (False, Evidence.CGROUP_ONLY)]
)
def test_later_joiners(bench: Bench, *, adopt: bool, evidence: Evidence) -> None:
    """A process that is moved in later has the tag only if the run adopts joiners."""
    path = _service(bench)
    _register(bench, path, adopt=adopt)
    bench.python(path, "s=socket.create_connection(('198.18.7.7',80))")
    assert bench.arrive().attributed().evidence is evidence


def test_foreign_sockets_are_refused(bench: Bench) -> None:
    """A socket made elsewhere keeps the cgroup from being registered; nothing stays."""
    path = _service(bench)
    code = "l=socket.create_server(('127.0.0.1',0))\n" + WAIT_THEN_DIAL
    child = bench.python(None, code)
    assert child.stdout is not None
    child.stdout.readline()
    bench.plane.tree.move(path, child.pid)
    with pytest.raises(RunRefused, match="made outside") as refused:
        _register(bench, path)
    assert refused.value.reason is Reason.POLICY_DENIED
    assert bench.plane.runs() == ()


def test_own_sockets_from_before_are_cut(bench: Bench, far: FarSide) -> None:
    """A connection made in the cgroup before it was registered is destroyed."""
    path = _service(bench)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))
sys.stdout.write('up\\n'); sys.stdout.flush()
try: print(s.recv(1))
except OSError as error: print(error.errno)
"""
        child = bench.python(path, code)
        assert child.stdout is not None
        child.stdout.readline()
        _register(bench, path)
        assert child.stdout.readline() == b"103\n"


def test_overlap_is_refused(bench: Bench) -> None:
    """Neither a run's ancestor nor its descendant, nor our slice, nor the root, can be a run."""
    path = _service(bench)
    _register(bench, path)
    bench.plane.tree.create(path + "/below")
    config = bench.plane.config
    for other in (path, path + "/below", config.attach_cgroup, config.slice_path, "/"):
        with pytest.raises(RunRefused, match=r"overlaps|root cgroup"):
            _register(bench, other)
    with pytest.raises(RunRefused, match="no such cgroup"):
        _register(bench, path + "/absent")


def test_a_registered_cgroup_is_fenced(bench: Bench, far: FarSide) -> None:
    """Without BPF, nft alone keeps a registered cgroup's packets in, as those of the slice."""
    path = _service(bench)
    _register(bench, path)
    child = bench.python(path, "sys.stdin.readline()\n" + DIAL, FAR4, FAR6)
    links = objects.version_dir(bench.plane.config.pin_dir) / "links"
    for name in os.listdir(links):
        (links / name).unlink()
    far.take()
    child.communicate(b"go\n", timeout=WAIT_S)
    assert far.take() == []


def test_release_gives_the_cgroup_back(bench: Bench, far: FarSide) -> None:
    """After remove, its processes are bystanders again: they reach the far end themselves."""
    path = _service(bench)
    code = f"""
sys.stdout.write('up\\n'); sys.stdout.flush(); sys.stdin.readline()
s = socket.create_connection(({FAR4!r}, 8080)); print(s.recv(9).decode()); s.recv(1); s.close()
"""
    child = bench.python(path, code)
    assert child.stdout is not None
    child.stdout.readline()
    run = _register(bench, path)
    bench.plane.remove(run.run_id)
    out, _ = child.communicate(b"go\n", timeout=WAIT_S)
    assert out == b"far\n"


def test_a_restart_knows_registered_runs(bench: Bench) -> None:
    """Another Plane on the same pins has the same runs, read from the kernel."""
    run = _register(bench, _service(bench), adopt=True)
    launched = bench.run()
    again = Plane.open(bench.plane.config)
    assert set(again.runs()) == {run, launched}
    again.close()


def test_admission_checks_the_uid(bench: Bench) -> None:
    """A run of uid 65534 admits that uid's processes and nobody else's, root's neither."""
    run = bench.run(uid=65534)
    with pytest.raises(RunRefused, match="uid"):
        bench.spawn(run, "true")
    assert bench.spawn(run, "true", uid=65534).wait(WAIT_S) == 0


def test_a_run_with_processes_is_not_removed(bench: Bench) -> None:
    """remove() of a launched run is refused until it is empty, then takes its cgroup away."""
    run = bench.run()
    child = bench.spawn(run, "sleep", "60")
    with pytest.raises(RunRefused, match="still has processes"):
        bench.plane.remove(run.run_id)
    processes, parents = bench.plane.tree_of(run.run_id)
    assert [one.pid for one in processes] == [child.pid]
    assert parents == (os.getpid(),)
    child.kill()
    child.wait()
    bench.until_empty(run)
    bench.plane.remove(run.run_id)
    assert not bench.plane.tree.exists(run.cgroup_path)
    with pytest.raises(RunRefused):
        bench.plane.remove(run.run_id)


def test_how_deep_a_registered_cgroup_may_be(bench: Bench) -> None:
    """At the limit its processes are governed; one level deeper is refused, not unseen."""
    path = bench.plane.config.attach_cgroup
    while bench.plane.tree.level(path) < abi.RUN_LEVEL_MAX:
        path += "/d"
        bench.plane.tree.create(path)
    bench.plane.tree.create(f"{path}/d")
    with pytest.raises(RunRefused) as refused:
        _register(bench, f"{path}/d")
    assert refused.value.reason is Reason.LIMIT_EXCEEDED
    run = _register(bench, path, adopt=True)
    below = f"{path}/d" + "/d" * 20  # and however deep below it
    bench.plane.tree.create(below)
    bench.python(below, "s=socket.create_connection(('198.18.7.7',80))")
    assert bench.arrive().attributed().run_id == run.run_id
