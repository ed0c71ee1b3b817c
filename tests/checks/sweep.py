"""Removes what tests that were killed left: `python -m tests.checks.sweep`.

Only names that tests of ours give are touched. `make test` runs it first, so that one run that was
cut off does not break the next; never run it beside another run of the suite.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from agent.kernel.cgroups import CgroupTree
from agent.kernel.nft import instances

OURS = re.compile(r"lwt.*|lwsys.*|lw-(?:test|demo|dbg).*")
BPFFS = Path("/sys/fs/bpf")
NAMESPACES = Path("/run/netns")


def sweep() -> list[str]:
    """Remove it all; return the names of what was there."""
    found = [*_namespaces(), *_links(), *_instances(), *_cgroups()]
    return sorted(set(found))


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout


def _matching(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [entry.name for entry in folder.iterdir() if OURS.fullmatch(entry.name)]


def _namespaces() -> list[str]:
    names = _matching(NAMESPACES)
    for name in names:
        for pid in _run("ip", "netns", "pids", name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _run("ip", "netns", "delete", name)
    return names


def _links() -> list[str]:
    names = _matching(Path("/sys/class/net"))
    for name in names:
        _run("ip", "link", "delete", name)
    return names


def _instances() -> list[str]:
    names = {*_matching(BPFFS), *(name for name in instances() if OURS.fullmatch(name))}
    for name in names:
        _run(sys.executable, "-m", "agent.kernel.clean", "--instance", name)
    return list(names)


def _cgroups() -> list[str]:
    root = Path(CgroupTree.find().directory("/"))
    names = _matching(root)
    for name in names:
        with contextlib.suppress(OSError):
            (root / name / "cgroup.kill").write_text("1")
        for folder, _, _ in os.walk(root / name, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    return names


if __name__ == "__main__":
    for left in sweep():
        sys.stdout.write(f"» Left by a run that was cut off, removed: {left}\n")
