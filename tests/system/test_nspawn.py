"""The container that the units are booted in is what it claims to be."""

from collections.abc import Iterator

import pytest

from tests.system.nspawn import Container, ContainerError

pytestmark = [pytest.mark.nspawn, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    """A booted container with nothing of ours in it."""
    with Container("lw-test-plain") as booted:
        yield booted


def test_it_boots_and_is_whole(container: Container) -> None:
    """Systemd is the first process, and every unit of the distribution is up."""
    assert container.run("cat", "/proc/1/comm").stdout == "systemd\n"
    state = container.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
    assert state == "running", container.run("systemctl", "--failed").stdout


def test_it_has_unified_cgroups(container: Container) -> None:
    """A command has one cgroup, of version 2, below the container's own root."""
    cgroups = container.run("cat", "/proc/self/cgroup").stdout.splitlines()
    assert [line for line in cgroups if line.startswith("0::/system.slice/run-")]
    assert "cgroup2" in container.run("stat", "-fc", "%T", "/sys/fs/cgroup").stdout


def test_bpf_works_in_it(container: Container) -> None:
    """A BPF map can be made, and bpffs is mounted where the daemon looks for it."""
    script = (
        "import ctypes\n"
        "call = ctypes.CDLL(None, use_errno=True).syscall\n"
        "attributes = (ctypes.c_uint32 * 18)(2, 4, 8, 1)\n"  # BPF_MAP_TYPE_ARRAY, key, value, size
        "assert call(321, 0, ctypes.byref(attributes), 72) > 0, ctypes.get_errno()\n"
    )
    container.run("python3", "-c", script)
    assert container.run("stat", "-fc", "%T", "/sys/fs/bpf").stdout == "bpf_fs\n"


def test_it_has_a_network_of_its_own(container: Container) -> None:
    """There is a loopback and nothing else: what runs in there reaches nobody."""
    links = container.run("ip", "-oneline", "link").stdout.splitlines()
    assert [link.split(": ")[1] for link in links] == ["lo"]


def test_a_failing_command_says_why(container: Container) -> None:
    """The exit code and the output are in the error."""
    with pytest.raises(ContainerError, match=r"exit 3\n.*no such luck"):
        container.shell("echo no such luck >&2; exit 3")
