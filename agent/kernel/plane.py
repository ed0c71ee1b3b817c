"""The kernel plane: one object that the root daemon drives. Synchronous, no threads."""

import errno
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

from agent.ipc.messages import Layer, Layers
from agent.kernel import abi, admission, migrate, nft, objects
from agent.kernel.cgroups import CgroupTree, own_cgroup
from agent.kernel.config import PlaneConfig
from agent.kernel.errors import PlaneError, RunRefused
from agent.kernel.events import EventReader, KernelEvent
from agent.kernel.flows import Attributor
from agent.kernel.guard import Guard, Repair
from agent.kernel.maps import Maps
from agent.kernel.probe import probe_layers
from agent.kernel.processes import ProcessBook
from agent.kernel.runs import RunTable, fresh_tag
from agent.kernel.sockets import netns_cookie
from agent.model.flow import Attribution, Endpoint, Process, Tier, Unattributed
from agent.model.ids import LoopName, RunId, decode_ulid
from agent.model.loop import Initiator, Run
from agent.model.reason import Reason

__all__ = ["Plane", "Repair"]
FALLBACK_DETAIL = (
    "fallback: the procs map (no task storage here); a process has its tag from its first fork or "
    "exec in the run's cgroup on, also one that was moved in"
)


class Plane:
    """Every request of agent.ipc.messages to the kernel role is one method here.

    Use: plane = Plane.open(config); event_loop.add_reader(plane.events_fd, on_events) where
    on_events calls plane.read_events(); every second plane.verify(). close() leaves all
    enforcement pinned in the kernel; agent.kernel.clean removes it.
    """

    def __init__(
        self, config: PlaneConfig, tree: CgroupTree, maps: Maps, attached: objects.Attached
    ) -> None:
        """Use Plane.open."""
        self.config = config
        self.attached = attached
        self.tree = tree
        self.maps = maps
        self._guard = Guard(config, tree, maps)
        self._runs = RunTable(maps)
        self._runs.reload()
        self._inhabited: set[RunId] = set()
        for run in self._runs.all():
            self._note_inhabited(run)
        self._book = ProcessBook(maps.procs)
        self._events = EventReader(maps, self._runs)
        self._attributor = Attributor(maps, self._runs, config.mark_base, self._book)
        self._programs = attached.programs

    @classmethod
    def open(cls, config: PlaneConfig) -> "Plane":
        """Load, attach and pin, or take over what is pinned without a gap.

        Raises:
            PlaneError: a piece is missing; what is attached stays attached.
        """
        tree = CgroupTree.find()
        objects.ensure_bpffs(config.bpffs)
        config.pin_dir.mkdir(mode=0o700, exist_ok=True)
        with objects.locked(config.pin_dir):
            try:
                return cls._open_locked(config, tree)
            except (OSError, ValueError, RunRefused) as error:
                raise PlaneError(f"the kernel plane cannot be set up: {error}") from error

    @classmethod
    def _open_locked(cls, config: PlaneConfig, tree: CgroupTree) -> "Plane":
        tree.create(config.attach_cgroup)
        top = objects.make_dirs(config.pin_dir)
        old = migrate.old_versions(config.pin_dir)
        attached = None if old else objects.attached_already(
            top, tree.id(config.attach_cgroup), procs_identity=config.procs_identity
        )  # fmt: skip
        if attached is None:
            maps, attached = cls._attach(config, tree, top, old)
        else:
            maps = Maps(top / "maps")
            _write_cfg(config, tree, maps)
        plane = cls(config, tree, maps, attached)
        plane._guard.install_host()
        plane._refence()
        return plane

    @classmethod
    def _attach(
        cls, config: PlaneConfig, tree: CgroupTree, top: Path, old: tuple[Path, ...]
    ) -> tuple[Maps, objects.Attached]:
        """Load our object; what is attached of another, or of another ABI, it takes over."""
        objects.unmark(top)
        loaded, name = objects.load(top, procs_identity=config.procs_identity)
        try:
            maps = Maps(top / "maps")
            _write_cfg(config, tree, maps)
            carried = tuple(run for one in old for run in migrate.copy_runs(one, maps))
            cgroup_fd = os.open(tree.directory(config.attach_cgroup), os.O_RDONLY)
            try:
                attached = replace(objects.attach(loaded, top, cgroup_fd), object_name=name)
            finally:
                os.close(cgroup_fd)
        finally:
            loaded.close()
        migrate.retag(tree, maps, carried)
        for one in old:
            objects.unpin_version(one)
        objects.mark(top, attached)
        return maps, attached

    def close(self) -> None:
        """Close descriptors. Enforcement stays."""
        self._events.close()
        self.maps.close()

    @property
    def events_fd(self) -> int:
        """Return a descriptor that is readable when read_events has something."""
        return self._events.fd

    def read_events(self) -> tuple[KernelEvent, ...]:
        """Return what has happened since, without blocking."""
        return self._events.read()

    def attribute(self, mark: int, destination: Endpoint) -> Attribution | Unattributed:
        """Take the record of the accepted socket with this SO_MARK out of the kernel, once."""
        return self._attributor.attribute(mark, destination)

    def create_run(
        self,
        run_id: RunId,
        loop: LoopName,
        initiator: Initiator,
        argv: tuple[str, ...],
        started_ms: int,
    ) -> Run:
        """Make cgroup, tag and map entries. Raises RunRefused, ValueError (the id is no id)."""
        decode_ulid(run_id)  # it becomes a part of a path
        self._refuse_governed(initiator.pid)
        path = str(PurePosixPath(self.config.slice_path) / f"run-{run_id}")
        if self._runs.by_id(run_id) is not None or self.tree.exists(path):
            raise RunRefused(Reason.INTERNAL, f"run {run_id} exists already")
        cgroup_id = self.tree.create(path)
        run = Run(
            run_id, loop, fresh_tag(), cgroup_id, path, Tier.LAUNCHED, False, initiator, argv,
            started_ms,
        )  # fmt: skip
        try:
            return self._add(run)
        except RunRefused:
            self.tree.remove(path)
            raise

    def _add(self, run: Run) -> Run:
        try:
            return self._runs.add(run)
        except ValueError as error:
            raise RunRefused(Reason.LIMIT_EXCEEDED, str(error)) from error
        except OSError as error:
            full = error.errno in (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)
            reason = Reason.OVERLOADED if full else Reason.INTERNAL
            raise RunRefused(reason, f"the run cannot be written: {error}") from error

    def register_cgroup(
        self,
        run_id: RunId,
        loop: LoopName,
        initiator: Initiator,
        path: str,
        adopt_joiners: bool,  # noqa: FBT001 (the order of the message RegisterCgroup)
        started_ms: int,
    ) -> Run:
        """Make an existing cgroup a run. path: below the cgroup v2 mount, or a directory's path.

        Sockets made there before are cut, except listeners, which answer nobody of the run.

        Raises:
            RunRefused: no such cgroup; it overlaps a run or the daemon; or a process there holds
                a socket that was made elsewhere.
        """
        try:
            path = self.tree.path_of(path)
        except (OSError, ValueError) as error:
            raise RunRefused(Reason.INTERNAL, f"no such cgroup: {path}") from error
        if self.tree.level(path) > abi.RUN_LEVEL_MAX:
            detail = f"{path} is more than {abi.RUN_LEVEL_MAX} levels deep"
            raise RunRefused(Reason.LIMIT_EXCEEDED, detail)
        self._refuse_overlap(path)
        admission.check_members(self.tree, path)
        run = Run(
            run_id, loop, fresh_tag(), self.tree.id(path), path, Tier.REGISTERED, adopt_joiners,
            initiator, (), started_ms,
        )  # fmt: skip
        run = self._add(run)  # from here its tasks are governed
        tagger = admission.Tagger(self.maps)
        try:
            tagger.set_all(admission.TidSource(self.tree, path), run.tag)
            admission.check_members(self.tree, path)
            admission.cut_sockets(self.tree, path, listeners=False)
            self._refence()
            self._note_inhabited(run)
        except (RunRefused, OSError) as error:
            self._release(run)
            if isinstance(error, RunRefused):
                raise
            raise RunRefused(Reason.INTERNAL, f"registering failed: {error}") from error
        return run

    def _refuse_overlap(self, path: str) -> None:
        taken = [(run.cgroup_path, f"run {run.run_id}") for run in self._runs.all()]
        taken += [(self.config.slice_path, "our slice"), (own_cgroup(), "the daemon")]
        mine = PurePosixPath(path)
        if path == "/":
            raise RunRefused(Reason.POLICY_DENIED, "the root cgroup cannot be a run")
        for other, whose in taken:
            theirs = PurePosixPath(other)
            if theirs.is_relative_to(mine) or (other != "/" and mine.is_relative_to(theirs)):
                raise RunRefused(Reason.POLICY_DENIED, f"{path} overlaps {other} of {whose}")

    def admit(self, run_id: RunId, pidfd: int) -> None:
        """Tag that process and move it into the run's cgroup. Raises RunRefused."""
        run = self._known(run_id)
        if run.tier is Tier.REGISTERED:
            raise RunRefused(Reason.POLICY_DENIED, "a registered cgroup admits nobody by request")
        if self._runs.revoked(run):
            raise RunRefused(Reason.RUN_REVOKED, f"run {run_id} is revoked")
        self._refuse_governed(admission.pid_of(pidfd))
        try:
            admission.admit(self.tree, self.maps, run, pidfd)
        except OSError as error:
            raise RunRefused(Reason.INTERNAL, f"admission failed: {error}") from error
        self._inhabited.add(run_id)

    def _refuse_governed(self, pid: int) -> None:
        """A process of a run starts no run and enters none: it would outlive or change its own."""
        around = admission.run_around(self.maps, self._runs.all(), pid)
        if around:
            raise RunRefused(Reason.POLICY_DENIED, f"pid {pid} belongs to {around} already")

    def freeze(self, run_id: RunId) -> bool:
        """Set the REVOKED bit only: packets stop, sockets stay. False: it was set before.

        Raises:
            OSError: the kernel refused.
            RunRefused: there is no such run.
        """
        run = self._known(run_id)
        if self._runs.revoked(run):
            return False
        self._runs.revoke(run)
        return True

    def revoke(self, run_id: RunId, *, kill: bool) -> None:
        """Stop the run's flows, destroy its sockets. Idempotent. Raises RunRefused."""
        run = self._known(run_id)
        try:
            self._runs.revoke(run)
            if kill and run.tier is not Tier.REGISTERED and self.tree.exists(run.cgroup_path):
                self.tree.kill(run.cgroup_path)
            if self.tree.exists(run.cgroup_path):
                admission.cut_sockets(self.tree, run.cgroup_path, listeners=True)
        except OSError as error:
            raise RunRefused(Reason.INTERNAL, f"flows stop, but: {error}") from error

    def remove(self, run_id: RunId) -> None:
        """Forget a run; a launched one must be empty. Raises RunRefused."""
        run = self._known(run_id)
        self._inhabited.discard(run_id)
        if run.tier is Tier.REGISTERED:
            self._release(run)
            return
        if self.populated(run_id):
            raise RunRefused(Reason.INTERNAL, f"run {run_id} still has processes")
        try:
            self.tree.remove(run.cgroup_path)
        except OSError as error:
            raise RunRefused(Reason.INTERNAL, f"run {run_id} is not empty: {error}") from error
        self._runs.remove(run)

    def _release(self, run: Run) -> None:
        """Give a registered cgroup back: its sockets die, its tasks lose the tag."""
        try:
            if self.tree.exists(run.cgroup_path):
                admission.cut_sockets(self.tree, run.cgroup_path, listeners=True)
            self._runs.remove(run)
            tagger = admission.Tagger(self.maps)
            if self.tree.exists(run.cgroup_path):
                for tid in self.tree.tids(run.cgroup_path) - {0}:
                    tagger.clear(tid)
            self._refence()
        except OSError as error:
            raise RunRefused(Reason.INTERNAL, f"releasing {run.run_id}: {error}") from error

    def runs(self) -> tuple[Run, ...]:
        """Return the runs that the kernel maps hold."""
        return self._runs.all()

    def tree_of(self, run_id: RunId) -> tuple[tuple[Process, ...], tuple[int, ...]]:
        """Return the live processes of a run and the parent pid of each. Raises RunRefused."""
        run = self._known(run_id)
        if not self.tree.exists(run.cgroup_path):
            return (), ()
        found = (self._book.living(pid) for pid in sorted(self.tree.pids(run.cgroup_path)))
        pairs = [pair for pair in found if pair is not None]
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)

    def populated(self, run_id: RunId) -> bool:
        """Return what cgroup.events says: the cross-check of Emptied. Raises RunRefused."""
        return self.tree.populated(self._known(run_id).cgroup_path)

    def emptied(self) -> tuple[RunId, ...]:
        """Return the runs that had a process and have none: the cross-check of Emptied.

        The event can be lost (a full ring, no broker to tell), what cgroup.events says cannot.
        Every run is returned again until it is removed. A run costs about 20 µs.
        """
        return tuple(run_id for run_id in self._inhabited if not self.populated(run_id))

    def _note_inhabited(self, run: Run) -> None:
        if self.tree.populated(run.cgroup_path):
            self._inhabited.add(run.run_id)

    def verify(self) -> tuple[Repair, ...]:
        """Look whether all of ours is still there, repair what is not. For a 1 s watchdog."""
        return self._guard.verify(self._programs)

    def status(self) -> Layers:
        """Return layers as attached now, without packets, and counters."""
        return Layers(tuple(self._layers()), self.maps.counters())

    def _layers(self) -> list[Layer]:
        top = objects.version_dir(self.config.pin_dir)
        missing = objects.missing_links(top, self._programs)
        layers = [
            Layer(f"bpf {name}", True, name not in missing, "pinned and attached")
            for name in self._programs
        ]
        installed = nft.fingerprint(self.config.instance) != ""
        layers.append(Layer("nft table", True, installed, self.config.instance))
        layers.append(_tracking(timed=nft.has_times(self.config.instance)))
        tags = self.maps.tags is not None
        detail = "task storage" if tags else FALLBACK_DETAIL
        layers.append(Layer("identity tag", True, True, detail))
        layers.append(_tracing())
        return layers

    async def probe(self) -> Layers:
        """Probe each layer with real packets in a throw-away run; takes up to 20 s."""
        layers = [*self._layers(), *await probe_layers(self)]
        return Layers(tuple(layers), self.maps.counters())

    def _known(self, run_id: RunId) -> Run:
        run = self._runs.by_id(run_id)
        if run is None:
            raise RunRefused(Reason.RUN_UNKNOWN, f"no run {run_id}")
        return run

    def _refence(self) -> None:
        registered = (run for run in self._runs.all() if run.tier is Tier.REGISTERED)
        fences = (nft.Fence(r.cgroup_id, self.tree.level(r.cgroup_path)) for r in registered)
        self._guard.set_fences(tuple(fences))


def _write_cfg(config: PlaneConfig, tree: CgroupTree, maps: Maps) -> None:
    """Tell the programs what they are to know of this daemon; before any is attached anew."""
    Guard(config, tree, maps).write_cfg(netns_cookie(), os.stat("/proc/self/ns/pid").st_ino)


def _tracking(*, timed: bool) -> Layer:
    """Return whether ended connections leave connection tracking early: not every kernel can."""
    detail = "connections of runs stay 2 s in it when they are over"
    if not timed:
        detail = "no `ct timeout` in this kernel: ended connections of runs stay up to 120 s"
    return Layer("short connection tracking", False, timed, detail)


def _tracing() -> Layer:
    """Return whether one user's processes are kept apart: nothing of ours, so not claimed."""
    try:
        scope = int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii"))
    except (OSError, ValueError):
        scope = 0
    detail = f"yama.ptrace_scope is {scope}" if scope else "a loop's user can trace it: see README"
    return Layer("host ptrace scope", False, scope > 0, detail)
