"""Inside a container's namespaces: pids, levels and paths are those the daemon sees."""

import json
import subprocess
import sys

from agent.kernel.cgroups import CgroupTree
from agent.kernel.config import PlaneConfig


def test_in_pid_and_cgroup_namespaces(config: PlaneConfig) -> None:
    """With its own pid, mount and cgroup namespace the plane works, fence included.

    Process ids in attributions are the namespace's, and every probed layer is present.
    """
    tree = CgroupTree.find()
    tree.create(config.attach_cgroup + "/daemon")
    procs = tree.directory(config.attach_cgroup) / "cgroup.procs"
    inner = (
        f"echo $$ > {procs} && exec unshare --cgroup --pid --fork --mount --mount-proc sh -c '"
        f"umount -l {tree.mount} && mount -t cgroup2 cgroup2 {tree.mount} && "
        f"echo 0 > {tree.mount}/daemon/cgroup.procs && "
        f'exec {sys.executable} -m tests.kernel.inside_main "$@"\' sh "$@"'
    )
    numbers = (str(config.mark_prefix), str(config.proxy_port))
    arguments = (config.instance, str(config.bpffs), *numbers)
    done = subprocess.run(
        ["sh", "-c", inner, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen == {
        "absent": [],
        "pid": True,
        "small": True,
        "parent": [1],
        "evidence": "tag+cgroup",
    }
