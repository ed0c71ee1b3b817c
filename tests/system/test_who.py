"""Who may start a loop, by real cgroups: containers as their runtimes name them, and look-alikes.

A container is its cgroup here: what a runtime does beside (namespaces, mounts) is its own to
change, and no evidence. Cgroups are named as Docker (cgroupfs and systemd drivers) and Podman do.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.cgroups import CgroupTree
from tests.system.conftest import COLLECTED_WITHIN_S, Stage
from tests.system.host import DONE_WITHIN_S, remove_cgroup

ID = f"{os.getpid():064x}"
SLICE = f"lwt{os.getpid()}.slice"
POLICY = f"""
loops:
  boxed:
    who: [{{container: {{runtime: docker, id: "{ID}"}}}}]
    rules: []
  sliced:
    who: [{{container: {{runtime: podman, parent: /{SLICE}}}}}]
    rules: []
"""


@pytest.fixture(scope="module", autouse=True)
def _policy(whole: Stage) -> None:
    (whole.host.policy_dir / "who.yaml").write_text(POLICY)
    reloaded = whole.host.cli("policy", "reload")
    assert reloaded.returncode == 0, reloaded.stderr


@contextlib.contextmanager
def _cgroup(path: str) -> Iterator[Path]:
    """Make a cgroup below the root, as root or a runtime of root's does; remove what we made."""
    root = Path(CgroupTree.find().directory("/"))
    made = []
    place = root
    for part in path.strip("/").split("/"):
        place /= part
        if not place.exists():
            place.mkdir()
            made.append(place)
    try:
        yield place
    finally:
        for each in reversed(made):
            remove_cgroup(each)


def _start(whole: Stage, loop: str, cgroup: Path) -> subprocess.CompletedProcess[str]:
    """Start a loop as nobody, from a process of this cgroup."""
    host = whole.host
    line = host.run_command(loop, [])
    cli = line[line.index("sh") + 1 : line.index("run")]
    drop = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    move = f'echo $$ > {cgroup / "cgroup.procs"} && exec "$@"'
    words = [*drop, *cli, "run", "--loop", loop, "--", "/bin/sh", "-c", "echo in $LOOPWARDEN_RUN"]
    return subprocess.run(
        ["/bin/sh", "-c", move, "sh", *words],
        capture_output=True, text=True, timeout=DONE_WITHIN_S, check=False, cwd="/",
        env=host.loop_environment(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loop", "path", "container"),
    [
        ("boxed", f"/docker/{ID}", f"docker/{ID}"),
        ("boxed", f"/{SLICE}/docker-{ID}.scope", f"docker/{ID}"),
        ("boxed", f"/docker/{ID}/init", f"docker/{ID}"),
        ("sliced", f"/{SLICE}/libpod-{ID}.scope/container", f"podman/{ID}"),
    ],
)
def test_a_container_starts_its_loop(whole: Stage, loop: str, path: str, container: str) -> None:
    """By runtime and id, or by the cgroup above; the record says which container it was."""
    with _cgroup(path) as cgroup:
        done = _start(whole, loop, cgroup)
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.removeprefix("in ").strip()
    deadline = time.monotonic() + COLLECTED_WITHIN_S
    rows: list[dict[str, object]] = []
    while not rows and time.monotonic() < deadline:
        rows = [row for row in whole.collector.ask("runs") if row["run_id"] == run_id]
        time.sleep(0.05)
    [row] = rows
    by = row["initiator"]
    assert isinstance(by, dict)
    assert by["container"] == container
    assert by["user"] == "nobody"
    assert by["unit"] == path
    assert by["parents"]


@pytest.mark.parametrize(
    ("loop", "path"),
    [
        ("boxed", f"/docker/{'f' * 64}"),
        ("boxed", f"/{SLICE}/libpod-{ID}.scope"),
        ("boxed", f"/{SLICE}/user.service/docker-{ID}.scope"),
        ("boxed", f"/lwt{os.getpid()}/docker/{ID}"),
        ("boxed", f"/docker/{ID}/{'a' * 64}"),
        ("sliced", f"/other{SLICE}/libpod-{ID}.scope"),
    ],
)
def test_a_look_alike_starts_nothing(whole: Stage, loop: str, path: str) -> None:
    """Another id, runtime or parent; a name that a delegated subtree gave; one inside another."""
    with _cgroup(path) as cgroup:
        done = _start(whole, loop, cgroup)
    assert done.returncode == 125, done.stdout
    assert f"nobody may not start loop {loop}" in done.stderr
    assert not done.stdout
