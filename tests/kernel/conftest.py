"""One private plane a test: own cgroup subtree, bpffs, ports, marks; torn down whatever happens."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel import clean
from agent.kernel.cgroups import CgroupTree
from agent.kernel.config import PlaneConfig
from agent.kernel.plane import Plane
from tests.kernel.bench import Bench
from tests.kernel.farside import FarSide
from tests.system import claimed

if os.geteuid() != 0:
    pytest.exit("tests/kernel needs root: run `sudo make test`", returncode=2)


@pytest.fixture(scope="session")
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A BPF file system of our own; unmounting it drops whatever a failure left pinned."""
    point = tmp_path_factory.mktemp("bpffs")
    subprocess.run(["mount", "-t", "bpf", "bpf", point], check=True)
    yield point
    subprocess.run(["umount", "-l", point], check=True)


@pytest.fixture
def config(bpffs: Path) -> Iterator[PlaneConfig]:
    """A configuration that no other instance on this machine has."""
    name = secrets.token_hex(4)
    port = claimed.port_pair()
    config = PlaneConfig(
        instance=f"lwt-{name}",
        bpffs=bpffs,
        attach_cgroup=f"/lwtest-{name}",
        slice_name="runs.slice",
        proxy_port=port,
        dns_port=port + 1,
        mark_prefix=claimed.mark_prefix(),
    )
    tree = CgroupTree.find()
    yield config
    if tree.exists(config.attach_cgroup):
        for path in tree.subtree(config.attach_cgroup):
            kill = path / "cgroup.kill"
            if kill.exists():
                kill.write_text("1")
    clean.clean(config)
    tree.remove(config.attach_cgroup)


@pytest.fixture
def plane(config: PlaneConfig) -> Iterator[Plane]:
    """An open plane."""
    plane = Plane.open(config)
    yield plane
    plane.close()


@pytest.fixture
def bench(plane: Plane) -> Iterator[Bench]:
    """Runs, bystanders and a stand-in for the proxy."""
    bench = Bench(plane)
    yield bench
    bench.close()


@pytest.fixture(scope="package")  # one at a time: its addresses are the process's own
def far() -> Iterator[FarSide]:
    """A network namespace behind a veth pair with servers and a sniffer in it."""
    far = FarSide.create()
    yield far
    far.close()
