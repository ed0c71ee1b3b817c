"""Loading, attaching and pinning. Links are pinned at birth: enforcement survives the daemon.

Layout in bpffs, all 0700: <instance>/v<ABI>/maps/<map>, <instance>/v<ABI>/links/<program>, and an
empty directory that says which object file all of it is of.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.kernel import abi
from agent.kernel.errors import PlaneError
from agent.kernel.libbpf import BpfObject, Program, check, lib, pinned_fd

OBJECT_DIR = Path(__file__).parent / "objects"
FULL = "loopwarden.bpf.o"
FALLBACK = "loopwarden-procs.bpf.o"  # identity in the procs map, for kernels without task storage
BTF = Path("/sys/kernel/btf/vmlinux")
BPF_FS_MAGIC = 0xCAFE4A11
# Guards go last: while others are removed, packets are still stopped.
GUARDS = ("egress", "ingress")
MARK = "object-"  # with the file's SHA-256, and how many programs it has


@dataclass(frozen=True, slots=True)
class Attached:
    """What attach did."""

    object_name: str
    fresh: tuple[str, ...]  # programs that were not attached before
    swapped: tuple[str, ...]
    kept: tuple[str, ...] = ()  # of the very same object file: not even loaded again

    @property
    def programs(self) -> tuple[str, ...]:
        """All of them, by name."""
        return tuple(sorted((*self.fresh, *self.swapped, *self.kept)))


def ensure_bpffs(mount_point: Path) -> bool:
    """Mount a BPF file system if none is there; return whether it was mounted.

    Raises:
        PlaneError: it cannot be mounted.
    """
    if _is_bpffs(mount_point):
        return False
    mount_point.mkdir(mode=0o700, parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(mount_point), b"bpf", 0, b"mode=0700") != 0:
        reason = os.strerror(ctypes.get_errno())
        raise PlaneError(f"no BPF file system at {mount_point}, and mounting failed: {reason}")
    return True


def _is_bpffs(path: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 32)()
    if libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        return False
    return buffer[0] & 0xFFFFFFFF == BPF_FS_MAGIC


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a pin directory: two daemons of one instance cannot start at once.

    Raises:
        PlaneError: somebody holds it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlaneError(f"{directory} is locked by another process") from error
        yield
    finally:
        os.close(fd)


def version_dir(pin_dir: Path) -> Path:
    """Return the directory of this ABI."""
    return pin_dir / f"v{abi.ABI}"


def make_dirs(pin_dir: Path) -> Path:
    """Make the directories of this ABI, 0700, and return the version's."""
    top = version_dir(pin_dir)
    for directory in (pin_dir, top, top / "maps", top / "links"):
        directory.mkdir(mode=0o700, exist_ok=True)
    return top


def load(top: Path, *, procs_identity: bool) -> tuple[BpfObject, str]:
    """Load the object, with the maps pinned in top; return it and its file name.

    Raises:
        PlaneError: no object was built, no BTF, or the kernel takes neither variant.
    """
    if not BTF.exists():
        raise PlaneError(f"{BTF} is missing: this kernel was built without BTF (see bcc_loader)")
    if not (OBJECT_DIR / FULL).exists():
        raise PlaneError(f"{OBJECT_DIR / FULL} is missing: run `make -C bpf`")
    first: PlaneError | None = None
    for name in _candidates(top, procs_identity=procs_identity):
        try:
            return BpfObject(OBJECT_DIR / name, top / "maps"), name
        except PlaneError as error:
            first = first or error
    raise first or PlaneError("no object fits the pinned maps")


def _candidates(top: Path, *, procs_identity: bool) -> list[str]:
    wanted = (FALLBACK,) if procs_identity else (FULL, FALLBACK)
    return [name for name in wanted if _fits(top, name)]


def attached_already(top: Path, cgroup_id: int, *, procs_identity: bool) -> Attached | None:
    """Return what is attached, if it is all of an object that we would load; None: load it.

    The verifier takes most of a daemon's start (0.3 s of CPU time); after a restart there is
    nothing new for it to see.
    """
    marks = [path.name for path in top.glob(f"{MARK}*")]
    for name in _candidates(top, procs_identity=procs_identity):
        links = tuple(sorted(os.listdir(top / "links")))
        if marks == [_mark(name, len(links))] and all(
            link_is_attached(top / "links" / link, cgroup_id) for link in links
        ):
            return Attached(name, (), (), links)
    return None


def _mark(name: str, programs: int) -> str:
    digest = hashlib.sha256((OBJECT_DIR / name).read_bytes()).hexdigest()
    return f"{MARK}{digest}-{programs}"


def unmark(top: Path) -> None:
    """Say of no object that it is attached: before anything is changed. Raises OSError."""
    for path in top.glob(f"{MARK}*"):
        path.rmdir()


def mark(top: Path, attached: Attached) -> None:
    """Say that all programs of this object are attached. Raises OSError."""
    (top / _mark(attached.object_name, len(attached.programs))).mkdir(mode=0o700)


def _fits(top: Path, name: str) -> bool:
    """A restart keeps the variant it started with: tags must not change their place."""
    pinned = (top / "maps" / "cfg").exists()
    return not pinned or (top / "maps" / "tags").exists() == (name == FULL)


def attach(loaded: BpfObject, top: Path, cgroup_fd: int) -> Attached:
    """Attach every program, or swap it under its pinned link. Guards first, nothing detached.

    Raises:
        OSError: an attachment failed; those already made stay pinned.
    """
    fresh: list[str] = []
    swapped: list[str] = []
    programs = sorted(loaded.programs(), key=lambda one: one.name not in GUARDS)
    for program in programs:
        path = top / "links" / program.name
        if not path.exists():
            program.attach_and_pin(cgroup_fd, path)
            fresh.append(program.name)
        elif program.is_cgroup:
            _swap(program, path)
            swapped.append(program.name)
        else:
            _replace(program, path)
            swapped.append(program.name)
    return Attached("", tuple(fresh), tuple(swapped))


def _swap(program: Program, path: Path) -> None:
    link = pinned_fd(path)
    try:
        check(lib().bpf_link_update(link, program.fd, None), f"update {program.name}")
    finally:
        os.close(link)


def _replace(program: Program, path: Path) -> None:
    """Tracing links cannot be updated: attach the new one beside the old, then take its name."""
    beside = path.with_name(path.name + "-new")
    beside.unlink(missing_ok=True)
    program.attach_and_pin(-1, beside)
    os.rename(beside, path)


def missing_links(top: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the programs whose link is not pinned or no longer attached."""
    return tuple(name for name in names if not link_is_attached(top / "links" / name))


class _LinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),  # 0 when a cgroup link was detached from its cgroup
        ("rest", ctypes.c_uint8 * 64),
    )


_LINK_TYPE_CGROUP = 3


def link_is_attached(path: Path, cgroup_id: int = 0) -> bool:
    """Return whether the pinned link is there and, for a cgroup link, still attached (there)."""
    try:
        fd = pinned_fd(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    info = _LinkInfo()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    try:
        check(lib().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), "link")
    finally:
        os.close(fd)
    if info.type != _LINK_TYPE_CGROUP:
        return True
    return bool(info.cgroup_id == cgroup_id if cgroup_id else info.cgroup_id)


def unpin_version(top: Path) -> int:
    """Remove all links, guards last, then all maps of a version; return how many pins."""
    count = 0
    links, maps = top / "links", top / "maps"
    names = sorted(os.listdir(links), key=lambda name: name in GUARDS) if links.is_dir() else []
    for path in [links / name for name in names] + (list(maps.iterdir()) if maps.is_dir() else []):
        path.unlink()
        count += 1
    unmark(top)
    for directory in (links, maps, top):
        if directory.is_dir():
            directory.rmdir()
    return count
