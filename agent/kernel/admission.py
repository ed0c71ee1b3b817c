"""Putting processes into runs: tags by pidfd, moves by cgroup.procs, and foreign sockets."""

import ctypes
import errno
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.kernel import abi
from agent.kernel.cgroups import CgroupTree, own_cgroup
from agent.kernel.errors import RunRefused
from agent.kernel.maps import Maps
from agent.kernel.processes import NS_PER_TICK, read_stat, uids
from agent.kernel.sockets import InetSocket, all_sockets, destroy, foreign_sockets
from agent.model.ids import Tag
from agent.model.loop import Run
from agent.model.reason import Reason

PIDFD_THREAD = os.O_EXCL  # 6.9: a pidfd of any thread
TAG_PASSES_MAX = 20  # threads may be born while tagging; each pass tags those it finds
_OWN_NETNS = "/proc/self/ns/net"


def pid_of(pidfd: int) -> int:
    """Return the pid behind a pidfd.

    Raises:
        RunRefused: not a pidfd, or its process has gone.
    """
    try:
        text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    except OSError as error:
        raise RunRefused(Reason.INTERNAL, f"not a descriptor: {error}") from error
    for line in text.splitlines():
        if line.startswith("Pid:"):
            pid = int(line[4:])
            if pid > 0:
                return pid
            raise RunRefused(Reason.INTERNAL, "the process has gone, or is out of our sight")
    raise RunRefused(Reason.INTERNAL, "not a pidfd")


def alive(pidfd: int) -> bool:
    """Return whether the process behind the pidfd has not been reaped."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def threads_of(pid: int) -> set[int]:
    """Return the threads of a process; none when it has gone."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def _thread_fd(tid: int) -> int:
    """Return a pidfd of a thread; before 6.9 of leaders only, EINVAL for others. Raises OSError."""
    try:
        return os.pidfd_open(tid, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.pidfd_open(tid)


def _leads(tid: int) -> bool:
    """Return whether a thread is its process's first: only those have a plain pidfd."""
    try:
        os.close(os.pidfd_open(tid))
    except OSError:
        return False
    return True


def same_netns(pid: int) -> bool:
    """Return whether the process is in our network namespace; one that has gone is."""
    try:
        theirs = os.stat(f"/proc/{pid}/ns/net").st_ino
    except (FileNotFoundError, ProcessLookupError):
        return True
    return theirs == os.stat(_OWN_NETNS).st_ino


@dataclass(frozen=True, slots=True)
class Tagger:
    """Writes tags into task storage, or into procs on kernels without it."""

    maps: Maps

    def set(self, tid: int, tag: Tag) -> bool:
        """Tag one thread; return False when it has gone. Raises OSError."""
        if self.maps.tags is None:
            return self._set_in_procs(tid, tag)
        try:
            fd = _thread_fd(tid)
        except ProcessLookupError:
            return False
        try:
            self.maps.tags.put(ctypes.c_int(fd), abi.TagValue(tag=tag))
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def get(self, tid: int) -> int:
        """Return the tag of one thread, 0 without. Raises OSError."""
        if self.maps.tags is None:
            return next((int(record.tag) for _, record in self._records(tid)), 0)
        try:
            fd = _thread_fd(tid)
        except OSError:
            return 0
        try:
            value = self.maps.tags.get(ctypes.c_int(fd))
        except ProcessLookupError:
            return 0
        finally:
            os.close(fd)
        return 0 if value is None else int(value.tag)

    def clear(self, tid: int) -> None:
        """Take the tag from one thread. Raises OSError."""
        if self.maps.tags is None:
            self._set_in_procs(tid, Tag(0))
            return
        try:
            fd = _thread_fd(tid)
        except OSError:
            return
        try:
            self.maps.tags.drop(ctypes.c_int(fd))
        except ProcessLookupError:
            pass  # it has gone, and its tag with it
        finally:
            os.close(fd)

    def _set_in_procs(self, pid: int, tag: Tag) -> bool:
        """Tag a process that has a record; return whether it has."""
        for key, record in self._records(pid):
            record.tag = tag
            self.maps.procs.put(key, record)
            return True
        return False

    def _records(self, pid: int) -> Iterator[tuple[abi.ProcKey, abi.Proc]]:
        """Yield the record of a live process, if there is one; other threads have none."""
        stat = read_stat(pid)
        if stat is None or not _leads(pid):
            return
        for key in self.maps.procs.walk():
            if key.tgid == pid and key.start_ns // NS_PER_TICK == stat.start_ticks:
                record = self.maps.procs.get(key)
                if record is not None:
                    yield key, record
                    return

    def set_all(self, tids: "TidSource", tag: Tag) -> None:
        """Tag every thread that tids() yields until a pass finds no new one.

        Raises:
            RunRefused: threads are born faster than they can be tagged.
            OSError: the kernel refused.
        """
        seen: set[int] = set()
        for _ in range(TAG_PASSES_MAX):
            new = tids() - seen
            if not new:
                return
            for tid in new:
                self.set(tid, tag)
            seen |= new
        raise RunRefused(Reason.LIMIT_EXCEEDED, "threads are born faster than they can be tagged")


class TidSource:
    """A callable that returns thread ids; a class so that it has a name in signatures."""

    def __init__(self, tree: CgroupTree | None, path: str, pid: int = 0) -> None:
        self._tree, self._path, self._pid = tree, path, pid

    def __call__(self) -> set[int]:
        """Return the threads there are now, without those out of our sight."""
        if self._tree is None:
            return threads_of(self._pid)
        return self._tree.tids(self._path) - {0}


def admit(tree: CgroupTree, maps: Maps, run: Run, pidfd: int) -> None:
    """Tag the process, then move it into the run's cgroup: locked first, then inside.

    Raises:
        RunRefused: wrong uid, foreign sockets, another namespace, gone. It is then not tagged.
    """
    pid = pid_of(pidfd)
    try:
        owners = uids(pid)
    except OSError as error:
        raise RunRefused(Reason.INTERNAL, "the process has gone") from error
    if run.initiator.uid != 0 and set(owners) != {run.initiator.uid}:
        detail = f"pid {pid} is not wholly of uid {run.initiator.uid}, who started the run"
        raise RunRefused(Reason.POLICY_DENIED, detail)
    if not same_netns(pid):
        raise RunRefused(Reason.POLICY_DENIED, f"pid {pid} is in another network namespace")
    if foreign_sockets({pid}, tree.ids(run.cgroup_path)):
        raise RunRefused(Reason.POLICY_DENIED, f"pid {pid} holds sockets from outside the run")
    if not alive(pidfd):
        raise RunRefused(Reason.INTERNAL, "the process has gone")
    tagger = Tagger(maps)
    tagger.set_all(TidSource(None, "", pid), run.tag)
    try:
        tree.move(run.cgroup_path, pid)
    except OSError as error:
        for tid in threads_of(pid):
            tagger.clear(tid)
        raise RunRefused(Reason.INTERNAL, f"moving pid {pid} failed: {error}") from error
    if not alive(pidfd):
        raise RunRefused(Reason.INTERNAL, "the process died while it was admitted")


def run_around(maps: Maps, runs: Iterable[Run], pid: int) -> str:
    """Return which run governs a process, by tag or cgroup, as text; "" for none, or it has gone.

    A tag of a run that is over counts: whoever has it is still refused by the kernel.
    """
    tags = {tag for tid in threads_of(pid) if (tag := Tagger(maps).get(tid))}
    try:
        place = PurePosixPath(own_cgroup(pid))
    except OSError:
        return ""
    for run in runs:
        if run.tag in tags or place.is_relative_to(run.cgroup_path):
            return f"run {run.run_id}"
    return "a run that is over" if tags else ""


def check_members(tree: CgroupTree, path: str) -> None:
    """Refuse a cgroup whose processes hold foreign sockets or are in another namespace.

    Raises:
        RunRefused: with the first few offenders.
    """
    pids = tree.pids(path)
    if 0 in pids:
        raise RunRefused(Reason.POLICY_DENIED, "processes there are out of our sight")
    away = sorted(pid for pid in pids if not same_netns(pid))
    if away:
        detail = f"in another network namespace: pids {away[:5]}"
        raise RunRefused(Reason.POLICY_DENIED, detail)
    own = tree.ids(path)
    foreign = [pid for pid in sorted(pids) if foreign_sockets({pid}, own)]
    if foreign:
        detail = f"pids {foreign[:5]} hold sockets that were made outside {path}"
        raise RunRefused(Reason.POLICY_DENIED, detail)


def sockets_of(tree: CgroupTree, path: str) -> list[InetSocket]:
    """Return the inet sockets made in a cgroup and below it. Raises OSError."""
    own = tree.ids(path)
    return [one for one in all_sockets() if one.cgroup_id in own]


def cut_sockets(tree: CgroupTree, path: str, *, listeners: bool) -> int:
    """Destroy the sockets made in a cgroup; return how many. Raises OSError."""
    victims = [one for one in sockets_of(tree, path) if listeners or not one.listening]
    return destroy(victims)
