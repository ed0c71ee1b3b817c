"""The doctor: every layer present as shipped, and absent layers are seen as absent."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.kernel import nft, objects, probe
from agent.kernel.bcc_loader import refuse
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError, RunRefused
from agent.kernel.objects import version_dir
from agent.kernel.plane import Plane
from agent.model.flow import Evidence
from tests.kernel.bench import Bench


def _absent(plane: Plane) -> set[str]:
    absent = [one for one in asyncio.run(plane.probe()).layers if one.claimed and not one.present]
    return {one.name for one in absent}


def test_all_layers_are_present(plane: Plane) -> None:
    """With nothing taken away every probe succeeds, and the throw-away run is gone."""
    assert _absent(plane) == set()
    assert plane.runs() == ()


def test_a_child_that_dies_is_an_absent_layer(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever kills the probe's child while its run is revoked: the doctor answers, and clears."""
    *_, last = probe._CHILD.strip().splitlines()
    monkeypatch.setattr(probe, "_CHILD", probe._CHILD.replace(last, "os._exit(1)"))
    assert "probe egress" in _absent(plane)
    assert plane.runs() == ()


def test_a_missing_table_is_seen(plane: Plane) -> None:
    """Without nft: marks are set but nothing is redirected, and the fence does not hold."""
    nft.remove(plane.config.instance)
    seen = _absent(plane)
    assert {"nft table", "probe tcp4", "probe tcp6", "probe mapped"} <= seen
    assert {"probe fence4", "probe fence6"} <= seen
    assert "probe udp_send" not in seen


@pytest.mark.parametrize(
    ("link", "layer"),
    [
        ("connect4", "probe tcp4"),
        ("connect6", "probe tcp6"),
        ("sendmsg4", "bpf sendmsg4"),  # the egress guard still denies
        ("sendmsg6", "bpf sendmsg6"),
        ("sock_create", "probe raw"),
    ],
)
def test_a_missing_program_is_seen(plane: Plane, link: str, layer: str) -> None:
    """Each unpinned program makes its own layer absent."""
    (version_dir(plane.config.pin_dir) / "links" / link).unlink()
    assert {f"bpf {link}", layer} <= _absent(plane)


OTHERS = {
    "egress": "probe egress",
    "ingress": "probe ingress",
    "setsockopt": "probe option",
    "bind4": "probe bind",
    "bind6": "probe bind6",
    "recvmsg4": "probe dns answer",
    "recvmsg6": "probe dns6 answer",
    "tag_newtask": "probe tag",
}


def test_missing_programs_are_seen_each_by_its_probe(plane: Plane) -> None:
    """Unpinned together, for a probe takes its time; every other layer still holds."""
    for link in OTHERS:
        (version_dir(plane.config.pin_dir) / "links" / link).unlink()
    gone = {f"bpf {link}" for link in OTHERS}
    assert _absent(plane) == {*OTHERS.values(), "probe guard"} | gone  # with egress, the guard


@pytest.fixture
def fallback(config: PlaneConfig) -> Iterator[Bench]:
    """A plane that keeps tags in the procs map."""
    plane = Plane.open(replace(config, procs_identity=True))
    bench = Bench(plane)
    yield bench
    bench.close()
    plane.close()


def test_the_procs_fallback_attributes_and_says_so(fallback: Bench) -> None:
    """Without task storage, exec in the cgroup gives the tag; status names the fallback."""
    run = fallback.run()
    code = "s=socket.create_connection(('198.18.7.7',80))"
    fallback.python(run, code)
    whose = fallback.arrive().attributed()
    assert (whose.run_id, whose.evidence) == (run.run_id, Evidence.TAG_AND_CGROUP)
    wait = "sys.stdout.write('up\\n');sys.stdout.flush();sys.stdin.readline()\n"
    child = fallback.python(run, wait + code)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    fallback.plane.tree.move(fallback.outside, child.pid)
    assert child.stdin is not None
    child.stdin.write(b"go\n")
    child.stdin.flush()
    assert fallback.arrive().attributed().evidence is Evidence.TAG_ONLY
    details = [one.detail for one in fallback.plane.status().layers if one.name == "identity tag"]
    assert "fallback" in details[0]
    assert "also one that was moved in" in details[0]


def test_with_the_procs_fallback_a_runs_process_enters_no_other(fallback: Bench) -> None:
    """Moved out of its cgroup it is known by its tag, as with task storage; all layers hold."""
    one, other = fallback.run(), fallback.run()
    child = fallback.python(
        one, "sys.stdout.write('up\\n');sys.stdout.flush();sys.stdin.readline()"
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    fallback.plane.tree.move(fallback.outside, child.pid)
    pidfd = os.pidfd_open(child.pid)
    try:
        with pytest.raises(RunRefused, match=str(one.run_id)):
            fallback.plane.admit(other.run_id, pidfd)
    finally:
        os.close(pidfd)
    assert _absent(fallback.plane) == set()


def test_a_kernel_without_task_storage_gets_the_fallback(
    config: PlaneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the full object does not load, the other one is, and status says so."""
    shutil.copy(objects.OBJECT_DIR / objects.FALLBACK, tmp_path)
    (tmp_path / objects.FULL).write_bytes(b"no object that this kernel takes")
    monkeypatch.setattr(objects, "OBJECT_DIR", tmp_path)
    plane = Plane.open(config)
    try:
        assert plane.attached.object_name == objects.FALLBACK
        [layer] = [one for one in plane.status().layers if one.name == "identity tag"]
        assert layer.detail.startswith("fallback: the procs map")
    finally:
        plane.close()


def test_bcc_is_refused_with_reasons() -> None:
    """The bcc loader says what it would need instead of attributing by guess."""
    with pytest.raises(PlaneError, match="python3-bpfcc"):
        refuse()
