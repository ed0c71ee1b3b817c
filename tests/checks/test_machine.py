"""What is left behind is told, and what is only on its way out is not."""

import pytest

from tests.checks import machine
from tests.checks.machine import kernel_objects, left_behind


def test_what_goes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface that the kernel takes down a little later was not left by a test."""
    seen = [frozenset({"a", "b", "c"}), frozenset({"a", "c"}), frozenset({"a"})]
    monkeypatch.setattr(machine, "kernel_objects", lambda: seen.pop(0))
    assert left_behind(frozenset({"a"})) == []
    assert seen == []


def test_what_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, when its time is over."""
    monkeypatch.setattr(machine, "GONE_WITHIN_S", 0.0)
    monkeypatch.setattr(machine, "kernel_objects", lambda: frozenset({"b", "a", "c"}))
    assert left_behind(frozenset({"a"})) == ["b", "c"]


def test_what_there_is_has_a_name() -> None:
    """This machine's loopback interface, at least."""
    assert "interface lo" in kernel_objects()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("network namespace cni-5c1f", True),
        ("cgroup /sys/fs/cgroup/user.slice", True),
        ("mount tmpfs tmpfs on /run/user/1000", True),
        ("mount overlay overlay on /var/lib/docker/overlay2/ab/merged", True),
        ("interface veth3fa9c01", True),
        ("network namespace lwt-far-12-1", False),
        ("cgroup /sys/fs/cgroup/lwsys12x1", False),
        ("mount tmpfs tmpfs on /tmp/lwt-site-12/spool", False),
        ("interface lwt7", False),
        ("interface veth0", False),
        ("pin /sys/fs/bpf/lwsys12x1", False),
        ("nftables table loopwarden", False),
    ],
)
def test_what_containers_and_logins_make_is_not_ours(name: str, theirs: bool) -> None:
    """A container or a login that begins meanwhile is nothing that a test left."""
    assert machine.is_of_others(name) is theirs
