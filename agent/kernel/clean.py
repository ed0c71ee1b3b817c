"""Removes all kernel state of an instance, at any time, without the daemon.

    python -m agent.kernel.clean --instance NAME | --all [--bpffs DIR]

Processes of runs that still live are released by this: their cgroups are left to them. With
--instance nothing is done under a living daemon; --all is by force, whoever lives.
"""

import argparse
import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import claims, nft, objects, routes, sole, sysctls
from agent.kernel.cgroups import CgroupTree
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError
from agent.kernel.maps import Maps
from agent.kernel.runs import RunTable


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What was removed."""

    pins: int
    table: bool
    routes: int
    sysctl: bool
    cgroups: int
    left: tuple[str, ...]  # cgroups that still have processes


def instances(bpffs: Path) -> set[str]:
    """Return the instances that have pins in bpffs, a table, or a claim on host settings.

    Pins are ours where links stand beside maps in a folder of an ABI's number.
    """
    links = (each for each in bpffs.glob("*/v[0-9]*/links") if (each.parent / "maps").is_dir())
    named = {each.parents[1].name for each in links}
    return named | nft.instances() | claims.claimed()


def clean(config: PlaneConfig) -> Cleaned:
    """Remove links, maps, table, cgroups, and when no other instance is there, host settings.

    Raises:
        OSError: something could not be removed; run it again after repair.
    """
    tree = CgroupTree.find()
    paths = _run_cgroups(config)
    pins = 0
    for top in sorted(config.pin_dir.glob("v*")):
        pins += objects.unpin_version(top)
    table = nft.remove(config.instance)
    cgroups, left = _remove_cgroups(tree, [*paths, config.slice_path])
    withdrawn, restored = _put_back(config)
    for directory in (sole.lock_dir(config.pin_dir), config.pin_dir):
        if directory.is_dir():
            directory.rmdir()
    return Cleaned(pins, table, withdrawn, restored, cgroups, left)


def _put_back(config: PlaneConfig) -> tuple[int, bool]:
    """Give up our claim on host settings; the last puts them back: routes, and the sysctl."""
    with claims.turn():
        if not claims.release(config.instance):
            return 0, False
        networks = (config.synthetic4, config.synthetic6)
        withdrawn = sum(routes.withdraw(ipaddress.ip_network(one)) for one in networks)
        return withdrawn, sysctls.restore()


def _run_cgroups(config: PlaneConfig) -> list[str]:
    """Return the cgroups of launched runs, as the maps know them.

    None when a map is gone, as after half a start: the slice then stands for all that are in it.
    """
    map_dir = objects.version_dir(config.pin_dir) / "maps"
    try:
        maps = Maps(map_dir)
    except OSError:
        return []
    try:
        runs = RunTable(maps)
        runs.reload()
        own = config.slice_path + "/"
        return [run.cgroup_path for run in runs.all() if run.cgroup_path.startswith(own)]
    finally:
        maps.close()


def _remove_cgroups(tree: CgroupTree, paths: list[str]) -> tuple[int, tuple[str, ...]]:
    count, left = 0, []
    for path in paths:
        if not tree.exists(path):
            continue
        if tree.pids(path):
            left.append(path)
            continue
        tree.remove(path)
        count += 1
    return count, tuple(left)


def main(argv: list[str] | None = None) -> int:
    """Run the command; exit 0 when nothing of ours is left, 1 when a daemon or processes live."""
    options = parse(argv)
    if os.geteuid() != 0:
        sys.stderr.write("this needs root\n")
        return 2
    return max((_clean(config, by_force=options.all) for config in configs(options)), default=0)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(prog="python -m agent.kernel.clean")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--instance")
    which.add_argument("--all", action="store_true")
    parser.add_argument("--bpffs", type=Path, default=Path("/sys/fs/bpf"))
    parser.add_argument("--attach-cgroup", default="/")
    parser.add_argument("--slice", help="default: the instance's name and .slice")
    return parser.parse_args(argv)


def configs(options: argparse.Namespace) -> list[PlaneConfig]:
    """Return what the options say to clean.

    Raises:
        ValueError: no instance has such a name; with --all, a foreign folder of it is passed over.
    """
    found = []
    for name in sorted(instances(options.bpffs)) if options.all else [options.instance]:
        try:
            config = PlaneConfig(
                instance=name,
                bpffs=options.bpffs,
                attach_cgroup=options.attach_cgroup,
                slice_name=options.slice or f"{name}.slice",
            )
        except ValueError:
            if not options.all:
                raise
        else:
            found.append(config)
    return found


def _clean(config: PlaneConfig, *, by_force: bool) -> int:
    """Clean as if we were the instance's daemon; under a living one only by force."""
    locks: tuple[int, ...] = ()
    try:
        locks = () if by_force else sole.hold(config)
        cleaned = clean(config)
    except PlaneError as error:
        sys.stderr.write(f"{config.instance}: nothing is removed: {error}\n")
        return 1
    finally:
        for lock in locks:
            os.close(lock)
    sys.stdout.write(f"{config.instance}: {cleaned}\n")
    return 1 if cleaned.left else 0


if __name__ == "__main__":
    sys.exit(main())
