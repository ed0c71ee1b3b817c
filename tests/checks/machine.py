"""What this machine's kernel holds that a test could leave behind."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from pyroute2.nftables.main import NFTables

# Kinds of file systems that tests mount.
_MOUNTED = ("overlay", "ext4", "xfs", "tmpfs", "bpf")
# What containers and logins of others make while the tests run.
_OTHERS = re.compile(
    r"network namespace (cni-|netns-)"
    r"|cgroup \S+/(user|docker|kubepods|libpod)[^/]*$"
    r"|mount \S+ \S+ on /(run/(user|docker|containerd)|var/lib/(docker|containers))/"
    r"|interface (veth[0-9a-f]{6}|docker|br-|cni|podman)"
)
GONE_WITHIN_S = 30.0  # the kernel takes namespaces, and what is in them, down in its own time


def kernel_objects() -> frozenset[str]:
    """Return a name for every namespace, pin, table, cgroup, mount and interface."""
    found = [*_namespaces(), *_pins(), *_tables(), *_cgroups(), *_mounts(), *_links()]
    return frozenset(name for name in found if not is_of_others(name))


def is_of_others(name: str) -> bool:
    """Whether container engines and logins give such names, and no test of ours does."""
    return _OTHERS.match(name) is not None


def left_behind(before: frozenset[str]) -> list[str]:
    """Return what was not there before, is now, and does not go within GONE_WITHIN_S."""
    until_s = time.monotonic() + GONE_WITHIN_S
    while (left := kernel_objects() - before) and time.monotonic() < until_s:
        time.sleep(0.2)
    return sorted(left)


def _namespaces() -> Iterator[str]:
    for folder in (Path("/run/netns"), Path("/var/run/netns")):
        if folder.is_dir():
            for entry in folder.iterdir():
                yield f"network namespace {entry.name}"


def _pins() -> Iterator[str]:
    try:
        for entry in Path("/sys/fs/bpf").iterdir():
            yield f"pin {entry}"
    except OSError:
        return  # no bpffs here, or not root: then no test could pin


def _tables() -> Iterator[str]:
    try:
        with NFTables(nfgen_family=0) as tables:
            for table in tables.get_tables():
                yield f"nftables table {table.get_attr('NFTA_TABLE_NAME')}"
    except OSError:
        return  # not root: then no test could add one


def _cgroups() -> Iterator[str]:
    match = re.search(r"^\S+ (\S+) cgroup2 ", Path("/proc/mounts").read_text("utf-8"), re.MULTILINE)
    if match:
        for entry in Path(match[1]).iterdir():
            if entry.is_dir():
                yield f"cgroup {entry}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        source, target, kind, *_ = line.split(" ")
        if kind in _MOUNTED:
            yield f"mount {kind} {source} on {target}"


def _links() -> Iterator[str]:
    for entry in Path("/sys/class/net").iterdir():
        yield f"interface {entry.name}"
