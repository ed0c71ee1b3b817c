"""Units and containers by cgroup path: read from the root, never guessed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker.origin import Inside, Origin, read_invocation, read_origin

A, B = "a" * 64, "b" * 64
POD = "12345678_1234_1234_1234_123456789abc"
PLAIN = POD.replace("_", "")
BURST = "/kubepods.slice/kubepods-burstable.slice"

FOUND = [
    ("/system.slice/backup.service", "backup.service", None),
    ("/system.slice/backup.service/payload/x.service", "backup.service", None),
    ("/system.slice/system-backup.slice/backup@a\\x2db.service", "backup@a\\x2db.service", None),
    ("/system.slice/_cpu.service", "cpu.service", None),
    ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
    ("/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
     "user@1000.service", None),
    (f"/system.slice/docker-{A}.scope", f"docker-{A}.scope", Inside("docker", A, "/system.slice")),
    (f"/ci.slice/ci-big.slice/docker-{A}.scope/init", f"docker-{A}.scope",
     Inside("docker", A, "/ci.slice/ci-big.slice")),
    (f"/machine.slice/libpod-{A}.scope/container", f"libpod-{A}.scope",
     Inside("podman", A, "/machine.slice")),
    (f"{BURST}/kubepods-burstable-pod{POD}.slice/cri-containerd-{A}.scope",
     f"cri-containerd-{A}.scope",
     Inside("containerd", A, f"{BURST}/kubepods-burstable-pod{POD}.slice", PLAIN)),
    (f"/kubepods.slice/kubepods-pod{POD}.slice/crio-{A}.scope", f"crio-{A}.scope",
     Inside("crio", A, f"/kubepods.slice/kubepods-pod{POD}.slice", PLAIN)),
    (f"/docker/{A}", "", Inside("docker", A, "/docker")),
    (f"/kubepods/burstable/pod{PLAIN}/{A}", "",
     Inside("containerd", A, f"/kubepods/burstable/pod{PLAIN}", PLAIN)),
    (f"/kubepods/pod{PLAIN}/{A}/x", "",
     Inside("containerd", A, f"/kubepods/pod{PLAIN}", PLAIN)),
]  # fmt: skip
NOTHING = [
    "/",
    "/backup.service",  # at the root: no unit of systemd stands there
    "/user/system.slice/backup.service",
    f"/home/docker/{A}",
    f"/home.service/docker-{A}.scope",
    f"/docker/{A}/docker/{B}",  # two: neither
    f"/docker/{A}/kubepods/pod{PLAIN}/{B}",
    f"/docker/{A[:-1]}",
    f"/docker/{A}0",
    f"/docker/{A.upper()}",
    "/docker",
    "/kubepods/burstable",
    f"/kubepods/{A}",
    "/../system.slice/backup.service",
    "/system.slice/../backup.service",
    "/system.slice//backup.service",
    "/system.slice/backup.service (deleted)",
    "/system.slice/backup.servicex",
    "/system.slice/back up.service",
    "system.slice/backup.service",
    "/loopwarden.slice/run-01J00000000000000000000000",
]


@pytest.mark.parametrize(("path", "unit", "container"), FOUND)
def test_what_a_path_says(path: str, unit: str, container: Inside | None) -> None:
    """The first component that is no slice says it; what is below says nothing."""
    assert read_origin(f"0::{path}\n") == Origin(path, unit, container)


@pytest.mark.parametrize("path", NOTHING)
def test_what_a_path_does_not_say(path: str) -> None:
    """A look-alike elsewhere, two that contradict, a path that is cut: no unit, no container."""
    origin = read_origin(f"0::{path}\n")
    assert (origin.unit, origin.container) == ("", None)


def test_a_scope_in_a_scope_is_a_unit_but_no_container() -> None:
    """Whose cgroup the inner one is, nobody can tell."""
    origin = read_origin(f"0::/system.slice/docker-{A}.scope/x/docker-{B}.scope\n")
    assert (origin.unit, origin.container) == (f"docker-{A}.scope", None)


def test_both_versions_must_agree() -> None:
    """On a hybrid host systemd's own hierarchy counts too; other controllers do not."""
    ours = "0::/system.slice/a.service\n"
    assert read_origin(f"3:cpu:/x\n1:name=systemd:/system.slice/a.service\n{ours}").unit
    assert not read_origin(f"1:name=systemd:/system.slice/b.service\n{ours}").unit
    assert read_origin(f"1:name=systemd:/\n{ours}").unit == "a.service"
    assert not read_origin(f"1:name=systemd:/x\n{ours}").unit
    assert not read_origin(f"{ours}{ours}").unit
    assert read_origin("1:name=systemd:/system.slice/a.service\n") == Origin()


@given(st.text(max_size=300))
def test_any_text_is_an_origin(text: str) -> None:
    """And none but a path of slices names a unit."""
    origin = read_origin(text)
    assert not origin.unit or origin.path.split("/")[1].endswith(".slice")
    assert read_origin(f"0::{text}") is not None


@given(st.lists(st.sampled_from(["a.slice", "b.service", f"docker-{A}.scope", "docker", A, "..",
                                 f"pod{PLAIN}", "kubepods", "", "x"]), max_size=7))  # fmt: skip
def test_what_is_below_a_delegated_cgroup_changes_nothing(parts: list[str]) -> None:
    """Whoever may make cgroups below his own can lose his name, never gain another."""
    mine = read_origin("0::/system.slice/mine.service/" + "/".join(parts) + "\n")
    assert mine.unit in {"mine.service", ""}
    assert mine.container is None


def test_the_invocation_is_systemds_link(tmp_path: Path) -> None:
    """32 digits, or nothing."""
    (tmp_path / "invocation:a.service").symlink_to("0123456789abcdef" * 2)
    (tmp_path / "invocation:b.service").symlink_to("/etc/passwd")
    assert read_invocation("a.service", tmp_path) == "0123456789abcdef" * 2
    assert read_invocation("b.service", tmp_path) == ""
    assert read_invocation("c.service", tmp_path) == ""
