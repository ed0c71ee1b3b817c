"""The cgroups of a host's runs: who lives there, and an end of them as the kernel makes one."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from tests.system.host import Host


def live_runs(host: Host) -> list[str]:
    """Return the ids of the runs that have processes."""
    found: list[str] = []
    for folder in _folders(host):
        with _perhaps_removed():
            if Path(folder, "cgroup.procs").read_text():
                found += re.findall("[0-9A-Z]{26}", folder.name)
    return found


def end_runs(host: Host, run_id: str = "") -> None:
    """End all processes of a run, or of every run, at once."""
    for folder in _folders(host):
        if run_id in folder.name:
            with _perhaps_removed():
                Path(folder, "cgroup.kill").write_text("1")


def _folders(host: Host) -> list[Path]:
    return list(Path(host.cgroup, f"{host.instance}.slice").glob("*"))


@contextlib.contextmanager
def _perhaps_removed() -> Iterator[None]:
    """The daemon removes a run's cgroup when it is empty: before a file is opened, or after."""
    try:
        yield
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.ENOTDIR}:  # a plain file of the slice's own
            raise
