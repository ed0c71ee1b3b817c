"""A real Debian (or Ubuntu) container with systemd as its first process, and its own network.

The root file system is made once by debootstrap from the archive this host uses, of this host's
release, so that wheels made here fit in there; each container gets it under an overlay in memory.
Mounts live in a mount namespace of the container's supervisor, so they go with it whatever
happens; cgroups are made below one of our own and removed.

Measured on the development machines: debootstrap one to three minutes (once), boot 1 s, stop 2 s.
What this needs there, and why:
- SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1: the host is hybrid, the container gets pure cgroup v2;
- --system-call-filter with bpf and perf_event_open: nspawn's list leaves both out;
- SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 and a bpffs mounted by us: nspawn gives /sys without fs/bpf;
- --register=no --keep-unit: no machined runs on the host, commands go in by nsenter and
  `systemd-run`, so that they have a cgroup of the container.
"""

import contextlib
import errno
import hashlib
import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "libbpf1",
    "make",
    "nftables",
    "nginx",
    "openssl",
    "procps",
    "python3-venv",
    "systemd",
    "systemd-sysv",
)
CACHE = Path("/var/cache/loopwarden-tests")
# Limits against a hang: nothing takes as long, on a machine that is busy too.
BOOT_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 300.0


class ContainerError(Exception):
    """The container can't be made, or a command in it failed; the message has its output."""


def base_root() -> Path:
    """Return the root file system, made by debootstrap when there is none yet.

    Raises:
        ContainerError: debootstrap failed.
    """
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = hashlib.sha256(" ".join((release, platform.machine(), *PACKAGES)).encode()).hexdigest()
    root = CACHE / f"{release}-{key[:12]}"
    if root.is_dir():
        return root
    CACHE.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
    done = subprocess.run(
        [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            *_components(),
            release,
            str(making),
            _archive(release),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(making)
        raise ContainerError(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    shutil.rmtree(making / "var/cache/apt", ignore_errors=True)
    making.chmod(0o755)
    making.rename(root)
    return root


def _archive(release: str) -> str:
    """Return the archive that apt uses here for the release."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        uri, _, name = line.partition(" ")
        if name == release:
            return uri
    raise ContainerError(f"apt has no source for {release}")


def _components() -> list[str]:
    """Return where nginx is: Ubuntu keeps part of the list in universe."""
    ubuntu = platform.freedesktop_os_release()["ID"] == "ubuntu"
    return ["--components=main,universe"] if ubuntu else []


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the host, seen in the container, read only."""

    source: Path
    target: str


class Container:
    """A booted container; use it as a context manager."""

    def __init__(self, name: str, binds: Sequence[Bind] = ()) -> None:
        """Prepare; nothing is on the machine until entered."""
        self._name = name
        self._binds = binds
        self._work = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._cgroups = tuple(
            Path(mount, name) for mount in _cgroup_mounts() if Path(mount).is_dir()
        )
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def __enter__(self) -> Self:
        """Boot, and wait until systemd says that it is up."""
        try:
            self._boot(base_root())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut down and remove all that was made."""
        self._stop()

    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
        user: str = "root",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a transient unit of the container, and return what it printed.

        Raises:
            ContainerError: it failed (and check is on), or did not end in time.
        """
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--uid={user}"]
        patient = [f"{name}={value}" for name, value in _PATIENT.items()]
        unit += [f"--setenv={each}" for each in patient]
        try:
            done = subprocess.run(
                [*self._enter(), "env", *patient, *unit, "--", *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ContainerError(f"{argv}: not done in {timeout_s} s\n{self.journal()}") from error
        if check and done.returncode != 0:
            raise ContainerError(
                f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.journal()}"
            )
        return done

    def shell(
        self, script: str, *, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of sh, which stops at its first failing command."""
        return self.run("/bin/sh", "-euc", script, check=check, timeout_s=timeout_s)

    def journal(self, lines: int = 60) -> str:
        """Return the end of the container's journal."""
        done = subprocess.run(
            [*self._enter(), "journalctl", "--no-pager", "--quiet", f"--lines={lines}"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def path(self, inside: str) -> Path:
        """Return where the host finds a path of the container."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.leader}", "--all", "--"]

    def _boot(self, base: Path) -> None:
        for cgroup in self._cgroups:
            cgroup.mkdir(exist_ok=True)
        console = (self._work / "console").open("wb")
        with console, _notify_socket(self._work / "notify") as notify:
            self._supervisor = subprocess.Popen(
                ["unshare", "--mount", "--propagation=private", "bash", "-euc", self._script(base)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ENVIRONMENT, "NOTIFY_SOCKET": str(self._work / "notify")},
                start_new_session=True,
            )
            self._await_ready(notify)
        self._mount_bpffs()

    def _script(self, base: Path) -> str:
        """Return the script that mounts the overlay, enters our cgroups and becomes nspawn."""
        work = self._work
        options = f"lowerdir={base},upperdir={work}/mem/upper,workdir={work}/mem/work"
        lines = [
            f"mkdir -p {work}/mem && mount -t tmpfs -o size=2g {self._name} {work}/mem",
            f"mkdir {work}/mem/upper {work}/mem/work {work}/mem/root",
            f"mount -t overlay -o {options} {self._name} {work}/mem/root",
            # an installed machine, not one at its first boot, which would enable every preset
            f"echo {uuid.uuid4().hex} > {work}/mem/root/etc/machine-id",
            *(f"echo $$ > {cgroup}/cgroup.procs" for cgroup in self._cgroups),
            " ".join(
                (
                    f"exec systemd-nspawn --quiet --boot --directory={work}/mem/root",
                    f"--machine={self._name} --hostname={self._name}",
                    "--private-network --register=no --keep-unit --capability=all",
                    "--system-call-filter='bpf perf_event_open' --resolv-conf=off",
                    "--notify-ready=yes --console=pipe --settings=no --kill-signal=SIGRTMIN+4",
                    *(f"--bind-ro={bind.source}:{bind.target}" for bind in self._binds),
                )
            ),
        ]
        return "\n".join(lines)

    def _await_ready(self, notify: socket.socket) -> None:
        """Read the supervisor's notices until the container is up."""
        notify.settimeout(BOOT_TIMEOUT_S)
        try:
            while True:
                for line in notify.recv(4096).decode().splitlines():
                    if line.startswith("X_NSPAWN_LEADER_PID="):
                        self.leader = int(line.partition("=")[2])
                    if line == "READY=1":
                        return
        except TimeoutError as error:
            console = (self._work / "console").read_text(errors="replace")
            raise ContainerError(f"not up in {BOOT_TIMEOUT_S} s:\n{console[-4000:]}") from error

    def _mount_bpffs(self) -> None:
        """Do what systemd does on a host, and can't where /sys/fs is not the kernel's own."""
        script = (
            "mount -o remount,rw /sys && mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf"
            " && chmod 700 /sys/fs/bpf"
        )
        subprocess.run(
            ["nsenter", f"--target={self.leader}", "--mount", "--", "sh", "-c", script], check=True
        )

    def _stop(self) -> None:
        if self._supervisor is not None and self._supervisor.poll() is None:
            self._supervisor.send_signal(signal.SIGTERM)
            try:
                self._supervisor.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._kill()
        for cgroup in self._cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                _remove_cgroup(Path(folder))
        shutil.rmtree(self._work, ignore_errors=True)

    def _kill(self) -> None:
        """End what did not shut down: every process of the container's own cgroup v2."""
        assert self._supervisor is not None
        for cgroup in self._cgroups:
            if (cgroup / "cgroup.kill").exists():
                (cgroup / "cgroup.kill").write_text("1")
        self._supervisor.kill()
        self._supervisor.wait(STOP_TIMEOUT_S)


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup whose last processes are being reaped."""
    for _ in range(int(STOP_TIMEOUT_S / 0.05)):
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            select.select([], [], [], 0.05)  # version 1 hierarchies tell nobody
        else:
            return
    raise ContainerError(f"{folder} does not become empty")


# How long systemctl and systemd-run wait for an answer of the bus (25 s otherwise).
_PATIENT = {"SYSTEMD_BUS_TIMEOUT": f"{COMMAND_TIMEOUT_S:.0f}"}
_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1"}


def _cgroup_mounts() -> Iterator[str]:
    """Return where cgroup v2 is mounted, and on hybrid hosts systemd's own hierarchy too."""
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, target, kind, options, *_ = line.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            yield target


@contextlib.contextmanager
def _notify_socket(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        yield sock
