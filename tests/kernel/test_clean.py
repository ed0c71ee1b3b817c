"""Clean leaves nothing, at any time, and a new ABI takes over from an old one without a gap."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel import abi, nft, objects
from agent.kernel.cgroups import CgroupTree
from agent.kernel.clean import clean, configs, instances, parse
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from agent.model.flow import Evidence
from tests.kernel.bench import Bench

PROGRAMS = {
    "bind4", "bind6", "cgroup_attach", "cgroup_populated", "connect4", "connect6", "egress",
    "ingress", "procs_exec", "procs_exit", "procs_fork", "recvmsg4", "recvmsg6", "sendmsg4",
    "sendmsg6", "setsockopt", "sock_create", "tag_newtask",
}  # fmt: skip


def _attached(path: str) -> set[str]:
    tree = CgroupTree.find()
    tool = objects_tool()
    shown = subprocess.run(
        [tool, "cgroup", "show", str(tree.directory(path))],
        capture_output=True,
        text=True,
        check=False,
    )
    return {line.split()[-1] for line in shown.stdout.splitlines()[1:]}


def objects_tool() -> str:
    """Return bpftool's path."""
    return "/usr/sbin/bpftool" if os.path.exists("/usr/sbin/bpftool") else "bpftool"


def test_everything_is_attached(plane: Plane) -> None:
    """Every program of the object is attached and pinned; status says so."""
    assert set(plane.attached.fresh) == PROGRAMS
    assert len(_attached(plane.config.attach_cgroup)) >= 10
    assert all(layer.present for layer in plane.status().layers if layer.claimed)


def test_clean_leaves_nothing(bench: Bench, config: PlaneConfig) -> None:
    """The command, without the daemon: no pin, program, table, route or cgroup of ours is left."""
    bench.plane.remove(bench.run().run_id)
    bench.run()
    command = [sys.executable, "-m", "agent.kernel.clean", "--instance", config.instance]
    command += ["--bpffs", str(config.bpffs), "--attach-cgroup", config.attach_cgroup]
    command += ["--slice", config.slice_name]
    subprocess.run(command, check=True, capture_output=True)
    assert not config.pin_dir.exists()
    assert config.instance not in nft.tables()
    assert _attached(config.attach_cgroup) == set()
    tree = CgroupTree.find()
    assert not tree.exists(config.slice_path)
    again = clean(config)  # any number of times
    assert (again.pins, again.table, again.cgroups) == (0, False, 0)


def test_clean_names_cgroups_that_live(bench: Bench, config: PlaneConfig) -> None:
    """A run with processes keeps its cgroup; everything else goes, and it is told."""
    run = bench.run()
    bench.spawn(run, "sleep", "60")
    cleaned = clean(config)
    assert run.cgroup_path in cleaned.left
    assert not config.pin_dir.exists()


@pytest.mark.parametrize("missing", ["pending", "run_meta", "denials"])
def test_clean_takes_half_a_start_away(bench: Bench, config: PlaneConfig, missing: str) -> None:
    """Without one of the maps: all pins go, and the cgroups too."""
    bench.run()
    (objects.version_dir(config.pin_dir) / "maps" / missing).unlink()
    cleaned = clean(config)
    assert not cleaned.left
    assert not config.pin_dir.exists()
    assert config.instance not in nft.tables()
    assert not CgroupTree.find().exists(config.slice_path)


def test_a_new_abi_takes_over(bench: Bench, config: PlaneConfig) -> None:
    """Pins of another ABI: runs are copied and processes tagged anew, then the old pins go."""
    run = bench.run()
    code = "sys.stdin.readline()\ns=socket.create_connection(('198.18.1.1',80))"
    child = bench.python(run, code)
    old = config.pin_dir / f"v{abi.ABI}"
    other = config.pin_dir / "v999"
    for directory in (other, other / "maps", other / "links"):
        directory.mkdir(mode=0o700)
    for kind in ("maps", "links"):
        for name in os.listdir(old / kind):
            os.rename(old / kind / name, other / kind / name)
        (old / kind).rmdir()
    objects.unmark(old)
    old.rmdir()
    newer = Plane.open(config)
    assert not other.exists()
    assert objects.version_dir(config.pin_dir).exists()
    assert newer.runs() == (run,)
    assert set(newer.attached.fresh) == PROGRAMS
    bench.plane = newer
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    assert bench.arrive().attributed().evidence is Evidence.TAG_AND_CGROUP
    newer.close()


def test_what_is_not_all_there_is_loaded_anew(bench: Bench, config: PlaneConfig) -> None:
    """Of the same object: a link that is gone, or one at another cgroup, has all swapped."""
    top = objects.version_dir(config.pin_dir)
    os.unlink(top / "links" / "connect4")
    again = Plane.open(config)
    assert (again.attached.fresh, again.attached.kept) == (("connect4",), ())
    again.close()
    cgroup_id = bench.plane.tree.id(config.attach_cgroup)
    kept = objects.attached_already(top, cgroup_id, procs_identity=config.procs_identity)
    assert kept is not None
    assert set(kept.kept) == PROGRAMS
    for elsewhere, variant in ((cgroup_id + 1, config.procs_identity), (cgroup_id, True)):
        assert objects.attached_already(top, elsewhere, procs_identity=variant) is None


def test_an_instance_is_found_by_its_pins_alone(tmp_path: Path) -> None:
    """Its table and claim may be gone; what `--all` then cleans has its own slice."""
    objects.make_dirs(tmp_path / "lw-one")
    (tmp_path / "theirs" / "links").mkdir(parents=True)
    (tmp_path / "others" / "v2" / "links").mkdir(parents=True)
    found = instances(tmp_path)
    assert "lw-one" in found
    assert not {"v2", "theirs", "others"} & found
    (tmp_path / "no instance" / "v1" / "links").mkdir(parents=True)
    wanted = configs(parse(["--all", "--bpffs", str(tmp_path)]))
    [config] = [config for config in wanted if config.instance == "lw-one"]
    assert (config.pin_dir, config.slice_path) == (tmp_path / "lw-one", "/lw-one.slice")
