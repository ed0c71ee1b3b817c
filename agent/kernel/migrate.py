"""From pins of another ABI to ours: new programs first, then the old are unpinned. No gap.

What cannot be carried over: stamps of sockets (the flows of live runs are cut; they dial anew)
and flow records in flight (refused as unattributed). Revoked runs stay revoked.
"""

import ctypes as c
from pathlib import Path

from agent.kernel import abi, objects
from agent.kernel.admission import Tagger, TidSource
from agent.kernel.cgroups import CgroupTree
from agent.kernel.maps import Map, Maps
from agent.kernel.runs import RunTable, parse_run
from agent.model.loop import Run


def old_versions(pin_dir: Path) -> tuple[Path, ...]:
    """Return the version directories that are not of our ABI."""
    ours = objects.version_dir(pin_dir)
    return tuple(sorted(path for path in pin_dir.glob("v*") if path != ours))


def copy_runs(top: Path, maps: Maps) -> tuple[Run, ...]:
    """Copy the runs of an old version into ours; return them. Raises OSError, ValueError.

    run_meta (a size and msgpack in 4096 bytes) and the first 12 bytes of runs' values (cgroup
    id, flags) keep their place in every ABI.
    """
    table = RunTable(maps)
    table.reload()
    if not (top / "maps" / "run_meta").exists():
        return ()
    metas = Map(top / "maps" / "run_meta", c.c_uint64, abi.Meta)
    entries = Map(top / "maps" / "runs", c.c_uint64, abi.RunEntry)
    copied: list[Run] = []
    try:
        for key in metas.walk():
            meta, entry = metas.get(key), entries.get(key)
            if meta is None or entry is None or table.by_tag(parse_run(meta).tag) is not None:
                continue
            run = table.add(parse_run(meta))
            if entry.flags & abi.RunFlag.REVOKED:
                table.revoke(run)
            copied.append(run)
    finally:
        metas.close()
        entries.close()
    return tuple(copied)


def retag(tree: CgroupTree, maps: Maps, runs: tuple[Run, ...]) -> None:
    """Tag the processes in the cgroups of these runs again. Raises OSError, RunRefused."""
    for run in runs:
        if tree.exists(run.cgroup_path):
            Tagger(maps).set_all(TidSource(tree, run.cgroup_path), run.tag)
