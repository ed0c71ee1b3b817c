"""The cgroup v2 tree: where it is mounted, and cgroups below it by path ("/a/b") or id."""

import errno
import os
import select
from dataclasses import dataclass
from pathlib import Path

from agent.kernel.errors import PlaneError
from agent.model.ids import CgroupId

REMOVE_TRIES = 50
REMOVE_WAIT_MS = 20  # tries x wait = 1 s for the kernel to let go of dead tasks


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """The cgroup v2 mount (hybrid hosts have it at /sys/fs/cgroup/unified)."""

    mount: Path

    @classmethod
    def find(cls) -> "CgroupTree":
        """Return the first cgroup2 mount of /proc/self/mountinfo.

        Raises:
            PlaneError: there is none.
        """
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] == "cgroup2":
                point = before.split(" ")[4].encode().decode("unicode_escape")
                return cls(Path(point))
        raise PlaneError("no cgroup v2 is mounted (systemd.unified_cgroup_hierarchy or hybrid)")

    def directory(self, path: str) -> Path:
        """Return the directory of a cgroup. Raises ValueError for a path with '..'."""
        if not path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"not a cgroup path: {path!r}")
        return self.mount / path.lstrip("/")

    def path_of(self, given: str) -> str:
        """Return the path below the mount of what a user wrote: that, or a directory's path.

        Raises:
            ValueError: it cannot be a cgroup.
            FileNotFoundError: there is no such cgroup.
        """
        if Path(given).is_relative_to(self.mount):
            given = "/" + str(Path(given).relative_to(self.mount))
        path = os.path.normpath(given)
        path = "/" if path in ("/.", "//") else path
        if not (self.directory(path) / "cgroup.procs").is_file():
            raise FileNotFoundError(errno.ENOENT, "no such cgroup v2", path)
        return path

    def id(self, path: str) -> CgroupId:
        """Return the id, which is the inode of the directory. Raises OSError."""
        return CgroupId(self.directory(path).stat().st_ino)

    def exists(self, path: str) -> bool:
        """Return whether the cgroup is there."""
        return (self.directory(path) / "cgroup.procs").is_file()

    @staticmethod
    def level(path: str) -> int:
        """Return the depth below the mount, as nftables' `socket cgroupv2 level` counts it."""
        return len([part for part in path.split("/") if part])

    def create(self, path: str) -> CgroupId:
        """Make the cgroup if it is not there, root's, 0755; return its id."""
        self.directory(path).mkdir(mode=0o755, parents=True, exist_ok=True)
        return self.id(path)

    def remove(self, path: str) -> None:
        """Remove an empty cgroup and its empty children; gone already is fine.

        Raises:
            OSError: EBUSY, processes are in it.
        """
        root = self.directory(path)
        if not root.is_dir():
            return
        nested = [Path(top) for top, _, _ in os.walk(root, topdown=False)]
        for directory in nested:
            for attempt in range(REMOVE_TRIES):
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if self.pids(path) or attempt == REMOVE_TRIES - 1:
                        raise
                    select.select((), (), (), REMOVE_WAIT_MS / 1000)
                else:
                    break

    def subtree(self, path: str) -> list[Path]:
        """Return the directories of a cgroup and all below it."""
        return [Path(top) for top, _, _ in os.walk(self.directory(path))]

    def _members(self, path: str, file: str) -> set[int]:
        found: set[int] = set()
        for directory in self.subtree(path):
            try:
                text = (directory / file).read_text(encoding="ascii")
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                    continue  # removed meanwhile, or a threaded cgroup's procs
                raise
            found.update(int(number) for number in text.split())
        return found

    def pids(self, path: str) -> set[int]:
        """Return the processes in the cgroup and below; 0 stands for one we cannot see."""
        return self._members(path, "cgroup.procs")

    def tids(self, path: str) -> set[int]:
        """Return the threads in the cgroup and below."""
        return self._members(path, "cgroup.threads")

    def ids(self, path: str) -> set[int]:
        """Return the ids of the cgroup and all below it."""
        return {directory.stat().st_ino for directory in self.subtree(path)}

    def move(self, path: str, pid: int) -> None:
        """Move a process with all its threads. Raises OSError."""
        (self.directory(path) / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def populated(self, path: str) -> bool:
        """Return what cgroup.events says; a removed cgroup is not populated."""
        try:
            text = (self.directory(path) / "cgroup.events").read_text(encoding="ascii")
        except (FileNotFoundError, OSError):
            return False
        return "populated 1" in text

    def kill(self, path: str) -> None:
        """SIGKILL everything in it (cgroup.kill, 5.14). Raises OSError."""
        (self.directory(path) / "cgroup.kill").write_text("1", encoding="ascii")


def own_cgroup(pid: int | str = "self") -> str:
    """Return the v2 cgroup path of a process. Raises OSError."""
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise PlaneError("the kernel shows no cgroup v2 path")
