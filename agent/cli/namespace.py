"""The run's mount namespace: the trust bundle over the usual paths, what leads around us hidden."""

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000  # clone(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8  # mount(2)
MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 0x20, 0x1000, 0x4000, 0x8_0000

# where toolchains look for roots, beside the directory that certs/ stands in for
CERTS_DIRECTORY = "/etc/ssl/certs"
BUNDLE_FILES = (
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

# programs of the host that look names up for others: nscd(8), systemd-resolved (varlink), avahi
LOOKUP_SOCKETS = (
    "/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/avahi-daemon/socket",
)
COPIED_BYTES_MAX = 64 << 10  # of a plain file beside such a socket; the rest of it is cut off

EVERYONE = "0 0 4294967295"  # user_namespaces(7): every number as it is

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]


def isolate(trust_dir: str) -> None:
    """Give this process a mount namespace of its own with the bundle in place.

    Programs of the host that look up names are out of reach: who asks finds our resolver. Root
    also loses sight of bpffs and may not write cgroup2. Others get a user namespace in which they
    are themselves.

    Raises:
        OSError: the host does not permit it; half of it may have been done.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _unshare(CLONE_NEWNS)
    else:
        _unshare(CLONE_NEWUSER | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")
    _mount("", "/", "", MS_REC | MS_SLAVE)
    place_trust(trust_dir)
    hide_lookups()
    if uid == 0:
        hide_kernel_interfaces()


def shield() -> None:
    """As root: enter a user namespace that root owns, in which every user is itself.

    Tracing then stops at its border, both ways (cap_ptrace_access_check, security/commoncap.c):
    a process outside takes no socket, memory or environment of the run by being of the same user,
    and a root process of the run reaches no other process's root directory or descriptors.

    Raises:
        OSError: the host does not permit it; nothing was changed.
    """
    told, tell = os.pipe()
    writer = os.fork()
    if writer == 0:  # stays behind with the powers that writing the maps takes
        code = 1
        try:
            os.close(tell)
            if os.read(told, 1):
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{os.getppid()}/{name}").write_text(EVERYONE, encoding="ascii")
                code = 0
        finally:
            os._exit(code)
    os.close(told)
    try:
        _unshare(CLONE_NEWUSER)
        os.write(tell, b"u")
    finally:
        os.close(tell)
        _, status = os.waitpid(writer, 0)
    if status:
        raise OSError(errno.EPERM, "the maps can't be written")


def place_trust(trust_dir: str) -> None:
    """Bind the bundle over every usual path that exists.

    Raises:
        OSError: a mount failed.
    """
    trust = Path(trust_dir)
    if os.path.isdir(CERTS_DIRECTORY):
        _bind(str(trust / "certs"), CERTS_DIRECTORY)
    for path in BUNDLE_FILES:
        real = os.path.realpath(path)
        if os.path.isfile(real) and not real.startswith(f"{CERTS_DIRECTORY}/"):
            _bind(str(trust / "ca-bundle.pem"), real)


def hide_lookups() -> None:
    """Put a folder without sockets over the one of every such program's socket.

    A mount over the socket alone would be gone as soon as its program is started anew and makes
    another one (unlink(2) of what is mounted on elsewhere, since Linux 3.18).

    Raises:
        OSError: a mount failed.
    """
    for path in LOOKUP_SOCKETS:
        if _is_socket(path):
            _cover(Path(os.path.realpath(path)).parent)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False  # there is none, or none that we could reach


def _cover(folder: Path) -> None:
    """Put copies of a folder's plain files in its place: resolv.conf may be one of them."""
    found = folder.iterdir() if os.access(folder, os.R_OK) else ()
    kept = {path.name: _content(path) for path in found if _is_plain(path)}
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _mount("tmpfs", str(folder), "tmpfs", flags, "mode=755")
    for name, content in kept.items():
        copy = folder / name
        copy.write_bytes(content)
        copy.chmod(0o644)
    _mount("", str(folder), "", MS_REMOUNT | MS_BIND | MS_RDONLY | flags)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(COPIED_BYTES_MAX)


def hide_kernel_interfaces() -> None:
    """Put nothing over every bpffs, and make every cgroup2 mount read-only.

    Raises:
        OSError: a mount failed.
    """
    for kind, path in _mounts():
        if not os.path.ismount(path):
            continue  # covered by another mount: nobody can reach it
        if kind == "bpf":
            _mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0")
        elif kind == "cgroup2":
            _mount(
                "", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
            )


def permitted(trust_dir: str) -> str:
    """Return "" when isolate() works here, else why not: tried in a child that then ends."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            isolate(trust_dir)
        except OSError as error:
            code = min(error.errno or 1, 254)
        except BaseException:  # noqa: BLE001 - a child of fork must never return
            code = 255
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return "" if code == 0 else os.strerror(code) if 0 < code < 255 else "the attempt failed"


def _mounts() -> list[tuple[str, str]]:
    """Return (filesystem, mount point) of proc_pid_mountinfo(5), the deepest path first."""
    found: list[tuple[str, str]] = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        path = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
        found.append((tail.split(" ", 1)[0], path))
    return sorted(found, key=lambda each: -len(each[1]))


def _bind(source: str, place: str) -> None:
    _mount(source, place, "", MS_BIND | MS_REC)
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY
    try:
        _mount("", place, "", flags | MS_NOSUID | MS_NODEV)
    except PermissionError:
        # in a user namespace the source's own flags are locked and must be repeated
        with contextlib.suppress(PermissionError):
            _mount("", place, "", flags | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        _raise("unshare")


def _mount(source: str, place: str, kind: str, flags: int, data: str = "") -> None:
    arguments = [os.fsencode(text) or None for text in (source, place, kind)]
    if _libc.mount(*arguments, flags, data.encode() or None) != 0:
        _raise(f"mount {place}")


def _raise(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)}")
